#include "model/ops/columns.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/thread_pool.h"
#include "model/ops/row/storage.h"

namespace nibble {
namespace {

using Columns = std::span<const int32_t>;

Columns columns_of(const Tensor& indices) {
  return {indices.as<int32_t>(), static_cast<size_t>(indices.elements())};
}

constexpr size_t rows_at_once = 16;
constexpr size_t columns_at_once = 64;

// sums[c] += the squares of elements 0, stride, 2 stride, ... of column c, for `count` columns side by side.
template <class T>
NIBBLE_VECTORIZE void add_squares(const T* first, size_t rows, size_t stride, size_t count, float* sums) {
  double totals[columns_at_once] = {};
  for (size_t row = 0; row < rows; ++row) {
    const T* const values = first + row * stride;
    for (size_t c = 0; c < count; ++c) {
      const double value = to_float(values[c]);
      totals[c] += value * value;
    }
  }
  for (size_t c = 0; c < count; ++c) sums[c] += static_cast<float>(totals[c]);
}

// Calls body(row) for every row; rows run in parallel.
template <class Body>
void for_rows(int64_t rows, const Body& body) {
  parallel_for(static_cast<size_t>(rows), rows_at_once, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) body(row);
  });
}

void check_columns(const Tensor& matrix, Columns columns, const Tensor& values) {
  NIBBLE_CHECK(values.rows() == matrix.rows() && values.cols() == static_cast<int64_t>(columns.size()),
               "columns of another shape");
  NIBBLE_CHECK(
      std::ranges::is_sorted(columns) && (columns.empty() || (columns.front() >= 0 && columns.back() < matrix.cols())),
      "columns ascend within the matrix");
}

}  // namespace

namespace cpu {

void copy_columns(const Tensor& matrix, int64_t first, const Tensor& output) {
  const size_t element = size_of(matrix.dtype());
  const size_t from = static_cast<size_t>(matrix.cols()) * element;
  const size_t to = static_cast<size_t>(output.cols()) * element;
  const std::byte* const source = static_cast<const std::byte*>(matrix.data()) + static_cast<size_t>(first) * element;
  std::byte* const target = static_cast<std::byte*>(output.data());
  for_rows(matrix.rows(), [&](size_t row) { std::memcpy(target + row * to, source + row * from, to); });
}

void gather_columns(const Tensor& matrix, const Tensor& indices, const Tensor& output) {
  const Columns columns = columns_of(indices);
  check_columns(matrix, columns, output);
  const auto width = static_cast<size_t>(matrix.cols());
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    for_rows(matrix.rows(), [from = matrix.as<T>(), to = output.as<T>(), width, columns](size_t row) {
      T* const values = to + row * columns.size();
      for (size_t i = 0; i < columns.size(); ++i) values[i] = from[row * width + static_cast<size_t>(columns[i])];
    });
  });
}

void copy_without_columns(const Tensor& matrix, const Tensor& indices, const Tensor& output) {
  const Columns columns = columns_of(indices);
  NIBBLE_CHECK(output.rows() == matrix.rows() && output.cols() == matrix.cols(), "output of another shape");
  const auto width = static_cast<size_t>(matrix.cols());
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    for_rows(matrix.rows(), [from = matrix.as<T>(), to = output.as<T>(), width, columns](size_t row) {
      T* const values = to + row * width;
      if (to != from) std::copy_n(from + row * width, width, values);
      for (const int32_t column : columns) values[column] = T{};
    });
  });
}

void put_columns(const Tensor& values, const Tensor& indices, const Tensor& matrix) {
  const Columns columns = columns_of(indices);
  check_columns(matrix, columns, values);
  const auto width = static_cast<size_t>(matrix.cols());
  for_rows(matrix.rows(), [from = values.as<float>(), to = matrix.as<float>(), width, columns](size_t row) {
    const float* const source = from + row * columns.size();
    for (size_t i = 0; i < columns.size(); ++i) to[row * width + static_cast<size_t>(columns[i])] = source[i];
  });
}

void add_to_columns(const Tensor& values, const Tensor& indices, const Tensor& matrix) {
  const Columns columns = columns_of(indices);
  check_columns(matrix, columns, values);
  const auto width = static_cast<size_t>(matrix.cols());
  for_rows(matrix.rows(), [from = values.as<float>(), to = matrix.as<float>(), width, columns](size_t row) {
    const float* const source = from + row * columns.size();
    for (size_t i = 0; i < columns.size(); ++i) to[row * width + static_cast<size_t>(columns[i])] += source[i];
  });
}

void add_column_squares(const Tensor& matrix, const Tensor& sums) {
  NIBBLE_CHECK(sums.elements() == matrix.cols(), "one sum a column");
  const auto rows = static_cast<size_t>(matrix.rows());
  const auto width = static_cast<size_t>(matrix.cols());
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    parallel_for(width, columns_at_once, [&, from = matrix.as<T>(), to = sums.as<float>()](size_t begin, size_t end) {
      add_squares(from + begin, rows, width, end - begin, to + begin);
    });
  });
}

}  // namespace cpu

void copy_columns(const Tensor& matrix, int64_t first, const Tensor& output) {
  NIBBLE_CHECK(output.rows() == matrix.rows() && output.dtype() == matrix.dtype() && first >= 0 &&
                   first + output.cols() <= matrix.cols(),
               "columns within the matrix");
  NIBBLE_DISPATCH(matrix.device(), copy_columns, matrix, first, output);
}

void gather_columns(const Tensor& matrix, const Tensor& columns, const Tensor& output) {
  NIBBLE_DISPATCH(matrix.device(), gather_columns, matrix, columns, output);
}

void copy_without_columns(const Tensor& matrix, const Tensor& columns, const Tensor& output) {
  NIBBLE_DISPATCH(matrix.device(), copy_without_columns, matrix, columns, output);
}

void put_columns(const Tensor& values, const Tensor& columns, const Tensor& matrix) {
  NIBBLE_DISPATCH(matrix.device(), put_columns, values, columns, matrix);
}

void add_to_columns(const Tensor& values, const Tensor& columns, const Tensor& matrix) {
  NIBBLE_DISPATCH(matrix.device(), add_to_columns, values, columns, matrix);
}

void add_column_squares(const Tensor& matrix, const Tensor& sums) {
  NIBBLE_DISPATCH(matrix.device(), add_column_squares, matrix, sums);
}

}  // namespace nibble
