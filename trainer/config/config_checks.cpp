#include "trainer/config/config_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "dist/base/text.h"
#include "dist/zero/layout.h"
#include "model/blocks/block_kind.h"
#include "trainer/config/fault_throw.h"
#include "trainer/config/recompute_blocks.h"

namespace nibble {
namespace {

class ConfigChecks {
 public:
  ConfigChecks(RunConfig& config, const KeyLocations& locations) : config_(config), locations_(locations) {}

  // Everything else counts the characters of the pattern, and compares it with that of a checkpoint.
  void expand_pattern() {
    at_its_key([&] { config_.model.pattern = expanded_pattern(config_.model.pattern); });
  }

  void check() {
    check_batch();
    check_groups();
    check_steps();
    check_validation();
    check_keep_best();
    check_token_bytes();
    check_recompute();
    check_fault();
    check_model();
    check_gather();
  }

 private:
  const SourceLocation& location(std::string_view key) const { return locations_.of(key); }

  void check_batch() const {
    if (config_.train.head_chunk_tokens % block_rows != 0) {
      refuse_config(location("train.head_chunk_tokens"),
                    fmt::format("train.head_chunk_tokens {} is not a multiple of {}", config_.train.head_chunk_tokens,
                                block_rows),
                    fmt::format("tokens are summed in blocks of {}: use a multiple, or 0", block_rows));
    }
    const int64_t micro_batch = config_.train.micro_batch_sequences * config_.model.sequence_length;
    const int64_t tokens = config_.train.tokens_per_step;
    if (tokens % micro_batch == 0) {
      if (tokens / micro_batch <= int64_t{UINT32_MAX}) return;
      refuse_config(location("train.tokens_per_step"), "a step of more than 2^32 micro-batches",
                    "raise train.micro_batch_sequences");
    }
    const int64_t below = tokens / micro_batch * micro_batch;
    const std::string nearest =
        below == 0 ? fmt::format("{}", micro_batch) : fmt::format("{} or {}", below, below + micro_batch);
    refuse_config(location("train.tokens_per_step"),
                  fmt::format("train.tokens_per_step {} is not a multiple of a micro-batch of {} x {} = {} tokens",
                              tokens, config_.train.micro_batch_sequences, config_.model.sequence_length, micro_batch),
                  fmt::format("use {}", nearest));
  }

  // A file that knows only the older key decides by it; the default of the other one gives way.
  void check_groups() {
    RunConfig::Train& train = config_.train;
    if (train.group_micro_batches > 0 && !locations_.contains("train.gradient_groups")) train.gradient_groups = 0;
    if ((train.gradient_groups > 0) != (train.group_micro_batches > 0)) return;
    refuse_config(
        location(locations_.contains("train.gradient_groups") ? "train.gradient_groups" : "train.group_micro_batches"),
        train.gradient_groups > 0 ? "train.gradient_groups and train.group_micro_batches say the same in two ways"
                                  : "train.gradient_groups and train.group_micro_batches are both 0",
        train.gradient_groups > 0 ? "set train.group_micro_batches, the older key, to 0"
                                  : "set train.gradient_groups, for example to 8");
  }

  void check_steps() const {
    const int64_t steps = config_.train.steps;
    const auto check = [&](std::string_view key, int64_t value) {
      if (value <= steps) return;
      refuse_config(location(key), fmt::format("{} is {}, beyond the {} steps of the run", key, value, steps),
                    fmt::format("lower {}, or raise train.steps", key));
    };
    check("train.stop_at", config_.train.stop_at);
    check("schedule.warmup_steps", config_.schedule.warmup_steps);
    const double decay = config_.schedule.decay_share * static_cast<double>(steps);
    const bool decays_at_end =
        config_.schedule.kind == ScheduleKind::wsd || config_.schedule.kind == ScheduleKind::wsd_sqrt;
    if (decays_at_end && static_cast<double>(config_.schedule.warmup_steps) + decay > static_cast<double>(steps)) {
      refuse_config(location("schedule.decay_share"),
                    "warm-up and decay overlap: together they are longer than the run",
                    "lower schedule.decay_share or schedule.warmup_steps");
    }
  }

  void check_validation() const {
    if (config_.eval.every == 0 || !config_.data.validation.empty()) return;
    refuse_config(location("eval.every"), "eval.every is set, but there is no data.validation",
                  "name validation shards in data.validation, or set eval.every to 0");
  }

  void check_keep_best() const {
    const std::string& wanted = config_.checkpoint.keep_best;
    if (wanted.empty()) return;
    std::vector<std::string_view> names;
    for (const ShardSet& set : config_.data.validation) {
      names.push_back(set.name.empty() ? unnamed_validation : std::string_view(set.name));
    }
    if (std::ranges::find(names, wanted) != names.end()) return;
    if (names.empty()) {
      refuse_config(location("checkpoint.keep_best"), "checkpoint.keep_best is set, but there is no data.validation",
                    "name validation shards in data.validation, or set checkpoint.keep_best to \"\"");
    }
    refuse_config(location("checkpoint.keep_best"),
                  fmt::format("checkpoint.keep_best: there is no validation set {}", unknown_word(wanted, names)),
                  fmt::format("the sets of data.validation are: {}", fmt::join(names, ", ")));
  }

  void check_token_bytes() const {
    if (config_.data.token_bytes != 3) return;
    refuse_config(location("data.token_bytes"), "data.token_bytes is 3", "use 1, 2 or 4, or 0 for shards with headers");
  }

  void check_recompute() const {
    const size_t blocks = config_.model.pattern.size();
    if (blocks == 0 || !parse_blocks(config_.train.recompute, blocks).empty()) return;
    refuse_config(
        location("train.recompute"),
        fmt::format("train.recompute {} names no blocks of a model of {}", shown(config_.train.recompute), blocks),
        fmt::format("use none, all, or numbers from 0 to {} such as 0,2,5-7", blocks - 1));
  }

  void check_fault() const {
    const std::string& text = config_.fault.throws;
    if (text.empty()) return;
    const std::optional<FaultThrow> fault = parse_fault_throw(text);
    const size_t blocks = config_.model.pattern.size();
    if (fault && fault->step > 0 && fault->block < blocks) return;
    refuse_config(location("fault.throw"), fmt::format("fault.throw {} names no place in a run", shown(text)),
                  fmt::format("write RANK:STEP:BLOCK:forward or RANK:STEP:BLOCK:backward, with steps from 1 and blocks "
                              "from 0 to {}, such as 1:5:0:forward",
                              blocks - 1));
  }

  // Adds the location of the key that an error of the model names.
  template <class Action>
  void at_its_key(const Action& action) const {
    try {
      action();
    } catch (const ModelConfigError& error) {
      refuse_config(error.key().empty() ? locations_.document : location(error.key()), error.what(), error.remedy());
    }
  }

  void check_model() const {
    ModelConfig model = config_.model;
    if (model.vocab_size == 0) model.vocab_size = block_rows;
    at_its_key([&] { validate(model); });
  }

  // Weights that are sent in a narrow format need FP32 masters beside them: without the exact values, small updates
  // would be lost.
  void check_gather() const {
    if (config_.comm.gather == WeightFormat::bf16) return;
    const auto refuse = [&](const char* key, const char* is, const char* remedy) {
      refuse_config(location("comm.gather"),
                    fmt::format("comm.gather {} rounds weights that are BF16 and have FP32 masters, but {} is {}",
                                name_of(config_.comm.gather), key, is),
                    fmt::format("set {}, or comm.gather=bf16", remedy));
    };
    if (config_.model.dtype != DType::bf16) refuse("model.dtype", "fp32", "model.dtype=bf16");
    if (config_.optimizer.master_dtype != DType::f32) {
      refuse("optimizer.master_dtype", "bf16", "optimizer.master_dtype=fp32");
    }
  }

  RunConfig& config_;
  const KeyLocations& locations_;
};

}  // namespace

const SourceLocation& KeyLocations::of(std::string_view key) const {
  const auto found = keys.find(key);
  return found == keys.end() ? document : found->second;
}

void expand_pattern(RunConfig& config, const KeyLocations& locations) {
  ConfigChecks(config, locations).expand_pattern();
}

void check_config(RunConfig& config, const KeyLocations& locations) {
  ConfigChecks(config, locations).check();
}

}  // namespace nibble
