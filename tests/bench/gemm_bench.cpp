// GEMM rates of formats and shapes that `nibble bench` leaves out, on one thread and on all of them, beside the limits
// of this machine, at the instruction-set level in use (NIBBLE_ISA chooses another). Usage: gemm_bench [GLOBS]. The
// globs choose by name, for example 'nvfp4_tiles/*'.
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <string>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/device/thread_pool.h"
#include "quant/gemm/gemm.h"
#include "quant/isa/instruction_set.h"
#include "quant/quantize/quantize.h"
#include "trainer/bench/bench_kernels.h"
#include "trainer/bench/bench_report.h"

namespace nibble {
namespace {

// The kind of both operands, and the dtype of the output. NVFP4 operands lie in tiles in training.
struct Kind {
  const char* name;
  Format format;
  OperandLayout layout = OperandLayout::rows;
  DType output = DType::f32;
};
constexpr std::array<Kind, 7> kinds{{{"bf16", Format::bf16},
                                     {"nvfp4_tiles", Format::nvfp4, OperandLayout::tiles},
                                     {"nvfp4", Format::nvfp4},
                                     {"nvfp4_tiles_to_bf16", Format::nvfp4, OperandLayout::tiles, DType::bf16},
                                     {"mxfp4", Format::mxfp4},
                                     {"mxfp8_e4m3", Format::mxfp8_e4m3},
                                     {"fp8_e5m2", Format::fp8_e5m2}}};

struct Shape {
  int64_t m, n, k;
};
constexpr std::array<Shape, 8> shapes{{{1024, 3072, 768},
                                       {1024, 768, 3072},
                                       {4096, 1536, 512},
                                       {4096, 512, 2048},
                                       {2048, 512, 4096},
                                       {512, 512, 8192},
                                       {512, 512, 512},
                                       {1, 2048, 512}}};

QuantizedTensor make_operand(BenchGroup& group, const Kind& kind, int64_t rows, int64_t inner) {
  const OperandSpec spec = plain_operand(kind.format);
  const Tensor source = normal_tensor(group, {rows, inner});
  auto arena = std::make_shared<Arena>("bench operand");
  group.memory.push_back(arena);
  const auto allocate = [&] { return allocate_operand(*arena, spec, source.dtype(), rows, inner, kind.layout); };
  QuantizedTensor storage = allocate();
  if (arena->planned_bytes() > 0) {
    arena->commit();
    storage = allocate();
  }
  return quantize({.source = source, .spec = spec}, storage);
}

void add_case(BenchGroup& group, const Kind& kind, const Shape& shape) {
  BenchCase timed;
  timed.name = fmt::format("{}/{}x{}x{}", kind.name, shape.m, shape.n, shape.k);
  timed.work = 2.0 * static_cast<double>(shape.m * shape.n * shape.k);
  timed.unit = "GFLOP/s";
  timed.limit.kind = kind.format == Format::nvfp4 ? BenchLimit::Kind::nvfp4_block : BenchLimit::Kind::bf16_gemm;
  timed.limit.flops = timed.work;
  timed.run = [problem = GemmProblem{.a = make_operand(group, kind, shape.m, shape.k),
                                     .b = make_operand(group, kind, shape.n, shape.k),
                                     .output = zero_tensor(group, kind.output, {shape.m, shape.n})}] { gemm(problem); };
  group.cases.push_back(std::move(timed));
}

// The two GEMMs of an attention head: Q K^T (b transposed) and P V (b row-major).
void add_head(BenchGroup& group, bool b_transposed) {
  constexpr int64_t tokens = 256;
  constexpr int64_t width = 64;
  const int64_t n = b_transposed ? tokens : width;
  const int64_t k = b_transposed ? width : tokens;
  const Tensor a = zero_tensor(group, DType::f32, {tokens, k});
  const Tensor b = zero_tensor(group, DType::f32, {n, k});
  const Tensor c = zero_tensor(group, DType::f32, {tokens, n});
  BenchCase timed;
  timed.name = b_transposed ? "head_q_kt/256x64" : "head_p_v/256x64";
  timed.work = 2.0 * static_cast<double>(tokens * n * k);
  timed.unit = "GFLOP/s";
  timed.limit = {.kind = BenchLimit::Kind::bf16_gemm, .flops = timed.work};
  timed.run = [problem = SmallMatmul{a.as<float>(), k, 1, b.as<float>(), b_transposed ? 1 : n, b_transposed ? k : 1,
                                     c.as<float>(), n, tokens, n, k}] { small_matmul(problem); };
  group.cases.push_back(std::move(timed));
}

void measure_group(BenchGroup group, PeakMemory& memory, const std::string& globs) {
  if (!globs.empty()) group.keep_only(globs);
  if (group.cases.empty()) return;
  BenchSettings settings;
  if (const int all = available_threads(1); all > 1) settings.threads.push_back(all);
  fmt::print("{}", group_text(measure(group, memory, settings)));
  std::fflush(stdout);
}

void measure_all(const std::string& globs) {
  if (const std::string mistake = case_globs_mistake(globs); !mistake.empty()) {
    throw Error(ExitCode::usage, fmt::format("\"{}\" {}", globs, mistake), "write a pattern such as 'nvfp4_tiles/*'");
  }
  fmt::print("level {}\n", name_of(instruction_set()));
  PeakMemory memory;
  for (const Shape& shape : shapes) {
    BenchGroup group{.title = fmt::format("{}x{}x{}", shape.m, shape.n, shape.k), .cases = {}, .memory = {}};
    for (const Kind& kind : kinds) add_case(group, kind, shape);
    measure_group(std::move(group), memory, globs);
  }
  BenchGroup heads{.title = "attention heads", .cases = {}, .memory = {}};
  for (const bool b_transposed : {true, false}) add_head(heads, b_transposed);
  measure_group(std::move(heads), memory, globs);
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  try {
    nibble::measure_all(argc > 1 ? argv[1] : "");
  } catch (const nibble::Error& error) {
    nibble::print_error(error);
    return static_cast<int>(error.code());
  }
  return 0;
}
