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
void check_choice(const StateReader& reader, std::span<const int32_t> chosen, const Layers& layers) {
  const auto refuse = [&](const std::string& what) { reader.refuse(fmt::format("{} {}", choice_name, what)); };
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

bool OutlierSelection::needed(const LanguageModel& model) {
  return retained_of(outlier_layers(model)) > 0;
}

OutlierSelection::OutlierSelection(Communicator& communicator, const OutlierRule& rule, const LanguageModel& model,
                                   const Schedule* schedule)
    : communicator_(communicator),
      first_step_(static_cast<uint64_t>(rule.from_step)),
      end_step_(first_step_ + static_cast<uint64_t>(rule.window)),
      layers_(outlier_layers(model)),
      schedule_(schedule),
      channels_(one_vector("channels", static_cast<uint64_t>(channels_of(layers_)))),
      owned_(flat(channels_, communicator.size())) {
  if (const int64_t channels = channels_of(layers_); channels > largest_channels) {
    throw Error(ExitCode::bad_config, fmt::format("{} input channels of linear layers", channels),
                fmt::format("outliers can be retained in models of up to {}", largest_channels));
  }
}

void OutlierSelection::allocate(const StateMemory& memory) {
  if (schedule_ == nullptr) return;
  const int64_t channels = channels_of(layers_);
  micro_batch_norms_ = allocate_tensor(memory.device, DType::f32, {channels});
  reduction_ = make_small_reduction(memory.host, communicator_, owned_, *schedule_);
  norms_ = allocate_tensor(memory.host, DType::f32, {channels});
  step_norms_ = allocate_tensor(memory.host, DType::f32, {channels});
}

void OutlierSelection::attach(LanguageModel& model) {
  if (!chosen_.empty()) set_outlier_channels(model, chosen_);
}

void OutlierSelection::begin_micro_batch(const StepEvent& event) {
  if (!records(event.step)) return;
  fill_zero(micro_batch_norms_);
  bind_channel_norms(event.model, micro_batch_norms_);
}

void OutlierSelection::end_micro_batch(const StepEvent& event) {
  if (records(event.step)) bind_channel_norms(event.model, Tensor());
}

void OutlierSelection::end_slot(const StepEvent& event) {
  if (!records(event.step)) return;
  const std::span<float> sum = reduction_->begin_slot();
  if (!sum.empty()) {
    const HostCopy norms(micro_batch_norms_);
    const Tensor values = tensor_of(sum, {static_cast<int64_t>(sum.size())});
    add(values, norms.tensor(), values);
  }
  reduction_->end_slot();
}

void OutlierSelection::end_attempt(const StepEvent& event) {
  if (!records(event.step)) return;
  const std::span<const float> shard = reduction_->reduce_scatter();
  std::vector<uint64_t> offsets = boundaries(owned_);
  std::ranges::copy(shard, step_norms_.as<float>() + offsets[static_cast<size_t>(communicator_.rank())]);
  for (uint64_t& offset : offsets) offset *= sizeof(float);
  communicator_.all_gather({static_cast<std::byte*>(step_norms_.data()), step_norms_.bytes()}, offsets);
}

bool OutlierSelection::after_update(const StepEvent& event) {
  if (!records(event.step)) return false;
  if (event.applied) add(norms_, step_norms_, norms_);
  if (event.step + 1 != end_step_) return false;
  choose();
  attach(event.model);
  return false;
}

void OutlierSelection::choose() {
  chosen_.clear();
  int64_t first = 0;
  std::string alone;
  for (const auto& layer : layers_) {
    const std::span<const float> norms(norms_.as<float>() + first, static_cast<size_t>(layer.features_in));
    append_largest(norms, layer.count, first, chosen_);
    first += layer.features_in;
    if (layer.count == 0) alone += (alone.empty() ? "" : ", ") + layer.name;
  }
  choice_ = tensor_of(std::span(chosen_), {static_cast<int64_t>(chosen_.size())});
  log_info("step {}: {} outlier channels of {} chosen, retained in eight bits from now on{}", end_step_, chosen_.size(),
           first, alone.empty() ? "" : "; layers left alone, not quantised or with too few channels: " + alone);
}

void OutlierSelection::save(uint64_t steps, StateWriter& writer) const {
  if (steps <= first_step_) return;
  steps < end_step_ ? writer.replicated(norms_name, norms_) : writer.replicated(choice_name, choice_);
}

// A model that does not train on may follow the recipe after its late switch, in which fewer layers retain channels.
void OutlierSelection::load(const StateReader& reader) {
  if (reader.read_only()) {
    const std::vector<int64_t> saved = reader.shape_of(choice_name);
    if (!saved.empty()) load_choice(reader, std::clamp<int64_t>(saved.front(), 1, channels_of(layers_)));
  } else if (reader.steps() >= end_step_) {
    load_choice(reader, retained_of(layers_));
  } else if (reader.steps() > first_step_) {
    reader.replicated(norms_name, norms_);
  }
}

void OutlierSelection::load_choice(const StateReader& reader, int64_t count) {
  std::vector<int32_t> loaded(static_cast<size_t>(count));
  reader.replicated(choice_name, tensor_of(std::span(loaded), {count}));
  check_choice(reader, loaded, layers_);
  chosen_ = std::move(loaded);
  choice_ = tensor_of(std::span(chosen_), {count});
}

}  // namespace nibble
