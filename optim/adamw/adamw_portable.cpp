// AdamW for the compiler's baseline instruction set.
#include <cmath>

#include "dist/base/vectorize.h"
#include "optim/adamw/adamw_update.h"
#include "quant/format/codec.h"

namespace nibble::cpu {
namespace {

NIBBLE_INLINE void random_halves(const NoiseStream& stream, uint64_t block, uint16_t* halves) {
  for (size_t i = 0; i < adamw_strip / 8; ++i) {
    const PhiloxBlock random = random_block(stream, block + i);
    for (size_t word = 0; word < 4; ++word) {
      halves[8 * i + 2 * word] = static_cast<uint16_t>(random.word[word]);
      halves[8 * i + 2 * word + 1] = static_cast<uint16_t>(random.word[word] >> 16);
    }
  }
}
#include "optim/adamw/adamw_update.inl"

}  // namespace

void adamw_portable(const AdamWUpdate& update, const AdamWBuffers& buffers, uint64_t element, size_t count) {
  update_tensor(update, buffers, element, count);
}

}  // namespace nibble::cpu
