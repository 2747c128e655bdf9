#include "optim/adamw/adamw.h"

#include "cuda/device_fixture.h"
#include "dist/vector_tensor.h"
#include "dist/zero/placement.h"
#include "optim/adamw_fixture.h"

namespace nibble {
namespace {

class AdamWTest : public DeviceTest {};

// Returns parameters with gaps between them and sizes that fit no block; more of them than one launch takes.
Layout many_parameters(DType dtype) {
  std::vector<TensorLayout> parameters;
  uint64_t elements = 0;
  for (uint32_t i = 0; i < 150; ++i) {
    parameters.push_back(vector_tensor(i, elements, i == 70 ? 5000 : 1 + i * 7 % 60, i % 2 == 0, size_of(dtype)));
    elements = round_up(elements + parameters.back().count, uint64_t{16}) + (i % 3 == 0 ? 16 : 0);
  }
  return {{{.name = "all", .range = {0, elements}}}, std::move(parameters)};
}

// What one rank of a flat placement trains on a device.
struct Trained {
  Placement owned;
  int rank;
  Arena arena;
  Arena state_arena;
  AdamW adamw;
  Tensor weights;
  Tensor gradients;

  Trained(DeviceKind device, const Kind& kind, const Layout& layout, int ranks, int of_rank, bool offload)
      : owned(flat(layout, ranks)),
        rank(of_rank),
        arena("weights", device),
        state_arena("state", offload ? DeviceKind::cpu : device),
        adamw({.master_dtype = kind.master, .moment_dtype = kind.moments, .offload = offload}) {
    std::vector<Arena*> arenas{&arena, &state_arena};
    planned(arenas, [&] {
      weights = allocate_tensor(arena, kind.weights, {static_cast<int64_t>(layout.elements())});
      gradients = allocate_tensor(arena, DType::f32, {static_cast<int64_t>(owned.elements(rank))});
      adamw.allocate(state_arena, layout, owned_slices(owned, rank, std::vector<bool>(layout.tensors().size(), true)));
      return 0;
    });
  }

  void run(int steps) {
    std::vector<float> values(owned.elements(rank));
    std::mt19937 generator(5);
    std::normal_distribution<float> normal;
    // Gaps have values, too: they must not change.
    for (float& value : values) value = normal(generator);
    adamw.set_weights(values, weights);
    for (int step = 0; step < steps; ++step) {
      for (float& value : values) value = std::ldexp(normal(generator), -static_cast<int>(generator() % 20));
      copy(tensor_of(std::span(values), {static_cast<int64_t>(values.size())}), gradients);
      adamw.update({.step = static_cast<uint64_t>(step), .learning_rate = 1e-2, .grad_scale = 0.7F, .seed = 99},
                   {.weights = weights, .gradient = gradients}, {0, values.size()});
    }
  }
};

void expect_same(const Trained& expected, const Trained& found) {
  EXPECT_TRUE(same_bits(expected.weights, found.weights));
  const std::vector<StateArray> left = expected.adamw.state();
  const std::vector<StateArray> right = found.adamw.state();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(left[i].name, right[i].name);
    EXPECT_TRUE(same_bits(left[i].values, right[i].values)) << left[i].name;
  }
  std::vector<float> values(expected.owned.elements(expected.rank));
  std::vector<float> read(values.size());
  expected.adamw.read_weights(values, expected.weights);
  found.adamw.read_weights(read, found.weights);
  EXPECT_EQ(std::memcmp(values.data(), read.data(), values.size() * sizeof(float)), 0);
}

void compare(const Kind& kind, const Layout& layout, int ranks, int rank, bool offload) {
  Trained on_cpu(DeviceKind::cpu, kind, layout, ranks, rank, false);
  Trained on_gpu(DeviceKind::cuda, kind, layout, ranks, rank, offload);
  on_cpu.run(3);
  on_gpu.run(3);
  expect_same(on_cpu, on_gpu);
}

TEST_F(AdamWTest, HasTheBitsOfTheCpu) {
  for (const Kind& kind : all_kinds) {
    SCOPED_TRACE(static_cast<int>(&kind - all_kinds.data()));
    const Layout layout = many_parameters(kind.weights);
    ASSERT_GT(layout.elements(), 2 * 4096U);
    compare(kind, layout, 1, 0, false);
    compare(kind, layout, 3, 1, false);  // begins and ends inside parameters
    compare(kind, layout, 3, 0, false);
  }
}

TEST_F(AdamWTest, StateOnTheCpuHasTheSameBits) {
  for (const Kind& kind : all_kinds) compare(kind, many_parameters(kind.weights), 2, 1, true);
}

// The state has several strips, with parameters across their borders.
TEST_F(AdamWTest, StateOnTheCpuIsUpdatedInStrips) {
  constexpr uint64_t strip = uint64_t{1} << 20;
  const Layout layout({{.name = "all", .range = {0, 2 * strip + strip / 2 + 16}}},
                      {vector_tensor(1, 0, strip / 2 + 3, true), vector_tensor(2, strip / 2 + 16, 2 * strip, false)});
  compare(all_kinds[5], layout, 1, 0, true);
}

TEST_F(AdamWTest, StateElsewhereIsADefectUnlessItIsAskedFor) {
  const Layout layout({{.name = "all", .range = {0, 16}}}, {vector_tensor(1, 0, 16, true, 4)});
  Trained trained(DeviceKind::cuda, all_kinds[0], layout, 1, 0, false);
  Arena on_cpu("state");
  AdamW elsewhere({});
  planned(on_cpu, [&] {
    elsewhere.allocate(on_cpu, layout, owned_slices(trained.owned, 0, {true}));
    return 0;
  });
  EXPECT_THROW(elsewhere.update({}, {.weights = trained.weights, .gradient = trained.gradients}, {0, 16}), Error);
}

}  // namespace
}  // namespace nibble
