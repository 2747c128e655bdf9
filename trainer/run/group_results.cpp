#include "trainer/run/group_results.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "dist/device/profile.h"
#include "dist/zero/tree_reduction.h"
#include "model/ops/loss/cross_entropy.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

namespace {

void gather_by_group(Communicator& communicator, std::vector<double>& values) {
  const ProfileScope scope(OperatorFamily::reduction, "gather_by_group");
  std::vector<uint64_t> offsets;
  offsets.reserve(static_cast<size_t>(communicator.size()) + 1);
  for (int rank = 0; rank < communicator.size(); ++rank) {
    offsets.push_back(groups_of_rank(values.size(), rank, communicator.size()).begin * sizeof(double));
  }
  offsets.push_back(values.size() * sizeof(double));
  communicator.all_gather(std::as_writable_bytes(std::span(values)), offsets);
}

}  // namespace

MicroBatchRange micro_batches_of(const RunConfig& config, const GroupRange& groups) {
  return {config.first_micro_batch(groups.begin), config.first_micro_batch(groups.end)};
}

GroupResults::GroupResults(Arena& arena, const RunConfig& config, const GroupRange& local, const LanguageModel& model)
    : config_(config),
      local_(local),
      own_(micro_batches_of(config, local)),
      losses_(allocate_tensor(arena, DType::f32, {own_.count(), model.losses().elements()})),
      counts_(allocate_tensor(
          arena, DType::i64,
          {static_cast<int64_t>(local.end - local.begin), static_cast<int64_t>(model.linears().size())})),
      loss_(config.gradient_groups()),
      non_finite_(config.gradient_groups()) {}

void GroupResults::keep_losses(uint64_t micro_batch, const LanguageModel& model) {
  const auto index = static_cast<int64_t>(micro_batch - own_.begin);
  copy(model.losses(), losses_.slice(index, index + 1));
}

void GroupResults::keep_counts(uint64_t group, LanguageModel& model) {
  const auto index = static_cast<int64_t>(group - local_.begin);
  model.move_non_finite_counts(counts_.slice(index, index + 1));
}

void GroupResults::read() {
  const HostCopy losses(losses_);
  const HostCopy counts(counts_);
  const auto layers = static_cast<size_t>(counts_.cols());
  int64_t micro_batch = 0;
  for (uint64_t group = local_.begin; group < local_.end; ++group) {
    double loss = 0;
    for (int64_t left = micro_batches_of(config_, {group, group + 1}).count(); left > 0; --left, ++micro_batch) {
      loss += sum_of_losses(losses.tensor().slice(micro_batch, micro_batch + 1));
    }
    const auto of_group = counts.as<int64_t>().subspan((group - local_.begin) * layers, layers);
    loss_[group] = loss;
    non_finite_[group] = static_cast<double>(std::accumulate(of_group.begin(), of_group.end(), int64_t{0}));
  }
}

void GroupResults::gather(Communicator& communicator) {
  gather_by_group(communicator, loss_);
  gather_by_group(communicator, non_finite_);
}

double GroupResults::loss() const {
  return tree_sum(loss_);
}

uint64_t GroupResults::non_finite() const {
  return static_cast<uint64_t>(tree_sum(non_finite_));
}

int GroupResults::first_bad_rank(int ranks) const {
  const size_t groups = loss_.size();
  size_t bad = 0;
  while (bad < groups && std::isfinite(loss_[bad]) && non_finite_[bad] == 0) ++bad;
  return bad == groups ? -1 : rank_of_group(bad, groups, ranks);
}

}  // namespace nibble
