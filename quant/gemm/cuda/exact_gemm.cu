// GEMMs with the bits of the CPU (quant/gemm/gemm.h). One block of 256 threads computes 64 x 64 outputs, each thread 4
// x 4 of them with sums of its own; operands are decoded into shared memory, inner position first, so that a thread
// reads four rows at once.
#include "quant/format/flushed_math.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/gemm/gemm_common.h"
#include "quant/tensor/device_operand.cuh"

namespace nibble::cuda {
namespace {

constexpr int block_side = 64;  // rows and columns of the outputs of a thread block
constexpr int threads = 256;
constexpr int mine = 4;    // rows and columns of a thread
constexpr int depth = 16;  // inner elements a stage, where values are multiplied
constexpr int padded_side = block_side + 4;

enum class Chain : uint8_t {
  values,      // c = fma(a, b, c), k ascending
  bf16_pairs,  // odd member of a pair first, subnormal numbers treated as zero
};

struct ExactProblem {
  DeviceOperand a, b;
  void* output;  // [a.rows, b.rows]
  int64_t blocks_across;
  int power;  // alpha = g_a g_b 2^power
  bool bf16_output;
  bool accumulate;
};

struct OutputPosition {
  int64_t row, column;  // of the first output of the block or thread
};
__device__ __forceinline__ OutputPosition position_of_block(const ExactProblem& problem) {
  const int64_t block = blockIdx.x;
  return {block / problem.blocks_across * block_side, block % problem.blocks_across * block_side};
}

template <Chain chain>
__device__ __forceinline__ void write(const ExactProblem& problem, int64_t row, int64_t column, float sum,
                                      double alpha) {
  constexpr bool flush = chain == Chain::bf16_pairs;
  if (row >= problem.a.rows || column >= problem.b.rows) return;
  const int64_t index = row * problem.b.rows + column;
  float value = scaled_once(sum, alpha);
  if (flush) value = flushed(value, static_cast<double>(sum) * alpha);
  if (problem.bf16_output) {
    static_cast<BFloat16*>(problem.output)[index] = bf16_nearest(value);
    return;
  }
  float* const to = static_cast<float*>(problem.output) + index;
  if (problem.accumulate) {
    // The sum of two normal numbers is exact where it is subnormal.
    value = flush ? flushed(flushed(*to) + value) : *to + value;
  }
  *to = value;
}

template <Chain chain>
__device__ __forceinline__ void write_outputs(const ExactProblem& problem, const float (&sums)[mine][mine]) {
  __shared__ double alpha_of_block;
  if (threadIdx.x == 0) alpha_of_block = output_scale(problem.a, problem.b, problem.power);
  __syncthreads();
  const double alpha = alpha_of_block;
  const OutputPosition first = position_of_block(problem);
  const int64_t row = first.row + threadIdx.x / 16 * mine;
  const int64_t column = first.column + threadIdx.x % 16 * mine;
#pragma unroll
  for (int i = 0; i < mine; ++i) {
#pragma unroll
    for (int j = 0; j < mine; ++j) write<chain>(problem, row + i, column + j, sums[i][j], alpha);
  }
}

// Reads one element of each of four neighbouring rows from shared memory.
__device__ __forceinline__ void read_four(const float* from, float (&to)[mine]) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}

template <Chain chain>
__device__ __forceinline__ float prepared(float value) {
  return chain == Chain::bf16_pairs ? flushed(value) : value;
}

// Reads four elements of a row of an operand whose rows are multiples of four elements; k is a multiple of four, too.
__device__ __forceinline__ void read_four_along_inner(const DeviceOperand& operand, int64_t row, int64_t k,
                                                      float (&values)[4]) {
  const int64_t index = row * operand.inner + k;
  if (operand.format == Format::f32) {
    read_four(static_cast<const float*>(operand.values) + index, values);
  } else if (operand.format == Format::bf16) {
    const uint2 pairs = *reinterpret_cast<const uint2*>(static_cast<const BFloat16*>(operand.values) + index);
    values[0] = float_of_bits(pairs.x << 16);
    values[1] = float_of_bits(pairs.x & 0xFFFF0000U);
    values[2] = float_of_bits(pairs.y << 16);
    values[3] = float_of_bits(pairs.y & 0xFFFF0000U);
  } else {
    decode_codes(operand, row, k, values);
  }
}

// Loads elements [first_k, first_k + depth) of the 64 rows from first_row; zeros beyond the operand.
template <Chain chain>
__device__ void load_values(const DeviceOperand& operand, int64_t first_row, int64_t first_k,
                            float (*to)[padded_side]) {
  const int t = static_cast<int>(threadIdx.x);
  if (operand.transposed) {
    const int64_t k = first_k + t / 16;
#pragma unroll 1
    for (int i = 0; i < mine; ++i) {
      const int local = t % 16 * mine + i;
      const bool there = first_row + local < operand.rows && k < operand.inner;
      to[t / 16][local] = there ? prepared<chain>(value_at(operand, first_row + local, k)) : 0.0F;
    }
    return;
  }
  const int local = t / 4;
  const int at = t % 4 * 4;
  const int64_t row = first_row + local;
  const int64_t k = first_k + at;
  const bool there = row < operand.rows;
  if (operand.inner % 4 != 0) {
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
      const bool inside = there && k + i < operand.inner;
      to[at + i][local] = inside ? prepared<chain>(value_at(operand, row, k + i)) : 0.0F;
    }
    return;
  }
  float values[4] = {};
  if (there && k < operand.inner) read_four_along_inner(operand, row, k, values);
#pragma unroll
  for (int i = 0; i < 4; ++i) to[at + i][local] = prepared<chain>(values[i]);
}

template <Chain chain>
__device__ __forceinline__ void add_step(const float* a, const float* b, float (&sums)[mine][mine]) {
  float left[mine];
  float right[mine];
  read_four(a, left);
  read_four(b, right);
#pragma unroll
  for (int i = 0; i < mine; ++i) {
#pragma unroll
    for (int j = 0; j < mine; ++j) {
      sums[i][j] = chain == Chain::bf16_pairs ? flushed_fma(left[i], right[j], sums[i][j])
                                              : std::fma(left[i], right[j], sums[i][j]);
    }
  }
}

template <Chain chain>
__global__ void __launch_bounds__(threads, 2) values_kernel(ExactProblem problem) {
  alignas(16) __shared__ float a[depth][padded_side];
  alignas(16) __shared__ float b[depth][padded_side];
  const OutputPosition first = position_of_block(problem);
  const int row = static_cast<int>(threadIdx.x) / 16 * mine;
  const int column = static_cast<int>(threadIdx.x) % 16 * mine;
  const int64_t inner = problem.a.inner;
  float sums[mine][mine] = {};
  for (int64_t k = 0; k < inner; k += depth) {
    load_values<chain>(problem.a, first.row, k, a);
    load_values<chain>(problem.b, first.column, k, b);
    __syncthreads();
    // The sums stop at the end of the inner axis: adding zero would make +0 of -0. An odd inner axis of pairs is filled
    // up with zeros.
    const int count = inner - k < depth ? static_cast<int>(inner - k) : depth;
    if (chain == Chain::values) {
      for (int i = 0; i < count; ++i) add_step<chain>(a[i] + row, b[i] + column, sums);
    } else {
      for (int i = 0; i < count; i += 2) {
        add_step<chain>(a[i + 1] + row, b[i + 1] + column, sums);
        add_step<chain>(a[i] + row, b[i] + column, sums);
      }
    }
    __syncthreads();
  }
  write_outputs<chain>(problem, sums);
}

// ---- nvfp4 x nvfp4: integers ----

constexpr int stage_blocks = 4;
// A word holds four consecutive 2 q of a row, [block][quad][row]; blocks are 8 banks apart, so that a warp that unpacks
// 8 rows of 4 blocks meets no bank twice.
constexpr int quad_words = block_side;
constexpr int block_words = 4 * quad_words + 8;
struct CodeBlocks {
  alignas(16) int words[stage_blocks * block_words];
  alignas(16) float scales[stage_blocks][padded_side];
};

// Returns four codes, given in the low 16 bits, as four signed bytes 2 q.
__device__ __forceinline__ int doubled_codes(unsigned codes) {
  const unsigned index = codes & 0x7777U;
  const unsigned positive = __byte_perm(0x03020100U, 0x0C080604U, index);
  const unsigned negative = __byte_perm(0xFDFEFF00U, 0xF4F8FAFCU, index);
  const unsigned sign = __byte_perm(0x0000FF00U, 0, codes >> 3 & 0x1111U);
  return static_cast<int>((positive & ~sign) | (negative & sign));
}

// Loads blocks [first_block, first_block + stage_blocks) of the 64 rows from first_row; zeros beyond the operand.
__device__ __forceinline__ void load_codes(const DeviceOperand& operand, int64_t first_row, int64_t first_block,
                                           CodeBlocks& to) {
  const int local = static_cast<int>(threadIdx.x) / stage_blocks;
  const int block_here = static_cast<int>(threadIdx.x) % stage_blocks;
  const int64_t row = first_row + local;
  const int64_t block = first_block + block_here;
  uint2 codes = make_uint2(0, 0);
  float scale = 0;
  if (row < operand.rows && block < operand.blocks) {
    codes = static_cast<const uint2*>(operand.values)[row * operand.blocks + block];
    scale = e4m3_to_float(operand.block_scales[swizzled_scale_offset(row, block, operand.blocks)]);
  }
  int* const words = to.words + block_here * block_words + local;
  words[0 * quad_words] = doubled_codes(codes.x);
  words[1 * quad_words] = doubled_codes(codes.x >> 16);
  words[2 * quad_words] = doubled_codes(codes.y);
  words[3 * quad_words] = doubled_codes(codes.y >> 16);
  to.scales[block_here][local] = scale;
}

__device__ __forceinline__ void add_block(const CodeBlocks& a, const CodeBlocks& b, int block, int row, int column,
                                          float (&sums)[mine][mine]) {
  int dots[mine][mine] = {};
#pragma unroll
  for (int quad = 0; quad < 4; ++quad) {
    const int offset = block * block_words + quad * quad_words;
    const int4 left = *reinterpret_cast<const int4*>(a.words + offset + row);
    const int4 right = *reinterpret_cast<const int4*>(b.words + offset + column);
    const int lefts[mine] = {left.x, left.y, left.z, left.w};
    const int rights[mine] = {right.x, right.y, right.z, right.w};
#pragma unroll
    for (int i = 0; i < mine; ++i) {
#pragma unroll
      for (int j = 0; j < mine; ++j) dots[i][j] = __dp4a(lefts[i], rights[j], dots[i][j]);
    }
  }
  float left_scales[mine];
  float right_scales[mine];
  read_four(a.scales[block] + row, left_scales);
  read_four(b.scales[block] + column, right_scales);
#pragma unroll
  for (int i = 0; i < mine; ++i) {
#pragma unroll
    for (int j = 0; j < mine; ++j) {
      sums[i][j] = std::fma(static_cast<float>(dots[i][j]), left_scales[i] * right_scales[j], sums[i][j]);
    }
  }
}

__global__ void __launch_bounds__(threads, 2) codes_kernel(ExactProblem problem) {
  __shared__ CodeBlocks a;
  __shared__ CodeBlocks b;
  const OutputPosition first = position_of_block(problem);
  const int row = static_cast<int>(threadIdx.x) / 16 * mine;
  const int column = static_cast<int>(threadIdx.x) % 16 * mine;
  float sums[mine][mine] = {};
  for (int64_t block = 0; block < problem.a.blocks; block += stage_blocks) {
    load_codes(problem.a, first.row, block, a);
    load_codes(problem.b, first.column, block, b);
    __syncthreads();
    const int64_t left = problem.a.blocks - block;
    const int count = left < stage_blocks ? static_cast<int>(left) : stage_blocks;
    for (int i = 0; i < count; ++i) add_block(a, b, i, row, column, sums);
    __syncthreads();
  }
  write_outputs<Chain::values>(problem, sums);
}

class ExactGemm final : public GemmBackend {
 public:
  std::string refusal(const GemmShape& /*shape*/) override { return {}; }
  std::string description() override { return "kernels of nibble"; }
  std::string algorithm(const GemmProblem& /*problem*/) override { return "exact"; }
  bool multiply(const GemmProblem& problem, Trial trial) override;
};

bool has_integer_blocks(const QuantizedTensor& tensor) {
  return tensor.format == Format::nvfp4 && tensor.outer_scales.empty();
}

bool ExactGemm::multiply(const GemmProblem& problem, Trial /*trial*/) {
  cpu::check_gemm(problem);
  const QuantizedTensor& a = problem.a;
  const QuantizedTensor& b = problem.b;
  const bool integers = has_integer_blocks(a) && has_integer_blocks(b);
  ExactProblem exact{};
  exact.a = device_operand(a);
  exact.b = device_operand(b);
  exact.output = problem.output.data();
  exact.blocks_across = div_ceil<int64_t>(b.rows, block_side);
  exact.power = -(a.rotation_bits + b.rotation_bits) / 2 - (integers ? 2 : 0);
  exact.bf16_output = problem.output.dtype() == DType::bf16;
  exact.accumulate = problem.accumulate;
  const LaunchShape shape{dim3(narrow<unsigned>(div_ceil<int64_t>(a.rows, block_side) * exact.blocks_across)),
                          dim3(threads)};
  if (integers) {
    launch("exact nvfp4 gemm", codes_kernel, shape, exact);
  } else if (a.format == Format::bf16 && b.format == Format::bf16) {
    launch("exact bf16 gemm", values_kernel<Chain::bf16_pairs>, shape, exact);
  } else {
    launch("exact gemm", values_kernel<Chain::values>, shape, exact);
  }
  return true;
}

}  // namespace

GemmBackend& exact_gemm() {
  static ExactGemm backend;
  return backend;
}

}  // namespace nibble::cuda
