// The one function behind dist/base/log.h, for sources that cannot include the formatting library: those of CUDA.
#pragma once

#include <string_view>

namespace nibble {

enum class LogLevel { info, warning, error };

void write_log(LogLevel level, std::string_view message);

}  // namespace nibble
