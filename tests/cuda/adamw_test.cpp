#include "optim/adamw/adamw.h"

#include "cuda/device_fixture.h"
#include "dist/zero/partition.h"

namespace nibble {
namespace {

class AdamWTest : public DeviceTest {};

struct Kind {
  DType weights, master, moments;
};
const std::vector<Kind> all_kinds = {{DType::f32, DType::f32, DType::f32},   {DType::f32, DType::f32, DType::bf16},
                                     {DType::bf16, DType::f32, DType::f32},  {DType::bf16, DType::f32, DType::bf16},
                                     {DType::bf16, DType::bf16, DType::f32}, {DType::bf16, DType::bf16, DType::bf16}};

struct Layout {
  std::vector<ParameterSegment> segments;
  uint64_t elements = 0;
};

// Returns parameters with gaps between them and sizes that fit no block; more of them than one launch takes.
Layout many_parameters() {
  Layout layout;
  for (uint32_t i = 0; i < 150; ++i) {
    const uint64_t count = i == 70 ? 5000 : 1 + i * 7 % 60;
    layout.segments.push_back({.offset = layout.elements, .count = count, .tensor_id = i, .decay = i % 2 == 0});
    layout.elements = round_up(layout.elements + count, uint64_t{8}) + (i % 3 == 0 ? 8 : 0);
  }
  return layout;
}

struct Optimizer {
  DeviceKind device;
  uint64_t begin, end;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Arena> state_arena;
  Tensor weights;
  Tensor gradients;
  std::unique_ptr<AdamW> adamw;

  Optimizer(DeviceKind kind, const Kind& dtypes, const Layout& layout, uint64_t from, uint64_t to, bool offload)
      : device(kind),
        begin(from),
        end(to),
        arena(std::make_unique<Arena>("weights", kind)),
        state_arena(std::make_unique<Arena>("state", offload ? DeviceKind::cpu : kind)) {
    AdamWConfig config;
    config.master_dtype = dtypes.master;
    config.moment_dtype = dtypes.moments;
    config.offload = offload;
    const auto build = [&] {
      weights = allocate_tensor(*arena, dtypes.weights, {static_cast<int64_t>(layout.elements)});
      gradients = allocate_tensor(*arena, DType::f32, {static_cast<int64_t>(to - from)});
      adamw = std::make_unique<AdamW>(*state_arena, config, layout.segments, from, to, dtypes.weights);
    };
    build();
    arena->commit();
    state_arena->commit();
    build();
  }

  void run(const Layout& layout, int steps) {
    std::vector<float> values(end - begin);
    std::mt19937 generator(5);
    std::normal_distribution<float> normal;
    for (uint64_t i = begin; i < end; ++i) {
      // Gaps have values, too: they must not change.
      values[i - begin] = normal(generator);
    }
    adamw->set_weights(values, weights);
    for (int step = 0; step < steps; ++step) {
      for (float& value : values) value = std::ldexp(normal(generator), -static_cast<int>(generator() % 20));
      copy(tensor_of(std::span(values), {static_cast<int64_t>(values.size())}), gradients);
      adamw->step({.step = static_cast<uint64_t>(step), .learning_rate = 1e-2, .grad_scale = 0.7F, .seed = 99}, weights,
                  gradients);
    }
    EXPECT_GE(layout.elements, end);
  }
};

void expect_same(const Optimizer& expected, const Optimizer& found) {
  EXPECT_TRUE(same_bits(expected.weights, found.weights));
  const std::vector<NamedState> left = expected.adamw->state();
  const std::vector<NamedState> right = found.adamw->state();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(left[i].name, right[i].name);
    EXPECT_TRUE(same_bits(left[i].shard, right[i].shard)) << left[i].name;
  }
  std::vector<float> values(expected.end - expected.begin);
  std::vector<float> read(values.size());
  expected.adamw->read_weights(values, expected.weights);
  found.adamw->read_weights(read, found.weights);
  EXPECT_EQ(std::memcmp(values.data(), read.data(), values.size() * sizeof(float)), 0);
}

void compare(const Kind& kind, const Layout& layout, uint64_t begin, uint64_t end, bool offload) {
  Optimizer on_cpu(DeviceKind::cpu, kind, layout, begin, end, false);
  Optimizer on_gpu(DeviceKind::cuda, kind, layout, begin, end, offload);
  on_cpu.run(layout, 3);
  on_gpu.run(layout, 3);
  expect_same(on_cpu, on_gpu);
}

TEST_F(AdamWTest, HasTheBitsOfTheCpu) {
  const Layout layout = many_parameters();
  for (const Kind& kind : all_kinds) {
    SCOPED_TRACE(static_cast<int>(&kind - all_kinds.data()));
    compare(kind, layout, 0, layout.elements, false);
    compare(kind, layout, 4096, layout.elements, false);  // begins and ends inside parameters
    compare(kind, layout, 0, 4096, false);
  }
}

TEST_F(AdamWTest, StateOnTheCpuHasTheSameBits) {
  const Layout layout = many_parameters();
  for (const Kind& kind : all_kinds) compare(kind, layout, 4096, layout.elements, true);
}

// The state has several strips, with parameters across their borders.
TEST_F(AdamWTest, StateOnTheCpuIsUpdatedInStrips) {
  constexpr uint64_t strip = uint64_t{1} << 20;
  const Layout layout{{{.offset = 0, .count = strip / 2 + 3, .tensor_id = 1, .decay = true},
                       {.offset = strip / 2 + 8, .count = 2 * strip, .tensor_id = 2, .decay = false}},
                      2 * strip + strip / 2 + 8};
  compare(all_kinds[5], layout, 0, layout.elements, true);
}

TEST_F(AdamWTest, StateElsewhereIsADefectUnlessItIsAskedFor) {
  const Layout layout{{{.offset = 0, .count = 16, .tensor_id = 1, .decay = true}}, 16};
  Optimizer optimizer(DeviceKind::cuda, all_kinds[0], layout, 0, 16, false);
  Arena on_cpu("state");
  AdamW elsewhere(on_cpu, AdamWConfig{}, layout.segments, 0, 16, DType::f32);
  EXPECT_THROW(elsewhere.step({}, optimizer.weights, optimizer.gradients), Error);
}

}  // namespace
}  // namespace nibble
