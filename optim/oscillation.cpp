#include "optim/oscillation.h"

#include <algorithm>
#include <cmath>

#include "dist/base/error.h"
#include "dist/base/vectorize.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t elements_at_once = 8192;

// path += |now - before|; an element whose difference is NaN counts as not moved. Then before = now.
NIBBLE_VECTORIZE void extend_paths(const float* now, float* before, float* path, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float distance = std::fabs(now[i] - before[i]);
    path[i] += distance == distance ? distance : 0.0F;
    before[i] = now[i];
  }
}

// The comparison is a product, so that a path of zero needs no division and an element that did not move is not reset.
bool oscillates(float quantized_path, float weight_path, float threshold) {
  return weight_path > 0 && quantized_path >= threshold * weight_path;
}

std::span<float> all_of(const Tensor& tensor) {
  return {tensor.as<float>(), static_cast<size_t>(tensor.elements())};
}

void extend_paths(const Tensor& now, const Tensor& before, const Tensor& path) {
  parallel_for(static_cast<size_t>(path.elements()), elements_at_once, [&](size_t begin, size_t end) {
    extend_paths(now.as<float>() + begin, before.as<float>() + begin, path.as<float>() + begin, end - begin);
  });
}

}  // namespace

Oscillation::Oscillation(Arena& arena, const OscillationConfig& config, uint64_t elements) : config_(config) {
  NIBBLE_CHECK(arena.device() == DeviceKind::cpu, "oscillation is measured on the CPU");
  NIBBLE_CHECK(config.window > 0 && config.window < config.every && config.threshold > 0, "windows of oscillation");
  for (Tensor* tensor : {&weight_path_, &quantized_path_, &last_quantized_, &weights_, &scratch_}) {
    *tensor = allocate_tensor(arena, DType::f32, {static_cast<int64_t>(elements)});
  }
}

uint64_t Oscillation::position(uint64_t step) const {
  const uint64_t steps = step % config_.every;
  return steps <= config_.window && step - steps >= config_.first_step ? steps : outside;
}

void Oscillation::before_update(uint64_t step, const Shard& shard) {
  if (position(step) != outside && position(step) != 0) shard.read_weights(all_of(weights_));
}

uint64_t Oscillation::after_update(uint64_t step, const Shard& shard) {
  const uint64_t now = position(step);
  if (now == outside) return 0;
  if (now == 0) {
    std::ranges::fill(all_of(weight_path_), 0.0F);
    std::ranges::fill(all_of(quantized_path_), 0.0F);
    shard.read_quantized(all_of(last_quantized_));
    return 0;
  }
  shard.read_weights(all_of(scratch_));
  extend_paths(scratch_, weights_, weight_path_);
  shard.read_quantized(all_of(scratch_));
  extend_paths(scratch_, last_quantized_, quantized_path_);
  return now == config_.window ? reset(shard) : 0;
}

// weights_ and last_quantized_ hold the values after the update.
uint64_t Oscillation::reset(const Shard& shard) {
  const std::span<float> weights = all_of(weights_);
  uint64_t count = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float target = last_quantized_.as<float>()[i];
    if (!std::isfinite(target)) continue;
    if (!oscillates(quantized_path_.as<float>()[i], weight_path_.as<float>()[i], config_.threshold)) continue;
    weights[i] = target;
    ++count;
  }
  if (count > 0) shard.write_weights(weights);
  return count;
}

std::vector<NamedState> Oscillation::state(uint64_t steps) const {
  const uint64_t now = steps == 0 ? outside : position(steps - 1);
  if (now == outside || now == config_.window) return {};
  return {{"weight_path", weight_path_}, {"quantized_path", quantized_path_}, {"quantized", last_quantized_}};
}

}  // namespace nibble
