// Tests that AdamW's kernels have the same bits on every instruction-set level.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "adamw_fixture.h"
#include "optim/adamw/adamw_update.h"
#include "quant/format/codec.h"
#include "quant/isa/instruction_set.h"

namespace nibble {
namespace {

// Buffers of one tensor with every kind of number that is rounded: zeros of either sign, subnormal and huge numbers,
// and weights that are not finite.
struct KernelBuffers {
  std::vector<float> gradients, first_moment, second_moment, master;
  std::vector<BFloat16> first_rounded, second_rounded, weights;

  explicit KernelBuffers(size_t count) {
    const std::vector<float> special = {0.0f,     -0.0f,     1e-41f, -1e-41f, 3.4e38f, -3.4e38f,
                                        INFINITY, -INFINITY, NAN,    1.0f,    1e-20f,  3.39e38f};
    for (size_t i = 0; i < count; ++i) {
      const bool ordinary = i % 5 != 0;
      const float weight = ordinary ? noise(1, i) : special[i / 5 % special.size()];
      gradients.push_back(i % 7 == 0 ? 0.0f : std::ldexp(noise(2, i), -static_cast<int>(i % 60)));
      first_moment.push_back(i % 11 == 0 ? 0.0f : noise(3, i) * 1e-2f);
      second_moment.push_back(i % 13 == 0 ? 0.0f : std::abs(noise(4, i)) * 1e-3f);
      master.push_back(weight);
      first_rounded.push_back(bf16_nearest(first_moment[i]));
      second_rounded.push_back(bf16_nearest(second_moment[i]));
      weights.push_back(bf16_nearest(weight));
    }
  }
  cpu::AdamWBuffers of(const Kind& kind) {
    const bool exact = kind.moments == DType::f32;
    const bool has_master = kind.weights == DType::f32 || kind.master == DType::f32;
    return {.gradients = gradients.data(),
            .first_moment_f32 = exact ? first_moment.data() : nullptr,
            .second_moment_f32 = exact ? second_moment.data() : nullptr,
            .first_moment_bf16 = exact ? nullptr : first_rounded.data(),
            .second_moment_bf16 = exact ? nullptr : second_rounded.data(),
            .master = has_master ? master.data() : nullptr,
            .weights_bf16 = kind.weights == DType::bf16 ? weights.data() : nullptr};
  }
  std::vector<uint32_t> bits() const {
    std::vector<uint32_t> all;
    for (const auto* values : {&first_moment, &second_moment, &master}) {
      // The bits of a NaN after arithmetic are not part of the contract.
      for (const float value : *values) all.push_back(std::isnan(value) ? 0x7FC00000u : std::bit_cast<uint32_t>(value));
    }
    for (const auto* values : {&first_rounded, &second_rounded, &weights}) {
      for (const BFloat16 value : *values) all.push_back(std::isnan(to_float(value)) ? 0x7FC0u : value.bits);
    }
    return all;
  }
};

TEST(AdamW, EveryInstructionSetHasTheSameBits) {
  const auto stream = [](Purpose purpose) { return NoiseStream{0x123456789ABCDEFu, 3, 0, 77, purpose}; };
  const cpu::AdamWUpdate update{.beta1 = 0.9f,
                                .complement1 = 0.1f,
                                .beta2 = 0.95f,
                                .complement2 = 0.05f,
                                .correction1 = 2.5f,
                                .correction2 = 5.1f,
                                .epsilon = 1e-8f,
                                .rate = 1e-2f,
                                .decay_rate = 1e-3f,
                                .grad_scale = 0.7f,
                                .weight_noise = stream(Purpose::master_rounding),
                                .first_moment_noise = stream(Purpose::moment_m_rounding),
                                .second_moment_noise = stream(Purpose::moment_v_rounding)};
  constexpr uint64_t element = (uint64_t{1} << 35) - 8 * 24;  // the index of a block exceeds 32 bits on the way
  for (const InstructionSet level : available_instruction_sets()) {
    for (const Kind& kind : all_kinds) {
      for (const size_t count : {1, 7, 127, 128, 129, 1000}) {
        KernelBuffers expected(count);
        KernelBuffers found(count);
        cpu::adamw_portable(update, expected.of(kind), element, count);
        cpu::adamw_kernel(level)(update, found.of(kind), element, count);
        ASSERT_EQ(found.bits(), expected.bits()) << name_of(level) << ", " << count << " elements";
        if (count > 7) {
          ASSERT_NE(found.bits(), KernelBuffers(count).bits());
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
