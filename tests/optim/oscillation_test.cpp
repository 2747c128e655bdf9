// Tests of OsciReset against its definition, and of its state in checkpoints.
#include "optim/oscillation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "quant/format/philox.h"

namespace nibble {
namespace {

constexpr size_t elements = 20000;
constexpr OscillationConfig config{.first_step = 12, .every = 10, .window = 4, .threshold = 4};

// Returns steps of very different sizes around the values where rounding changes; every seventh element is not
// quantised.
float walk(size_t i, uint64_t step) {
  const auto word = philox4x32_10({{static_cast<uint32_t>(i), static_cast<uint32_t>(step), 2, 3}}, 5, 6).word[0];
  const float noise = static_cast<float>(word) / 4294967296.0F - 0.5F;
  const float size = std::ldexp(1.0F, -static_cast<int>(i % 12));
  return 0.25F + static_cast<float>(i % 5) + size * noise;
}
float rounded(float weight, size_t i) {
  return i % 7 == 0 ? std::numeric_limits<float>::quiet_NaN() : std::nearbyint(2 * weight) / 2;
}

// Weights [begin, end) that follow the walk: an update moves them by the walk's step, whatever is written into them.
struct Weights {
  size_t begin, end;
  std::vector<float> values;

  Weights(size_t first, size_t last) : begin(first), end(last) {
    for (size_t i = begin; i < end; ++i) values.push_back(walk(i, 0));
  }
  void update(uint64_t step) {
    for (size_t i = begin; i < end; ++i) values[i - begin] += walk(i, step + 1) - walk(i, step);
  }
  Oscillation::Shard shard() {
    return {.read_weights = [this](std::span<float> to) { std::ranges::copy(values, to.begin()); },
            .read_quantized =
                [this](std::span<float> to) {
                  for (size_t i = begin; i < end; ++i) to[i - begin] = rounded(values[i - begin], i);
                },
            .write_weights = [this](std::span<const float> from) { values.assign(from.begin(), from.end()); }};
  }
};

class Tracked {
 public:
  Tracked(size_t begin, size_t end) : weights(begin, end) {
    Oscillation(arena_, config, end - begin);
    arena_.commit();
    oscillation.emplace(arena_, config, end - begin);
  }
  uint64_t step(uint64_t index) {
    oscillation->before_update(index, weights.shard());
    weights.update(index);
    return oscillation->after_update(index, weights.shard());
  }

  Weights weights;
  std::optional<Oscillation> oscillation;

 private:
  Arena arena_{"oscillation"};
};

// The definition of OsciReset, window by window.
struct Reference {
  Weights weights{0, elements};
  std::vector<float> weight_path, quantized_path;

  uint64_t step(uint64_t index) {
    const std::vector<float> before = weights.values;
    weights.update(index);
    const uint64_t opened = index / config.every * config.every;
    const uint64_t place = index - opened;
    if (opened < config.first_step || place > config.window) return 0;
    if (place == 0) {
      weight_path.assign(elements, 0);
      quantized_path.assign(elements, 0);
      return 0;
    }
    uint64_t resets = 0;
    for (size_t i = 0; i < elements; ++i) {
      const float now = weights.values[i];
      weight_path[i] += std::abs(now - before[i]);
      quantized_path[i] += std::abs(rounded(now, i) - rounded(before[i], i));
      if (place < config.window || !(quantized_path[i] / weight_path[i] >= config.threshold)) continue;
      weights.values[i] = rounded(now, i);
      ++resets;
    }
    return resets;
  }
};

TEST(Oscillation, ResetsWhatTheDefinitionResets) {
  Tracked tracked(0, elements);
  Reference reference;
  for (uint64_t step = 0; step < 40; ++step) {
    const uint64_t resets = tracked.step(step);
    EXPECT_EQ(resets, reference.step(step)) << step;
    ASSERT_EQ(tracked.weights.values, reference.weights.values) << step;
    const bool last = step == 24 || step == 34;
    EXPECT_EQ(resets > elements / 100 && resets < elements / 4 * 3, last) << step << ": " << resets;
    EXPECT_EQ(tracked.oscillation->resets_at(step), last);
    const uint64_t done = step + 1;
    const bool open = (done >= 21 && done <= 24) || (done >= 31 && done <= 34);
    EXPECT_EQ(tracked.oscillation->state(done).size(), open ? 3U : 0U) << done;
  }
}

TEST(Oscillation, ShardsAndRestartsChangeNothing) {
  Tracked whole(0, elements);
  for (uint64_t step = 0; step < 30; ++step) whole.step(step);
  for (const uint64_t stop : {20U, 21U, 22U, 24U, 25U}) {
    for (const size_t cut : {size_t{0}, size_t{777}, elements}) {
      Tracked left(0, cut);
      Tracked right(cut, elements);
      for (uint64_t step = 0; step < stop; ++step) {
        left.step(step);
        right.step(step);
      }
      Tracked restarted(cut, elements);
      restarted.weights.values = right.weights.values;
      const std::vector<NamedState> saved = right.oscillation->state(stop);
      const std::vector<NamedState> fresh = restarted.oscillation->state(stop);
      ASSERT_EQ(saved.size(), fresh.size());
      for (size_t i = 0; i < saved.size(); ++i) {
        EXPECT_EQ(saved[i].name, fresh[i].name);
        std::copy_n(saved[i].shard.as<float>(), elements - cut, fresh[i].shard.as<float>());
      }
      for (uint64_t step = stop; step < 30; ++step) {
        left.step(step);
        restarted.step(step);
      }
      std::vector<float> values = left.weights.values;
      values.insert(values.end(), restarted.weights.values.begin(), restarted.weights.values.end());
      ASSERT_EQ(values, whole.weights.values) << "stop " << stop << " cut " << cut;
    }
  }
}

}  // namespace
}  // namespace nibble
