// Compares packed_matmul with the scalar loop that its contract states, bit for bit, with every kernel that this
// machine can run.
#include "quant/gemm/cpu/packed_matmul.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "quant/bf16_fixture.h"

namespace nibble {
namespace {

// A matrix in memory that ends where the matrix ends, so that a sanitizer sees reads beyond it.
struct Matrix {
  std::vector<BFloat16> values;
  int64_t row_stride, col_stride;

  MatrixBf16 view() const { return {values.data(), row_stride, col_stride}; }
  float at(int64_t i, int64_t j) const {
    return to_float(values[static_cast<size_t>(i * row_stride + j * col_stride)]);
  }
};

enum class Order { rows, columns, neither };

Matrix make_matrix(Numbers numbers, Order order, int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 generator(seed);
  Matrix matrix{{}, columns + 3, 1};
  if (order == Order::columns) matrix = {{}, 1, rows + 5};
  if (order == Order::neither) matrix = {{}, 3 * columns + 1, 3};
  const bool empty = rows == 0 || columns == 0;
  const int64_t count = empty ? 0 : (rows - 1) * matrix.row_stride + (columns - 1) * matrix.col_stride + 1;
  matrix.values = draw(numbers, static_cast<size_t>(count), generator);
  return matrix;
}

struct Product {
  int64_t m, n, k;
  Order a_order = Order::rows;
  Order b_order = Order::rows;
  Numbers numbers = Numbers::normal;
};

void expect_contract(const Product& shape, bool accumulate) {
  const auto [m, n, k, a_order, b_order, numbers] = shape;
  const Matrix a = make_matrix(numbers, a_order, m, k, 1);
  const Matrix b = make_matrix(numbers, b_order, k, n, 2);
  const int64_t c_stride = n + 3;
  std::vector<float> c(static_cast<size_t>(m * c_stride));
  for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(i % 17) * 0.37F - 3.0F;
  std::vector<float> expected(c);
  std::vector<float> a_row(static_cast<size_t>(k));
  std::vector<float> b_column(static_cast<size_t>(k));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) a_row[static_cast<size_t>(l)] = a.at(i, l);
      for (int64_t l = 0; l < k; ++l) b_column[static_cast<size_t>(l)] = b.at(l, j);
      float& sum = expected[static_cast<size_t>(i * c_stride + j)];
      sum = bf16_pair_sum(a_row.data(), b_column.data(), k, accumulate ? sum : 0.0F);
    }
  }
  for (const auto& [name, kernels] : bf16_kernels()) {
    std::vector<std::byte> memory(kernels->packed_right_bytes(k, n) + 64);
    void* start = memory.data();
    size_t space = memory.size();
    auto* packed = static_cast<std::byte*>(std::align(64, space - 64, start, space));
    kernels->pack_right(b.view(), k, n, packed);
    std::vector<float> got(c);
    cpu::packed_matmul_with(*kernels, {a.view(), packed, got.data(), c_stride, m, n, k, accumulate});
    EXPECT_EQ(first_difference(got, expected), -1)
        << name << " m=" << m << " n=" << n << " k=" << k << " orders " << static_cast<int>(a_order) << " "
        << static_cast<int>(b_order) << " accumulate=" << accumulate;
  }
}

TEST(PackedMatmul, EveryOrderEqualsTheScalarLoopBitForBit) {
  for (const int64_t m : {1, 14, 37}) {
    for (const int64_t n : {1, 32, 51}) {
      for (const int64_t k : {0, 1, 33, 64}) {
        for (const Order a_order : {Order::rows, Order::columns, Order::neither}) {
          for (const Order b_order : {Order::rows, Order::columns, Order::neither}) {
            for (const bool accumulate : {false, true}) expect_contract({m, n, k, a_order, b_order}, accumulate);
          }
        }
      }
    }
  }
}

TEST(PackedMatmul, ShapesOfAttention) {
  for (const Order a_order : {Order::rows, Order::columns}) {
    for (const Order b_order : {Order::rows, Order::columns}) {
      for (const bool accumulate : {false, true}) {
        expect_contract({64, 320, 64, a_order, b_order}, accumulate);
        expect_contract({64, 64, 320, a_order, b_order}, accumulate);
        expect_contract({64, 64, 1027, a_order, b_order}, accumulate);
      }
    }
  }
  expect_contract({700, 35, 20}, true);  // more rows than one block has
}

TEST(PackedMatmul, AnyNumbers) {
  for (const Numbers numbers : {Numbers::tiny, Numbers::any_finite, Numbers::any}) {
    for (const int64_t k : {1, 2, 33}) expect_contract({43, 51, k, Order::rows, Order::columns, numbers}, false);
  }
}

TEST(PackedMatmul, TheLevelInUsePacksAndMultiplies) {
  const Matrix a = make_matrix(Numbers::normal, Order::rows, 5, 7, 1);
  const Matrix b = make_matrix(Numbers::normal, Order::columns, 7, 9, 2);
  EXPECT_EQ(packed_right_bytes(7, 9) % 64, 0U);
  std::vector<std::byte> memory(packed_right_bytes(7, 9) + 64);
  void* start = memory.data();
  size_t space = memory.size();
  auto* packed = static_cast<std::byte*>(std::align(64, space - 64, start, space));
  pack_right(b.view(), 7, 9, packed);
  std::vector<float> c(45);
  packed_matmul({a.view(), packed, c.data(), 9, 5, 9, 7});
  const float a_row[] = {a.at(4, 0), a.at(4, 1), a.at(4, 2), a.at(4, 3), a.at(4, 4), a.at(4, 5), a.at(4, 6)};
  const float b_column[] = {b.at(0, 8), b.at(1, 8), b.at(2, 8), b.at(3, 8), b.at(4, 8), b.at(5, 8), b.at(6, 8)};
  EXPECT_EQ(c[44], bf16_pair_sum(a_row, b_column, 7, 0.0F));
}

}  // namespace
}  // namespace nibble
