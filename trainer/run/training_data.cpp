#include "trainer/run/training_data.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/base/error.h"
#include "dist/base/text.h"

namespace nibble {

namespace {

constexpr uint64_t unused_one_in = 20;  // the largest share of unused tokens that needs no flag, 5 %

std::unique_ptr<Loader> open_set(const RunConfig& config, const std::vector<std::string>& patterns, bool shuffle,
                                 uint64_t length) {
  return std::make_unique<Loader>(patterns, length, config.run.seed, shuffle, shard_options(config));
}

bool allows(const RunConfig& config, std::string_view key) {
  return std::ranges::find(config.resume.allow, key) != config.resume.allow.end();
}

std::string unused_text(const Loader& set) {
  return fmt::format("{} of {} tokens ({:.1f} %) lie in no window", with_thousands(set.tokens_in_no_window()),
                     with_thousands(set.tokens()),
                     100 * static_cast<double>(set.tokens_in_no_window()) / static_cast<double>(set.tokens()));
}

std::string name_of(const Validation::Set& set) {
  return set.name.empty() ? "data.validation" : "data.validation " + set.name;
}

void refuse_unused(const RunConfig& config, const Loader& set, std::string_view key) {
  if (config.data.allow_unused || set.tokens_in_no_window() * unused_one_in <= set.tokens()) return;
  throw Error(ExitCode::bad_config,
              fmt::format("{}: {} of {} tokens", key, unused_text(set), with_thousands(set.sequence_length())),
              "use a shorter model.sequence_length or more data, or accept it with data.allow_unused=true");
}

void refuse_overlap(const Loader& train, const Loader& validation) {
  const auto pairs = shards_in_both(train, validation);
  if (pairs.empty()) return;
  throw Error(ExitCode::bad_config,
              fmt::format("{} shard(s) are in data.train and in data.validation, first {} (in data.validation as {}): "
                          "the loss of text that was trained on is no validation",
                          pairs.size(), pairs.front().first, pairs.front().second),
              "leave them out of one of the two, for example data.train: DIR/train-*.bin");
}

void check_same_tokenizer(const Loader& train, const Loader& validation) {
  const Hash128 a = train.tokenizer_hash();
  const Hash128 b = validation.tokenizer_hash();
  if (a == b || a == Hash128{} || b == Hash128{}) return;
  throw Error(ExitCode::bad_data, "training and validation shards were made with different tokenizers",
              "tokenize both in one call of nibble tokenize");
}

// Warns of shards whose tokenizer or vocabulary is taken for granted.
void warn_of_unstated(const RunConfig& config, const Loader& set, std::vector<std::string>& warnings) {
  size_t unnamed = 0;
  for (size_t i = 0; i < set.shards(); ++i) unnamed += set.shard(i).tokenizer() == Hash128{} ? 1 : 0;
  if (unnamed > 0 && unnamed < set.shards()) {
    warnings.push_back(
        fmt::format("{} of {} training shards do not name their tokenizer, and are taken for shards of that "
                    "of the others, {}",
                    unnamed, set.shards(), to_hex(set.tokenizer_hash())));
  }
  const TokenShard& first = set.shard(0);
  if (first.states_vocabulary() || first.eos_id() || config.data.vocab_size != 0 || config.model.vocab_size != 0)
    return;
  warnings.push_back(
      fmt::format("{} ({}) does not state its vocabulary: the model has one of {} tokens, as many as its ids "
                  "of {} bytes allow; data.vocab_size says how many there are",
                  first.name(), first.format(), with_thousands(first.vocab_size()), first.token_bytes()));
}

// Fills in where a run stands that an older version has saved. Its windows lie inside shards, it has read one set with
// one sequence length, and of its shards it knows a fingerprint with their names.
void complete_older(const RunConfig& config, const CheckpointInfo& checkpoint, const Loader& train, DataPart& part) {
  if (train.fingerprint_with_names() != checkpoint.data.fingerprint) return;
  part.position = train.position(0);
  part.position.across_shards = false;
  part.position.lengths = {checkpoint.data.sequence_length};
  const std::unique_ptr<Loader> before = open_set(config, config.data.train, true, checkpoint.data.sequence_length);
  before->continue_at(part.position, 0);
  part.position.epoch = part.taken / before->windows();
  part.position.taken = part.taken % before->windows();
}

// Returns the sets that the checkpoint's run has read, each with its position if that can be known.
std::vector<DataPart> parts_of(const RunConfig& config, const CheckpointInfo& checkpoint, const Loader& train) {
  std::vector<DataPart> parts = checkpoint.data.parts;
  if (parts.empty()) parts.push_back({.name = "train", .taken = checkpoint.data.next_sample});
  for (DataPart& part : parts) {
    if (part.used && part.position.lengths.empty()) complete_older(config, checkpoint, train, part);
  }
  return parts;
}

}  // namespace

TrainingData::TrainingData(const RunConfig& config, const CheckpointInfo* checkpoint) : config_(config) {
  const auto length = static_cast<uint64_t>(config.model.sequence_length);
  train_ = open_set(config, config.data.train, true, length);
  if (checkpoint != nullptr) continue_from(*checkpoint);
  refuse_unused(config, *train_, "data.train");
  if (const size_t repeated = repeated_shards(*train_); repeated > 0) {
    warnings_.push_back(
        fmt::format("{} of {} training shards are copies of others: the run reads their tokens more "
                    "than once in an epoch",
                    repeated, train_->shards()));
  }
  warn_of_unstated(config, *train_, warnings_);
  refuse_unknown_documents(config, *train_);
  if (config.data.validation.empty()) return;
  validation_ = std::make_unique<Validation>(config);
  for (const Validation::Set& set : validation_->sets()) {
    check_same_tokenizer(*train_, *set.loader);
    refuse_overlap(*train_, *set.loader);
    refuse_unused(config, *set.loader, name_of(set));
  }
}

void TrainingData::continue_from(const CheckpointInfo& checkpoint) {
  const DataState& data = checkpoint.data;
  start_step_ = checkpoint.step;
  start_samples_ = data.next_sample;
  start_tokens_ = checkpoint.tokens;

  const std::string tokenizer = to_hex(train_->tokenizer_hash());
  if (!data.tokenizer.empty() && data.tokenizer != tokenizer) {
    const std::string text =
        fmt::format("the training shards were made with another tokenizer than the checkpoint's ({}, then {})",
                    tokenizer, data.tokenizer);
    if (!allows(config_, "data.tokenizer")) {
      throw Error(ExitCode::bad_config, text,
                  "restore the shards, or go on on purpose: --set 'resume.allow=[data.train, data.tokenizer]'");
    }
    warnings_.push_back(text);
  }
  std::vector<DataPart> parts = parts_of(config_, checkpoint, *train_);
  const auto same =
      std::ranges::find_if(parts, [&](const DataPart& part) { return train_->has_shards_of(part.position); });
  if ((same == parts.end() || !same->used) && !allows(config_, "data.train")) {
    throw Error(ExitCode::bad_config,
                fmt::format("the training shards are not those of the checkpoint (fingerprint {}, then {})",
                            train_->fingerprint(), data.fingerprint),
                "restore the shards, or go on with others on purpose: --set 'resume.allow=[data.train]'");
  }
  if (same == parts.end()) {
    warnings_.push_back(
        fmt::format("the training shards are not those of the checkpoint: the run begins them at their "
                    "first sample, after {} samples of others",
                    with_thousands(start_samples_)));
    train_->continue_at(train_->position(0), start_samples_);
  } else {
    const uint64_t length = train_->sequence_length();
    if (const uint64_t again = tokens_read_again(same->position, length); again > 0) {
      warnings_.push_back(fmt::format(
          "sequences of {} tokens cannot go on in an epoch that was read with {}: the next epoch begins, and up to {} "
          "tokens are read again before the rest of this one",
          length, same->position.lengths.back(), with_thousands(again)));
    }
    train_->continue_at(with_length(same->position, length), start_samples_);
    taken_before_ = same->taken;
    parts.erase(same);
  }
  for (DataPart& part : parts) part.used = false;
  earlier_parts_ = std::move(parts);
}

uint64_t TrainingData::samples(uint64_t step) const {
  NIBBLE_CHECK(step >= start_step_, "a step before the checkpoint");
  return start_samples_ + (step - start_step_) * static_cast<uint64_t>(config_.samples_per_step());
}

uint64_t TrainingData::tokens(uint64_t step) const {
  NIBBLE_CHECK(step >= start_step_, "a step before the checkpoint");
  return start_tokens_ + (step - start_step_) * static_cast<uint64_t>(config_.train.tokens_per_step);
}

DataState TrainingData::state(uint64_t step) const {
  const uint64_t next_sample = samples(step);
  DataState state{.fingerprint = train_->fingerprint(),
                  .tokenizer = to_hex(train_->tokenizer_hash()),
                  .sequence_length = train_->sequence_length(),
                  .next_sample = next_sample,
                  .parts = earlier_parts_};
  state.parts.insert(state.parts.begin(), {.name = "train",
                                           .windows = train_->windows(),
                                           .taken = taken_before_ + next_sample - start_samples_,
                                           .position = train_->position(next_sample)});
  return state;
}

std::vector<std::string> TrainingData::describe() const {
  const auto steps = static_cast<uint64_t>(config_.train.steps);
  const auto samples_left = (steps - std::min(steps, start_step_)) * static_cast<uint64_t>(config_.samples_per_step());
  const auto taken = static_cast<double>(taken_before_ + samples_left);
  std::vector<std::string> lines{fmt::format("{} windows of {} tokens, {:.2f} epochs in {} steps of {} tokens",
                                             with_thousands(train_->windows()), train_->sequence_length(),
                                             taken / static_cast<double>(train_->windows()), with_thousands(steps),
                                             with_thousands(static_cast<uint64_t>(config_.train.tokens_per_step)))};
  const auto add_unused = [&](const Loader& set, const std::string& name) {
    if (set.tokens_in_no_window() > 0) lines.push_back(fmt::format("{}: {}", name, unused_text(set)));
  };
  add_unused(*train_, "data.train");
  if (!validation_) return lines;
  for (const Validation::Set& set : validation_->sets()) add_unused(*set.loader, name_of(set));
  return lines;
}

}  // namespace nibble
