// The kernels of a training step as cases of `nibble bench`. Each group has its own memory. The groups are in
// bench_quantize.cpp, bench_gemm.cpp and bench_operators.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/recipe/recipe.h"
#include "quant/tensor/quantized_tensor.h"
#include "quant/tensor/tensor.h"
#include "trainer/bench/bench_group.h"

namespace nibble {

// The layout of NVFP4 operands is that of the CPU's linear layers.
constexpr OperandLayout nvfp4_bench_layout = OperandLayout::tiles;

// A linear layer for `tokens` tokens.
struct LayerShape {
  int64_t tokens = 0, features_out = 0, features_in = 0;
};

// Makes the cases "gemm/FORMAT/PRODUCT/MxNxK": for each shape the three GEMMs of a linear layer, on operands that
// follow the recipe (nvfp4), and on BF16 operands as their rivals.
BenchGroup gemm_cases(const std::vector<LayerShape>& shapes, const LinearRecipe& nvfp4);
// Makes the cases "quantize/rows/nearest" and so on, which quantise BF16 activations to NVFP4. A pair is both operands
// of one tensor, as in training. Rates count the elements of the resulting operands.
BenchGroup quantize_cases(int64_t tokens, int64_t features);
// Makes the cases "attention/forward/256", "norm/forward" and so on: all operators except the GEMMs of linear layers.
// `most_threads` is the largest number of threads that they will be measured with.
BenchGroup operator_cases(bool quick, int most_threads);

// Makes a BF16 tensor with normally distributed values of standard deviation 1; `group` owns its memory.
Tensor normal_tensor(BenchGroup& group, std::initializer_list<int64_t> shape);
// Makes a tensor of zeros; `group` owns its memory.
Tensor zero_tensor(BenchGroup& group, DType dtype, std::initializer_list<int64_t> shape);

}  // namespace nibble
