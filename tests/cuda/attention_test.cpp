// Attention by nibble's own kernels has the bits of the CPU.
#include "model/ops/attention/attention.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>

#include "cuda/attention_fixture.h"
#include "model/ops/attention/attention_backend_kind.h"

namespace nibble {
namespace {

using Operands = AttentionOperands;

class Attention : public DeviceTest {
 protected:
  void SetUp() override { set_attention_backend(AttentionBackendKind::exact); }
  void TearDown() override { set_attention_backend(AttentionBackendKind::automatic); }

  static void expect_bits_of_the_cpu(const Operands& operands) {
    const AttentionShape& shape = operands.shape;
    SCOPED_TRACE(::testing::Message() << shape.sequences << " x " << shape.sequence_length << ", heads "
                                      << shape.query_heads << "/" << shape.kv_heads << ", head_dim " << shape.head_dim
                                      << ", " << name_of(operands.qkv.cpu().dtype()));
    operands.forward();
    EXPECT_TRUE(same_bits(operands.output));
    EXPECT_TRUE(same_bits(operands.log_sum_exp));
    operands.backward();
    EXPECT_TRUE(same_bits(operands.grad_qkv));
  }
};

TEST_F(Attention, AnyLength) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const int64_t length : {1, 2, 63, 64, 65, 130}) expect_bits_of_the_cpu(Operands({1, length, 2, 1, 16}, dtype));
  }
}

TEST_F(Attention, AnyHeads) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    expect_bits_of_the_cpu(Operands({2, 70, 1, 1, 8}, dtype));
    expect_bits_of_the_cpu(Operands({2, 67, 6, 2, 8}, dtype));
    expect_bits_of_the_cpu(Operands({3, 5, 3, 3, 32}, dtype));
  }
}

// Queries in the middle of a sequence, whose keys and values lie in a cache.
TEST_F(Attention, AnyPartOfASequence) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 70}, {63, 1}, {64, 1}, {70, 67}, {129, 3}}) {
      const Operands operands({1, count, 4, 2, 16}, dtype);
      TwinTensor cache(dtype, {140, 2 * 2 * 16});
      cache.fill_normal(5);
      for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
        const TwinTensor workspace = operands.workspace(device);
        attention_forward({.shape = operands.shape,
                           .qkv = operands.qkv.on(device),
                           .output = operands.output.on(device),
                           .log_sum_exp = operands.log_sum_exp.on(device),
                           .workspace = workspace.on(device),
                           .cache = cache.on(device),
                           .first = first});
        synchronize(device);
      }
      EXPECT_TRUE(same_bits(operands.output)) << first << ", " << count;
      EXPECT_TRUE(same_bits(operands.log_sum_exp)) << first << ", " << count;
    }
  }
}

// The head dimensions are no multiples of 16 bytes, of the lanes, of the depth of a tile, or of its columns.
TEST_F(Attention, AnyHeadDimension) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const int64_t head_dim : {1, 5, 33, 40, 64, 65, 128, 136}) {
      expect_bits_of_the_cpu(Operands({1, 67, 2, 1, head_dim}, dtype));
    }
  }
}

// Some numbers are so small that products are subnormal, which count as zeros in bf16, and some scores so far apart
// that probabilities vanish.
TEST_F(Attention, SmallNumbersAndFarScores) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const float scale : {1e-19F, 1e-38F, 30.0F}) {
      Operands operands({1, 70, 2, 1, 16}, dtype);
      operands.qkv.fill_normal(3, scale);
      operands.grad_output.fill_normal(4, scale > 1 ? 1 : 1e-19F);
      expect_bits_of_the_cpu(operands);
    }
  }
}

// Sums of negative numbers too small to be kept are -0; the zero that fills up an odd number of keys makes them +0.
TEST_F(Attention, ZerosHaveTheirSign) {
  const Operands operands({1, 65, 1, 1, 1}, DType::bf16);
  for (int64_t i = 0; i < 65; ++i) {
    // Query, key, value. The first key has nearly all of the probability, the last none.
    const float row[] = {1, i == 64 ? -1000.0F : (i == 0 ? 3.0F : 0.0F), i == 0 ? 0.0F : -1.5e-38F};
    for (int64_t k = 0; k < 3; ++k) operands.qkv.cpu().as<BFloat16>()[3 * i + k] = bf16_nearest(row[k]);
  }
  copy(operands.qkv.cpu(), operands.qkv.gpu());
  expect_bits_of_the_cpu(operands);
  EXPECT_EQ(operands.output.cpu().as<BFloat16>()[63].bits, 0x8000);
  EXPECT_EQ(operands.output.cpu().as<BFloat16>()[64].bits, 0);
}

// Documents begin inside tiles and with them; some tiles are seen by nobody; some rows see nothing of the first tile.
TEST_F(Attention, DocumentsInASequence) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const auto& [shape, lengths] :
         std::vector<std::pair<AttentionShape, std::vector<int64_t>>>{{{2, 130, 4, 2, 16}, {1, 40, 7, 82}},
                                                                      {{1, 200, 2, 1, 8}, {64, 3, 130}},
                                                                      {{3, 17, 6, 3, 10}, {5, 1, 1}},
                                                                      {{1, 140, 2, 1, 72}, {30}},
                                                                      {{2, 70, 1, 1, 8}, {70}}}) {
      Operands operands(shape, dtype);
      operands.pack(lengths);
      expect_bits_of_the_cpu(operands);
    }
  }
}

// A mask without effect gives the bits of no mask; one with effect gives others.
TEST_F(Attention, OneDocumentIsNoMask) {
  const AttentionShape shape{1, 100, 2, 1, 16};
  const Operands without(shape, DType::bf16);
  Operands whole(shape, DType::bf16);
  whole.pack({100});
  Operands two(shape, DType::bf16);
  two.pack({60});
  for (const Operands* operands :
       {&without, static_cast<const Operands*>(&whole), static_cast<const Operands*>(&two)}) {
    operands->forward();
    operands->backward();
  }
  EXPECT_TRUE(same_bits(without.output.gpu(), whole.output.gpu()));
  EXPECT_TRUE(same_bits(without.grad_qkv.gpu(), whole.grad_qkv.gpu()));
  EXPECT_FALSE(same_bits(without.output.gpu(), two.output.gpu()));
  EXPECT_FALSE(same_bits(without.grad_qkv.gpu(), two.grad_qkv.gpu()));
}

TEST_F(Attention, NothingToDoIsNoError) {
  expect_bits_of_the_cpu(Operands({0, 64, 2, 1, 16}, DType::bf16));
}

TEST_F(Attention, BackendIsDescribed) {
  EXPECT_EQ(describe_attention_backend({.shape = {1, 64, 2, 1, 64}}), "exact: it was asked for");
}

// cuDNN is not asked for heads of 16, with it or without it.
TEST_F(Attention, WhatCudnnCannotDoIsExactUnlessAskedOfCudnn) {
  const Operands operands({1, 64, 2, 1, 16}, DType::bf16);
  set_attention_backend(AttentionBackendKind::automatic);
  EXPECT_THAT(describe_attention_backend({.shape = operands.shape}), ::testing::StartsWith("exact: "));
  expect_bits_of_the_cpu(operands);
  const TwinTensor workspace = operands.workspace(DeviceKind::cuda);
  set_attention_backend(AttentionBackendKind::cudnn);
  for (const std::function<void()>& attempt : std::vector<std::function<void()>>{
           [&] {
             attention_forward({operands.shape, operands.qkv.gpu(), operands.output.gpu(), operands.log_sum_exp.gpu(),
                                workspace.gpu()});
           },
           [&] { describe_attention_backend({.shape = operands.shape}); },
           [&] { attention_workspace_floats({.shape = operands.shape}, DeviceKind::cuda); }}) {
    try {
      attempt();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_config);
      EXPECT_NE(error.remedy(), "");
    }
  }
}

// Returns the largest difference, as a share of the largest number.
double difference(const Tensor& expected, const Tensor& actual) {
  const HostCopy a(expected);
  const HostCopy b(actual);
  const auto number = [](const HostCopy& copy, int64_t i) -> double {
    if (copy.tensor().dtype() == DType::f32) return copy.as<float>()[static_cast<size_t>(i)];
    return to_float(copy.as<BFloat16>()[static_cast<size_t>(i)]);
  };
  double largest = 0;
  double off = 0;
  for (int64_t i = 0; i < expected.elements(); ++i) {
    largest = std::max(largest, std::abs(number(a, i)));
    const double here = std::abs(number(a, i) - number(b, i));
    if (!(here <= off)) off = here;  // NaN, too
  }
  return off / largest;
}

// On a GPU with cuDNN the results are near the CPU's, and have the same bits every time.
TEST_F(Attention, CudnnIsNearAndRepeatable) {
  set_attention_backend(AttentionBackendKind::automatic);
  const std::string backend = describe_attention_backend({.shape = {2, 300, 8, 2, 64}});
  if (!backend.starts_with("cuDNN")) GTEST_SKIP() << backend;
  for (const auto& [head_dim, masked] : {std::pair{64, false}, {128, false}, {64, true}, {128, true}}) {
    SCOPED_TRACE(::testing::Message() << "head_dim " << head_dim << (masked ? ", documents" : ""));
    const auto make = [shape = AttentionShape{2, 300, 8, 2, head_dim}, packs = masked] {
      Operands operands(shape, DType::bf16);
      if (packs) operands.pack({5, 150, 64, 40});
      return operands;
    };
    const Operands operands = make();
    operands.forward();
    EXPECT_LT(difference(operands.output.cpu(), operands.output.gpu()), 0.02);
    EXPECT_LT(difference(operands.log_sum_exp.cpu(), operands.log_sum_exp.gpu()), 1e-3);
    operands.backward();
    EXPECT_LT(difference(operands.grad_qkv.cpu(), operands.grad_qkv.gpu()), 0.02);
    const Operands again = make();
    for (int repetition = 0; repetition < 3; ++repetition) {
      again.forward();
      again.backward();
      EXPECT_TRUE(same_bits(operands.output.gpu(), again.output.gpu()));
      EXPECT_TRUE(same_bits(operands.grad_qkv.gpu(), again.grad_qkv.gpu()));
    }
  }
}

}  // namespace
}  // namespace nibble
