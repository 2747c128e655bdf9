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

constexpr uint64_t together = 16;  // elements of which all are rounded or none
constexpr uint64_t fp8_bytes = block + block / fp8_group;
constexpr uint64_t nvfp4_bytes = block / 2 + block / nvfp4_group + 16;
constexpr size_t blocks_at_once = 16;

uint64_t coded_bytes(WeightFormat format) {
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

bool is_rounded(const WeightBlock& entry, uint64_t element) {
  const uint64_t bit = element / together;
  return ((entry.rounded[bit / 32] >> (bit % 32)) & 1u) != 0;
}

// Packs BF16 numbers of which some are rounded. While the scales are found, the others count as zeros, which change no
// scale.
void pack_mixed(WeightFormat format, const WeightBlock& entry, const BFloat16* weights, uint8_t* packed) {
  std::array<BFloat16, block> values{};
  for (uint64_t i = 0; i < entry.elements; ++i) {
    if (is_rounded(entry, i)) values[i] = weights[i];
  }
  std::array<uint8_t, std::max(fp8_bytes, nvfp4_bytes)> codes;
  encode(format, values.data(), codes.data());
  decode(format, codes.data(), values.data());
  for (uint64_t i = 0; i < entry.elements; ++i) {
    if (!is_rounded(entry, i)) values[i] = weights[i];
  }
  std::memcpy(packed, values.data(), entry.elements * sizeof(BFloat16));
}

WeightPacking packing(WeightFormat format, const Tensor& table, const Tensor& weights, const Tensor& packed) {
  return {.format = format,
          .table = reinterpret_cast<const WeightBlock*>(table.as<uint8_t>()),
          .first = 0,
          .end = static_cast<uint64_t>(table.elements()) / sizeof(WeightBlock),
          .weights = weights,
          .packed = packed};
}

std::vector<WeightBlock> blocks_of(const Layout& layout) {
  const uint64_t elements = layout.elements();
  std::vector<WeightBlock> blocks(div_ceil<uint64_t>(elements, block));
  for (size_t i = 0; i < blocks.size(); ++i) {
    blocks[i].elements = static_cast<uint32_t>(std::min<uint64_t>(block, elements - i * block));
  }
  for (const TensorLayout& tensor : layout.tensors()) {
    if (!tensor.decay) continue;
    for (uint64_t i = tensor.offset; i < tensor.offset + tensor.count; i += together) {
      const uint64_t bit = i % block / together;
      blocks[i / block].rounded[bit / 32] |= uint32_t{1} << (bit % 32);
    }
  }
  for (WeightBlock& entry : blocks) {
    entry.coded = std::ranges::all_of(entry.rounded, [](uint32_t word) { return word == ~0u; }) ? 1 : 0;
  }
  return blocks;
}

}  // namespace

namespace cpu {

void pack_weights(const WeightPacking& problem) {
  parallel_for(problem.end - problem.first, blocks_at_once, [&](size_t begin, size_t end) {
    for (size_t i = problem.first + begin; i < problem.first + end; ++i) {
      const WeightBlock& entry = problem.table[i];
      const BFloat16* const weights = problem.weights.as<BFloat16>() + i * block;
      uint8_t* const packed = problem.packed.as<uint8_t>() + entry.offset;
      if (entry.coded != 0) {
        encode(problem.format, weights, packed);
      } else if (std::ranges::all_of(entry.rounded, [](uint32_t word) { return word == 0; })) {
        std::memcpy(packed, weights, entry.elements * sizeof(BFloat16));
      } else {
        pack_mixed(problem.format, entry, weights, packed);
      }
    }
  });
}

void unpack_weights(const WeightPacking& problem) {
  parallel_for(problem.end - problem.first, blocks_at_once, [&](size_t begin, size_t end) {
    for (size_t i = problem.first + begin; i < problem.first + end; ++i) {
      const WeightBlock& entry = problem.table[i];
      BFloat16* const weights = problem.weights.as<BFloat16>() + i * block;
      const uint8_t* const packed = problem.packed.as<uint8_t>() + entry.offset;
      if (entry.coded != 0) {
        decode(problem.format, packed, weights);
      } else {
        std::memcpy(weights, packed, entry.elements * sizeof(BFloat16));
      }
    }
  });
}

}  // namespace cpu

WeightCodec::WeightCodec(Arena& arena, WeightFormat format, const Layout& layout)
    : format_(format), elements_(layout.elements()) {
  NIBBLE_CHECK(format != WeightFormat::bf16, "BF16 weights travel as they are");
  std::vector<WeightBlock> blocks = blocks_of(layout);
  uint64_t offset = 0;
  for (WeightBlock& entry : blocks) {
    entry.offset = offset;
    offsets_.push_back(offset);
    offset += entry.coded != 0 ? coded_bytes(format) : entry.elements * sizeof(BFloat16);
  }
  offsets_.push_back(offset);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(blocks));
  table_ = allocate_tensor(arena, DType::u8, {narrow<int64_t>(bytes.size())});
  if (arena.measuring()) return;
  const HostStage stage(table_);
  std::ranges::copy(bytes, stage.bytes().begin());
  stage.finish();
}

uint64_t WeightCodec::offset(uint64_t element) const {
  NIBBLE_CHECK(element == elements_ || (element < elements_ && element % block == 0), "beginning of a block");
  return offsets_[div_ceil<uint64_t>(element, block)];
}

void WeightCodec::pack(const Tensor& weights, uint64_t begin, uint64_t end, const Tensor& packed) const {
  const ProfileScope scope(OperatorFamily::reduction, "pack_weights");
  NIBBLE_CHECK(static_cast<uint64_t>(weights.elements()) == elements_, "flat weights");
  NIBBLE_CHECK(packed.bytes() == packed_bytes() && offset(begin) <= offset(end), "packed weights");
  WeightPacking problem = packing(format_, table_, weights, packed);
  problem.first = div_ceil<uint64_t>(begin, block);
  problem.end = div_ceil<uint64_t>(end, block);
  NIBBLE_DISPATCH(weights.device(), pack_weights, problem);
}

void WeightCodec::unpack(const Tensor& packed, const Tensor& weights) const {
  const ProfileScope scope(OperatorFamily::reduction, "unpack_weights");
  NIBBLE_CHECK(static_cast<uint64_t>(weights.elements()) == elements_, "flat weights");
  NIBBLE_CHECK(packed.bytes() == packed_bytes(), "packed weights");
  const WeightPacking problem = packing(format_, table_, weights, packed);
  NIBBLE_DISPATCH(weights.device(), unpack_weights, problem);
}

}  // namespace nibble
