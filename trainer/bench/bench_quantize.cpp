// Implements quantize_cases() of trainer/bench/bench_kernels.h.
#include <memory>
#include <string>
#include <utility>

#include "dist/device/arena.h"
#include "quant/quantize/quantize.h"
#include "quant/recipe/operand_role.h"
#include "trainer/bench/bench_kernels.h"

namespace nibble {
namespace {

constexpr double code_bytes = 0.5 + 1.0 / 16;  // an NVFP4 element, and its share of a block scale

struct Way {
  const char* name;
  OperandSpec spec;
};

OperandSpec nvfp4_spec(Rounding round, int rotate) {
  OperandSpec spec = plain_operand(Format::nvfp4);
  spec.round = round;
  spec.rotate = rotate;
  return spec;
}

struct Made {
  QuantizeProblem problem;
  QuantizedTensor storage;
};

Made prepare(BenchGroup& group, const Tensor& source, const OperandSpec& spec, bool transpose) {
  const OperandRole role = transpose ? OperandRole::grad_weight_dy : OperandRole::grad_input_dy;
  const OperandStreams streams = operand_streams(role, spec, {.seed = 1, .step = 0, .micro_batch = 0, .tensor_id = 1});
  auto arena = std::make_shared<Arena>("bench operand");
  group.memory.push_back(arena);
  const int64_t rows = source.size(transpose ? 1 : 0);
  const int64_t inner = source.size(transpose ? 0 : 1);
  const auto allocate = [&] { return allocate_operand(*arena, spec, source.dtype(), rows, inner, nvfp4_bench_layout); };
  return {{.source = source, .transpose = transpose, .spec = spec, .noise = streams.noise, .signs = streams.signs},
          planned(*arena, allocate)};
}

// Computing the tensor's amax is one pass over the source, rounding is another.
void set_work(BenchCase& timed, double elements, int operands) {
  timed.work = elements * operands;
  timed.unit = "Gelem/s";
  timed.limit = {.kind = BenchLimit::Kind::bandwidth,
                 .bytes_read = 2 * 2 * elements,
                 .bytes_written = code_bytes * elements * operands,
                 .working_set = (2 + code_bytes * operands) * elements};
}

void add_single(BenchGroup& group, const Tensor& source, const Way& way, bool transpose) {
  Made made = prepare(group, source, way.spec, transpose);
  BenchCase timed;
  timed.name = std::string(transpose ? "quantize/columns/" : "quantize/rows/") + way.name;
  set_work(timed, static_cast<double>(source.elements()), 1);
  timed.run = [made] { quantize(made.problem, made.storage); };
  group.cases.push_back(std::move(timed));
}

void add_pair(BenchGroup& group, const Tensor& source, const char* name, const Way& rows, const Way& columns) {
  const Made first = prepare(group, source, rows.spec, false);
  const Made second = prepare(group, source, columns.spec, true);
  const QuantizePairProblem pair{first.problem, second.problem, first.storage, second.storage};
  BenchCase timed;
  timed.name = std::string("quantize/pair/") + name;
  set_work(timed, static_cast<double>(source.elements()), 2);
  timed.run = [pair] { quantize_pair(pair); };
  group.cases.push_back(std::move(timed));
}

}  // namespace

BenchGroup quantize_cases(int64_t tokens, int64_t features) {
  BenchGroup group{.title = "quantiser", .cases = {}, .memory = {}};
  const Tensor source = normal_tensor(group, {tokens, features});
  const Way nearest{"nearest", nvfp4_spec(Rounding::nearest, 0)};
  const Way nearest_rotated{"nearest_hadamard", nvfp4_spec(Rounding::nearest, 16)};
  const Way stochastic{"stochastic", nvfp4_spec(Rounding::stochastic, 0)};
  const Way stochastic_rotated{"stochastic_hadamard", nvfp4_spec(Rounding::stochastic, 16)};
  for (const Way& way : {nearest, nearest_rotated, stochastic, stochastic_rotated}) {
    add_single(group, source, way, false);
    add_single(group, source, way, true);
  }
  add_pair(group, source, "activation", nearest, nearest_rotated);
  add_pair(group, source, "gradient", stochastic, stochastic_rotated);
  return group;
}

}  // namespace nibble
