// Copies and sums of selected columns of a matrix, or of all other columns. `columns`, i32 [n], is ascending and within
// the matrix.
#pragma once

#include "dist/device/operator.h"
#include "quant/tensor/tensor.h"

namespace nibble {

// output [rows, n], dtype of the matrix = the selected columns, side by side.
NIBBLE_OPERATOR(void gather_columns(const Tensor& matrix, const Tensor& columns, const Tensor& output));
// output [rows, n], dtype of the matrix = columns [first, first + n).
NIBBLE_OPERATOR(void copy_columns(const Tensor& matrix, int64_t first, const Tensor& output));
// output, shape and dtype of the matrix (which it may be) = the matrix, with zeros in the selected columns.
NIBBLE_OPERATOR(void copy_without_columns(const Tensor& matrix, const Tensor& columns, const Tensor& output));
// For f32: put_columns() overwrites the matrix's columns with values [rows, n]; add_to_columns() adds the values to
// them.
NIBBLE_OPERATOR(void put_columns(const Tensor& values, const Tensor& columns, const Tensor& matrix));
NIBBLE_OPERATOR(void add_to_columns(const Tensor& values, const Tensor& columns, const Tensor& matrix));
// sums, f32 [cols], += each column's squared L2 norm, summed over the rows in order in double.
NIBBLE_OPERATOR(void add_column_squares(const Tensor& matrix, const Tensor& sums));

}  // namespace nibble
