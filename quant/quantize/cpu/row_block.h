// Row blocks, the SIMD blocks that the CPU's quantiser works on: 16 rows of an operand (lanes) by up to 128 positions
// along its inner axis, in FP32, rotated. Amax, scales and codes of format blocks are then element-wise over the lanes,
// whichever axis of the source the format blocks run along. Internal to quant.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "quant/format/codec.h"
#include "quant/format/hadamard.h"
#include "quant/recipe/operand_spec.h"
#include "quant/tensor/tensor.h"

namespace nibble::cpu {

constexpr int lanes = 16;
constexpr int row_block_positions = 128;

struct alignas(64) RowBlock {
  float value[row_block_positions][lanes];  // [position][lane]
};
struct alignas(64) LaneWords {
  uint32_t word[lanes];
};
struct alignas(64) LaneFloats {
  float value[lanes];
};

struct RowBlockSource {
  const void* data = nullptr;
  DType dtype = DType::bf16;
  bool transpose = false;  // element k of operand row r is data[k * stride + r] instead of data[r * stride + k]
  int64_t stride = 0;
  int64_t rows = 0;  // rows of the operand
  int64_t inner = 0;
  int rotate = 0;
  int rotations = 1;
  bool drawn_signs = false;
  SignStream signs;
};
RowBlockSource row_block_source(const Tensor& source, bool transpose, const OperandSpec& spec, const SignStream& signs);

struct RowBlockBounds {
  int64_t row = 0;       // a multiple of 16
  int64_t position = 0;  // a multiple of 128
  int positions = 0;     // 128, fewer at the end of the inner axis
};

// Loads and rotates a row block. Lanes beyond the last row, and positions up to the next multiple of 16, become zero.
void load_row_block(const RowBlockSource& source, const RowBlockBounds& bounds, RowBlock& row_block);

// Returns the bits of the largest magnitude: as integers the bits of magnitudes are ordered, infinity and NaN last.
uint32_t amax_of_row_block(const RowBlock& row_block, int positions);

// Raises the bits of each lane's largest magnitude to those of the row block.
void include_lane_maxima(const RowBlock& row_block, int positions, LaneWords& largest);

// The part of an operand at rows [first_row, last_row) and positions [first_position, last_position).
struct RowBlockRange {
  int64_t first_row = 0, last_row = 0;            // first_row a multiple of 16
  int64_t first_position = 0, last_position = 0;  // first_position a multiple of 128
};

// Cuts an operand into ranges for parallel_for: a range reads whole cache lines of the source.
class RowBlockRanges {
 public:
  RowBlockRanges(const RowBlockSource& source, int64_t row_step, int64_t position_step)
      : rows_(source.rows),
        inner_(source.inner),
        row_step_(row_step),
        position_step_(position_step),
        across_(div_ceil(source.inner, position_step)) {}
  explicit RowBlockRanges(const RowBlockSource& source)
      : RowBlockRanges(source, source.transpose ? 16 * lanes : lanes,
                       source.transpose ? row_block_positions : 16 * row_block_positions) {}
  size_t count() const { return static_cast<size_t>(div_ceil(rows_, row_step_) * across_); }
  RowBlockRange range(size_t index) const {
    const int64_t row = static_cast<int64_t>(index) / across_ * row_step_;
    const int64_t position = static_cast<int64_t>(index) % across_ * position_step_;
    return {row, std::min(row + row_step_, rows_), position, std::min(position + position_step_, inner_)};
  }

 private:
  int64_t rows_, inner_, row_step_, position_step_, across_;
};

template <class Body>
void for_each_row_block(const RowBlockRange& range, Body body) {
  for (int64_t position = range.first_position; position < range.last_position; position += row_block_positions) {
    const int64_t left = range.last_position - position;
    const int positions = static_cast<int>(left < row_block_positions ? left : row_block_positions);
    for (int64_t row = range.first_row; row < range.last_row; row += lanes)
      body(RowBlockBounds{row, position, positions});
  }
}

}  // namespace nibble::cpu
