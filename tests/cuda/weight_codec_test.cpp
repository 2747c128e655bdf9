#include "quant/wire/weight_codec.h"

#include <cmath>

#include "cuda/device_fixture.h"
#include "quant/weights_layout.h"

namespace nibble {
namespace {

constexpr auto block = int64_t{4096};
constexpr int64_t elements = 7 * block + 160;

class WeightCodecTest : public DeviceTest {};

// The tensors have boundaries inside blocks and inside groups of 32, and gaps; the last block is not full.
const std::vector<DecayingRange> ranges = {{.offset = 0, .count = 3 * block, .decay = true},
                                           {.offset = 3 * block, .count = 16, .decay = false},
                                           {.offset = 3 * block + 16, .count = 1000, .decay = true},
                                           {.offset = 4 * block, .count = 700, .decay = false},
                                           {.offset = 5 * block - 16, .count = 2 * block + 100, .decay = true}};

// A codec and its packed bytes in an arena of their own on one device.
class Codec {
 public:
  Codec(WeightFormat format, DeviceKind device) : arena_("test", device) {
    const WeightCodec measured(arena_, format, layout_);
    const auto packed_bytes = static_cast<int64_t>(measured.packed_bytes());
    allocate_tensor(arena_, DType::u8, {packed_bytes});
    arena_.commit();
    codec_ = std::make_unique<WeightCodec>(arena_, format, layout_);
    packed_ = allocate_tensor(arena_, DType::u8, {packed_bytes});
  }
  const WeightCodec* operator->() const { return codec_.get(); }
  const Tensor& packed() const { return packed_; }

 private:
  Layout layout_ = layout_of(ranges, elements);
  Arena arena_;
  std::unique_ptr<WeightCodec> codec_;
  Tensor packed_;
};

void expect_same_bits(TwinTensor& weights, const char* what) {
  weights.upload();
  for (const WeightFormat format : {WeightFormat::fp8, WeightFormat::nvfp4}) {
    const Codec cpu(format, DeviceKind::cpu);
    const Codec gpu(format, DeviceKind::cuda);
    TwinTensor unpacked(DType::bf16, {elements});
    cpu->pack(weights.cpu(), 0, elements, cpu.packed());
    cpu->unpack(cpu.packed(), unpacked.cpu());
    gpu->pack(weights.gpu(), 0, 2 * block, gpu.packed());
    gpu->pack(weights.gpu(), 2 * block, elements, gpu.packed());
    gpu->unpack(gpu.packed(), unpacked.gpu());
    EXPECT_TRUE(same_bits(cpu.packed(), gpu.packed())) << what << ", format " << static_cast<int>(format);
    EXPECT_TRUE(same_bits(unpacked)) << what << ", format " << static_cast<int>(format);
    EXPECT_FALSE(same_bits(weights.gpu(), unpacked.gpu())) << what;
  }
}

TEST_F(WeightCodecTest, HasTheBitsOfTheCpu) {
  for (const float scale : {0.02f, 0x1p100f, 0x1p-118f, 0x1p-128f}) {
    TwinTensor weights(DType::bf16, {elements});
    weights.fill_normal(5, scale);
    expect_same_bits(weights, "normal deviates");
  }
}

// Each number of 16 bits, positive or negative, stands in groups and blocks of its size, and then anywhere.
TEST_F(WeightCodecTest, EveryMagnitudeHasTheBitsOfTheCpu) {
  TwinTensor weights(DType::bf16, {elements});
  auto* const values = weights.cpu().as<BFloat16>();
  for (const uint32_t step : {1u, 97u}) {
    for (uint32_t i = 0; i < elements; ++i) {
      const uint32_t magnitude = i * step % 0x7F80;
      values[i] = BFloat16{static_cast<uint16_t>(magnitude | (i % 3 == 0 ? 0x8000u : 0u))};
    }
    expect_same_bits(weights, "every magnitude");
  }
}

TEST_F(WeightCodecTest, WhatIsNotFiniteHasTheBitsOfTheCpu) {
  TwinTensor weights(DType::bf16, {elements});
  weights.fill_normal(6);
  auto* const values = weights.cpu().as<BFloat16>();
  values[40] = BFloat16{0x7F80};
  values[block + 50] = BFloat16{0xFFC1};
  values[3 * block + 5] = BFloat16{0x7F80};   // not rounded
  values[3 * block + 20] = BFloat16{0xFF80};  // in a block that travels in BF16
  values[elements - 100] = BFloat16{0x7FFF};
  expect_same_bits(weights, "not finite");
}

}  // namespace
}  // namespace nibble
