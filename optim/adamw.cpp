#include "optim/adamw.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "dist/error.h"
#include "dist/profile.h"
#include "dist/thread_pool.h"
#include "optim/adamw_update.h"
#include "quant/codec.h"
#include "quant/instruction_set.h"

namespace nibble {
namespace {

using cpu::AdamWBuffers;
using cpu::AdamWUpdate;

constexpr size_t elements_a_block = 8;  // 16 random bits each
constexpr size_t elements_at_once = 64 * cpu::adamw_strip;

// By repeated squaring: the C library's pow may differ in its last bit between instruction sets.
double power(double base, uint64_t exponent) {
  double result = 1;
  for (double square = base; exponent != 0; exponent >>= 1, square *= square) {
    if ((exponent & 1) != 0) result *= square;
  }
  return result;
}

AdamWUpdate constants(const AdamWConfig& config, const AdamW::Step& step, const ParameterSegment& segment) {
  const auto stream = [&](Purpose purpose) {
    return NoiseStream{step.seed, narrow<uint32_t>(step.step), 0, segment.tensor_id, purpose};
  };
  return {.beta1 = static_cast<float>(config.beta1),
          .complement1 = static_cast<float>(1 - config.beta1),
          .beta2 = static_cast<float>(config.beta2),
          .complement2 = static_cast<float>(1 - config.beta2),
          .correction1 = static_cast<float>(1 / (1 - power(config.beta1, step.step + 1))),
          .correction2 = static_cast<float>(1 / (1 - power(config.beta2, step.step + 1))),
          .epsilon = static_cast<float>(config.epsilon),
          .rate = static_cast<float>(step.learning_rate),
          .decay_rate = segment.decay ? static_cast<float>(step.learning_rate * config.weight_decay) : 0.0f,
          .grad_scale = step.grad_scale,
          .weight_noise = stream(Purpose::master_rounding),
          .first_moment_noise = stream(Purpose::moment_m_rounding),
          .second_moment_noise = stream(Purpose::moment_v_rounding)};
}

template <class T>
T* elements(const Tensor& tensor, uint64_t from) {
  return tensor.empty() || tensor.dtype() != DTypeOf<T>::value ? nullptr : tensor.as<T>() + from;
}

void check_float_dtype(DType dtype, const char* what) {
  if (dtype == DType::f32 || dtype == DType::bf16) return;
  throw Error(ExitCode::bad_config, fmt::format("{} cannot be stored as {}", what, name_of(dtype)), "use fp32 or bf16");
}

}  // namespace

namespace cpu {

AdamWKernel adamw_kernel([[maybe_unused]] InstructionSet level) {
#if defined(__x86_64__)
  if (level >= InstructionSet::avx512) return adamw_avx512;
  if (level >= InstructionSet::avx2) return adamw_avx2;
#endif
  return adamw_portable;
}

}  // namespace cpu

void validate(const AdamWConfig& config) {
  const auto require = [](bool condition, const char* name, double value, const char* remedy) {
    if (!condition) throw Error(ExitCode::bad_config, fmt::format("AdamW's {} is {}", name, value), remedy);
  };
  require(config.beta1 >= 0 && config.beta1 < 1, "beta1", config.beta1, "set it between 0 and 1, 1 excluded");
  require(config.beta2 >= 0 && config.beta2 < 1, "beta2", config.beta2, "set it between 0 and 1, 1 excluded");
  require(static_cast<float>(config.epsilon) > 0 && std::isfinite(config.epsilon), "epsilon", config.epsilon,
          "set it to a small positive number such as 1e-8");
  require(config.weight_decay >= 0 && std::isfinite(config.weight_decay), "weight_decay", config.weight_decay,
          "set it to 0 or more");
  check_float_dtype(config.master_dtype, "master weights");
  check_float_dtype(config.moment_dtype, "Adam's moments");
}

AdamW::AdamW(Arena& arena, const AdamWConfig& config, std::vector<ParameterSegment> segments, uint64_t begin,
             uint64_t end, DType weights_dtype)
    : config_(config), segments_(std::move(segments)), begin_(begin), end_(end), weights_dtype_(weights_dtype) {
  validate(config_);
  check_float_dtype(weights_dtype, "weights");
  NIBBLE_CHECK(begin <= end && begin % elements_a_block == 0, "shard of the optimizer");
  for (const ParameterSegment& segment : segments_) {
    NIBBLE_CHECK(segment.offset % elements_a_block == 0, "parameters start at multiples of 8");
  }
  const auto count = static_cast<int64_t>(end - begin);
  first_moment_ = allocate_tensor(arena, config_.moment_dtype, {count});
  second_moment_ = allocate_tensor(arena, config_.moment_dtype, {count});
  if (weights_dtype == DType::bf16 && config_.master_dtype == DType::f32) {
    master_ = allocate_tensor(arena, DType::f32, {count});
  }
}

void AdamW::set_weights(std::span<const float> values, const Tensor& weights) {
  NIBBLE_CHECK(values.size() == end_ - begin_ && weights.dtype() == weights_dtype_, "values of the shard");
  float* const exact = elements<float>(weights, begin_);
  BFloat16* const rounded = elements<BFloat16>(weights, begin_);
  float* const master = elements<float>(master_, 0);
  for (size_t i = 0; i < values.size(); ++i) {
    if (exact != nullptr) exact[i] = values[i];
    if (rounded != nullptr) rounded[i] = bf16_nearest(values[i]);
    if (master != nullptr) master[i] = values[i];
  }
}

void AdamW::read_weights(std::span<float> values, const Tensor& weights) const {
  NIBBLE_CHECK(values.size() == end_ - begin_ && weights.dtype() == weights_dtype_, "values of the shard");
  const float* const exact = master_.empty() ? elements<float>(weights, begin_) : elements<float>(master_, 0);
  const BFloat16* const rounded = elements<BFloat16>(weights, begin_);
  for (size_t i = 0; i < values.size(); ++i) values[i] = exact != nullptr ? exact[i] : to_float(rounded[i]);
}

void AdamW::step(const Step& step, const Tensor& weights, std::span<const float> gradients) {
  const ProfileScope scope(OperatorFamily::optimizer, "adamw");
  NIBBLE_CHECK(gradients.size() == end_ - begin_, "gradients of the shard");
  NIBBLE_CHECK(weights.dtype() == weights_dtype_ && end_ <= static_cast<uint64_t>(weights.elements()), "flat weights");
  const cpu::AdamWKernel kernel = cpu::adamw_kernel(instruction_set());
  for (const ParameterSegment& segment : segments_) {
    const uint64_t from = std::max(begin_, segment.offset);
    const uint64_t to = std::min(end_, segment.offset + segment.count);
    if (from >= to) continue;
    const AdamWUpdate update = constants(config_, step, segment);
    parallel_for(to - from, elements_at_once, [&](size_t range_begin, size_t range_end) {
      const uint64_t flat = from + range_begin;
      const uint64_t local = flat - begin_;
      const AdamWBuffers at{
          .gradients = gradients.data() + local,
          .first_moment_f32 = elements<float>(first_moment_, local),
          .second_moment_f32 = elements<float>(second_moment_, local),
          .first_moment_bf16 = elements<BFloat16>(first_moment_, local),
          .second_moment_bf16 = elements<BFloat16>(second_moment_, local),
          .master = master_.empty() ? elements<float>(weights, flat) : elements<float>(master_, local),
          .weights_bf16 = elements<BFloat16>(weights, flat)};
      kernel(update, at, flat - segment.offset, range_end - range_begin);
    });
  }
}

std::vector<NamedState> AdamW::state() const {
  std::vector<NamedState> buffers = {{"adam_m", first_moment_}, {"adam_v", second_moment_}};
  if (!master_.empty()) buffers.push_back({"master", master_});
  return buffers;
}

}  // namespace nibble
