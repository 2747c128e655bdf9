// GEMM rates on one thread and on all of them, beside the limit that FP32 multiply-adds set. Two nvfp4 operands
// multiply as 8-bit integers and may exceed it; "tiles" are the layout that training uses, the others lie in rows.
// One-thread rates are per second of processor time, the others per second of wall time: compare rows of one run only,
// the machine may be shared.
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "dist/device/thread_pool.h"
#include "quant/format/tile.h"
#include "quant/gemm/cpu/gemm_kernels.h"
#include "quant/gemm/gemm.h"

namespace nibble {
namespace {

// Does `count` steps of enough independent chains to fill every multiply-add unit; returns the number of flops.
__attribute__((target("avx512f"))) double fma_chains_avx512(int64_t count) {
  constexpr int chains = 24;
  __m512 sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 factor = _mm512_set1_ps(0.5F);
  benchmark::DoNotOptimize(factor);
  for (int64_t step = 0; step < count; ++step) {
#pragma GCC unroll 24
    for (int i = 0; i < chains; ++i) sums[i] = _mm512_fmadd_ps(sums[i], factor, factor);
  }
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
  return 2.0 * 16 * chains * static_cast<double>(count);
}
__attribute__((target("avx2,fma"))) double fma_chains_avx2(int64_t count) {
  constexpr int chains = 12;
  __m256 sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  __m256 factor = _mm256_set1_ps(0.5F);
  benchmark::DoNotOptimize(factor);
  for (int64_t step = 0; step < count; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, factor);
  }
  for (__m256& sum : sums) benchmark::DoNotOptimize(sum);
  return 2.0 * 8 * chains * static_cast<double>(count);
}

void fma_peak(benchmark::State& state, double (*chains)(int64_t), int threads) {
  set_compute_threads(threads);
  double flops = 0;
  while (state.KeepRunning()) {
    parallel_for(static_cast<size_t>(threads), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) benchmark::DoNotOptimize(chains(100000));
    });
    flops += static_cast<double>(threads) * chains(1) * 100000;
  }
  state.counters["flops"] = benchmark::Counter(flops, benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

struct Shape {
  int64_t m, n, k;
};

// The kind of an operand: its format and its layout in memory.
struct Kind {
  Format format;
  OperandLayout layout = OperandLayout::rows;
  bool bf16_output = false;

  std::string name() const {
    return std::string(name_of(format)) + (layout == OperandLayout::tiles ? " tiles" : "") +
           (bf16_output ? " to bf16" : "");
  }
};

// Memory that starts at a multiple of 64 bytes, like that of arenas.
struct Line {
  alignas(64) std::byte bytes[64];
};
using Memory = std::vector<Line>;
std::byte* allocate(Memory& memory, int64_t bytes, int value) {
  memory.resize(static_cast<size_t>(bytes / 64 + 1));
  std::memset(memory.data(), value, memory.size() * sizeof(Line));
  return memory.data()->bytes;
}

QuantizedTensor make_operand(const Kind& kind, int64_t rows, int64_t inner, Memory& memory) {
  const FormatTraits traits = traits_of(kind.format);
  const bool quantized = is_quantized(kind.format);
  const int64_t bits = quantized ? traits.code_bits : kind.format == Format::bf16 ? 16 : 32;
  const int64_t group = kind.layout == OperandLayout::tiles ? tile_rows : 1;
  const int64_t lines = div_ceil(rows, group);
  const int64_t value_bytes = lines * group * inner * bits / 8;
  const int64_t scale_bytes = traits.block == 0 ? 0 : lines * group * inner / traits.block;
  // 0x38 is 1 in E4M3, and finite in every format.
  std::byte* const start = allocate(memory, value_bytes + scale_bytes + 8, 0x38);
  QuantizedTensor tensor;
  tensor.format = kind.format;
  tensor.layout = kind.layout;
  tensor.rows = rows;
  tensor.inner = inner;
  if (!quantized) {
    tensor.values = Tensor(start, kind.format == Format::bf16 ? DType::bf16 : DType::f32, {rows, inner});
    return tensor;
  }
  tensor.values = Tensor(start, DType::u8, {lines, value_bytes / lines});
  if (traits.block != 0) tensor.block_scales = Tensor(start + value_bytes, DType::u8, {lines, scale_bytes / lines});
  if (traits.block_scale == ScaleCode::e8m0) std::memset(start + value_bytes, 127, static_cast<size_t>(scale_bytes));
  std::memset(start + value_bytes + scale_bytes, 0x3F, 8);
  tensor.tensor_scale = Tensor(start + value_bytes + scale_bytes, DType::f32, {2});
  return tensor;
}

void product(benchmark::State& state, InstructionSet level, const Kind& kind, Shape shape, int threads) {
  set_compute_threads(threads);
  Memory a_memory;
  Memory b_memory;
  Memory output;
  std::byte* const c = allocate(output, shape.m * shape.n * 4, 0);
  const GemmProblem problem{make_operand(kind, shape.m, shape.k, a_memory),
                            make_operand(kind, shape.n, shape.k, b_memory),
                            Tensor(c, kind.bf16_output ? DType::bf16 : DType::f32, {shape.m, shape.n})};
  while (state.KeepRunning()) {
    cpu::gemm_with(level, problem);
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  state.counters["flops"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                               benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

// The two products of an attention head: Q K^T (b transposed) and P V (b row-major).
void head(benchmark::State& state, InstructionSet level, int64_t tokens, int64_t width, bool b_transposed) {
  const int64_t n = b_transposed ? tokens : width;
  const int64_t k = b_transposed ? width : tokens;
  std::vector<float> a(static_cast<size_t>(tokens * k), 1.0F);
  std::vector<float> b(static_cast<size_t>(n * k), 1.0F);
  std::vector<float> c(static_cast<size_t>(tokens * n));
  const SmallMatmul problem{a.data(), k,      1, b.data(), b_transposed ? 1 : n, b_transposed ? k : 1, c.data(),
                            n,        tokens, n, k};
  while (state.KeepRunning()) {
    cpu::small_matmul_with(level, problem);
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * static_cast<double>(tokens * n * k);
  state.counters["flops"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                               benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

std::string describe(std::string_view format, const Shape& shape, int threads, std::string_view kernels) {
  return std::string(format) + "/" + std::to_string(shape.m) + "x" + std::to_string(shape.n) + "x" +
         std::to_string(shape.k) + "/threads:" + std::to_string(threads) + "/" + std::string(kernels);
}

void register_rate(const std::string& name, int threads, const std::function<void(benchmark::State&)>& body) {
  auto* registered = benchmark::RegisterBenchmark(name.c_str(), body);
  if (threads > 1) registered->UseRealTime();
}

void register_all() {
  const int all = available_threads(1);
  std::vector<int> thread_counts = {1};
  if (all > 1) thread_counts.push_back(all);
  constexpr Shape shapes[] = {{1024, 3072, 768}, {1024, 768, 3072}, {4096, 1536, 512}, {4096, 512, 2048},
                              {2048, 512, 4096}, {512, 512, 8192},  {512, 512, 512},   {1, 2048, 512}};
  constexpr Kind kinds[] = {{Format::bf16},    {Format::nvfp4, OperandLayout::tiles},
                            {Format::nvfp4},   {Format::nvfp4, OperandLayout::tiles, true},
                            {Format::mxfp4},   {Format::mxfp8_e4m3},
                            {Format::fp8_e5m2}};
  for (const InstructionSet level : available_instruction_sets()) {
    for (int threads : thread_counts) {
      const std::string name(name_of(level));
      if (name == "portable" && threads > 1) continue;
      if (name == "avx512" || name == "avx2") {
        const auto chains = name == "avx512" ? fma_chains_avx512 : fma_chains_avx2;
        register_rate("fp32_fma_limit/threads:" + std::to_string(threads) + "/" + name, threads,
                      [=](benchmark::State& state) { fma_peak(state, chains, threads); });
      }
      for (const Shape& shape : shapes) {
        for (const Kind& kind : kinds) {
          register_rate(describe(kind.name(), shape, threads, name_of(level)), threads,
                        [=](benchmark::State& state) { product(state, level, kind, shape, threads); });
        }
      }
    }
    for (bool b_transposed : {true, false}) {
      const std::string name =
          std::string(b_transposed ? "head_q_kt" : "head_p_v") + "/256x64/" + std::string(name_of(level));
      benchmark::RegisterBenchmark(name.c_str(), head, level, 256, 64, b_transposed);
    }
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  nibble::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 64;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
