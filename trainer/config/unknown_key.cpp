#include "trainer/config/unknown_key.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "dist/base/text.h"
#include "trainer/config/field_table.h"

namespace nibble {

std::string_view section_of(std::string_view key) {
  const size_t dot = key.find('.');
  return dot == std::string_view::npos ? std::string_view() : key.substr(0, dot);
}

std::string_view last_word(std::string_view key) {
  return key.substr(key.rfind('.') + 1);
}

bool is_section(std::string_view name) {
  return std::any_of(config_fields().begin(), config_fields().end(),
                     [&](const Field& field) { return section_of(field.key) == name; });
}

namespace {

// Names that other programs use for what a key of ours says, without their section. `note` tells how the value
// becomes ours where it is not the same number; the row with a note is the reason why no name is taken silently.
struct UsualName {
  std::string_view usual;
  std::string_view ours;
  std::string_view note = {};
};
constexpr std::string_view layers_note =
    "a model of N layers, each of attention and an MLP, has model.pattern: \"(*-)xN\"";
constexpr std::string_view warmup_note = "it counts optimizer steps";
constexpr std::string_view batch_note = "it counts tokens: sequences of a step times model.sequence_length";
constexpr std::string_view min_rate_note = "it is a share of the peak: the smallest rate divided by the peak";
constexpr auto usual_names = std::to_array<UsualName>({
    {"num_layers", "model.pattern", layers_note},
    {"n_layer", "model.pattern", layers_note},
    {"n_layers", "model.pattern", layers_note},
    {"num_hidden_layers", "model.pattern", layers_note},
    {"d_model", "model.hidden_size"},
    {"n_embd", "model.hidden_size"},
    {"hidden_dim", "model.hidden_size"},
    {"num_attention_heads", "model.query_heads"},
    {"n_head", "model.query_heads"},
    {"n_heads", "model.query_heads"},
    {"num_heads", "model.query_heads"},
    {"num_key_value_heads", "model.kv_heads"},
    {"n_kv_heads", "model.kv_heads"},
    {"num_query_groups", "model.kv_heads"},
    {"kv_channels", "model.head_dim"},
    {"ffn_hidden_size", "model.intermediate_size"},
    {"ffn_dim", "model.intermediate_size"},
    {"seq_length", "model.sequence_length"},
    {"seq_len", "model.sequence_length"},
    {"max_seq_len", "model.sequence_length"},
    {"block_size", "model.sequence_length"},
    {"max_position_embeddings", "model.sequence_length"},
    {"rms_norm_eps", "model.norm_epsilon"},
    {"norm_eps", "model.norm_epsilon"},
    {"layernorm_epsilon", "model.norm_epsilon"},
    {"tie_word_embeddings", "model.tied_head"},
    {"rotary_base", "model.rope_theta"},
    {"initializer_range", "model.init_std"},
    {"init_method_std", "model.init_std"},
    {"padded_vocab_size", "model.vocab_size"},
    {"lr", "optimizer.learning_rate"},
    {"max_lr", "optimizer.learning_rate"},
    {"grad_clip", "optimizer.clip_norm"},
    {"clip_grad", "optimizer.clip_norm"},
    {"max_grad_norm", "optimizer.clip_norm"},
    {"gradient_clip_val", "optimizer.clip_norm"},
    {"adam_beta1", "optimizer.beta1"},
    {"adam_beta2", "optimizer.beta2"},
    {"adam_eps", "optimizer.epsilon"},
    {"adam_epsilon", "optimizer.epsilon"},
    {"min_lr", "schedule.min_ratio", min_rate_note},
    {"warmup_iters", "schedule.warmup_steps", warmup_note},
    {"lr_warmup_iters", "schedule.warmup_steps", warmup_note},
    {"lr_warmup_steps", "schedule.warmup_steps", warmup_note},
    {"num_warmup_steps", "schedule.warmup_steps", warmup_note},
    {"lr_decay_style", "schedule.kind"},
    {"lr_scheduler_type", "schedule.kind"},
    {"global_batch_size", "train.tokens_per_step", batch_note},
    {"total_batch_size", "train.tokens_per_step", batch_note},
    {"micro_batch_size", "train.micro_batch_sequences", "it counts sequences"},
    {"per_device_train_batch_size", "train.micro_batch_sequences", "it counts sequences"},
    {"train_iters", "train.steps"},
    {"max_steps", "train.steps"},
    {"max_iters", "train.steps"},
    {"num_iterations", "train.steps"},
    {"save_interval", "checkpoint.every"},
    {"save_steps", "checkpoint.every"},
    {"eval_interval", "eval.every"},
    {"eval_steps", "eval.every"},
    {"log_interval", "log.every"},
    {"logging_steps", "log.every"},
    {"data_path", "data.train"},
    {"train_data_path", "data.train"},
    {"output_dir", "run.dir"},
    {"out_dir", "run.dir"},
});

const UsualName* find_usual_name(std::string_view key) {
  std::string word(last_word(key));
  std::ranges::replace(word, '-', '_');
  const auto found = std::ranges::find(usual_names, word, &UsualName::usual);
  return found == usual_names.end() ? nullptr : &*found;
}

// Returns the key that `unknown` was probably meant to be: a key with the same last word in another section, or one
// with a similar spelling.
std::string_view meant_key(std::string_view unknown) {
  std::vector<std::string_view> candidates;
  for (const Field& field : config_fields()) {
    if (last_word(field.key) == last_word(unknown)) return field.key;
    candidates.push_back(field.key);
    const std::string_view section = section_of(field.key);
    const bool known = std::find(candidates.begin(), candidates.end(), section) != candidates.end();
    if (!section.empty() && !known) candidates.push_back(section);
  }
  return nearest_word(unknown, candidates);
}

}  // namespace

void refuse_unknown_key(const SourceLocation& location, const std::string& key) {
  if (find_field(key) != nullptr) {
    refuse_config(location, fmt::format("key {} is not nested", shown(key)),
                  fmt::format("write `{}:` and, indented below it, `{}:`", section_of(key), last_word(key)));
  }
  if (const UsualName* name = find_usual_name(key)) {
    const std::string note = name->note.empty() ? "" : fmt::format("; {}", name->note);
    refuse_config(location, fmt::format("unknown key {}{}", shown(key), did_you_mean(name->ours)),
                  fmt::format("{} is nibble's name of it{}", name->ours, note));
  }
  refuse_config(location, fmt::format("unknown key {}{}", shown(key), did_you_mean(meant_key(key))),
                "correct or remove it; `nibble config reference` lists every key");
}

}  // namespace nibble
