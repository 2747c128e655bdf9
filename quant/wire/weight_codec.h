// The code in which weights travel from the rank that updates them to all ranks: rounded to FP8 or NVFP4 and packed.
//
// The weights of linear layers (tensors that decay) are rounded; everything else keeps its BF16 bits. The flat buffer
// is cut into blocks of 4096 elements, so the rounded value of a weight does not depend on the number of ranks. A block
// that is full and all of which is rounded travels as codes and scales. Any other block travels as BF16 numbers, of
// which those to be rounded are rounded. docs/numerics.md states the rounding. All devices give the same bits.
//
// Packed blocks follow each other, each a multiple of 16 bytes:
//   fp8    4096 E4M3 codes, 128 E8M0 scales (8.25 bits a weight)
//   nvfp4  4096 E2M1 codes, the even element in the low nibble, 256 E4M3 scales, one E8M0 power of two, 15 zeros
//          (4.53 bits)
//   else   BF16, as many as the block has
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
  uint64_t offset = 0;       // where the block's bytes begin among the packed ones
  uint32_t elements = 0;     // 4096, fewer in the last block
  uint32_t coded = 0;        // 1: travels as codes
  uint32_t rounded[8] = {};  // bit i % 32 of word i / 32: elements [16 i, 16 i + 16) are rounded
};

class WeightCodec {
 public:
  // format is fp8 or nvfp4. The constructor takes a table of 48 bytes a block from the arena, in the measuring pass and
  // again after commit(); it is on the weights' device.
  WeightCodec(Arena& arena, WeightFormat format, const Layout& layout);

  uint64_t packed_bytes() const { return offset(elements_); }
  // Returns where the bytes of the weights from `element` on begin. `element` is the beginning of a block, or the end
  // of the buffer.
  uint64_t offset(uint64_t element) const;

  // `weights` is bf16, the whole flat buffer; `packed` is u8 [packed_bytes]. pack() fills in the bytes of elements
  // [begin, end), whole blocks; unpack() sets all weights. A NaN or infinity makes NaN of every weight that shares its
  // largest scale.
  void pack(const Tensor& weights, uint64_t begin, uint64_t end, const Tensor& packed) const;
  void unpack(const Tensor& packed, const Tensor& weights) const;

 private:
  WeightFormat format_;
  uint64_t elements_;
  std::vector<uint64_t> offsets_;  // [blocks + 1]
  Tensor table_;                   // u8: WeightBlock [blocks]
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
