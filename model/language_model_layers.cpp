// The functions of a language model that report on its linear layers or pass settings on to them.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "dist/base/error.h"
#include "model/language_model_state.h"

namespace nibble {

std::vector<Linear*> LanguageModel::State::linears() {
  std::vector<Linear*> all;
  for (const std::unique_ptr<Block>& block : blocks) {
    for (Linear* linear : block->linears()) all.push_back(linear);
  }
  all.push_back(&head->linear());
  return all;
}

std::vector<LayerDescription> LanguageModel::describe_layers() const {
  std::vector<LayerDescription> layers;
  for (const Linear* linear : state_->linears()) layers.push_back({linear->name(), linear->describe()});
  return layers;
}

void LanguageModel::set_weights_changed() {
  state_->weights_changed = true;
  for (Linear* linear : state_->linears()) linear->set_weights_changed();
}

void LanguageModel::set_gradients_ready(std::function<void(uint64_t begin, uint64_t end)> ready) {
  state_->gradients_ready = std::move(ready);
}

std::vector<std::string> LanguageModel::linear_names() const {
  std::vector<std::string> names;
  for (const Linear* linear : state_->linears()) names.push_back(linear->name());
  return names;
}

std::vector<uint32_t> LanguageModel::linear_weights() const {
  std::vector<uint32_t> ids;
  for (const Linear* linear : state_->linears()) ids.push_back(linear->weight_id());
  return ids;
}

void LanguageModel::set_statistics(std::vector<LinearStatistics>* statistics) {
  const std::vector<Linear*> linears = state_->linears();
  state_->measuring = statistics != nullptr;
  if (statistics != nullptr) statistics->assign(linears.size(), {});
  for (size_t i = 0; i < linears.size(); ++i) {
    linears[i]->set_statistics(statistics != nullptr ? &(*statistics)[i] : nullptr);
  }
}

std::vector<int> LanguageModel::amax_histories() const {
  std::vector<int> histories;
  for (const Linear* linear : state_->linears()) {
    for (const OperandRole role : all_operand_roles) histories.push_back(linear->amax_history(role));
  }
  return histories;
}

void LanguageModel::bind_amax(const Tensor& scale_by, const Tensor& observed) {
  const std::vector<Linear*> linears = state_->linears();
  const auto expected = static_cast<int64_t>(linears.size()) * operand_roles;
  NIBBLE_CHECK(scale_by.elements() == expected && observed.elements() == expected,
               "amax [linear layers, operand roles]");
  for (size_t i = 0; i < linears.size(); ++i) {
    const auto first = static_cast<int64_t>(i) * operand_roles;
    linears[i]->set_amax(scale_by.reshape({expected}).slice(first, first + operand_roles),
                         observed.reshape({expected}).slice(first, first + operand_roles));
  }
}

std::vector<LanguageModel::OutlierLayer> LanguageModel::outlier_layers() const {
  std::vector<OutlierLayer> layers;
  for (const Linear* linear : state_->linears()) {
    layers.push_back({linear->name(), linear->features_in(), linear->outlier_count()});
  }
  return layers;
}

void LanguageModel::bind_channel_norms(const Tensor& norms) {
  int64_t first = 0;
  for (Linear* linear : state_->linears()) {
    const int64_t end = first + linear->features_in();
    linear->set_channel_norms(norms.empty() ? norms : norms.slice(first, end));
    first = end;
  }
  NIBBLE_CHECK(norms.empty() || norms.elements() == first, "one norm a channel");
}

void LanguageModel::set_outlier_channels(std::span<const int64_t> channels) {
  int64_t first = 0;
  auto next = channels.begin();
  for (Linear* linear : state_->linears()) {
    const int64_t end = first + linear->features_in();
    std::vector<int32_t> own;
    for (; next != channels.end() && *next < end; ++next) own.push_back(narrow<int32_t>(*next - first));
    linear->set_outlier_channels(own);
    first = end;
  }
  NIBBLE_CHECK(next == channels.end(), "channels ascend within the layers");
}

void LanguageModel::dequantize_weights(uint64_t begin, uint64_t end, std::span<float> values,
                                       const StepContext& context) {
  NIBBLE_CHECK(values.size() == end - begin, "values of the range");
  std::ranges::fill(values, std::numeric_limits<float>::quiet_NaN());
  for (Linear* linear : state_->linears()) {
    const Parameter& weight = state_->table[linear->weight_id()];
    const uint64_t from = std::max(begin, weight.offset);
    const uint64_t to = std::min(end, weight.offset + weight.count);
    if (from >= to) continue;
    linear->dequantize_weight(from - weight.offset, to - weight.offset, values.data() + (from - begin), context);
  }
}

int64_t LanguageModel::take_non_finite_count() {
  int64_t count = 0;
  for (Linear* linear : state_->linears()) count += linear->take_non_finite_count();
  return count;
}

}  // namespace nibble
