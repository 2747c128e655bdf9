#include "trainer/commands/version.h"

#include <fmt/format.h>

#include "dist/ranks/mpi_communicator.h"
#include "quant/isa/instruction_set.h"

namespace nibble {
namespace {

#ifdef __clang__
constexpr const char* compiler = "clang++ " __clang_version__;
#else
constexpr const char* compiler = "g++ " __VERSION__;
#endif

}  // namespace

std::string version_text(const BuildFacts& build) {
  std::string text = "nibble " NIBBLE_VERSION;
  const auto add = [&](const char* name, std::string_view value) { text += fmt::format("\n{:<15} {}", name, value); };
  add("commit", build.commit);
  add("compiler", compiler);
  add("instruction set", name_of(instruction_set()));
  add("MPI", mpi_library());
  add("CUDA", build.cuda);
  add("licence", "Apache-2.0");
  return text;
}

}  // namespace nibble
