#include "trainer/config/field_table.h"

#include <algorithm>
#include <initializer_list>

#include "dist/base/enum_names.h"

namespace nibble {
namespace {

// The choices are `some` values of the enum, or all where none are given.
template <NamedEnum Enum>
ChoiceField choice(Enum& value, std::initializer_list<Enum> some = {}) {
  ChoiceField field{.names = {},
                    .name = [&value] { return name_of(value); },
                    .choose = [&value](std::string_view name) { value = parse_name<Enum>(name).value(); }};
  for (const Enum each : some) field.names.push_back(name_of(each));
  if (some.size() == 0) {
    for (const std::string_view name : all_names<Enum>()) field.names.push_back(name);
  }
  return field;
}

#define VALUE(member) [](RunConfig& c) -> FieldTarget { return &c.member; }
#define PATH(member) [](RunConfig& c) -> FieldTarget { return PathField{&c.member}; }
#define MIXTURE(member) [](RunConfig& c) -> FieldTarget { return MixtureField{&c.member}; }
#define SHARD_SETS(member) [](RunConfig& c) -> FieldTarget { return ShardSetsField{&c.member}; }
#define KEYS(member) [](RunConfig& c) -> FieldTarget { return KeyListField{&c.member}; }
#define RATES(member) [](RunConfig& c) -> FieldTarget { return RatesField{&c.member}; }
#define CHOICE(member) [](RunConfig& c) -> FieldTarget { return choice(c.member); }
#define CHOICE_OF(member, ...) [](RunConfig& c) -> FieldTarget { return choice(c.member, {__VA_ARGS__}); }

constexpr ResumeClass frozen = ResumeClass::frozen;
constexpr ResumeClass numeric = ResumeClass::numeric;
constexpr ResumeClass changeable = ResumeClass::free;

// The upper limits keep products of sizes far below 2^63. Steps and micro-batches are limited to 32 bits because that
// is their width in the keys of the random number generator.
constexpr FieldRange any_seed = {0, 18446744073709551615.0};
constexpr FieldRange steps = {1, 4294967295.0};
constexpr FieldRange optional_steps = {0, 4294967295.0};
constexpr FieldRange axis = {1, 16777216.0};
constexpr FieldRange token_count = {1, 1099511627776.0};
constexpr FieldRange sequence_count = {1, 1048576.0};
constexpr FieldRange share = {0, 1};
constexpr FieldRange positive_share = {0, 1, true};
constexpr FieldRange learning_rates = {0, 10, true};
constexpr FieldRange decay_rate = {0, 0.9999999};

// clang-format off
const Field fields[] = {
    {"run.dir", PATH(run.dir), "Directory of the run: configuration, metrics, checkpoints.",
     changeable, "", {}, "", true},
    {"run.seed", VALUE(run.seed), "Seed of everything random: initial weights, sample order, rounding noise.",
     frozen, "seed", any_seed},
    {"recipe", VALUE(recipe), "How linear layers are quantised: a recipe's name, a path to a recipe, or the recipe itself "
     "(see below).",
     numeric, "", {}, "", true},
    {"device", CHOICE(device), "Where the run computes; auto takes a GPU if there is one.",
     numeric},

    {"cuda.gemm", CHOICE(cuda.gemm), "The backend of GEMMs on a "
     "GPU: automatic takes NVFP4 GEMMs of a library if GPU and library have them and the self-test passes, else BF16 "
     "GEMMs of the same operands (emulated); exact has the bits of the CPU, and is slow.",
     numeric},
    {"cuda.attention", CHOICE(cuda.attention), "The backend of attention on a GPU: automatic "
     "takes cuDNN if it supports the shape, and otherwise refuses to train with sequences of more than 512 tokens; exact "
     "has the bits of the CPU, and is slow.",
     numeric},
    {"cuda.graphs", VALUE(cuda.graphs), "Run forward and backward of a micro-batch on the GPU as one graph; changes no bit "
     "of the result.",
     changeable},
    {"cuda.offload_optimizer", VALUE(cuda.offload_optimizer), "Keep AdamW's moments and FP32 masters in CPU memory, where "
     "the CPU updates the weights; changes no bit of the result.",
     changeable},
    {"cuda.strict", VALUE(cuda.strict), "On a GPU, refuse to start on any path that is slower than the native one and was not "
     "asked for by name: decoded operands (cuda.gemm: emulated), exact products (cuda.gemm: exact), exact attention "
     "(cuda.attention: exact), ranks without NCCL. Without it a run refuses only exact products, and exact attention above 512 "
     "tokens.",
     changeable},

    {"model.from", PATH(model_origin.from), "Start from the weights of this model, with a fresh optimizer at step 0: a "
     "directory of Hugging Face (Llama, Mistral, Qwen2, Qwen3), or RUN_DIR or RUN_DIR@STEP of nibble. Keys of `model` that are "
     "not given come from there. It has no effect on a resumed run. Empty = fresh weights.",
     changeable, "model"},
    {"model.from_skip", VALUE(model_origin.from_skip), "Globs on names of tensors that are not taken from model.from, and that "
     "begin with fresh weights: `embedding|head` for another vocabulary. nibble's names and those of the files count.",
     changeable, "model"},
    {"model.preset", VALUE(model_origin.preset), "The name of a file of keys of `model` in configs/models, which is looked for as "
     "recipes are, or a path to one. Keys that are given here count more. The resolved configuration has all keys instead.",
     changeable},
    {"model.pattern", VALUE(model.pattern), "One character for each block, first to last: `*` attention, `-` MLP. "
     "A group may be repeated: `(*-)x32`.",
     frozen, "model", {}, "", true},
    {"model.vocab_size", VALUE(model.vocab_size), "Size of the vocabulary; 0 = the vocabulary size of the data.",
     frozen, "model", {0, 16777216.0}, "tokens"},
    {"model.hidden_size", VALUE(model.hidden_size), "Width of the residual stream; a multiple of 16.",
     frozen, "model", axis, "", true},
    {"model.query_heads", VALUE(model.query_heads), "Attention heads.",
     frozen, "model", axis, "", true},
    {"model.kv_heads", VALUE(model.kv_heads), "Key and value heads; divides model.query_heads.",
     frozen, "model", axis, "", true},
    {"model.head_dim", VALUE(model.head_dim), "Width of one head; even.",
     frozen, "model", axis, "", true},
    {"model.qkv_bias", VALUE(model.qkv_bias), "Queries, keys and values have a bias, as in Qwen2.",
     frozen, "model"},
    {"model.qk_norm", VALUE(model.qk_norm), "Each head of queries and keys is normalised (RMSNorm over model.head_dim, one weight for "
     "queries and one for keys) before its rotary embedding, as in Qwen3.",
     frozen, "model"},
    {"model.intermediate_size", VALUE(model.intermediate_size), "Inner width of the SwiGLU MLP; a multiple of 16.",
     frozen, "model", axis, "", true},
    {"model.sequence_length", VALUE(model.sequence_length), "Length of a training sequence and of the longest context. A "
     "resumed run reads nothing twice where the new length divides the old one.",
     numeric, "model", axis, "tokens", true},
    {"model.rope_theta", VALUE(model.rope_theta), "Base of the rotary position frequencies.",
     frozen, "model", {0, 1e12, true}},
    {"model.rope_scaling_factor", VALUE(model.rope_scaling_factor), "Rotary scaling of Llama 3, for longer contexts than "
     "those of its pre-training: low frequencies are divided by this factor; 1 = none.",
     frozen, "model", {1, 1e6}},
    {"model.rope_low_frequency_factor", VALUE(model.rope_low_frequency_factor), "With scaling, frequencies are divided that turn "
     "less often than this in model.rope_original_length tokens.",
     frozen, "model", {0, 1e6, true}},
    {"model.rope_high_frequency_factor", VALUE(model.rope_high_frequency_factor), "With scaling, frequencies are kept that turn "
     "more often than this in model.rope_original_length tokens; those between are mixed of both.",
     frozen, "model", {0, 1e6, true}},
    {"model.rope_original_length", VALUE(model.rope_original_length), "Length of the context before the scaling.",
     frozen, "model", axis, "tokens"},
    {"model.norm_epsilon", VALUE(model.norm_epsilon), "Added to the mean square in RMSNorm.",
     frozen, "model", positive_share},
    {"model.tied_head", VALUE(model.tied_head), "The head shares the weights of the embedding.",
     frozen, "model"},
    {"model.init_std", VALUE(model.init_std), "Standard deviation of the initial weights; for projections back into the "
     "residual stream it is divided by the square root of the number of blocks.",
     frozen, "model", positive_share},
    {"model.dtype", CHOICE_OF(model.dtype, DType::f32, DType::bf16),
     "Data type of weights and activations; fp32 is for debugging.",
     frozen, "model"},

    {"data.train", MIXTURE(data.train), "Training shards: a glob pattern or a list of them, or a mixture: "
     "`[{shards: 'web/*.bin', weight: 0.7}, {shards: [a.bin, b.bin], weight: 0.3, name: code}]`. Only ratios of weights count; "
     "every part has its own epochs. Without a name, parts are part-1, part-2, ...",
     numeric, "data", {}, "", true},
    {"data.validation", SHARD_SETS(data.validation), "Validation shards: a glob pattern or a list of them, or several sets by "
     "name, each with its loss: `{web: web/validation-*.bin, code: [a.bin, b.bin]}`, of which the first counts as the validation "
     "loss; [] = none.",
     changeable, "data"},
    {"data.tokenizer", PATH(data.tokenizer), "Tokenizer; \"\" = tokenizer.model, .json or .tiktoken beside the "
     "first training shard. Shards that name no tokenizer, such as llm.c's, need it for generate and bits per byte.",
     changeable, "data"},
    {"data.vocab_size", VALUE(data.vocab_size), "Size of the vocabulary of shards that do not state it: those of llm.c, "
     "Megatron, NumPy and bare ids. 0 = what their layout allows (llm.c: 50,257 or 128,256; else what an id can be), at most "
     "model.vocab_size. An id outside the vocabulary is an error.",
     changeable, "", {0, 16777216.0}, "tokens"},
    {"data.token_bytes", VALUE(data.token_bytes), "Width of an id in shards without a header, as nanoGPT's train.bin: 1, 2 or "
     "4. 0 = such files are refused. Shards with headers are read as those say.",
     changeable, "", {0, 4}, "bytes"},
    {"data.allow_unused", VALUE(data.allow_unused), "More than 5 % of the tokens of a set may lie in no window: the rest at "
     "its end that is shorter than model.sequence_length + 1.",
     changeable},
    {"data.document_mask", VALUE(data.document_mask), "A token attends only to the earlier tokens of its own document, not "
     "to those of other documents in its sequence; positions are still counted from the start of the sequence.",
     numeric, "data"},

    {"train.steps", VALUE(train.steps), "Optimizer steps of the whole run; the schedule ends there.",
     numeric, "schedule", steps, "steps", true},
    {"train.stop_at", VALUE(train.stop_at), "Write a checkpoint and end with exit code 75 after this step; 0 = never.",
     changeable, "", optional_steps, "steps"},
    {"train.max_minutes", VALUE(train.max_minutes), "Do the same after the step in which the command has run for so many "
     "minutes, by the clock of rank 0; a validation is broken off, and the resumed run makes it up. For jobs with a time limit: "
     "leave room for a step and a checkpoint. 0 = no limit.",
     changeable, "", {0, 10000000}, "minutes"},
    {"train.micro_batch_sequences", VALUE(train.micro_batch_sequences),
     "Sequences of a micro-batch, the unit that one rank computes at a time.",
     numeric, "batch", sequence_count, "sequences", true},
    {"train.tokens_per_step", VALUE(train.tokens_per_step), "Tokens of an optimizer step, over all ranks; a multiple of "
     "train.micro_batch_sequences * model.sequence_length.",
     numeric, "batch", token_count, "tokens", true},
    {"train.gradient_groups", VALUE(train.gradient_groups),
     "Groups into which the micro-batches of a step are cut, or as many as there are micro-batches, if these are fewer. A "
     "group's gradients are added up in one buffer, and a tree sums the groups: the order of the sum, and so its bits, "
     "depend on it, never on the number of ranks or on who computes what. A rank that has g of them holds up to log2(g) + 1 "
     "gradients in FP32. Where there are more ranks than groups, micro-batches are dealt out, and a rank holds one gradient "
     "and its parts of the sums; gradients then travel between machines once a micro-batch, not once a step. With fewer "
     "groups than micro-batches, a head that is tied or computed in chunks takes memory for its gradient of one "
     "micro-batch. 0 = train.group_micro_batches decides.",
     numeric, "", {0, 4294967295.0}, "groups"},
    {"train.group_micro_batches", VALUE(train.group_micro_batches),
     "The older key for the same, which says how many micro-batches a group has; 0 = train.gradient_groups decides.",
     numeric, "", {0, 4294967295.0}, "micro-batches"},
    {"train.recompute", VALUE(train.recompute), "Blocks whose activations are computed again in the backward pass to save "
     "memory: none, all, or block numbers such as `0,2,5-7`. Changes no bit of the result.",
     changeable},
    {"train.head_chunk_tokens", VALUE(train.head_chunk_tokens), "Tokens whose logits are in memory at a time, if the "
     "head is not quantised; a multiple of 16. 0 = on a CPU, a number that suits its cache; a run that starts on a GPU "
     "takes as many as 2 GiB of logits hold, at most 8192, and keeps that number, also on another device. "
     "The order of the sum of the head's weight gradient, and so its bits, depend on it.",
     numeric, "batch", {0, 1073741824.0}, "tokens"},
    {"train.threads", VALUE(train.threads), "Threads of a rank; 0 = the cores of the machine divided by the number "
     "of its ranks.",
     changeable, "", {0, 4096}, "threads"},

    {"optimizer.learning_rate", VALUE(optimizer.learning_rate), "Peak of the schedule.",
     numeric, "schedule", learning_rates, "", true},
    {"optimizer.beta1", VALUE(optimizer.beta1), "Decay of AdamW's first moment.",
     numeric, "optimizer", decay_rate},
    {"optimizer.beta2", VALUE(optimizer.beta2), "Decay of AdamW's second moment.",
     numeric, "optimizer", decay_rate},
    {"optimizer.epsilon", VALUE(optimizer.epsilon), "Added to the root of the second moment.",
     numeric, "optimizer", positive_share},
    {"optimizer.weight_decay", VALUE(optimizer.weight_decay), "Decoupled decay of the linear layers' weights.",
     numeric, "optimizer", {0, 10}},
    {"optimizer.clip_norm", VALUE(optimizer.clip_norm), "Largest norm of the gradient; a gradient with a larger norm is "
     "scaled down. 0 = no clipping.",
     numeric, "optimizer", {0, 1e6}},
    {"optimizer.master_dtype", CHOICE_OF(optimizer.master_dtype, DType::f32, DType::bf16),
     "Data type of the weights that the optimizer updates; bf16 is rounded stochastically.",
     frozen, "optimizer"},
    {"optimizer.moment_dtype", CHOICE_OF(optimizer.moment_dtype, DType::f32, DType::bf16),
     "Data type of AdamW's moments.",
     frozen, "optimizer"},

    {"schedule.kind", CHOICE(schedule.kind), "Shape of the learning rate after "
     "warm-up: cosine or linear decay over all steps, or constant, then decay at the end: wsd linearly, wsd_sqrt by "
     "1 - sqrt(share of the decay that is done).",
     numeric, "schedule"},
    {"schedule.warmup_steps", VALUE(schedule.warmup_steps), "Steps of linear warm-up.",
     numeric, "schedule", optional_steps, "steps"},
    {"schedule.min_ratio", VALUE(schedule.min_ratio), "Share of the peak to which the learning rate decays: the step after the "
     "last one would have it.",
     numeric, "schedule", share},
    {"schedule.decay_share", VALUE(schedule.decay_share), "Share of the steps in which wsd and wsd_sqrt decay.",
     numeric, "schedule", positive_share},
    {"schedule.peaks", RATES(schedule.peaks), "Other peaks in place of optimizer.learning_rate, each from the update on that follows so "
     "many steps: {1200: 3e-4}. `nibble control` adds to it; a resumed run may change what lies ahead of its checkpoint.",
     numeric, "schedule", learning_rates},

    {"guard.skip_in_a_row", VALUE(guard.skip_in_a_row), "How many consecutive steps may be skipped because they are "
     "not finite, also when computed again; one more ends the run with exit code 77.",
     changeable, "", optional_steps, "steps"},
    {"guard.skip_total", VALUE(guard.skip_total), "How many steps of the whole run, over all resumes, may be skipped.",
     changeable, "", optional_steps, "steps"},
    {"guard.check_products_every", VALUE(guard.check_products_every), "Steps between comparisons of one product of one "
     "linear layer with the exact product of the same operands; changes no bit; 0 = never.",
     changeable, "", optional_steps, "steps"},
    {"guard.product_mismatch", CHOICE(guard.product_mismatch), "What a product that differs does: stop ends the run before "
     "the step's update, with exit code 76; warn logs it and goes on.",
     changeable},

    {"telemetry.every", VALUE(telemetry.every), "Steps between measurements of the errors of every quantiser; 0 = never.",
     changeable, "", optional_steps, "steps"},
    {"telemetry.gradient_probe", VALUE(telemetry.gradient_probe), "Also measure how far each linear layer's weight gradient "
     "lies from that of the same micro-batch without quantisation; takes memory for a second set of activations and "
     "gradients on one rank.",
     changeable},

    {"profile.every", VALUE(profile.every), "Steps between lines in the log that give the shares of time by family of "
     "operators; the first profiled steps are also written to profile.json. 0 = no profile.",
     changeable, "", optional_steps, "steps"},

    {"eval.every", VALUE(eval.every), "Steps between validations; 0 = only after the last step.",
     changeable, "", optional_steps, "steps"},
    {"eval.sequences", VALUE(eval.sequences), "Validation sequences that are used; 0 = all. Of n "
     "windows, N take one out of each part [i n/N, (i+1) n/N), so that they are spread over the whole set.",
     changeable, "data", {0, 1099511627776.0}, "sequences"},

    {"checkpoint.every", VALUE(checkpoint.every), "Steps between checkpoints; 0 = only after the last step.",
     changeable, "", optional_steps, "steps"},
    {"checkpoint.keep_last", VALUE(checkpoint.keep_last), "How many of the newest checkpoints are kept.",
     changeable, "", {1, 1000000}, "checkpoints"},
    {"checkpoint.keep_every", VALUE(checkpoint.keep_every), "Checkpoints of steps that are divisible by this number are "
     "never removed; 0 = none.",
     changeable, "", optional_steps, "steps"},
    {"checkpoint.keep_best", VALUE(checkpoint.keep_best), "Also keep the checkpoint with the lowest loss on this validation set: "
     "its name in data.validation, or `validation` for a set without a name; a validation with a new lowest loss saves a "
     "checkpoint where none is due. Empty = none.",
     changeable},

    {"comm.timeout_s", VALUE(comm.timeout_s), "Longest wait for the other ranks before the run ends with exit code 76; "
     "0 = wait for ever.",
     changeable, "", {0, 1e6}, "seconds"},

    {"comm.reduction", CHOICE(comm.reduction), "How gradients of the ranks are summed: tree has the same "
     "bits for any number of ranks; nccl, between GPUs only, overlaps with the backward pass and sums in NCCL's own order.",
     numeric},
    {"comm.gather", CHOICE(comm.gather), "How updated weights are sent to the ranks that do not own "
     "them: bf16 sends them unchanged; fp8 (8.25 bits per weight) and nvfp4 (4.53 bits) round the weights of linear layers, on "
     "every rank and for any number of ranks, and need optimizer.master_dtype fp32, which keeps the exact weights.",
     numeric},

    {"log.progress", CHOICE(log.progress), "What standard output shows: a line for each "
     "step, or a bar; auto shows the bar on a terminal.",
     changeable},
    {"log.every", VALUE(log.every), "How many steps a line of the progress stands for, where it is plain; its tokens/s are the mean since "
     "the last line, its other figures those of its step.",
     changeable, "", steps, "steps"},
    {"log.tensorboard", VALUE(log.tensorboard), "Write TensorBoard event files.",
     changeable},

    {"fault.throw", VALUE(fault.throws), "To try what a job does when a rank fails: RANK:STEP:BLOCK:forward or "
     "RANK:STEP:BLOCK:backward makes that rank throw an error in that block of that step; empty = no rank.",
     changeable},

    {"resume.allow", KEYS(resume.allow), "Keys of class numeric that may differ from those of the checkpoint when "
     "a run is resumed. It holds for this resume only. data.train also allows other shards, data.tokenizer those of another "
     "tokenizer.",
     changeable},
};
// clang-format on

}  // namespace

std::span<const Field> config_fields() {
  return fields;
}

const Field* find_field(std::string_view key) {
  const auto found = std::find_if(std::begin(fields), std::end(fields), [&](const Field& f) { return f.key == key; });
  return found == std::end(fields) ? nullptr : &*found;
}

}  // namespace nibble
