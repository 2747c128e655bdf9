// The configuration of a run: plain data, read from YAML and `--set key=value`. One table (field_table.h) lists every
// key with its range and with what a resumed run may change; the parser, `nibble config schema` and
// docs/configuration.md are made from it. Defaults are the initial values of the members below.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/shards/token_shard.h"
#include "dist/base/enum_names.h"
#include "dist/zero/gradient_reduction.h"
#include "dist/zero/schedule.h"
#include "model/config.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "optim/schedule.h"
#include "quant/format/dtype.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/recipe/recipe.h"
#include "quant/wire/weight_codec.h"
#include "trainer/config/config_override.h"
#include "trainer/config/model_defaults.h"

namespace nibble {

// The name by which checkpoint.keep_best names a validation set without a name.
constexpr std::string_view unnamed_validation = "validation";

// Shards that are read as one set.
struct ShardSet {
  std::string name;                   // "" for a set without a name
  std::vector<std::string> patterns;  // glob patterns, absolute
  double weight = 1;                  // of a part of data.train
  bool operator==(const ShardSet&) const = default;
};

struct RunConfig {
  enum class Device : uint8_t { automatic, cpu, cuda };
  enum class Progress : uint8_t { automatic, plain, bar, none };
  enum class ProductMismatch : uint8_t { stop, warn };

  struct Run {
    std::string dir;  // absolute
    uint64_t seed = 1234;
  };
  // Settings that only have an effect on GPUs.
  struct Cuda {
    cuda::GemmBackendKind gemm = cuda::GemmBackendKind::automatic;
    AttentionBackendKind attention = AttentionBackendKind::automatic;
    bool graphs = false;             // forward and backward of a micro-batch as one graph
    bool offload_optimizer = false;  // moments and FP32 masters stay in CPU memory, and the CPU updates them
    bool strict = false;             // products are native and attention is cuDNN's, unless another way is named
  };
  // Where the model comes from, beside its shape in `model`.
  struct ModelOrigin {
    std::string from;  // absolute: a Hugging Face directory, a run's RUN_DIR or RUN_DIR@STEP; empty = fresh weights
    std::string from_skip;  // globs on names of tensors that are not taken
    std::string preset;     // empty once it is read: its keys stand in the configuration
  };
  struct Data {
    std::vector<ShardSet> train;       // one without a name, or the parts of a mixture, which have names
    std::vector<ShardSet> validation;  // one without a name or several with names; empty = no validation
    std::string tokenizer;             // absolute; empty = see tokenizer_path()
    int64_t vocab_size = 0;            // see ShardOptions, as for the next
    int64_t token_bytes = 0;
    bool allow_unused = false;   // more than 5 % of a set's tokens may lie in no window
    bool document_mask = false;  // a token sees the earlier tokens of its own document only
  };
  struct Train {
    int64_t steps = 0;       // optimizer steps of the whole run; the schedule ends there
    int64_t stop_at = 0;     // write a checkpoint and end with exit code 75 after this step; 0 = never
    double max_minutes = 0;  // do the same when the process has run for so long; 0 = no limit
    int64_t micro_batch_sequences = 0;
    int64_t tokens_per_step = 0;  // a multiple of micro_batch_sequences * model.sequence_length
    // The groups of the gradient's fixed sum order: so many, or the older way to say it, so many micro-batches in each.
    // One of the two is 0; see RunConfig::gradient_groups().
    int64_t gradient_groups = 8;
    int64_t group_micro_batches = 0;
    std::string recompute = "none";  // see recompute_blocks()
    int64_t threads = 0;             // per rank; 0 = automatic
    int64_t head_chunk_tokens = 0;   // 0 = automatic
  };
  struct Optimizer {
    double learning_rate = 0;  // the schedule's peak
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    double weight_decay = 0.1;
    double clip_norm = 1.0;            // 0 = no clipping
    DType master_dtype = DType::bf16;  // bf16 (stochastic rounding) or f32
    DType moment_dtype = DType::f32;   // f32 or bf16
  };
  struct Schedule {
    ScheduleKind kind = ScheduleKind::cosine;
    int64_t warmup_steps = 0;
    double min_ratio = 0.1;                 // last learning rate / peak
    double decay_share = 0.2;               // of wsd and wsd_sqrt: share of the steps that decay, at the end
    std::map<uint64_t, double> peaks = {};  // see ScheduleConfig::later_peaks
  };
  struct Guard {
    int64_t skip_in_a_row = 3;            // how many consecutive steps may be skipped because they are not finite
    int64_t skip_total = 20;              // how many steps of the whole run may be skipped
    int64_t check_products_every = 1000;  // steps; 0 = never
    ProductMismatch product_mismatch = ProductMismatch::stop;
  };
  struct Telemetry {
    int64_t every = 100;         // steps; 0 = never
    bool gradient_probe = true;  // also compare gradients with those of an unquantised pass
  };
  struct Profile {
    int64_t every = 0;  // steps; 0 = no profile
  };
  struct Eval {
    int64_t every = 0;      // steps; 0 = only after the last step
    int64_t sequences = 0;  // windows of each validation set, spread over it; 0 = all
  };
  struct Checkpoint {
    int64_t every = 0;           // steps; 0 = only after the last step
    int64_t keep_last = 2;       // newest checkpoints that are kept
    int64_t keep_every = 0;      // checkpoints of steps divisible by this are kept forever; 0 = none
    std::string keep_best = {};  // the validation set whose lowest loss keeps its checkpoint; empty = none
  };
  struct Comm {
    double timeout_s = 600;  // seconds for one collective; 0 = no limit
    ReductionKind reduction = ReductionKind::tree;
    WeightFormat gather = WeightFormat::bf16;  // bf16 sends weights unchanged
  };
  struct Log {
    Progress progress = Progress::automatic;
    int64_t every = 1;
    bool tensorboard = true;
  };
  struct Fault {
    std::string throws;  // as parse_fault_throw() reads it; empty = none
  };
  struct Resume {
    std::vector<std::string> allow;  // keys of class `numeric` that may differ from the checkpoint's
    bool allows(std::string_view key) const { return std::ranges::find(allow, key) != allow.end(); }
  };

  Run run;
  Recipe recipe;
  Device device = Device::automatic;
  Cuda cuda;
  ModelConfig model;  // vocab_size 0 = the vocabulary size of the data
  ModelOrigin model_origin;
  Data data;
  Train train;
  Optimizer optimizer;
  Schedule schedule;
  Guard guard;
  Telemetry telemetry;
  Profile profile;
  Eval eval;
  Checkpoint checkpoint;
  Comm comm;
  Log log;
  Fault fault;
  Resume resume;

  // Returns the number of micro-batches of one optimizer step, summed over all ranks.
  int64_t micro_batches_per_step() const {
    return train.tokens_per_step / (train.micro_batch_sequences * model.sequence_length);
  }
  // Returns the number of groups into which a step's micro-batches are cut: their gradients are the leaves of the tree
  // that sums them (dist/zero/tree_reduction.h).
  uint64_t gradient_groups() const;
  MicroBatchGroups micro_batch_groups() const;
  // Samples are sequences of model.sequence_length tokens.
  int64_t samples_per_step() const { return train.tokens_per_step / model.sequence_length; }
};

constexpr auto enum_names(RunConfig::Device) {
  using Device = RunConfig::Device;
  return std::to_array<EnumName<Device>>({{Device::automatic, "auto"}, {Device::cpu, "cpu"}, {Device::cuda, "cuda"}});
}
constexpr auto enum_names(RunConfig::Progress) {
  using Progress = RunConfig::Progress;
  return std::to_array<EnumName<Progress>>(
      {{Progress::automatic, "auto"}, {Progress::plain, "plain"}, {Progress::bar, "bar"}, {Progress::none, "none"}});
}

constexpr auto enum_names(RunConfig::ProductMismatch) {
  using Mismatch = RunConfig::ProductMismatch;
  return std::to_array<EnumName<Mismatch>>({{Mismatch::stop, "stop"}, {Mismatch::warn, "warn"}});
}

// Says whether a resumed run may change a key.
enum class ResumeClass : uint8_t {
  frozen,   // may never change: the checkpoint would not fit
  numeric,  // may change only if resume.allow names it: it changes the numbers of the run
  free      // may always change
};
constexpr auto enum_names(ResumeClass) {
  return std::to_array<EnumName<ResumeClass>>(
      {{ResumeClass::frozen, "frozen"}, {ResumeClass::numeric, "numeric"}, {ResumeClass::free, "free"}});
}

// Reads a file and applies overrides. Paths in the result are absolute: relative paths are taken from the current
// directory, and ~ and variables are replaced (trainer/config/user_path.h). Throws ExitCode::missing_input if there is
// no such file, and ExitCode::bad_config with file:line:column for unknown, duplicate or missing keys, wrong types,
// values out of range, and values that contradict each other.
//
// With a reader, keys of `model` that are not given come from the model that model.from names, and one that differs
// from it is ExitCode::bad_config (trainer/config/model_defaults.h). A configuration that is complete needs none.
RunConfig parse_run_config(const std::string& path, const std::vector<ConfigOverride>& overrides = {},
                           const ModelReader& read_model = {});
// Does the same as parse_run_config() with a text in memory. `name` stands for the file in messages, and recipes are
// looked for first in its directory.
RunConfig parse_run_config_text(const std::string& text, const std::string& name,
                                const std::vector<ConfigOverride>& overrides = {});

// Writes every key as canonical YAML, with the recipe written out in full. The text depends on no other file, and
// parsing and writing it again gives the same bytes.
std::string resolved_yaml(const RunConfig& config);

struct ConfigDifference {
  std::string key;  // "optimizer.learning_rate"
  std::string before, after;
  ResumeClass resume = ResumeClass::free;
  // The group of keys that `nibble compare` expects to be equal in all runs: "data", "seed", "batch", "schedule",
  // "optimizer" or "model". It is empty for keys that may differ, such as the recipe.
  std::string_view compare_group = {};
};
std::vector<ConfigDifference> config_differences(const RunConfig& before, const RunConfig& after);

// Throws ExitCode::bad_config, naming every offending key, if `after` may not continue a checkpoint of `before`.
void check_resume(const RunConfig& before, const RunConfig& after);

// The learning rate of the run: its shape, its peak and the number of steps.
ScheduleConfig schedule_config(const RunConfig& config);

// What the configuration says of shards that do not say it themselves.
ShardOptions shard_options(const RunConfig& config);

// Returns data.tokenizer, or, if it is empty, the tokenizer (tokenizer.model, .json or .tiktoken) in the directory of
// the first training shard; where the shards are gone, in the directory that the first train pattern names.
std::string tokenizer_path(const RunConfig& config);

// Return the text of docs/configuration.md, and the JSON Schema (2020-12) of the configuration for editors.
std::string config_reference();
std::string config_schema();

}  // namespace nibble
