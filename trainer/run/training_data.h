// The data of a run, and where the run stands in it. The position is kept in checkpoints and goes on from there: it is
// never computed from the number of steps, whose batch and sequence length may have changed on the way.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/mixture.h"
#include "trainer/checkpoint/checkpoint_content.h"
#include "trainer/config/run_config.h"
#include "trainer/report/metrics.h"
#include "trainer/run/validation.h"

namespace nibble {

// Opens the shards of data.train. Throws what Loader and Mixture throw.
std::unique_ptr<Mixture> open_training_set(const RunConfig& config, uint64_t sequence_length);

class TrainingData {
 public:
  // Opens the shards at the position of `checkpoint`, or at their beginning if it is null. Throws
  // ExitCode::bad_config if
  // * the training shards are not the checkpoint's, or their parts or weights are others, and resume.allow does not
  // name
  //   data.train, or they have another tokenizer and it does not name data.tokenizer;
  // * training and validation have a shard in common;
  // * more than 5 % of the tokens of a set lie in no window, unless data.allow_unused says that they may.
  // Throws ExitCode::bad_data if training and validation have different tokenizers. Shards that were renamed, moved or
  // put in another order are the same shards.
  TrainingData(const RunConfig& config, const CheckpointInfo* checkpoint);

  Mixture& train() { return *train_; }
  const Mixture& train() const { return *train_; }
  Validation* validation() const { return validation_.get(); }  // null without validation sets

  // Of the whole run, after `step` steps; at least as many as the checkpoint has made.
  uint64_t samples(uint64_t step) const;
  uint64_t tokens(uint64_t step) const;
  // What has been read of each part of a mixture after `step` steps; nothing for one training set.
  std::vector<PartProgress> progress(uint64_t step) const;
  // What a checkpoint after `step` steps says of the data.
  DataState state(uint64_t step) const;
  // Describes the data, one line each; the first is that of the training set.
  std::vector<std::string> describe() const;
  // What the user should know before the run starts: repeated shards, what changed since the checkpoint.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  void continue_from(const CheckpointInfo& checkpoint);
  void check_tokenizer(const DataState& data);
  std::vector<std::optional<size_t>> match(const DataState& data, const std::vector<DataPart>& parts);
  void continue_part(size_t part, const DataPart& before);
  uint64_t taken(size_t part, uint64_t next_sample) const;
  DataPart part_at(size_t part, uint64_t next_sample) const;

  const RunConfig& config_;
  std::unique_ptr<Mixture> train_;
  std::unique_ptr<Validation> validation_;
  uint64_t start_step_ = 0;
  uint64_t start_samples_ = 0;
  uint64_t start_tokens_ = 0;
  // What the run had read of the parts of this training set before it started here.
  struct Before {
    uint64_t taken = 0;  // samples
    uint64_t tokens = 0;
  };
  std::vector<Before> before_;
  std::vector<DataPart> earlier_parts_;  // sets that the run has trained on and does not now
  std::vector<std::string> warnings_;
};

}  // namespace nibble
