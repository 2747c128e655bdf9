#include "trainer/run/training_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dist/base/error.h"
#include "dist/base/text.h"

namespace nibble {

namespace {

constexpr uint64_t unused_one_in = 20;  // the largest share of unused tokens that needs no flag, 5 %

constexpr std::string_view only_part = "train";  // its name in checkpoints

std::unique_ptr<Loader> open_shards(const RunConfig& config, const ShardSet& shards, uint64_t length) {
  return std::make_unique<Loader>(shards.patterns, length, config.run.seed, /*shuffle=*/true, shard_options(config));
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

void check_validation_tokenizer(const Mixture& train, const Loader& validation) {
  const Hash128 a = train.tokenizer_hash();
  const Hash128 b = validation.tokenizer_hash();
  if (a != b && a != Hash128{} && b != Hash128{}) {
    throw Error(ExitCode::bad_data, "training and validation shards were made with different tokenizers",
                "tokenize both in one call of nibble tokenize");
  }
  check_same_tokenizer(train.loader(0).shard(0), validation.shard(0));
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
  if (config.data.train.size() != 1 || train.fingerprint_with_names() != checkpoint.data.fingerprint) return;
  part.position = train.position(0);
  part.position.across_shards = false;
  part.position.lengths = {checkpoint.data.sequence_length};
  const std::unique_ptr<Loader> before =
      open_shards(config, config.data.train.front(), checkpoint.data.sequence_length);
  before->continue_at(part.position, 0);
  part.position.epoch = part.taken / before->windows();
  part.position.taken = part.taken % before->windows();
}

// Returns the sets that the checkpoint's run has read, each with its position if that can be known.
std::vector<DataPart> parts_of(const RunConfig& config, const CheckpointInfo& checkpoint, const Loader& train) {
  std::vector<DataPart> parts = checkpoint.data.parts;
  if (parts.empty()) {
    parts.push_back(
        {.name = std::string(only_part), .taken = checkpoint.data.next_sample, .tokens = checkpoint.tokens});
  }
  for (DataPart& part : parts) {
    if (part.used && part.position.lengths.empty()) complete_older(config, checkpoint, train, part);
  }
  return parts;
}

std::string name_of_part(const Mixture& train, size_t part) {
  return train.parts() == 1 ? "data.train" : "data.train " + train.name(part);
}

}  // namespace

std::unique_ptr<Mixture> open_training_set(const RunConfig& config, uint64_t sequence_length) {
  std::vector<Mixture::Part> parts;
  for (const ShardSet& shards : config.data.train) {
    parts.push_back({.name = shards.name.empty() ? std::string(only_part) : shards.name,
                     .weight = shards.weight,
                     .loader = open_shards(config, shards, sequence_length)});
  }
  return std::make_unique<Mixture>(std::move(parts), config.run.seed);
}

TrainingData::TrainingData(const RunConfig& config, const CheckpointInfo* checkpoint) : config_(config) {
  train_ = open_training_set(config, static_cast<uint64_t>(config.model.sequence_length));
  before_.resize(train_->parts());
  if (checkpoint != nullptr) continue_from(*checkpoint);
  for (size_t part = 0; part < train_->parts(); ++part) {
    const Loader& set = train_->loader(part);
    refuse_unused(config, set, name_of_part(*train_, part));
    if (const size_t repeated = repeated_shards(set); repeated > 0) {
      warnings_.push_back(
          fmt::format("{} of {} training shards are copies of others: the run reads their tokens more "
                      "than once in an epoch",
                      repeated, set.shards()));
    }
    warn_of_unstated(config, set, warnings_);
    refuse_unknown_documents(config, set);
  }
  if (config.data.validation.empty()) return;
  validation_ = std::make_unique<Validation>(config);
  for (const Validation::Set& set : validation_->sets()) {
    check_validation_tokenizer(*train_, *set.loader);
    for (size_t part = 0; part < train_->parts(); ++part) refuse_overlap(train_->loader(part), *set.loader);
    refuse_unused(config, *set.loader, name_of(set));
  }
}

void TrainingData::check_tokenizer(const DataState& data) {
  const std::string tokenizer = to_hex(train_->tokenizer_hash());
  if (data.tokenizer.empty() || data.tokenizer == tokenizer) return;
  const std::string text =
      fmt::format("the training shards were made with another tokenizer than the checkpoint's ({}, then {})", tokenizer,
                  data.tokenizer);
  if (!config_.resume.allows("data.tokenizer")) {
    throw Error(ExitCode::bad_config, text,
                "restore the shards, or go on on purpose: --set 'resume.allow=[data.train, data.tokenizer]'");
  }
  warnings_.push_back(text);
}

// Returns for each part of the training set which of the checkpoint's parts has the same shards, if one has. Puts the
// parts in the checkpoint's order. Throws if what the run reads has changed without leave.
std::vector<std::optional<size_t>> TrainingData::match(const DataState& data, const std::vector<DataPart>& parts) {
  const auto find = [&](size_t part) -> std::optional<size_t> {
    const auto found = std::ranges::find_if(
        parts, [&](const DataPart& each) { return train_->loader(part).has_shards_of(each.position); });
    if (found == parts.end()) return std::nullopt;
    return static_cast<size_t>(found - parts.begin());
  };
  std::vector<size_t> order;
  for (size_t part = 0; part < train_->parts(); ++part) order.push_back(part);
  std::ranges::sort(order, {}, [&](size_t part) { return std::pair(find(part).value_or(parts.size()), part); });
  train_->arrange(order);

  std::vector<std::optional<size_t>> matches;
  auto parts_left = std::ranges::count_if(parts, &DataPart::used);
  std::string changed_weights;
  for (size_t part = 0; part < train_->parts(); ++part) {
    const std::optional<size_t> match = find(part);
    matches.push_back(match);
    if (!match || !parts[*match].used) {
      parts_left = -1;
      break;
    }
    --parts_left;
    if (parts[*match].weight == train_->share(part)) continue;
    changed_weights += fmt::format("{}{} ({} -> {})", changed_weights.empty() ? "" : ", ", train_->name(part),
                                   parts[*match].weight, train_->share(part));
  }
  if (parts_left != 0) {
    if (!config_.resume.allows("data.train")) {
      throw Error(ExitCode::bad_config,
                  fmt::format("the training shards are not those of the checkpoint (fingerprint {}, then {})",
                              train_->fingerprint(), data.fingerprint),
                  "restore the shards, or go on with others on purpose: --set 'resume.allow=[data.train]'");
    }
    matches.clear();
    for (size_t part = 0; part < train_->parts(); ++part) matches.push_back(find(part));
    return matches;
  }
  if (changed_weights.empty()) return matches;
  if (!config_.resume.allows("data.train")) {
    throw Error(ExitCode::bad_config,
                fmt::format("the shares of the parts of data.train have changed: {}", changed_weights),
                "restore the weights, or go on with others on purpose: --set 'resume.allow=[data.train]'");
  }
  warnings_.push_back(fmt::format(
      "the shares of the parts of data.train have changed: {}; every part goes on where it was", changed_weights));
  return matches;
}

// Lets a part go on where a part of the checkpoint was.
void TrainingData::continue_part(size_t part, const DataPart& before) {
  const uint64_t length = train_->sequence_length();
  if (const uint64_t again = tokens_read_again(before.position, length); again > 0) {
    warnings_.push_back(fmt::format(
        "{}sequences of {} tokens cannot go on in an epoch that was read with {}: the next epoch begins, and up to {} "
        "tokens are read again before the rest of this one",
        train_->parts() == 1 ? "" : name_of_part(*train_, part) + ": ", length, before.position.lengths.back(),
        with_thousands(again)));
  }
  train_->continue_at(part, with_length(before.position, length), start_samples_);
  before_[part] = {.taken = before.taken, .tokens = before.tokens};
}

void TrainingData::continue_from(const CheckpointInfo& checkpoint) {
  start_step_ = checkpoint.step;
  start_samples_ = checkpoint.data.next_sample;
  start_tokens_ = checkpoint.tokens;
  check_tokenizer(checkpoint.data);
  std::vector<DataPart> parts = parts_of(config_, checkpoint, train_->loader(0));
  const std::vector<std::optional<size_t>> matches = match(checkpoint.data, parts);
  std::vector<bool> goes_on(parts.size());
  for (size_t part = 0; part < train_->parts(); ++part) {
    if (matches[part]) {
      goes_on[*matches[part]] = true;
      continue_part(part, parts[*matches[part]]);
      continue;
    }
    warnings_.push_back(fmt::format(
        "the training shards{} are not those of the checkpoint: the run begins them at their first sample, after {} "
        "samples of others",
        train_->parts() == 1 ? "" : fmt::format(" of part {}", train_->name(part)), with_thousands(start_samples_)));
    train_->continue_at(part, train_->loader(part).position(0), start_samples_);
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    if (goes_on[i]) continue;
    parts[i].used = false;
    earlier_parts_.push_back(std::move(parts[i]));
  }
}

uint64_t TrainingData::samples(uint64_t step) const {
  NIBBLE_CHECK(step >= start_step_, "a step before the checkpoint");
  return start_samples_ + (step - start_step_) * static_cast<uint64_t>(config_.samples_per_step());
}

uint64_t TrainingData::tokens(uint64_t step) const {
  NIBBLE_CHECK(step >= start_step_, "a step before the checkpoint");
  return start_tokens_ + (step - start_step_) * static_cast<uint64_t>(config_.train.tokens_per_step);
}

// Returns how many samples the run has read of a part when sample `next_sample` comes next.
uint64_t TrainingData::taken(size_t part, uint64_t next_sample) const {
  return before_[part].taken + train_->taken(part, next_sample) - train_->taken(part, start_samples_);
}

DataPart TrainingData::part_at(size_t part, uint64_t next_sample) const {
  const uint64_t samples = taken(part, next_sample);
  return {.name = train_->name(part),
          .weight = train_->share(part),
          .windows = train_->loader(part).windows(),
          .taken = samples,
          .tokens = before_[part].tokens + (samples - before_[part].taken) * train_->sequence_length(),
          .position = train_->position(part, next_sample)};
}

DataState TrainingData::state(uint64_t step) const {
  const uint64_t next_sample = samples(step);
  DataState state{.fingerprint = train_->fingerprint(),
                  .tokenizer = to_hex(train_->tokenizer_hash()),
                  .sequence_length = train_->sequence_length(),
                  .next_sample = next_sample};
  for (size_t part = 0; part < train_->parts(); ++part) state.parts.push_back(part_at(part, next_sample));
  state.parts.insert(state.parts.end(), earlier_parts_.begin(), earlier_parts_.end());
  return state;
}

std::vector<PartProgress> TrainingData::progress(uint64_t step) const {
  std::vector<PartProgress> progress;
  if (train_->parts() == 1) return progress;
  for (size_t i = 0; i < train_->parts(); ++i) {
    const DataPart part = part_at(i, samples(step));
    const double of_epoch = static_cast<double>(part.position.taken) / static_cast<double>(part.windows);
    progress.push_back(
        {.name = part.name, .tokens = part.tokens, .epochs = static_cast<double>(part.position.epoch) + of_epoch});
  }
  return progress;
}

std::vector<std::string> TrainingData::describe() const {
  const auto steps = static_cast<uint64_t>(config_.train.steps);
  const std::string in_steps = fmt::format("in {} steps of {} tokens", with_thousands(steps),
                                           with_thousands(static_cast<uint64_t>(config_.train.tokens_per_step)));
  const uint64_t last_sample = samples(std::max(steps, start_step_));
  const auto windows = [&](size_t part) {
    const Loader& set = train_->loader(part);
    return fmt::format("{} windows of {} tokens, {:.2f} epochs", with_thousands(set.windows()), set.sequence_length(),
                       static_cast<double>(taken(part, last_sample)) / static_cast<double>(set.windows()));
  };
  std::vector<std::string> lines{train_->parts() == 1
                                     ? fmt::format("{} {}", windows(0), in_steps)
                                     : fmt::format("a mixture of {} parts {}", train_->parts(), in_steps)};
  for (size_t part = 0; part < train_->parts() && train_->parts() > 1; ++part) {
    lines.push_back(fmt::format("{}: {:.4g} % of the samples, {}", name_of_part(*train_, part),
                                100 * train_->share(part), windows(part)));
  }
  const auto add_unused = [&](const Loader& set, const std::string& name) {
    if (set.tokens_in_no_window() > 0) lines.push_back(fmt::format("{}: {}", name, unused_text(set)));
  };
  for (size_t part = 0; part < train_->parts(); ++part) add_unused(train_->loader(part), name_of_part(*train_, part));
  if (!validation_) return lines;
  for (const Validation::Set& set : validation_->sets()) add_unused(*set.loader, name_of(set));
  return lines;
}

}  // namespace nibble
