// Weights on their way from the rank that updates them to all ranks: rounded to FP8 or NVFP4 and packed.
//
// Rounded are the weights of linear layers (segments that decay); everything else keeps its BF16 bits. The flat buffer
// is cut into the blocks of Partition, so what a weight becomes does not depend on the number of ranks. A block that is
// full and all of which is rounded travels as codes and scales, any other one as BF16 numbers, rounded where they are
// to be. docs/numerics.md states the rounding. The same bits on every device.
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

#include "dist/device/arena.h"
#include "dist/zero/parameter_segment.h"
#include "quant/tensor/tensor.h"

namespace nibble {

enum class WeightFormat : uint8_t { bf16, fp8, nvfp4 };

struct WeightBlock {
  uint64_t offset = 0;       // of its bytes among the packed ones
  uint32_t elements = 0;     // 4096 but in the last one
  uint32_t coded = 0;        // 1: travels as codes
  uint32_t rounded[8] = {};  // bit i % 32 of word i / 32: elements [16 i, 16 i + 16) are rounded
};

class WeightCodec {
 public:
  // format: fp8 or nvfp4. elements: of the flat buffer, a multiple of 16, as are offsets of segments. A table of 48
  // bytes a block comes from the arena, in the measuring pass and again after commit(); it is on the weights' device.
  WeightCodec(Arena& arena, WeightFormat format, std::span<const ParameterSegment> segments, uint64_t elements);

  uint64_t packed_bytes() const { return offset(elements_); }
  // Where the bytes of the weights from `element` on begin: the beginning of a block, or the end of the buffer.
  uint64_t offset(uint64_t element) const;
  // Weights that are rounded.
  uint64_t rounded_weights() const { return rounded_weights_; }

  // weights: bf16, the whole flat buffer; packed: u8 [packed_bytes]. pack() fills in the bytes of elements [begin,
  // end), whole blocks; unpack() sets all weights. A NaN or infinity makes NaN of all that shares its largest scale.
  void pack(const Tensor& weights, uint64_t begin, uint64_t end, const Tensor& packed) const;
  void unpack(const Tensor& packed, const Tensor& weights) const;

 private:
  WeightFormat format_;
  uint64_t elements_;
  uint64_t rounded_weights_ = 0;
  std::vector<uint64_t> offsets_;  // [blocks + 1]
  Tensor table_;                   // u8: WeightBlock [blocks]
};

// Blocks [first, end) of the table, which lies on the device of the tensors.
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
