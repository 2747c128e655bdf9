// The function behind dist/base/log.h, for CUDA sources, which cannot include the formatting library.
#pragma once

#include <string_view>

namespace nibble {

enum class LogLevel { info, warning, error };

void write_log(LogLevel level, std::string_view message);

}  // namespace nibble
