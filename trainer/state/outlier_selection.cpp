#include "trainer/state/outlier_selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/log.h"
#include "model/ops/elementwise.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

namespace {

constexpr const char* norms_name = "outliers/channel_norms";
constexpr const char* choice_name = "outliers/channels";
constexpr int64_t largest_channels = std::numeric_limits<int32_t>::max();

using Layers = std::vector<OutlierLayer>;

int64_t channels_of(const Layers& layers) {
  return std::accumulate(layers.begin(), layers.end(), int64_t{0},
                         [](int64_t sum, const auto& layer) { return sum + layer.features_in; });
}

int64_t retained_of(const Layers& layers) {
  return std::accumulate(layers.begin(), layers.end(), int64_t{0},
                         [](int64_t sum, const auto& layer) { return sum + layer.count; });
}

// Passes with `keep` add the squared norms of the layers' input channels to `norms`, f32 [channels of all layers]; an
// empty tensor ends this.
void bind_channel_norms(LanguageModel& model, const Tensor& norms) {
  int64_t first = 0;
  for (Linear* layer : model.linears()) {
    const int64_t end = first + layer->features_in();
    layer->set_channel_norms(norms.empty() ? norms : norms.slice(first, end));
    first = end;
  }
}

// The layers retain these channels from now on. Numbers of layers that retain none are ignored.
void set_outlier_channels(LanguageModel& model, std::span<const int32_t> channels) {
  int64_t first = 0;
  auto next = channels.begin();
  for (Linear* layer : model.linears()) {
    const int64_t end = first + layer->features_in();
    std::vector<int32_t> own;
    for (; next != channels.end() && *next < end; ++next) own.push_back(narrow<int32_t>(*next - first));
    layer->set_outlier_channels(own);
    first = end;
  }
  NIBBLE_CHECK(next == channels.end(), "channels ascend within the layers");
}

// Appends the numbers of the `count` channels with the largest norms, in ascending order. Among equal norms the lower
// number is chosen.
void append_largest(std::span<const float> norms, int64_t count, int64_t first, std::vector<int32_t>& result) {
  std::vector<int64_t> order(norms.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return norms[static_cast<size_t>(a)] > norms[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(count));
  std::ranges::sort(order);
  for (const int64_t channel : order) result.push_back(narrow<int32_t>(first + channel));
}

// Checks the choice of a checkpoint. Channels of layers that retain none are allowed.
void check_choice(const CheckpointInfo& checkpoint, std::span<const int32_t> chosen, const Layers& layers) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ExitCode::bad_data,
                fmt::format("the checkpoint {}: {} {}", checkpoint.directory.string(), choice_name, what),
                "use the recipe in its config.yaml");
  };
  const bool ascending = std::ranges::adjacent_find(chosen, std::greater_equal<>()) == chosen.end();
  if (!ascending || chosen.front() < 0 || chosen.back() >= channels_of(layers)) {
    refuse("are not channels of this model in ascending order");
  }
  int64_t first = 0;
  for (const auto& layer : layers) {
    const int64_t end = first + layer.features_in;
    const auto own = std::ranges::count_if(chosen, [&](int32_t channel) { return first <= channel && channel < end; });
    if (layer.count != 0 && own != layer.count) {
      refuse(fmt::format("has {} channels of {}, where the recipe retains {}", own, layer.name, layer.count));
    }
    first = end;
  }
}

}  // namespace

std::vector<OutlierLayer> outlier_layers(const LanguageModel& model) {
  Layers layers;
  for (const Linear* layer : model.linears()) {
    layers.push_back({layer->name(), layer->features_in(), layer->outlier_count()});
  }
  return layers;
}

OutlierSelection::OutlierSelection(const StateMemory& memory, Communicator& communicator, const OutlierRule& rule,
                                   Layers layers, uint64_t groups)
    : communicator_(communicator),
      first_step_(static_cast<uint64_t>(rule.from_step)),
      end_step_(first_step_ + static_cast<uint64_t>(rule.window)),
      layers_(std::move(layers)),
      partition_(static_cast<uint64_t>(channels_of(layers_)), communicator.size()) {
  const int64_t retained = retained_of(layers_);
  if (retained == 0) return;
  const int64_t channels = channels_of(layers_);
  if (channels > largest_channels) {
    throw Error(ExitCode::bad_config, fmt::format("{} input channels of linear layers", channels),
                fmt::format("outliers can be retained in models of up to {}", largest_channels));
  }
  Arena& arena = memory.host;
  group_norms_ = allocate_tensor(memory.device, DType::f32, {channels});
  reduction_.emplace(arena, communicator_, partition_, groups);
  norms_ = allocate_tensor(arena, DType::f32, {channels});
  step_norms_ = allocate_tensor(arena, DType::f32, {channels});
  choice_ = allocate_tensor(arena, DType::i32, {retained});
}

void OutlierSelection::attach(LanguageModel& model) const {
  if (made_) set_outlier_channels(model, chosen());
}

void OutlierSelection::begin_group(uint64_t step, LanguageModel& model) {
  if (!reduction_ || !records(step)) return;
  group_sum_ = reduction_->begin_group();
  fill_zero(group_norms_);
  bind_channel_norms(model, group_norms_);
}

void OutlierSelection::end_group(uint64_t step, LanguageModel& model) {
  if (!reduction_ || !records(step)) return;
  copy(group_norms_, tensor_of(group_sum_, {static_cast<int64_t>(group_sum_.size())}));
  reduction_->end_group();
  bind_channel_norms(model, Tensor());
}

void OutlierSelection::end_attempt(uint64_t step) {
  if (!reduction_ || !records(step)) return;
  const std::span<const float> shard = reduction_->reduce_scatter();
  std::ranges::copy(shard, step_norms_.as<float>() + partition_.begin(communicator_.rank()));
  communicator_.all_gather({static_cast<std::byte*>(step_norms_.data()), step_norms_.bytes()},
                           partition_.byte_offsets(sizeof(float)));
}

void OutlierSelection::after_step(uint64_t step, bool applied, LanguageModel& model) {
  if (!reduction_ || !records(step)) return;
  if (applied) add(norms_, step_norms_, norms_);
  if (step + 1 != end_step_) return;
  choose();
  attach(model);
}

void OutlierSelection::choose() {
  std::vector<int32_t> chosen;
  int64_t first = 0;
  std::string alone;
  for (const auto& layer : layers_) {
    const std::span<const float> norms(norms_.as<float>() + first, static_cast<size_t>(layer.features_in));
    append_largest(norms, layer.count, first, chosen);
    first += layer.features_in;
    if (layer.count == 0) alone += (alone.empty() ? "" : ", ") + layer.name;
  }
  std::ranges::copy(chosen, choice_.as<int32_t>());
  made_ = true;
  log_info("step {}: {} outlier channels of {} chosen, retained in eight bits from now on{}", end_step_, chosen.size(),
           first, alone.empty() ? "" : "; layers left alone, not quantised or with too few channels: " + alone);
}

std::span<const int32_t> OutlierSelection::chosen() const {
  return {choice_.as<int32_t>(), static_cast<size_t>(choice_.elements())};
}

std::vector<ReplicatedArray> OutlierSelection::arrays(uint64_t steps) const {
  if (!reduction_ || steps <= first_step_) return {};
  if (steps < end_step_) return {{norms_name, norms_}};
  return {{choice_name, choice_}};
}

void OutlierSelection::load(const CheckpointInfo& checkpoint) {
  for (const ReplicatedArray& array : arrays(checkpoint.step)) {
    load_replicated(checkpoint, array.name, array.values);
    if (array.name != choice_name) continue;
    check_choice(checkpoint, chosen(), layers_);
    made_ = true;
  }
}

void retain_outliers_of(const CheckpointInfo& checkpoint, LanguageModel& model) {
  const CheckpointInfo::Replicated* const saved = checkpoint.find_replicated(choice_name);
  const Layers layers = outlier_layers(model);
  if (saved == nullptr || retained_of(layers) == 0) return;
  const int64_t count = std::clamp<int64_t>(saved->shape.front(), 1, channels_of(layers));
  std::vector<int32_t> chosen(static_cast<size_t>(count));
  load_replicated(checkpoint, choice_name, tensor_of(std::span(chosen), {count}));
  check_choice(checkpoint, chosen, layers);
  set_outlier_channels(model, chosen);
}

}  // namespace nibble
