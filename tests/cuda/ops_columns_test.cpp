#include <algorithm>

#include "cuda/device_fixture.h"
#include "model/ops/columns.h"

namespace nibble {
namespace {

class ColumnsOnDevice : public DeviceTest {};

struct Shape {
  int64_t rows, width;
};
const Shape shapes[] = {{1, 3}, {37, 150}, {300, 64}};

TwinTensor some_columns(int64_t width) {
  std::vector<int32_t> chosen;
  for (int64_t i = 0; i < width; ++i) {
    if (i % 3 == 0 || i == width - 1) chosen.push_back(static_cast<int32_t>(i));
  }
  TwinTensor columns(DType::i32, {static_cast<int64_t>(chosen.size())});
  std::copy(chosen.begin(), chosen.end(), columns.cpu().as<int32_t>());
  columns.upload();
  return columns;
}

TEST_F(ColumnsOnDevice, NeighboursAreCopied) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    TwinTensor matrix(dtype, {37, 150});
    TwinTensor part(dtype, {37, 70});
    matrix.fill_normal(1);
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      copy_columns(matrix.on(device), 80, part.on(device));
    }
    EXPECT_TRUE(same_bits(part));
    EXPECT_THROW(copy_columns(matrix.gpu(), 81, part.gpu()), Error);
  }
}

TEST_F(ColumnsOnDevice, AreGatheredLeftOutAndMeasured) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto [rows, width] : shapes) {
      const TwinTensor columns = some_columns(width);
      TwinTensor matrix(dtype, {rows, width});
      TwinTensor part(dtype, {rows, columns.cpu().elements()});
      TwinTensor rest(dtype, {rows, width});
      TwinTensor sums(DType::f32, {width});
      matrix.fill_normal(1);
      sums.fill_normal(2);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
        gather_columns(matrix.on(device), columns.on(device), part.on(device));
        copy_without_columns(matrix.on(device), columns.on(device), rest.on(device));
        add_column_squares(matrix.on(device), sums.on(device));
        copy_without_columns(matrix.on(device), columns.on(device), matrix.on(device));
      }
      EXPECT_TRUE(same_bits(part));
      EXPECT_TRUE(same_bits(rest));
      EXPECT_TRUE(same_bits(sums));
      EXPECT_TRUE(same_bits(matrix));
      EXPECT_TRUE(same_bits(rest.cpu(), matrix.gpu()));
    }
  }
}

TEST_F(ColumnsOnDevice, ArePutAndAdded) {
  for (const auto [rows, width] : shapes) {
    const TwinTensor columns = some_columns(width);
    TwinTensor matrix(DType::f32, {rows, width});
    TwinTensor put(DType::f32, {rows, columns.cpu().elements()});
    TwinTensor added(DType::f32, {rows, columns.cpu().elements()});
    matrix.fill_normal(1);
    put.fill_normal(2);
    added.fill_normal(3);
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      put_columns(put.on(device), columns.on(device), matrix.on(device));
      add_to_columns(added.on(device), columns.on(device), matrix.on(device));
    }
    EXPECT_TRUE(same_bits(matrix));
  }
}

}  // namespace
}  // namespace nibble
