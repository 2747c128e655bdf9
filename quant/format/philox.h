// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011), and the key and
// counter that nibble gives it. Every random bit of a run is a pure function of (run seed, step, micro-batch, tensor,
// index, purpose): law 3 of docs/architecture.md. docs/numerics.md states the same layout in prose.
#pragma once

#include <cstdint>

#include "quant/format/host_device.h"

namespace nibble {

struct PhiloxBlock {
  uint32_t word[4];
};

// The use of the random bits. The values are part of the numerics contract: never renumber them.
enum class Purpose : uint8_t {
  weight_init = 1,
  master_rounding = 2,  // FP32 update -> BF16 master weight
  sample_order = 3,
  generation = 4,
  hadamard_signs = 5,
  moment_m_rounding = 6,  // FP32 update -> BF16 Adam moments
  moment_v_rounding = 7,
  forward_x = 16,  // rounding noise of each GEMM operand
  forward_w = 17,
  grad_input_dy = 18,
  grad_input_w = 19,
  grad_weight_dy = 20,
  grad_weight_x = 21,
};

// One independent stream of random blocks. Limits: micro_batch and tensor_id below 2^24, index below 2^40.
struct NoiseStream {
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t micro_batch = 0;  // index in the global list of micro-batches of the step
  uint32_t tensor_id = 0;    // position in the model's parameter table
  Purpose purpose = Purpose::weight_init;
};

NIBBLE_HOST_DEVICE PhiloxBlock philox4x32_10(const PhiloxBlock& counter, uint32_t key0, uint32_t key1) {
  PhiloxBlock c = counter;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c.word[2];
    c = PhiloxBlock{{static_cast<uint32_t>(product1 >> 32) ^ c.word[1] ^ key0, static_cast<uint32_t>(product1),
                     static_cast<uint32_t>(product0 >> 32) ^ c.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

// Returns the 16 random bytes of block `index` of a stream.
//   key     = (seed low 32, seed high 32)
//   counter = (index low 32, index bits 32..39 | micro_batch << 8, step, tensor_id | purpose << 24)
NIBBLE_HOST_DEVICE PhiloxBlock random_block(const NoiseStream& stream, uint64_t index) {
  const PhiloxBlock counter{{static_cast<uint32_t>(index),
                             (static_cast<uint32_t>(index >> 32) & 0xFFu) | (stream.micro_batch << 8), stream.step,
                             (stream.tensor_id & 0xFFFFFFu) | (static_cast<uint32_t>(stream.purpose) << 24)}};
  return philox4x32_10(counter, static_cast<uint32_t>(stream.seed), static_cast<uint32_t>(stream.seed >> 32));
}

// Returns byte j (0..15) of a block: byte j%4, counted from the least significant, of word j/4.
NIBBLE_HOST_DEVICE uint32_t random_byte(const PhiloxBlock& block, int j) {
  return (block.word[j >> 2] >> (8 * (j & 3))) & 0xFFu;
}

}  // namespace nibble
