#include "model/ops/columns.h"

#include "dist/device/launch.cuh"
#include "model/ops/row/storage.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble::cuda {
namespace {

template <class T>
struct Selection {
  const int32_t* columns;  // [count]
  T* matrix;               // [rows, width]
  T* values;               // [rows, count]
  int64_t rows, width, count;
};

struct Gather {
  template <class T>
  __device__ static void apply(T& in_matrix, T& value) {
    value = in_matrix;
  }
};
struct Put {
  template <class T>
  __device__ static void apply(T& in_matrix, T& value) {
    in_matrix = value;
  }
};
struct AddTo {
  __device__ static void apply(float& in_matrix, float& value) { in_matrix += value; }
};

constexpr int rows_of_block = 8;

// Each warp goes along some columns of one row.
template <class Operation, class T>
__global__ void select_kernel(Selection<T> selection) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.y;
  if (row >= selection.rows) return;
  for (int64_t i = threadIdx.x; i < selection.count; i += warp_lanes) {
    const int64_t column = selection.columns[i];
    if (column < 0 || column >= selection.width) __trap();
    Operation::apply(selection.matrix[row * selection.width + column], selection.values[row * selection.count + i]);
  }
}

template <class T>
__global__ void clear_kernel(Selection<T> selection) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.y;
  if (row >= selection.rows) return;
  for (int64_t i = threadIdx.x; i < selection.count; i += warp_lanes) {
    const int64_t column = selection.columns[i];
    if (column < 0 || column >= selection.width) __trap();
    selection.matrix[row * selection.width + column] = T{};
  }
}

LaunchShape warp_a_row(int64_t rows) {
  return {dim3(narrow<unsigned>(div_ceil<int64_t>(rows, rows_of_block))), dim3(warp_lanes, rows_of_block)};
}

template <class T>
Selection<T> selection_of(const Tensor& matrix, const Tensor& columns, const Tensor& values) {
  NIBBLE_CHECK(values.rows() == matrix.rows() && values.cols() == columns.elements(), "columns of another shape");
  return {columns.as<int32_t>(), matrix.as<T>(), values.as<T>(), matrix.rows(), matrix.cols(), columns.elements()};
}

// ---- Consecutive columns ----

template <class T>
struct Strip {
  const T* matrix;  // [rows, width], from the first column
  T* output;        // [rows, count]
  int64_t rows, width, count;
};

template <class T>
__global__ void copy_kernel(Strip<T> strip) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.y;
  if (row >= strip.rows) return;
  for (int64_t i = threadIdx.x; i < strip.count; i += warp_lanes) {
    strip.output[row * strip.count + i] = strip.matrix[row * strip.width + i];
  }
}

// ---- Sums of squares ----

template <class T>
struct Squares {
  const T* matrix;  // [rows, width]
  float* sums;      // [width]
  int64_t rows, width;
};

constexpr int strip = warp_lanes;  // columns of a block
constexpr int strip_warps = 8;
constexpr int strip_rows = 128;  // rows that are in shared memory together

// Each column's squares are one chain of additions, so only few threads add. The others load the numbers: all warps
// read the next rows while the first warp adds the previous ones.
template <class T>
__global__ void __launch_bounds__(strip* strip_warps) squares_kernel(Squares<T> problem) {
  __shared__ float values[2][strip_rows][strip];
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * strip + lane;
  double total = 0;
  int buffer = 0;
  for (int64_t first = 0; first < problem.rows; first += strip_rows, buffer = 1 - buffer) {
#pragma unroll
    for (int i = 0; i < strip_rows / strip_warps; ++i) {
      const int64_t row = first + i * strip_warps + warp;
      const bool inside = row < problem.rows && column < problem.width;
      values[buffer][i * strip_warps + warp][lane] =
          inside ? to_float(problem.matrix[row * problem.width + column]) : 0;
    }
    __syncthreads();  // the first warp has finished with the other buffer, so it is free
    if (warp == 0) {
      const int count = static_cast<int>(problem.rows - first < strip_rows ? problem.rows - first : strip_rows);
#pragma unroll 8
      for (int i = 0; i < count; ++i) {
        const double value = values[buffer][i][lane];
        total += value * value;
      }
    }
  }
  if (warp == 0 && column < problem.width) problem.sums[column] += static_cast<float>(total);
}

}  // namespace

void copy_columns(const Tensor& matrix, int64_t first, const Tensor& output) {
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    const Strip<T> strip{matrix.as<T>() + first, output.as<T>(), matrix.rows(), matrix.cols(), output.cols()};
    launch("copy_columns", copy_kernel<T>, warp_a_row(strip.rows), strip);
  });
}

void gather_columns(const Tensor& matrix, const Tensor& columns, const Tensor& output) {
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    launch("gather_columns", select_kernel<Gather, T>, warp_a_row(matrix.rows()),
           selection_of<T>(matrix, columns, output));
  });
}

void copy_without_columns(const Tensor& matrix, const Tensor& columns, const Tensor& output) {
  NIBBLE_CHECK(output.rows() == matrix.rows() && output.cols() == matrix.cols(), "output of another shape");
  if (output.data() != matrix.data()) copy(matrix, output);
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    const Selection<T> selection{columns.as<int32_t>(), output.as<T>(), nullptr,
                                 output.rows(),         output.cols(),  columns.elements()};
    launch("copy_without_columns", clear_kernel<T>, warp_a_row(output.rows()), selection);
  });
}

void put_columns(const Tensor& values, const Tensor& columns, const Tensor& matrix) {
  launch("put_columns", select_kernel<Put, float>, warp_a_row(matrix.rows()),
         selection_of<float>(matrix, columns, values));
}

void add_to_columns(const Tensor& values, const Tensor& columns, const Tensor& matrix) {
  launch("add_to_columns", select_kernel<AddTo, float>, warp_a_row(matrix.rows()),
         selection_of<float>(matrix, columns, values));
}

void add_column_squares(const Tensor& matrix, const Tensor& sums) {
  NIBBLE_CHECK(sums.elements() == matrix.cols(), "one sum a column");
  with_storage_type(matrix.dtype(), [&]<class T>(T) {
    const Squares<T> squares{matrix.as<T>(), sums.as<float>(), matrix.rows(), matrix.cols()};
    launch("add_column_squares", squares_kernel<T>,
           {dim3(narrow<unsigned>(div_ceil<int64_t>(squares.width, strip))), dim3(strip * strip_warps)}, squares);
  });
}

}  // namespace nibble::cuda
