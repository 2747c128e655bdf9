// The losses of a step's micro-batches, and the counts of non-finite values in the inputs of their quantisers. What the
// passes of a rank leave of them stays on the device until the end of the step, so that nobody waits for each pass.
#pragma once

#include <cstdint>
#include <vector>

#include "dist/ranks/communicator.h"
#include "dist/zero/schedule.h"
#include "model/language_model.h"

namespace nibble {

class MicroBatchResults {
 public:
  // Takes memory of `arena`, which is on the model's device, for the micro-batches of `lane`. The schedule must outlive
  // the object.
  MicroBatchResults(Arena& arena, const Schedule& schedule, int lane, const LanguageModel& model);

  // Keeps what the pass of the lane's micro-batch in this slot has left in the model.
  void keep(uint64_t slot, LanguageModel& model);
  // Waits for the passes of all micro-batches of this lane, and adds up what each has left.
  void read();
  // Collective. Gives every rank the numbers of all micro-batches.
  void gather(Communicator& communicator);

  // Of all micro-batches, after gather(). The sums do not depend on the number of ranks.
  double loss() const;          // summed cross-entropy, nats
  uint64_t non_finite() const;  // values; each quantisation counts anew
  // Returns the rank of the first micro-batch that was not finite; -1 if there is none.
  int first_bad_rank() const;

 private:
  struct Result {
    double loss = 0;        // of the micro-batch's tokens, nats
    double non_finite = 0;  // values
  };

  const Schedule& schedule_;
  int lane_;
  Tensor losses_;                // f32 [micro-batches of the lane, tokens]
  Tensor counts_;                // i64 [micro-batches of the lane, linear layers]
  std::vector<uint64_t> first_;  // [lanes + 1]: of each lane in the list of results
  std::vector<Result> results_;  // [micro-batches]: those of lane 0, then those of lane 1, ...
  std::vector<double> loss_;     // [micro-batches], in the order of the step
  std::vector<double> non_finite_;
};

}  // namespace nibble
