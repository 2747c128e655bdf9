// Measures the GPU's kernels as shares of what the same GPU copies and multiplies, for docs/gpu.md and
// scripts/gpu_check.sh. Prints one JSON object a line: name, milliseconds, and GB/s with its share of the measured copy
// or TFLOP/s with its share of the data sheet's BF16 peak. Bytes are those of the ideal kernel: every input read once,
// every output written once. Usage: cuda_bench [--smoke]. --smoke runs tiny shapes, once, to see that everything runs.
#include "bench/cuda_bench.h"

#include <cstring>

int main(int argc, char** argv) {
  using namespace nibble;
  try {
    const bool smoke = argc > 1 && std::strcmp(argv[1], "--smoke") == 0;
    cuda::use_device(0);
    fmt::print(R"({{"name":"device","is":"{}","bf16_peak_teraflops":{:.1f}}})"
               "\n",
               cuda::device_properties().name, cuda::device_properties().bf16_flops / 1e12);
    Bench bench(smoke);
    bench.copy_rate();
    bench.forget();
    bench_quantisers(bench);
    bench_operators(bench);
    bench_gemms(bench);
    bench_attention(bench);
    bench_training(bench);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n  fix: {}\n", error.what(), error.remedy());
    return static_cast<int>(error.code());
  }
  return 0;
}
