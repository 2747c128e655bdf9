// Tests of the column operators: gathering, zeroing, writing and adding columns, and sums of squares.
#include "model/ops/columns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "quant/format/codec.h"

namespace nibble {
namespace {

constexpr int64_t rows = 37;
constexpr int64_t width = 150;
const std::vector<int32_t> columns = {0, 3, 4, 64, 149};
Tensor column_tensor() {
  return Tensor(const_cast<int32_t*>(columns.data()), DType::i32, {static_cast<int64_t>(columns.size())});
}

float value_at(size_t i) {
  return to_float(bf16_nearest(std::sin(static_cast<float>(i)) + 2));
}
bool is_column(size_t i) {
  return std::find(columns.begin(), columns.end(), static_cast<int32_t>(i % width)) != columns.end();
}

template <class T>
std::vector<T> matrix() {
  std::vector<T> values(rows * width);
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<T, float>) {
      values[i] = value_at(i);
    } else {
      values[i] = bf16_nearest(value_at(i));
    }
  }
  return values;
}

template <class T>
void check_reading() {
  std::vector<T> values = matrix<T>();
  const Tensor view = tensor_of(std::span(values), {rows, width});
  std::vector<T> part(rows * columns.size());
  gather_columns(view, column_tensor(), tensor_of(std::span(part), {rows, 5}));
  for (size_t i = 0; i < part.size(); ++i) {
    ASSERT_EQ(to_float(part[i]), value_at(i / 5 * width + static_cast<size_t>(columns[i % 5])));
  }

  std::vector<float> sums(width, 1);
  add_column_squares(view, tensor_of(std::span(sums), {width}));
  for (size_t c = 0; c < width; ++c) {
    double squares = 0;
    for (size_t r = 0; r < rows; ++r) squares += std::pow(static_cast<double>(value_at(r * width + c)), 2);
    ASSERT_EQ(sums[c], 1 + static_cast<float>(squares)) << c;
  }

  std::vector<T> rest(values.size());
  copy_without_columns(view, column_tensor(), tensor_of(std::span(rest), {rows, width}));
  copy_without_columns(view, column_tensor(), view);
  for (size_t i = 0; i < rest.size(); ++i) {
    ASSERT_EQ(to_float(rest[i]), is_column(i) ? 0 : value_at(i)) << i;
    ASSERT_EQ(to_float(values[i]), to_float(rest[i])) << i;
  }
}

TEST(Columns, AreGatheredLeftOutAndMeasured) {
  check_reading<float>();
  check_reading<BFloat16>();
}

TEST(Columns, ArePutAndAdded) {
  std::vector<float> values = matrix<float>();
  const Tensor view = tensor_of(std::span(values), {rows, width});
  std::vector<float> part(rows * columns.size());
  for (size_t i = 0; i < part.size(); ++i) part[i] = static_cast<float>(i);
  const Tensor part_view = tensor_of(std::span(part), {rows, 5});
  put_columns(part_view, column_tensor(), view);
  add_to_columns(part_view, column_tensor(), view);
  std::vector<float> expected = matrix<float>();
  for (size_t i = 0; i < part.size(); ++i) {
    expected[i / 5 * width + static_cast<size_t>(columns[i % 5])] = 2 * static_cast<float>(i);
  }
  EXPECT_EQ(values, expected);
}

}  // namespace
}  // namespace nibble
