// Tests of the list of optimizers, with one of another kind beside AdamW: the first that takes a tensor has it.
#include "optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "dist/base/error.h"
#include "optim/adamw/adamw.h"

namespace nibble {
namespace {

// Stochastic gradient descent on vectors, with the number of updates of each block of 16 elements as its state.
class CountingDescent final : public Optimizer {
 public:
  static constexpr uint32_t block = 16;

  std::string_view name() const override { return "counting_descent"; }
  bool takes(const TensorLayout& tensor) const override { return tensor.use == TensorUse::vector; }
  void allocate(Arena& arena, const Layout& layout, std::vector<OwnedSlice> slices) override {
    layout_ = &layout;
    slices_ = std::move(slices);
    counts_ = allocate_tensor(arena, DType::u8, {static_cast<int64_t>(state_elements(layout, slices_) / block)});
  }
  void set_weights(std::span<const float> values, const Tensor& weights) override {
    each(weights, [&](const OwnedSlice& slice, uint64_t i, float& weight) { weight = values[slice.gradient_at + i]; });
  }
  void read_weights(std::span<float> values, const Tensor& weights) const override {
    each(weights, [&](const OwnedSlice& slice, uint64_t i, float& weight) { values[slice.gradient_at + i] = weight; });
  }
  void update(const UpdateStep& step, const Shard& shard, Range gradient) override {
    each(shard.weights, [&](const OwnedSlice& slice, uint64_t i, float& weight) {
      const uint64_t at = slice.gradient_at + i;
      if (intersect({at, at + 1}, gradient).empty()) return;
      weight -= static_cast<float>(step.learning_rate) * shard.gradient.as<float>()[at];
      if (i % block == 0) ++counts_.as<uint8_t>()[(slice.state_at + i) / block];
    });
  }
  std::vector<StateArray> state() const override {
    return {{.name = "counts", .elements_a_value = block, .values = counts_, .slices = slices_}};
  }

 private:
  template <class Body>
  void each(const Tensor& weights, const Body& body) const {
    for (const OwnedSlice& slice : slices_) {
      ASSERT_EQ(layout_->tensors()[slice.tensor].width, 4);
      auto* const first = reinterpret_cast<float*>(static_cast<std::byte*>(weights.data()) + slice.weight_byte);
      for (uint64_t i = 0; i < slice.elements.count(); ++i) body(slice, i, first[i]);
    }
  }
  const Layout* layout_ = nullptr;
  std::vector<OwnedSlice> slices_;
  Tensor counts_;
};

// A matrix in BF16, a vector in FP32, a stack in BF16.
Layout mixed_layout() {
  return {{{.name = "first", .range = {0, 6048}}, {.name = "second", .range = {6048, 16288}}},
          {{.name = "matrix", .shape = {50, 100}, .count = 5000, .decay = true},
           {.name = "vector",
            .shape = {1040},
            .tensor_id = 1,
            .offset = 5008,
            .count = 1040,
            .width = 4,
            .use = TensorUse::vector},
           {.name = "stack",
            .shape = {5, 32, 64},
            .tensor_id = 2,
            .matrices = 5,
            .offset = 6048,
            .count = 10240,
            .bucket = 1}}};
}

struct Trained {
  explicit Trained(const Layout& layout, int ranks, std::vector<std::unique_ptr<Optimizer>> (*make)()) {
    const Placement owned = contiguous(layout, ranks);
    const std::vector<uint64_t> bounds = boundaries(owned);
    weights.resize(layout.weight_bytes());
    const Tensor all = tensor_of(std::span(weights), {static_cast<int64_t>(weights.size())});
    for (int rank = 0; rank < ranks; ++rank) {
      OptimizerList list(make(), owned, rank);
      Arena arena("state");
      planned(arena, [&] {
        list.allocate(arena);
        return 0;
      });
      const uint64_t first = bounds[static_cast<size_t>(rank)];
      std::vector<float> values(owned.elements(rank));
      for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(first + i));
      list.set_weights(values, all);
      for (uint64_t step = 0; step < 3; ++step) {
        for (size_t i = 0; i < values.size(); ++i) values[i] = std::cos(static_cast<float>((first + i) * (step + 1)));
        const Shard shard{.weights = all,
                          .gradient = tensor_of(std::span(values), {static_cast<int64_t>(values.size())})};
        const UpdateStep update{.step = step, .learning_rate = 0.01, .seed = 7};
        if (ranks % 2 == 0) {
          list.update(update, shard);
          continue;
        }
        // Bucket by bucket, from the last to the first.
        for (auto bucket = layout.buckets().rbegin(); bucket != layout.buckets().rend(); ++bucket) {
          const Range range = intersect(bucket->range, {first, bounds[static_cast<size_t>(rank) + 1]});
          if (!range.empty()) list.update(update, shard, {range.begin - first, range.end - first});
        }
      }
      for (const auto& optimizer : list.optimizers()) {
        for (const StateArray& array : optimizer->state()) {
          for (const OwnedSlice& slice : array.slices) taken[std::string(optimizer->name())].insert(slice.tensor);
        }
      }
      read.resize(layout.elements());
      std::vector<float> own(owned.elements(rank));
      list.read_weights(own, all);
      std::ranges::copy(own, read.begin() + static_cast<int64_t>(first));
    }
  }
  std::vector<uint8_t> weights;
  std::vector<float> read;
  std::map<std::string, std::set<uint32_t>> taken;
};

std::vector<std::unique_ptr<Optimizer>> both() {
  std::vector<std::unique_ptr<Optimizer>> list;
  list.push_back(std::make_unique<CountingDescent>());
  list.push_back(std::make_unique<AdamW>(AdamWConfig{.master_dtype = DType::f32}));
  return list;
}
std::vector<std::unique_ptr<Optimizer>> only_vectors() {
  std::vector<std::unique_ptr<Optimizer>> list;
  list.push_back(std::make_unique<CountingDescent>());
  return list;
}
std::vector<std::unique_ptr<Optimizer>> only_adamw() {
  std::vector<std::unique_ptr<Optimizer>> list;
  list.push_back(std::make_unique<AdamW>(AdamWConfig{}));
  return list;
}

TEST(OptimizerList, TheFirstThatTakesATensorHasIt) {
  const Trained trained(mixed_layout(), 1, both);
  EXPECT_EQ(trained.taken.at("counting_descent"), (std::set<uint32_t>{1}));
  EXPECT_EQ(trained.taken.at("adamw"), (std::set<uint32_t>{0, 2}));
}

TEST(OptimizerList, BitsDependNeitherOnRanksNorOnBuckets) {
  for (auto* const make : {both, only_adamw}) {
    const Trained one(mixed_layout(), 1, make);
    for (const int ranks : {2, 3, 4, 5}) {
      const Trained several(mixed_layout(), ranks, make);
      EXPECT_EQ(several.weights, one.weights) << ranks;
      EXPECT_EQ(several.read, one.read) << ranks;
    }
  }
}

// A matrix of a stack has its own random bits: with the same weights and gradients, two matrices round differently.
TEST(OptimizerList, MatricesOfAStackHaveTheirOwnNoise) {
  const Layout whole({{.name = "all", .range = {0, 2048}}}, {{.name = "m", .shape = {32, 64}, .count = 2048}});
  const Layout stack({{.name = "all", .range = {0, 4096}}},
                     {{.name = "s", .shape = {2, 32, 64}, .matrices = 2, .count = 4096}});
  const Trained alone(whole, 1, only_adamw);
  const Trained two(stack, 1, only_adamw);
  EXPECT_TRUE(std::equal(alone.weights.begin(), alone.weights.end(), two.weights.begin()));
  const Layout other({{.name = "all", .range = {0, 4096}}}, {{.name = "o", .shape = {64, 64}, .count = 4096}});
  EXPECT_NE(Trained(other, 1, only_adamw).weights, two.weights);
}

TEST(OptimizerList, ATensorThatNobodyTakesIsRefused) {
  const Layout layout = mixed_layout();
  const Placement owned = contiguous(layout, 1);
  try {
    const OptimizerList list(only_vectors(), owned, 0);
    FAIL() << "the matrix is taken by nobody";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_config);
    EXPECT_NE(std::string(error.what()).find("matrix"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble
