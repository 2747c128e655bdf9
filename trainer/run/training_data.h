// The data of a run, and where the run stands in it. The position is kept in checkpoints and goes on from there: it is
// never computed from the number of steps, whose batch and sequence length may have changed on the way.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/loader.h"
#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/config/run_config.h"
#include "trainer/run/validation.h"

namespace nibble {

class TrainingData {
 public:
  // Opens the shards at the position of `checkpoint`, or at their beginning if it is null. Throws
  // ExitCode::bad_config if
  // * the training shards are not the checkpoint's and resume.allow does not name data.train, or have another tokenizer
  //   and it does not name data.tokenizer;
  // * training and validation have a shard in common;
  // * more than 5 % of the tokens of a set lie in no window, unless data.allow_unused says that they may.
  // Throws ExitCode::bad_data if training and validation have different tokenizers. Shards that were renamed, moved or
  // put in another order are the same shards.
  TrainingData(const RunConfig& config, const CheckpointInfo* checkpoint);

  Loader& train() { return *train_; }
  const Loader& train() const { return *train_; }
  Validation* validation() const { return validation_.get(); }  // null without validation sets

  // Of the whole run, after `step` steps; at least as many as the checkpoint has made.
  uint64_t samples(uint64_t step) const;
  uint64_t tokens(uint64_t step) const;
  // What a checkpoint after `step` steps says of the data.
  DataState state(uint64_t step) const;
  // Describes the data, one line each; the first is that of the training set.
  std::vector<std::string> describe() const;
  // What the user should know before the run starts: repeated shards, what changed since the checkpoint.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  void continue_from(const CheckpointInfo& checkpoint);

  const RunConfig& config_;
  std::unique_ptr<Loader> train_;
  std::unique_ptr<Validation> validation_;
  uint64_t start_step_ = 0;
  uint64_t start_samples_ = 0;
  uint64_t start_tokens_ = 0;
  uint64_t taken_before_ = 0;            // samples of this training set that the run has read before it started here
  std::vector<DataPart> earlier_parts_;  // sets that the run has trained on and does not now
  std::vector<std::string> warnings_;
};

}  // namespace nibble
