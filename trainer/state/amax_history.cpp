#include "trainer/state/amax_history.h"

#include <algorithm>
#include <span>

#include "dist/base/error.h"
#include "model/ops/elementwise.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

namespace {

constexpr const char* array_name = "quantization/amax_history";

// Returns the lengths of the histories, by linear layer and role.
std::vector<int> histories_of(const LanguageModel& model) {
  std::vector<int> steps;
  for (const Linear* layer : model.linears()) {
    for (const OperandRole role : all_operand_roles) steps.push_back(layer->amax_history(role));
  }
  return steps;
}

}  // namespace

bool AmaxHistory::needed(const LanguageModel& model) {
  return std::ranges::any_of(histories_of(model), [](int history) { return history > 0; });
}

AmaxHistory::AmaxHistory(Communicator& communicator, const LanguageModel& model)
    : communicator_(communicator), steps_(histories_of(model)), longest_(std::ranges::max(steps_)) {}

void AmaxHistory::allocate(const StateMemory& memory) {
  const auto operands = static_cast<int64_t>(steps_.size());
  history_ = allocate_tensor(memory.host, DType::f32, {operands, longest_});
  scale_by_ = allocate_tensor(memory.host, DType::f32, {operands});
  observed_by_ranks_ = allocate_tensor(memory.host, DType::f32, {communicator_.size(), operands});
  observed_ = allocate_tensor(memory.device, DType::f32, {operands});
}

void AmaxHistory::attach(LanguageModel& model) {
  NIBBLE_CHECK(model.linears().size() * operand_roles == steps_.size(), "a model of other layers");
  int64_t first = 0;
  for (Linear* layer : model.linears()) {
    const int64_t end = first + operand_roles;
    layer->set_amax(scale_by_.slice(first, end), observed_.slice(first, end));
    first = end;
  }
}

void AmaxHistory::begin_attempt(const StepEvent& event) {
  fill_zero(observed_);
  event.model.set_weights_changed();
}

bool AmaxHistory::after_update(const StepEvent& event) {
  if (event.applied) advance();
  return false;
}

void AmaxHistory::advance() {
  const size_t operands = steps_.size();
  const auto ranks = static_cast<size_t>(communicator_.size());
  const float* const observed = observed_by_ranks_.as<float>();
  copy(observed_, observed_by_ranks_.slice(communicator_.rank(), communicator_.rank() + 1));
  std::vector<uint64_t> offsets(ranks + 1);
  for (size_t rank = 0; rank <= ranks; ++rank) offsets[rank] = rank * operands * sizeof(float);
  communicator_.all_gather({static_cast<std::byte*>(observed_by_ranks_.data()), observed_by_ranks_.bytes()}, offsets);

  for (size_t operand = 0; operand < operands; ++operand) {
    float largest = 0;
    for (size_t rank = 0; rank < ranks; ++rank) largest = std::max(largest, observed[rank * operands + operand]);
    float* const row = history_.as<float>() + operand * static_cast<size_t>(longest_);
    std::copy_backward(row, row + longest_ - 1, row + longest_);
    row[0] = largest;
  }
  update_scales();
}

void AmaxHistory::update_scales() {
  for (size_t operand = 0; operand < steps_.size(); ++operand) {
    const float* const row = history_.as<float>() + operand * static_cast<size_t>(longest_);
    scale_by_.as<float>()[operand] = steps_[operand] == 0 ? 0 : *std::max_element(row, row + steps_[operand]);
  }
}

void AmaxHistory::save(uint64_t /*steps*/, StateWriter& writer) const {
  writer.replicated(array_name, history_);
}

// The checkpoint may have a longer history than is needed: that of the recipe before its late switch.
void AmaxHistory::load(const StateReader& reader) {
  const auto operands = static_cast<int64_t>(steps_.size());
  const std::vector<int64_t> saved = reader.shape_of(array_name);
  if (saved.empty() && reader.read_only()) return;
  const bool longer = saved.size() == 2 && saved[0] == operands && saved[1] > longest_ && saved[1] <= largest_history;
  const int64_t columns = longer ? saved[1] : longest_;
  std::vector<float> values(static_cast<size_t>(operands * columns));
  reader.replicated(array_name, tensor_of(std::span(values), {operands, columns}));
  for (int64_t operand = 0; operand < operands; ++operand) {
    std::copy_n(values.begin() + operand * columns, longest_, history_.as<float>() + operand * longest_);
  }
  update_scales();
}

}  // namespace nibble
