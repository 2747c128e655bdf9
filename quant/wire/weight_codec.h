// The code in which weights travel from the rank that updates them to all ranks: rounded to FP8 or NVFP4 and packed.
//
// The weights of linear layers (tensors that decay, of BF16 numbers) are rounded; everything else keeps its bits. A
// tensor is cut into blocks of 4096 elements, counted from the start of each of its units (dist/zero/layout.h), so the
// rounded value of a weight depends neither on the number of ranks nor on other tensors. A full block of a rounded
// tensor travels as codes and scales; a shorter one, the unit's last, travels as the BF16 numbers to which it is
// rounded. The gap after a tensor belongs to its last block. docs/numerics.md states the rounding. All devices give the
// same bits.
//
// Packed blocks follow each other, each a multiple of 16 bytes:
//   fp8    4096 E4M3 codes, 128 E8M0 scales (8.25 bits a weight)
//   nvfp4  4096 E2M1 codes, the even element in the low nibble, 256 E4M3 scales, one E8M0 power of two, 15 zeros
//          (4.53 bits)
//   else   the numbers as they are stored
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dist/base/enum_names.h"
#include "dist/device/arena.h"
#include "dist/zero/layout.h"
#include "quant/tensor/tensor.h"

namespace nibble {

enum class WeightFormat : uint8_t { bf16, fp8, nvfp4 };
constexpr auto enum_names(WeightFormat) {
  return std::to_array<EnumName<WeightFormat>>(
      {{WeightFormat::bf16, "bf16"}, {WeightFormat::fp8, "fp8"}, {WeightFormat::nvfp4, "nvfp4"}});
}

struct WeightBlock {
  enum class Kind : uint32_t { raw, rounded, coded };
  uint64_t offset = 0;  // where the block's bytes begin among the packed ones
  uint64_t weight = 0;  // where it begins among the weights, counted in halves
  uint32_t halves = 0;  // numbers of 16 bits, a multiple of 8: its BF16 weights, or the halves of its FP32 weights
  Kind kind = Kind::raw;
};

class WeightCodec {
 public:
  // format is fp8 or nvfp4. The constructor takes a table of 24 bytes a block from the arena, in the measuring pass and
  // again after commit(); it is on the weights' device.
  WeightCodec(Arena& arena, WeightFormat format, const Layout& layout);

  uint64_t packed_bytes() const { return packed_bytes_; }
  // Returns where the bytes of the weights from `element` of the logical order on begin. `element` is the beginning of
  // a block, or the end of the order.
  uint64_t offset(uint64_t element) const;

  // `weights` are those of the whole layout; `packed` is u8 [packed_bytes]. pack() fills in the bytes of elements
  // [begin, end) of the logical order, whole blocks; unpack() sets all weights. A NaN or infinity makes NaN of every
  // weight that shares its largest scale.
  void pack(const Tensor& weights, uint64_t begin, uint64_t end, const Tensor& packed) const;
  void unpack(const Tensor& packed, const Tensor& weights) const;

 private:
  size_t block_at(uint64_t element) const;

  WeightFormat format_;
  uint64_t elements_;
  uint64_t weight_bytes_;
  uint64_t packed_bytes_ = 0;
  std::vector<uint64_t> first_elements_;  // [blocks], of the logical order
  std::vector<uint64_t> offsets_;         // [blocks]
  Tensor table_;                          // u8: WeightBlock [blocks]
};

// The work of one call: blocks [first, end) of the table, which lies on the device of the tensors.
struct WeightPacking {
  WeightFormat format = WeightFormat::fp8;
  const WeightBlock* table = nullptr;
  uint64_t first = 0;
  uint64_t end = 0;
  Tensor weights;
  Tensor packed;
};
namespace cpu {
void pack_weights(const WeightPacking& problem);
void unpack_weights(const WeightPacking& problem);
}  // namespace cpu
namespace cuda {
void pack_weights(const WeightPacking& problem);
void unpack_weights(const WeightPacking& problem);
}  // namespace cuda

}  // namespace nibble
