#include "quant/gemm/gemm_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/format/codec.h"
#include "quant/gemm/cpu/gemm_kernels.h"
#include "quant/isa/instruction_set.h"
#include "quant/quantize/quantize.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {
namespace {

constexpr int64_t tile_height = 128;
constexpr int64_t tile_width = 512;

double number_at(const std::byte* memory, DType dtype, size_t index) {
  if (dtype == DType::f32) return static_cast<double>(reinterpret_cast<const float*>(memory)[index]);
  return static_cast<double>(to_float(reinterpret_cast<const BFloat16*>(memory)[index]));
}

// Returns rows of an operand; of a transposed one all of it, because its rows do not lie together.
QuantizedTensor stored_rows(const QuantizedTensor& operand, int64_t first, int64_t count) {
  return operand.transposed ? operand : rows_of(operand, first, first + count);
}

// Two numbers of FP32 or BF16 that have the same bits; which NaN a result is does not count.
bool is_same(double wanted, double got) {
  return std::isnan(wanted) ? std::isnan(got) : wanted == got && std::signbit(wanted) == std::signbit(got);
}
bool is_near(double wanted, double got, double allowed) {
  return std::isfinite(wanted) ? std::abs(got - wanted) <= allowed : !std::isfinite(got);
}

}  // namespace

int64_t gemm_tiles(const GemmTile& whole) {
  return div_ceil(whole.rows, tile_height) * div_ceil(whole.columns, tile_width);
}

GemmTile gemm_tile(const GemmTile& whole, uint64_t key) {
  const auto tiles = static_cast<uint64_t>(gemm_tiles(whole));
  NIBBLE_CHECK(tiles > 0, "an output without elements has no tiles");
  const int64_t down = div_ceil(whole.rows, tile_height);
  const auto number = static_cast<int64_t>(key % tiles);
  const int64_t row = number % down * tile_height;
  const int64_t column = number / down * tile_width;
  return {.first_row = whole.first_row + row,
          .rows = std::min(tile_height, whole.rows - row),
          .first_column = whole.first_column + column,
          .columns = std::min(tile_width, whole.columns - column)};
}

GemmCheck::Rows::Rows(const QuantizedTensor& operand, int64_t first, int64_t count)
    : copy_(stored_rows(operand, first, count)), operand_(copy_.operand()) {
  if (!operand.transposed) return;
  const size_t element = size_of(operand_.values.dtype());
  gathered_.resize(static_cast<size_t>(count * operand.inner) * element);
  const auto* from = static_cast<const std::byte*>(operand_.values.data());
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t k = 0; k < operand.inner; ++k) {
      std::memcpy(gathered_.data() + static_cast<size_t>(row * operand.inner + k) * element,
                  from + static_cast<size_t>(k * operand.rows + first + row) * element, element);
    }
  }
  operand_.values = Tensor(gathered_.data(), operand_.values.dtype(), {count, operand.inner});
  operand_.rows = count;
  operand_.transposed = false;
}

std::vector<double> GemmCheck::Rows::norms() const {
  const auto rows = static_cast<size_t>(operand_.rows);
  const auto inner = static_cast<size_t>(operand_.inner);
  std::vector<float> values(is_quantized(operand_.format) ? rows * inner : 0);
  if (!values.empty()) cpu::dequantize_rows(operand_, 0, tensor_of(std::span(values), {operand_.rows, operand_.inner}));
  std::vector<double> result(rows);
  for (size_t row = 0; row < rows; ++row) {
    double squares = 0;
    for (size_t i = row * inner; i < (row + 1) * inner; ++i) {
      const double value =
          values.empty() ? number_at(static_cast<const std::byte*>(operand_.values.data()), operand_.values.dtype(), i)
                         : static_cast<double>(values[i]);
      squares += value * value;
    }
    result[row] = std::sqrt(squares);
  }
  return result;
}

GemmCheck::GemmCheck(const GemmProblem& problem, const GemmTile& tile)
    : problem_(problem),
      tile_(tile),
      a_(problem.a, tile.first_row, tile.rows),
      b_(problem.b, tile.first_column, tile.columns),
      exact_(problem.accumulate ? read_tile()
                                : std::vector<std::byte>(static_cast<size_t>(tile.rows * tile.columns) *
                                                         size_of(problem.output.dtype()))) {
  const bool on_cpu = problem.output.device() == DeviceKind::cpu;
  const Tensor output(exact_.data(), problem.output.dtype(), {tile.rows, tile.columns});
  cpu::gemm_with(on_cpu ? InstructionSet::portable : instruction_set(),
                 {.a = a_.operand(), .b = b_.operand(), .output = output, .accumulate = problem.accumulate});
}

std::vector<std::byte> GemmCheck::read_tile() const {
  const Tensor& output = problem_.output;
  const size_t element = size_of(output.dtype());
  const size_t row_bytes = static_cast<size_t>(tile_.columns) * element;
  std::vector<std::byte> result(static_cast<size_t>(tile_.rows) * row_bytes);
  const bool whole_rows = tile_.columns == output.size(1);  // they lie together
  const int64_t copies = whole_rows ? 1 : tile_.rows;
  for (int64_t row = 0; row < copies; ++row) {
    const int64_t place = (tile_.first_row + row) * output.size(1) + tile_.first_column;
    copy_bytes({.to = result.data() + static_cast<size_t>(row) * row_bytes,
                .from = static_cast<const std::byte*>(output.data()) + static_cast<size_t>(place) * element,
                .from_device = output.device(),
                .bytes = whole_rows ? result.size() : row_bytes});
  }
  return result;
}

std::string GemmCheck::difference(bool exact) const {
  const DType dtype = problem_.output.dtype();
  const std::vector<std::byte> found = read_tile();
  std::vector<double> a_norms(static_cast<size_t>(tile_.rows));
  std::vector<double> b_norms(static_cast<size_t>(tile_.columns));
  if (!exact) {
    a_norms = a_.norms();
    b_norms = b_.norms();
  }
  const auto k = static_cast<double>(problem_.a.inner);
  const bool eight_bits = traits_of(problem_.a.format).code_bits == 8 || traits_of(problem_.b.format).code_bits == 8;
  const double unit = std::max(16 * std::sqrt(k) * 0x1p-24, eight_bits ? 0x1p-12 : 0.0);
  const double last_rounding = dtype == DType::bf16 ? 0x1p-7 : 0x1p-22;  // of both sides
  const double subnormal = std::sqrt(k) * 0x1p-126;                      // a library may keep subnormal numbers, or not
  for (int64_t row = 0; row < tile_.rows; ++row) {
    for (int64_t column = 0; column < tile_.columns; ++column) {
      const auto index = static_cast<size_t>(row * tile_.columns + column);
      const double wanted = number_at(exact_.data(), dtype, index);
      const double got = number_at(found.data(), dtype, index);
      const double a = a_norms[static_cast<size_t>(row)];
      const double b = b_norms[static_cast<size_t>(column)];
      const double allowed = unit * a * b + std::abs(wanted) * last_rounding + subnormal * (a + b + 1);
      if (exact ? is_same(wanted, got) : is_near(wanted, got, allowed)) continue;
      return fmt::format("element ({}, {}) is {:.9g} instead of {:.9g}", tile_.first_row + row,
                         tile_.first_column + column, got, wanted);
    }
  }
  return {};
}

}  // namespace nibble
