#include "trainer/memory/micro_batch_results.h"

#include <cmath>
#include <numeric>
#include <span>

#include "dist/device/profile.h"
#include "dist/zero/tree_reduction.h"
#include "model/ops/loss/cross_entropy.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

MicroBatchResults::MicroBatchResults(Arena& arena, const Schedule& schedule, int lane, const LanguageModel& model)
    : schedule_(schedule), lane_(lane), first_(1) {
  const auto own = static_cast<int64_t>(schedule.micro_batches(lane));
  losses_ = allocate_tensor(arena, DType::f32, {own, model.losses().elements()});
  counts_ = allocate_tensor(arena, DType::i64, {own, static_cast<int64_t>(model.linears().size())});
  for (int each = 0; each < schedule.lanes(); ++each) first_.push_back(first_.back() + schedule.micro_batches(each));
  results_.resize(first_.back());
  loss_.resize(first_.back());
  non_finite_.resize(first_.back());
}

void MicroBatchResults::keep(uint64_t slot, LanguageModel& model) {
  const auto index = static_cast<int64_t>(slot);
  copy(model.losses(), losses_.slice(index, index + 1));
  model.move_non_finite_counts(counts_.slice(index, index + 1));
}

void MicroBatchResults::read() {
  const HostCopy losses(losses_);
  const HostCopy counts(counts_);
  const auto layers = static_cast<size_t>(counts_.cols());
  for (uint64_t slot = 0; slot < schedule_.micro_batches(lane_); ++slot) {
    const auto index = static_cast<int64_t>(slot);
    const auto of_layers = counts.as<int64_t>().subspan(slot * layers, layers);
    results_[first_[static_cast<size_t>(lane_)] + slot] = {
        .loss = sum_of_losses(losses.tensor().slice(index, index + 1)),
        .non_finite = static_cast<double>(std::accumulate(of_layers.begin(), of_layers.end(), int64_t{0}))};
  }
}

void MicroBatchResults::gather(Communicator& communicator) {
  const ProfileScope scope(OperatorFamily::reduction, "gather_results");
  std::vector<uint64_t> offsets;
  for (const uint64_t first : first_) offsets.push_back(first * sizeof(Result));
  communicator.all_gather(std::as_writable_bytes(std::span(results_)), offsets);
  for (int lane = 0; lane < schedule_.lanes(); ++lane) {
    for (uint64_t slot = 0; slot < schedule_.micro_batches(lane); ++slot) {
      const Result& result = results_[first_[static_cast<size_t>(lane)] + slot];
      const uint64_t micro_batch = *schedule_.micro_batch(slot, lane);
      loss_[micro_batch] = result.loss;
      non_finite_[micro_batch] = result.non_finite;
    }
  }
}

double MicroBatchResults::loss() const {
  return sum_by_groups(schedule_.groups(), loss_);
}

uint64_t MicroBatchResults::non_finite() const {
  return static_cast<uint64_t>(std::accumulate(non_finite_.begin(), non_finite_.end(), 0.0));
}

int MicroBatchResults::first_bad_rank() const {
  for (uint64_t micro_batch = 0; micro_batch < loss_.size(); ++micro_batch) {
    const bool finite = std::isfinite(loss_[micro_batch]) && non_finite_[micro_batch] == 0;
    if (!finite) return schedule_.lane_of(micro_batch);
  }
  return -1;
}

}  // namespace nibble
