// The script and style of uPlot (trainer/page/third_party/uplot) and the page's own files (trainer/page/assets), which
// are built into the program.
#pragma once

#include <string_view>

namespace nibble {

extern const std::string_view uplot_script;
extern const std::string_view uplot_style;
extern const std::string_view page_skeleton;  // page.html, with a word in @ signs where page.cpp puts something
extern const std::string_view page_style;
extern const std::string_view page_script;  // all files of JavaScript, in the order of CMakeLists.txt

}  // namespace nibble
