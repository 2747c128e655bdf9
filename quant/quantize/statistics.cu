#include "quant/quantize/statistics.h"

#include "quant/tensor/host_operand.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble::cuda {

// Measures on the CPU, from copies.
OperandStatistics measure(const QuantizeProblem& problem, const QuantizedTensor& operand) {
  const HostCopy source(problem.source);
  const HostOperand on_cpu(operand);
  QuantizeProblem problem_on_cpu = problem;
  problem_on_cpu.source = source.tensor();
  problem_on_cpu.scratch = Tensor();
  return nibble::measure(problem_on_cpu, on_cpu.operand());
}

}  // namespace nibble::cuda
