// Measures the GPU's kernels as shares of what the same GPU copies and multiplies, for docs/gpu.md and
// scripts/gpu_check.sh. Prints one JSON object a line: name, milliseconds, and GB/s with its share of the measured copy
// or TFLOP/s with its share of the data sheet's BF16 peak. Bytes are those of the ideal kernel: every input read once,
// every output written once.
// Usage: cuda_bench [--smoke | --once] [PART...]   PART: device, training, quantisers, gemms, attention, operators; all
// without one. --smoke runs tiny shapes, to see that everything runs; --once runs the shapes that are measured, but
// twice only, for profilers.
// Exit code: that of the last error; a part or a case that fails does not keep the others from running.
#include <algorithm>
#include <cstdio>
#include <string_view>

#include "bench/cuda_bench.h"

namespace nibble {
namespace {

struct Part {
  std::string_view name;
  void (*run)(Bench& bench);
  bool streams = false;  // it compares with the rate of a copy
};

constexpr Part all_parts[] = {
    {"device", describe},   {"training", bench_training},   {"quantisers", bench_quantisers, true},
    {"gemms", bench_gemms}, {"attention", bench_attention}, {"operators", bench_operators, true}};

int run(std::span<char* const> arguments) {
  BenchExtent extent = BenchExtent::full;
  std::vector<Part> parts;
  for (const std::string_view argument : arguments) {
    const auto* const part = std::ranges::find(all_parts, argument, &Part::name);
    if (argument == "--smoke") {
      extent = BenchExtent::smoke;
    } else if (argument == "--once") {
      extent = BenchExtent::once;
    } else if (part != std::end(all_parts)) {
      parts.push_back(*part);
    } else {
      throw Error(ExitCode::usage, fmt::format("cuda_bench does not know \"{}\"", argument),
                  "the first lines of tests/bench/cuda_bench_main.cpp name its parts");
    }
  }
  if (parts.empty()) parts.assign(std::begin(all_parts), std::end(all_parts));
  cuda::use_device(0);
  Bench bench(extent);
  if (std::ranges::any_of(parts, &Part::streams)) bench.attempt("copy", [&] { bench.copy_rate(); });
  for (const Part& part : parts) bench.attempt(std::string(part.name), [&] { part.run(bench); });
  return static_cast<int>(bench.worst());
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  using namespace nibble;
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // what was measured stays if the program is ended
  try {
    return run(std::span(argv, static_cast<size_t>(argc)).subspan(1));
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n  fix: {}\n", error.what(), error.remedy());
    return static_cast<int>(error.code());
  }
}
