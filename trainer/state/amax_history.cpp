#include "trainer/state/amax_history.h"

#include <algorithm>

#include "dist/base/error.h"
#include "model/ops/elementwise.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

namespace {

constexpr const char* array_name = "quantization/amax_history";

}  // namespace

AmaxHistory::AmaxHistory(const StateMemory& memory, std::span<Linear* const> layers, int ranks) {
  for (const Linear* layer : layers) {
    for (const OperandRole role : all_operand_roles) steps_.push_back(layer->amax_history(role));
  }
  for (const int history : steps_) longest_ = std::max<int64_t>(longest_, history);
  if (!needed()) return;
  const auto operands = static_cast<int64_t>(steps_.size());
  history_ = allocate_tensor(memory.host, DType::f32, {operands, longest_});
  scale_by_ = allocate_tensor(memory.host, DType::f32, {operands});
  observed_by_ranks_ = allocate_tensor(memory.host, DType::f32, {ranks, operands});
  observed_ = allocate_tensor(memory.device, DType::f32, {operands});
}

void AmaxHistory::attach(LanguageModel& model) const {
  if (!needed()) return;
  NIBBLE_CHECK(model.linears().size() * operand_roles == steps_.size(), "a model of other layers");
  int64_t first = 0;
  for (Linear* layer : model.linears()) {
    const int64_t end = first + operand_roles;
    layer->set_amax(scale_by_.slice(first, end), observed_.slice(first, end));
    first = end;
  }
}

void AmaxHistory::begin_attempt(LanguageModel& model) const {
  if (!needed()) return;
  fill_zero(observed_);
  model.set_weights_changed();
}

void AmaxHistory::advance(Communicator& communicator) {
  if (!needed()) return;
  const size_t operands = steps_.size();
  const auto ranks = static_cast<size_t>(communicator.size());
  const float* const observed = observed_by_ranks_.as<float>();
  copy(observed_, observed_by_ranks_.slice(communicator.rank(), communicator.rank() + 1));
  std::vector<uint64_t> offsets(ranks + 1);
  for (size_t rank = 0; rank <= ranks; ++rank) offsets[rank] = rank * operands * sizeof(float);
  communicator.all_gather({static_cast<std::byte*>(observed_by_ranks_.data()), observed_by_ranks_.bytes()}, offsets);

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

std::vector<ReplicatedArray> AmaxHistory::arrays() const {
  if (!needed()) return {};
  return {{array_name, history_}};
}

bool AmaxHistory::is_in(const CheckpointInfo& checkpoint) {
  return checkpoint.find_replicated(array_name) != nullptr;
}

// The checkpoint may have a longer history than is needed: that of the recipe before its late switch.
void AmaxHistory::load(const CheckpointInfo& checkpoint) {
  if (!needed()) return;
  const auto operands = static_cast<int64_t>(steps_.size());
  const CheckpointInfo::Replicated* const saved = checkpoint.find_replicated(array_name);
  const bool longer = saved != nullptr && saved->shape.size() == 2 && saved->shape[0] == operands &&
                      saved->shape[1] > longest_ && saved->shape[1] <= largest_history;
  const int64_t columns = longer ? saved->shape[1] : longest_;
  std::vector<float> values(static_cast<size_t>(operands * columns));
  load_replicated(checkpoint, array_name, tensor_of(std::span(values), {operands, columns}));
  for (int64_t operand = 0; operand < operands; ++operand) {
    std::copy_n(values.begin() + operand * columns, longest_, history_.as<float>() + operand * longest_);
  }
  update_scales();
}

}  // namespace nibble
