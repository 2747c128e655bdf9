#include "trainer/lab/operand_experiment.h"

#include <fmt/format.h>

#include <utility>

#include "dist/base/error.h"

namespace nibble {
namespace {

// Return the rows and the inner axis of the operand that is made from a source.
int64_t rows_of(const Tensor& source, bool transpose) {
  return transpose ? source.cols() : source.rows();
}
int64_t inner_of(const Tensor& source, bool transpose) {
  return transpose ? source.rows() : source.cols();
}

QuantizeProblem problem_of(const OperandExperiment& experiment, OperandRole role) {
  OperandSpec spec = spec_of(experiment.recipe, role);
  spec.from = Source::original;
  const OperandStreams streams = operand_streams(role, spec, experiment.context);
  QuantizeProblem problem;
  problem.source = experiment.input;
  problem.transpose = experiment.transpose;
  problem.spec = spec;
  problem.noise = streams.noise;
  problem.signs = streams.signs;
  return problem;
}

struct OwnedOperand {
  std::unique_ptr<Arena> memory;
  QuantizedTensor operand;
};

OwnedOperand quantize_in_own_memory(QuantizeProblem problem, OperandRole role) {
  const int64_t rows = rows_of(problem.source, problem.transpose);
  const int64_t inner = inner_of(problem.source, problem.transpose);
  check_supported(problem.spec, name_of(role));
  check_shape(problem.spec, rows, inner, name_of(role));
  OwnedOperand owned;
  owned.memory = std::make_unique<Arena>("operand");
  const int64_t scratch = quantize_scratch_floats(problem.spec, rows, inner);
  const QuantizedTensor storage = planned(*owned.memory, [&] {
    if (scratch > 0) problem.scratch = allocate_tensor(*owned.memory, DType::f32, {scratch});
    return allocate_operand(*owned.memory, problem.spec, problem.source.dtype(), rows, inner);
  });
  owned.operand = quantize(problem, storage);
  if (!source_was_finite(owned.operand)) {
    throw Error(ExitCode::bad_data, fmt::format("{}: the rotation overflows", name_of(role)), "scale the tensor down");
  }
  return owned;
}

// Returns the role of the forward operand that a backward operand is made from.
OperandRole forward_role(const OperandExperiment& experiment) {
  const bool weight = experiment.role == OperandRole::grad_input_w;
  if (!weight && experiment.role != OperandRole::grad_weight_x) {
    throw Error(ExitCode::bad_config,
                fmt::format("{} is made from: saved, but has no forward operand", name_of(experiment.role)),
                "use it for grad_input.w and grad_weight.x only");
  }
  const OperandRole role = weight ? OperandRole::forward_w : OperandRole::forward_x;
  if (spec_of(experiment.recipe, role).rotate != 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("{} is made from a forward operand that is rotated", name_of(experiment.role)),
                "set rotate: 0 in forward, or use from: original");
  }
  return role;
}

}  // namespace

OperandValues operand_values(const QuantizedTensor& operand) {
  OperandValues values;
  values.memory = std::make_unique<Arena>("values");
  values.tensor = planned(*values.memory, [&] {
    return allocate_tensor(*values.memory, DType::f32, {operand.rows, operand.inner});
  });
  dequantize(operand, values.tensor);
  return values;
}

OperandResult make_operand(const OperandExperiment& experiment) {
  OperandResult result;
  result.spec = spec_of(experiment.recipe, experiment.role);
  const QuantizeProblem from_input = problem_of(experiment, experiment.role);
  QuantizeProblem problem = from_input;
  OperandValues saved;
  if (result.spec.from == Source::saved) {
    // The forward operand is the same matrix with rows and inner axis exchanged.
    const OperandRole role = forward_role(experiment);
    QuantizeProblem forward = problem_of(experiment, role);
    forward.transpose = !experiment.transpose;
    result.forward = forward.spec;
    saved = operand_values(quantize_in_own_memory(forward, role).operand);
    problem.source = saved.tensor;
    problem.transpose = true;
  }
  OwnedOperand owned = quantize_in_own_memory(problem, experiment.role);
  result.statistics = measure(problem, owned.operand);
  if (result.forward) result.from_input = measure(from_input, owned.operand);
  result.operand = owned.operand;
  result.memory = std::move(owned.memory);
  result.saved_memory = std::move(saved.memory);  // an FP32 operand is a view of it
  return result;
}

}  // namespace nibble
