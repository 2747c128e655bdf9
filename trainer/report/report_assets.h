// uPlot's script and style (trainer/third_party/uplot), built into the program.
#pragma once

#include <string_view>

namespace nibble {

extern const std::string_view uplot_script;
extern const std::string_view uplot_style;

}  // namespace nibble
