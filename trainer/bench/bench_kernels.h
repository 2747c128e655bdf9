// The kernels of a training step as cases of `nibble bench`, each group with memory of its own.
// The groups are bench_quantize.cpp, bench_gemm.cpp and bench_operators.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/recipe/recipe.h"
#include "quant/tensor/quantized_tensor.h"
#include "quant/tensor/tensor.h"
#include "trainer/bench/bench_group.h"

namespace nibble {

// NVFP4 operands lie as the CPU's linear layers keep them.
constexpr OperandLayout nvfp4_bench_layout = OperandLayout::tiles;

// A linear layer for `tokens` tokens.
struct LayerShape {
  int64_t tokens = 0, features_out = 0, features_in = 0;
};

// "gemm/FORMAT/PRODUCT/MxNxK": the three products of a linear layer for each shape, on operands made as the recipe says
// (nvfp4) and as plain BF16, its rival.
BenchGroup gemm_cases(const std::vector<LayerShape>& shapes, const LinearRecipe& nvfp4);
// "quantize/rows/nearest" and the like: BF16 activations to NVFP4. A pair is both operands of one tensor, as training
// makes them. Rates count the elements of the operands that are made.
BenchGroup quantize_cases(int64_t tokens, int64_t features);
// "attention/forward/256", "norm/forward", ...: all operators that are not products of linear layers.
// most_threads: that it will be measured with.
BenchGroup operator_cases(bool quick, int most_threads);

// BF16 memory of a tensor with normally distributed values, kept by `group`. Standard deviation 1.
Tensor normal_tensor(BenchGroup& group, std::initializer_list<int64_t> shape);
// Zeroed memory.
Tensor zero_tensor(BenchGroup& group, DType dtype, std::initializer_list<int64_t> shape);

}  // namespace nibble
