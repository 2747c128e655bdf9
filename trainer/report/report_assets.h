// The script and style of uPlot (trainer/report/third_party/uplot), which are built into the program.
#pragma once

#include <string_view>

namespace nibble {

extern const std::string_view uplot_script;
extern const std::string_view uplot_style;

}  // namespace nibble
