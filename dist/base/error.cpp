#include "dist/base/error.h"

#include <fmt/format.h>

namespace nibble {

void fail_check(const char* file, int line, const char* condition, const std::string& detail) {
  throw Error(ExitCode::internal, fmt::format("{}:{}: {} ({} does not hold)", file, line, detail, condition),
              "this is a defect of nibble: please report it with the command and the configuration");
}

}  // namespace nibble
