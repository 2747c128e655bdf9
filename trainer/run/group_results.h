// The losses of a step's gradient groups, and the counts of non-finite values in the inputs of their quantisers. What
// the passes of a rank's micro-batches leave of them stays on the device until the end of the step, so that nobody
// waits for each pass.
#pragma once

#include <cstdint>
#include <vector>

#include "dist/ranks/communicator.h"
#include "dist/zero/gradient_reduction.h"
#include "model/language_model.h"
#include "trainer/config/run_config.h"

namespace nibble {

// Numbers of micro-batches in a step.
struct MicroBatchRange {
  uint64_t begin = 0, end = 0;
  int64_t count() const { return static_cast<int64_t>(end - begin); }
};
MicroBatchRange micro_batches_of(const RunConfig& config, const GroupRange& groups);

class GroupResults {
 public:
  // Takes memory of `arena`, which is on the model's device, for the groups `local` of this rank.
  GroupResults(Arena& arena, const RunConfig& config, const GroupRange& local, const LanguageModel& model);

  // Keep what the last pass has left in the model: the losses of a micro-batch of this rank, and at the end of a group
  // the counts.
  void keep_losses(uint64_t micro_batch, const LanguageModel& model);
  void keep_counts(uint64_t group, LanguageModel& model);
  // Waits for the passes of all groups of this rank, and adds up what they have left.
  void read();
  // Collective. Gives every rank the numbers of all groups.
  void gather(Communicator& communicator);

  // Of all groups, after gather(). The sums do not depend on the number of ranks.
  double loss() const;          // summed cross-entropy, nats
  uint64_t non_finite() const;  // values; each quantisation counts anew
  // Returns the lowest of so many ranks whose micro-batches were not finite; -1 if there is none.
  int first_bad_rank(int ranks) const;

 private:
  const RunConfig& config_;
  GroupRange local_;
  MicroBatchRange own_;             // this rank's micro-batches
  Tensor losses_;                   // f32 [own_, tokens]
  Tensor counts_;                   // i64 [local_, linear layers]
  std::vector<double> loss_;        // [groups]
  std::vector<double> non_finite_;  // [groups]
};

}  // namespace nibble
