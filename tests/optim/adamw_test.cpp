// Tests of AdamW against its definition: bits in FP32, accuracy against FP64, stochastic rounding, and ranks.
#include "optim/adamw/adamw.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "adamw_fixture.h"
#include "dist/base/error.h"
#include "dist/device/thread_pool.h"
#include "dist/vector_tensor.h"
#include "quant/format/codec.h"
#include "quant/format/philox.h"

namespace nibble {
namespace {

// Parameters with gaps between them and sizes that fill no whole block.
Layout layout_of(DType dtype) {
  const size_t width = size_of(dtype);
  return {{{.name = "all", .range = {0, 29040}}},
          {vector_tensor(0, 0, 9001, true, width), vector_tensor(1, 9008, 3, false, width),
           vector_tensor(2, 9024, 20007, true, width)}};
}
const std::vector<TensorLayout> parameters = layout_of(DType::f32).tensors();
constexpr uint64_t flat_size = 29040;

bool in_gap(uint64_t i) {
  return std::ranges::none_of(parameters, [&](const TensorLayout& tensor) {
    return !intersect(range_of(tensor), {i, i + 1}).empty();
  });
}

float initial_weight(uint64_t i) {
  return in_gap(i) ? 0.0f : noise(1, i);
}
// Returns zero in gaps, as the model leaves them, and numbers of very different sizes elsewhere.
float gradient(uint64_t step, uint64_t i) {
  return in_gap(i) ? 0.0f : std::ldexp(noise(100 + step, i), -static_cast<int>(i % 20));
}
double rate(uint64_t step) {
  return 1e-2 / static_cast<double>(step + 1);
}
float scale(uint64_t step) {
  return 1.0f / static_cast<float>(step + 1);
}

constexpr uint64_t steps = 5;
constexpr uint64_t seed = 0x123456789ABCDEFu;
const AdamWConfig base_config = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};

using State = std::map<std::string, std::vector<float>>;  // "weights", "adam_m", ... as FP32

void append(std::vector<float>& values, const Tensor& tensor) {
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    values.push_back(tensor.dtype() == DType::f32 ? tensor.as<float>()[i] : to_float(tensor.as<BFloat16>()[i]));
  }
}

std::vector<OwnedSlice> all_slices(const Placement& owned, int rank) {
  return owned_slices(owned, rank, std::vector<bool>(owned.layout().tensors().size(), true));
}

Tensor allocate_weights(Arena& arena, const Layout& layout, DType dtype) {
  return allocate_tensor(arena, dtype, {static_cast<int64_t>(layout.elements())});
}

void update(AdamW& optimizer, const UpdateStep& step, const Tensor& weights, std::span<float> gradient) {
  optimizer.update(step, {.weights = weights, .gradient = tensor_of(gradient, {static_cast<int64_t>(gradient.size())})},
                   {0, gradient.size()});
}

State run(const Kind& kind, int ranks) {
  AdamWConfig config = base_config;
  config.master_dtype = kind.master;
  config.moment_dtype = kind.moments;
  const Layout layout = layout_of(kind.weights);
  const Placement owned = flat(layout, ranks);
  const std::vector<uint64_t> bounds = boundaries(owned);
  Arena arena("test");
  Tensor weights;
  std::vector<std::unique_ptr<AdamW>> optimizers;
  for (int rank = 0; rank < ranks; ++rank) optimizers.push_back(std::make_unique<AdamW>(config));
  planned(arena, [&] {
    weights = allocate_weights(arena, layout, kind.weights);
    for (int rank = 0; rank < ranks; ++rank) {
      optimizers[static_cast<size_t>(rank)]->allocate(arena, layout, all_slices(owned, rank));
    }
    return 0;
  });
  State state;
  for (size_t rank = 0; rank < optimizers.size(); ++rank) {
    AdamW& optimizer = *optimizers[rank];
    std::vector<float> shard;
    for (uint64_t i = bounds[rank]; i < bounds[rank + 1]; ++i) shard.push_back(initial_weight(i));
    optimizer.set_weights(shard, weights);
    for (uint64_t step = 0; step < steps; ++step) {
      for (uint64_t i = 0; i < shard.size(); ++i) shard[i] = gradient(step, bounds[rank] + i);
      update(optimizer, {.step = step, .learning_rate = rate(step), .grad_scale = scale(step), .seed = seed}, weights,
             shard);
    }
    for (const StateArray& array : optimizer.state()) append(state[array.name], array.values);
  }
  append(state["weights"], weights);
  return state;
}

// The header's definition, one element at a time. With Real = float it is the contract, bit for bit; Real = double is
// the exact result.
template <class Real>
struct Reference {
  Kind kind;
  std::vector<Real> weights, first_moment, second_moment, master;

  Real rounded(Real value, Purpose purpose, uint32_t tensor_id, uint64_t step, uint64_t element) const {
    const NoiseStream stream{seed, static_cast<uint32_t>(step), 0, tensor_id, purpose};
    const uint32_t word = random_block(stream, element / 8).word[element % 8 / 2];
    const uint32_t half = element % 2 == 0 ? word & 0xFFFFu : word >> 16;
    return static_cast<Real>(to_float(bf16_stochastic(static_cast<float>(value), half)));
  }

  explicit Reference(const Kind& wanted) : kind(wanted), first_moment(flat_size), second_moment(flat_size) {
    for (uint64_t i = 0; i < flat_size; ++i) {
      const float value = initial_weight(i);
      master.push_back(static_cast<Real>(value));
      weights.push_back(kind.weights == DType::f32 ? static_cast<Real>(value)
                                                   : static_cast<Real>(to_float(bf16_nearest(value))));
    }
    if (kind.master == DType::bf16) master = weights;
    for (uint64_t step = 0; step < steps; ++step) {
      for (const TensorLayout& tensor : parameters) update(step, tensor);
    }
  }

  void update(uint64_t step, const TensorLayout& tensor) {
    const auto correction = [&](double beta) {
      return static_cast<Real>(1 / (1 - std::pow(beta, static_cast<double>(step + 1))));
    };
    const auto real = [](double value) { return static_cast<Real>(value); };
    const Real decay = tensor.decay ? real(rate(step) * base_config.weight_decay) : Real{0};
    for (uint64_t j = 0; j < tensor.count; ++j) {
      const uint64_t i = tensor.offset + j;
      const Real g = static_cast<Real>(gradient(step, i)) * static_cast<Real>(scale(step));
      Real m = real(base_config.beta1) * first_moment[i] + real(1 - base_config.beta1) * g;
      Real v = real(base_config.beta2) * second_moment[i] + real(1 - base_config.beta2) * (g * g);
      const Real direction = (m * correction(base_config.beta1)) /
                             (std::sqrt(v * correction(base_config.beta2)) + real(base_config.epsilon));
      const Real w = master[i] - (real(rate(step)) * direction + decay * master[i]);
      if (kind.moments == DType::bf16) {
        m = rounded(m, Purpose::moment_m_rounding, tensor.tensor_id, step, j);
        v = rounded(v, Purpose::moment_v_rounding, tensor.tensor_id, step, j);
      }
      first_moment[i] = m;
      second_moment[i] = v;
      master[i] = kind.master == DType::f32 ? w : rounded(w, Purpose::master_rounding, tensor.tensor_id, step, j);
      weights[i] = kind.weights == DType::f32 || kind.master == DType::bf16
                       ? master[i]
                       : static_cast<Real>(to_float(bf16_nearest(static_cast<float>(w))));
    }
  }
};

TEST(AdamW, IsItsDefinitionBitForBit) {
  for (const Kind& kind : all_kinds) {
    const State state = run(kind, 1);
    const Reference<float> reference(kind);
    EXPECT_EQ(state.at("weights"), reference.weights);
    EXPECT_EQ(state.at("adam_m"), reference.first_moment);
    EXPECT_EQ(state.at("adam_v"), reference.second_moment);
    const bool has_master = kind.weights == DType::bf16 && kind.master == DType::f32;
    EXPECT_EQ(state.size(), has_master ? 4u : 3u);
    if (has_master) {
      EXPECT_EQ(state.at("master"), reference.master);
    }
  }
}

TEST(AdamW, ShardsAndThreadsDoNotMatter) {
  for (const Kind& kind : all_kinds) {
    const State one = run(kind, 1);
    EXPECT_EQ(one, run(kind, 3));
    EXPECT_EQ(one, run(kind, 20));  // more ranks than blocks
    set_compute_threads(3);
    EXPECT_EQ(one, run(kind, 2));
    set_compute_threads(1);
  }
}

TEST(AdamW, FollowsTheFormulasInDouble) {
  const State state = run({DType::f32, DType::f32, DType::f32}, 1);
  const Reference<double> reference({DType::f32, DType::f32, DType::f32});
  const double epsilon = std::numeric_limits<float>::epsilon() / 2;
  double largest_change = 0;
  for (uint64_t i = 0; i < flat_size; ++i) {
    // These are sums of terms of either sign: in each step they err by a few roundings of the largest gradient.
    double largest = 0;
    for (uint64_t step = 0; step < steps; ++step) largest = std::max(largest, std::abs(double{gradient(step, i)}));
    ASSERT_NEAR(state.at("adam_m")[i], reference.first_moment[i], 5 * steps * epsilon * largest);
    ASSERT_NEAR(state.at("adam_v")[i], reference.second_moment[i], 8 * steps * epsilon * largest * largest);
    // A direction is at most 1/sqrt(1 - beta2) * sqrt(steps) < 10 long here; m errs relative to the largest gradient,
    // while sqrt(v) may be smaller than it by that factor.
    const double direction = 10;
    ASSERT_NEAR(state.at("weights")[i], reference.weights[i],
                steps * epsilon * (2 * std::abs(reference.weights[i]) + rate(0) * 20 * direction))
        << i;
    largest_change = std::max(largest_change, std::abs(reference.weights[i] - double{initial_weight(i)}));
  }
  EXPECT_GT(largest_change, 1e-2);  // thousands of times the tolerance above
}

TEST(AdamW, GapsAreNeverTouched) {
  for (const Kind& kind : all_kinds) {
    const State state = run(kind, 3);
    for (uint64_t i = 0; i < flat_size; ++i) {
      if (!in_gap(i)) continue;
      for (const auto& [name, values] : state) ASSERT_EQ(values[i], 0.0f) << name << " " << i;
    }
  }
}

// With betas of 0 the direction is the gradient's sign: a weight of 1 becomes 1 - 3e-4 = 2^-8 (256 - 0.0768) in FP32.
// BF16's neighbours below 1 are 2^-8 apart, so it must become 1 - 2^-8 with probability 0.0768.
TEST(AdamW, StochasticRoundingIsUnbiased) {
  constexpr uint64_t count = 1 << 18;
  AdamWConfig config = base_config;
  config.beta1 = config.beta2 = 0;
  Arena arena("test");
  const Layout whole = one_vector("whole", count);
  const Placement owned = flat(whole, 1);
  AdamW optimizer(config);
  planned(arena, [&] {
    optimizer.allocate(arena, whole, all_slices(owned, 0));
    return 0;
  });
  std::vector<BFloat16> storage(count);
  const Tensor weights = tensor_of(std::span(storage), {static_cast<int64_t>(count)});
  std::vector<float> gradients(count, 1.0f);
  std::vector<bool> previous(count);
  for (uint64_t step = 0; step < 4; ++step) {
    optimizer.set_weights(std::vector<float>(count, 1.0f), weights);
    update(optimizer, {.step = step, .learning_rate = 3e-4, .grad_scale = 1.0f, .seed = seed}, weights, gradients);
    const double probability = 256 * (1.0 - double{1.0f - 3e-4f});
    double down = 0;
    double pairs = 0;
    double repeats = 0;
    std::vector<bool> now(count);
    for (uint64_t i = 0; i < count; ++i) {
      const float value = to_float(storage[i]);
      ASSERT_TRUE(value == 1.0f || value == 1.0f - 0x1p-8f) << value;
      now[i] = value != 1.0f;
      down += now[i] ? 1 : 0;
      pairs += i > 0 && now[i] && now[i - 1] ? 1 : 0;
      repeats += now[i] && previous[i] ? 1 : 0;
    }
    const auto expect_share = [](double found, double p) {
      const double deviation = std::sqrt(static_cast<double>(count) * p * (1 - p));
      EXPECT_LT(std::abs(found - static_cast<double>(count) * p), 5 * deviation);
    };
    expect_share(down, probability);
    expect_share(pairs, probability * probability);  // neighbours are independent, and so are steps
    if (step > 0) expect_share(repeats, probability * probability);
    previous = now;
  }
}

// read_weights() returns what set_weights() stored: from the masters if there are any, else from the weights.
TEST(AdamW, WeightsAreReadFromWhereTheyAreUpdated) {
  constexpr uint64_t begin = 4096;
  constexpr uint64_t end = 8192;
  for (const Kind& kind : all_kinds) {
    AdamWConfig config = base_config;
    config.master_dtype = kind.master;
    config.moment_dtype = kind.moments;
    Arena arena("adamw");
    const Layout layout = layout_of(kind.weights);
    const Placement owned = flat(layout, 8);  // rank 1 has elements [begin, end)
    ASSERT_EQ(owned.ranges(1), (std::vector<Range>{{begin, end}}));
    AdamW optimizer(config);
    const Tensor weights = planned(arena, [&] {
      optimizer.allocate(arena, layout, all_slices(owned, 1));
      return allocate_weights(arena, layout, kind.weights);
    });
    std::vector<float> values(end - begin);
    for (uint64_t i = begin; i < end; ++i) values[i - begin] = initial_weight(i);
    optimizer.set_weights(values, weights);
    std::vector<float> read(end - begin);
    optimizer.read_weights(read, weights);
    const bool exact = kind.weights == DType::f32 || kind.master == DType::f32;
    for (size_t i = 0; i < read.size(); ++i) {
      ASSERT_EQ(read[i], exact ? values[i] : to_float(bf16_nearest(values[i]))) << i;
    }
    optimizer.set_weights(read, weights);
    std::vector<float> again(end - begin);
    optimizer.read_weights(again, weights);
    EXPECT_EQ(again, read);
  }
}

TEST(AdamW, NonsenseIsRefused) {
  const auto code = [](const AdamWConfig& config) {
    try {
      validate(config);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::ok;
  };
  EXPECT_EQ(code(base_config), ExitCode::ok);
  for (const double bad : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()}) {
    AdamWConfig config = base_config;
    config.beta1 = bad;
    EXPECT_EQ(code(config), ExitCode::bad_config);
    config = base_config;
    config.beta2 = bad;
    EXPECT_EQ(code(config), ExitCode::bad_config);
  }
  for (const double bad : {0.0, -1.0, 1e-60, std::numeric_limits<double>::infinity()}) {
    AdamWConfig config = base_config;
    config.epsilon = bad;
    EXPECT_EQ(code(config), ExitCode::bad_config) << bad;
  }
  AdamWConfig config = base_config;
  config.weight_decay = -1;
  EXPECT_EQ(code(config), ExitCode::bad_config);
  config = base_config;
  config.moment_dtype = DType::u8;
  EXPECT_EQ(code(config), ExitCode::bad_config);
}

}  // namespace
}  // namespace nibble
