#include "quant/wire/weight_codec.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "dist/base/vectorize.h"
#include "dist/device/dispatch.h"
#include "dist/device/profile.h"
#include "dist/device/thread_pool.h"
#include "quant/tensor/tensor_copy.h"
#include "quant/wire/weight_rounding.h"

namespace nibble {
namespace {

using namespace weight_rounding;

constexpr uint64_t most_raw_bytes = block * sizeof(BFloat16);  // of a block
constexpr uint64_t fp8_bytes = block + block / fp8_group;
constexpr uint64_t nvfp4_bytes = block / 2 + block / nvfp4_group + 16;
constexpr size_t blocks_at_once = 16;

uint64_t packed_bytes_of(const WeightBlock& entry, WeightFormat format) {
  if (entry.kind != WeightBlock::Kind::coded) return entry.halves * sizeof(BFloat16);
  return format == WeightFormat::fp8 ? fp8_bytes : nvfp4_bytes;
}

// `packed` holds the codes, then the scales.
NIBBLE_VECTORIZE void encode_fp8(const BFloat16* __restrict weights, uint8_t* __restrict packed) {
  for (int group = 0; group < block / fp8_group; ++group) {
    const BFloat16* const from = weights + group * fp8_group;
    uint8_t* const codes = packed + group * fp8_group;
    uint32_t largest_here = 0;
    for (int i = 0; i < fp8_group; ++i) largest_here = std::max(largest_here, magnitude(from[i]));
    const uint32_t power = fp8_power(largest_here);
    const float factor = power_reciprocal(power);
    uint32_t wide[fp8_group];  // loops over numbers of one width compile to whole vectors
    for (int i = 0; i < fp8_group; ++i) wide[i] = e4m3_nearest(element(from[i]) * factor);
    for (int i = 0; i < fp8_group; ++i) codes[i] = static_cast<uint8_t>(wide[i]);
    packed[block + group] = static_cast<uint8_t>(power);
  }
}

NIBBLE_VECTORIZE void decode_fp8(const uint8_t* __restrict packed, BFloat16* __restrict weights) {
  for (int group = 0; group < block / fp8_group; ++group) {
    const uint32_t power = packed[block + group];
    const uint8_t* const codes = packed + group * fp8_group;
    for (int i = 0; i < fp8_group; ++i) weights[group * fp8_group + i] = fp8_decode(codes[i], power);
  }
}

// `packed` holds the codes, then the scales, then the power.
NIBBLE_VECTORIZE void encode_nvfp4(const BFloat16* __restrict weights, uint8_t* __restrict packed) {
  constexpr int groups = block / nvfp4_group;
  uint32_t of_group[groups];
  uint32_t of_block = 0;
  for (int group = 0; group < groups; ++group) {
    uint32_t of_this = 0;
    for (int i = 0; i < nvfp4_group; ++i) of_this = std::max(of_this, magnitude(weights[group * nvfp4_group + i]));
    of_group[group] = of_this;
    of_block = std::max(of_block, of_this);
  }
  const uint32_t power = nvfp4_power(of_block);
  uint32_t scales[groups];
  float factors[groups];
  for (int group = 0; group < groups; ++group) {
    scales[group] = nvfp4_scale(of_group[group], power);
    factors[group] = 1.0f / nvfp4_unit(scales[group], power);
  }
  for (int group = 0; group < groups; ++group) {
    const BFloat16* const from = weights + group * nvfp4_group;
    const float factor = factors[group];
    uint32_t codes[nvfp4_group];
    for (int i = 0; i < nvfp4_group; ++i) codes[i] = e2m1_nearest(element(from[i]) * factor);
    for (int half = 0; half < 2; ++half) {
      uint32_t word = 0;
      for (int i = 0; i < 8; ++i) word |= codes[8 * half + i] << (4 * i);
      std::memcpy(packed + group * (nvfp4_group / 2) + 4 * half, &word, sizeof word);
    }
  }
  uint8_t* const tail = packed + block / 2;
  for (int group = 0; group < groups; ++group) tail[group] = static_cast<uint8_t>(scales[group]);
  for (int i = 0; i < 16; ++i) tail[groups + i] = static_cast<uint8_t>(i == 0 ? power : 0);
}

NIBBLE_VECTORIZE void decode_nvfp4(const uint8_t* __restrict packed, BFloat16* __restrict weights) {
  const uint32_t power = packed[block / 2 + block / nvfp4_group];
  for (int group = 0; group < block / nvfp4_group; ++group) {
    const float unit = nvfp4_unit(packed[block / 2 + group], power);
    const uint8_t* const from = packed + group * (nvfp4_group / 2);
    uint32_t codes[nvfp4_group];
    for (int half = 0; half < 2; ++half) {
      uint32_t word;
      std::memcpy(&word, from + 4 * half, sizeof word);
      for (int i = 0; i < 8; ++i) codes[8 * half + i] = (word >> (4 * i)) & 15u;
    }
    for (int i = 0; i < nvfp4_group; ++i) weights[group * nvfp4_group + i] = nvfp4_decode(codes[i], unit);
  }
}

void encode(WeightFormat format, const BFloat16* weights, uint8_t* packed) {
  format == WeightFormat::fp8 ? encode_fp8(weights, packed) : encode_nvfp4(weights, packed);
}
void decode(WeightFormat format, const uint8_t* packed, BFloat16* weights) {
  format == WeightFormat::fp8 ? decode_fp8(packed, weights) : decode_nvfp4(packed, weights);
}

// Packs a block that is shorter than the scales' blocks: zeros, which change no scale, stand for the numbers that it
// lacks.
void pack_rounded(WeightFormat format, const WeightBlock& entry, const BFloat16* weights, uint8_t* packed) {
  std::array<BFloat16, block> values{};
  std::copy_n(weights, entry.halves, values.begin());
  std::array<uint8_t, std::max(fp8_bytes, nvfp4_bytes)> codes;
  encode(format, values.data(), codes.data());
  decode(format, codes.data(), values.data());
  std::memcpy(packed, values.data(), entry.halves * sizeof(BFloat16));
}

WeightPacking packing(WeightFormat format, const Tensor& table, const Tensor& weights, const Tensor& packed) {
  return {.format = format,
          .table = reinterpret_cast<const WeightBlock*>(table.as<uint8_t>()),
          .first = 0,
          .end = static_cast<uint64_t>(table.elements()) / sizeof(WeightBlock),
          .weights = weights,
          .packed = packed};
}

// A block, and where it lies.
struct PlacedBlock {
  uint64_t first_element = 0;  // of the logical order
  WeightBlock block;
};

std::vector<PlacedBlock> blocks_of(const Layout& layout, WeightFormat format) {
  std::vector<PlacedBlock> blocks;
  uint64_t offset = 0;
  for (uint32_t index = 0; index < layout.tensors().size(); ++index) {
    const TensorLayout& tensor = layout.tensors()[index];
    const bool rounds = tensor.decay && tensor.width == sizeof(BFloat16);
    const uint64_t step = most_raw_bytes / tensor.width;
    for (const Range& unit : tensor.units()) {
      const Range whole = layout.with_gap(index, unit);
      for (uint64_t first = whole.begin; first < whole.end; first += step) {
        const uint64_t count = std::min(step, whole.end - first);
        WeightBlock entry{.offset = offset,
                          .weight = layout.weight_byte(first) / sizeof(BFloat16),
                          .halves = static_cast<uint32_t>(count * tensor.width / sizeof(BFloat16))};
        if (rounds) entry.kind = count == block ? WeightBlock::Kind::coded : WeightBlock::Kind::rounded;
        blocks.push_back({first, entry});
        offset += packed_bytes_of(entry, format);
      }
    }
  }
  return blocks;
}

}  // namespace

namespace cpu {

void pack_weights(const WeightPacking& problem) {
  parallel_for(problem.end - problem.first, blocks_at_once, [&](size_t begin, size_t end) {
    for (size_t i = problem.first + begin; i < problem.first + end; ++i) {
      const WeightBlock& entry = problem.table[i];
      const BFloat16* const weights = static_cast<const BFloat16*>(problem.weights.data()) + entry.weight;
      uint8_t* const packed = problem.packed.as<uint8_t>() + entry.offset;
      switch (entry.kind) {
        case WeightBlock::Kind::raw: std::memcpy(packed, weights, entry.halves * sizeof(BFloat16)); break;
        case WeightBlock::Kind::rounded: pack_rounded(problem.format, entry, weights, packed); break;
        case WeightBlock::Kind::coded: encode(problem.format, weights, packed); break;
      }
    }
  });
}

void unpack_weights(const WeightPacking& problem) {
  parallel_for(problem.end - problem.first, blocks_at_once, [&](size_t begin, size_t end) {
    for (size_t i = problem.first + begin; i < problem.first + end; ++i) {
      const WeightBlock& entry = problem.table[i];
      BFloat16* const weights = static_cast<BFloat16*>(problem.weights.data()) + entry.weight;
      const uint8_t* const packed = problem.packed.as<uint8_t>() + entry.offset;
      if (entry.kind == WeightBlock::Kind::coded) {
        decode(problem.format, packed, weights);
      } else {
        std::memcpy(weights, packed, entry.halves * sizeof(BFloat16));
      }
    }
  });
}

}  // namespace cpu

WeightCodec::WeightCodec(Arena& arena, WeightFormat format, const Layout& layout)
    : format_(format), elements_(layout.elements()), weight_bytes_(layout.weight_bytes()) {
  NIBBLE_CHECK(format != WeightFormat::bf16, "BF16 weights travel as they are");
  std::vector<WeightBlock> blocks;
  for (const PlacedBlock& placed : blocks_of(layout, format)) {
    blocks.push_back(placed.block);
    first_elements_.push_back(placed.first_element);
    offsets_.push_back(placed.block.offset);
    packed_bytes_ = placed.block.offset + packed_bytes_of(placed.block, format);
  }
  const std::span<const std::byte> bytes = std::as_bytes(std::span(blocks));
  table_ = allocate_tensor(arena, DType::u8, {narrow<int64_t>(bytes.size())});
  if (arena.measuring()) return;
  const HostStage stage(table_);
  std::ranges::copy(bytes, stage.bytes().begin());
  stage.finish();
}

size_t WeightCodec::block_at(uint64_t element) const {
  const auto found = std::ranges::lower_bound(first_elements_, element);
  NIBBLE_CHECK(found == first_elements_.end() ? element == elements_ : *found == element, "beginning of a block");
  return static_cast<size_t>(found - first_elements_.begin());
}

uint64_t WeightCodec::offset(uint64_t element) const {
  const size_t index = block_at(element);
  return index == offsets_.size() ? packed_bytes_ : offsets_[index];
}

void WeightCodec::pack(const Tensor& weights, uint64_t begin, uint64_t end, const Tensor& packed) const {
  const ProfileScope scope(OperatorFamily::reduction, "pack_weights");
  NIBBLE_CHECK(weights.bytes() == weight_bytes_, "weights of the layout");
  NIBBLE_CHECK(packed.bytes() == packed_bytes() && begin <= end, "packed weights");
  WeightPacking problem = packing(format_, table_, weights, packed);
  problem.first = block_at(begin);
  problem.end = block_at(end);
  NIBBLE_DISPATCH(weights.device(), pack_weights, problem);
}

void WeightCodec::unpack(const Tensor& packed, const Tensor& weights) const {
  const ProfileScope scope(OperatorFamily::reduction, "unpack_weights");
  NIBBLE_CHECK(weights.bytes() == weight_bytes_, "weights of the layout");
  NIBBLE_CHECK(packed.bytes() == packed_bytes(), "packed weights");
  const WeightPacking problem = packing(format_, table_, weights, packed);
  NIBBLE_DISPATCH(weights.device(), unpack_weights, problem);
}

}  // namespace nibble
