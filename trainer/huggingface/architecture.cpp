#include "trainer/huggingface/architecture.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/text.h"
#include "quant/format/format.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t largest_config_json = uint64_t{16} << 20;

// The first row that fits a model is the one that it is written as.
const std::array rows = {
    Architecture{.model_type = "llama", .name = "LlamaForCausalLM", .names = dense_names},
    Architecture{.model_type = "qwen3", .name = "Qwen3ForCausalLM", .qk_norm = true, .names = dense_names},
    Architecture{.model_type = "qwen2", .name = "Qwen2ForCausalLM", .qkv_bias = true, .names = dense_names},
    Architecture{.model_type = "mistral", .name = "MistralForCausalLM", .names = dense_names},
};

std::string names_of_rows() {
  std::vector<std::string_view> names;
  for (const Architecture& row : rows) names.push_back(row.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

// The members of a JSON object that are known by name, with errors that name file and member.
class Members {
 public:
  Members(std::string file, Json object, std::string prefix = {})
      : file_(std::move(file)), object_(std::move(object)), prefix_(std::move(prefix)) {}

  // Returns whether the member is there and not null.
  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  const Json& json(const char* key) const { return object_[key]; }
  Members object(const char* key) const {
    if (!object_[key].is_object()) fail(key, "is not an object");
    return {file_, object_[key], prefix_ + key + "."};
  }

  int64_t integer(const char* key) const {
    if (!has(key)) fail(key, "is missing");
    if (!object_[key].is_number_integer()) fail(key, "is not a whole number");
    return object_[key].get<int64_t>();
  }
  int64_t integer(const char* key, int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }
  double real(const char* key, double otherwise) const {
    if (!has(key)) return otherwise;
    if (!object_[key].is_number()) fail(key, "is not a number");
    return object_[key].get<double>();
  }
  bool flag(const char* key) const {
    if (!has(key)) return false;
    if (!object_[key].is_boolean()) fail(key, "is neither true nor false");
    return object_[key].get<bool>();
  }
  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    if (!object_[key].is_string()) fail(key, "is not a text");
    return object_[key].get<std::string>();
  }

  [[noreturn]] void fail(const std::string& key, const std::string& what,
                         const std::string& remedy = "check the file, or download it again") const {
    throw Error(ExitCode::bad_data, fmt::format("{}: {}{} {}", file_, prefix_, key, what), remedy);
  }
  // Refuses a setting that nibble would compute otherwise.
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const {
    fail(key, what + ", which nibble does not compute", "start from another model");
  }

 private:
  std::string file_;
  Json object_;
  std::string prefix_;
};

Members read_members(const std::filesystem::path& path) {
  const std::string text = read_file(path, largest_config_json);
  const Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    throw Error(ExitCode::bad_data, fmt::format("{}: is no JSON object", path.string()),
                "name the directory of a model as Hugging Face's library saves it");
  }
  return {path.string(), root};
}

const Architecture& read_architecture(const Members& members) {
  std::string name = members.text("model_type", "");
  for (const Architecture& row : rows) {
    if (row.model_type == name) return row;
  }
  if (members.has("architectures") && members.json("architectures").is_array() &&
      !members.json("architectures").empty() && members.json("architectures").front().is_string()) {
    name = members.json("architectures").front().get<std::string>();
  }
  members.fail("model_type", fmt::format("is of the architecture {}, which nibble does not have", shown(name)),
               "start from one of " + names_of_rows());
}

// Rotary positions: the library's version 5 has them in rope_parameters, older ones in rope_theta and rope_scaling.
void read_rope(const Members& members, ModelConfig& model) {
  const char* const place = members.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  model.rope_theta = members.real("rope_theta", model.rope_theta);
  if (members.real("partial_rotary_factor", 1) != 1) {
    members.refuse("partial_rotary_factor", "rotates a part of each head");
  }
  if (!members.has(place)) return;
  const Members rope = members.object(place);
  model.rope_theta = rope.real("rope_theta", model.rope_theta);
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  if (type == "default") return;
  if (type != "llama3") rope.refuse("rope_type", fmt::format("is {}", shown(type)));
  model.rope_scaling_factor = rope.real("factor", model.rope_scaling_factor);
  model.rope_low_frequency_factor = rope.real("low_freq_factor", model.rope_low_frequency_factor);
  model.rope_high_frequency_factor = rope.real("high_freq_factor", model.rope_high_frequency_factor);
  model.rope_original_length = rope.integer("original_max_position_embeddings");
}

void refuse_other_arithmetic(const Members& members) {
  const std::string activation = members.text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    members.refuse("hidden_act", fmt::format("is {}", shown(activation)));
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (members.flag(key)) members.refuse(key, "is true: all projections have biases");
  }
  if (members.has("quantization_config")) {
    members.fail("quantization_config", "says that the weights are packed, and nibble reads only those that are not",
                 "start from the model's weights in BF16 or FP32");
  }
}

// A window that is at least as long as the context hides nothing.
void refuse_windows(const Members& members, const Architecture& row, int64_t context) {
  const bool switched_off = row.model_type.starts_with("qwen") && !members.flag("use_sliding_window");
  if (switched_off || !members.has("sliding_window")) return;
  const int64_t window = members.integer("sliding_window");
  if (window >= context) return;
  members.fail("sliding_window", fmt::format("is {}, shorter than the context of {} tokens", window, context),
               "nibble's attention has no windows: to train within one, lower max_position_embeddings to it");
}

Json rope_json(const ModelConfig& model) {
  if (model.rope_scaling_factor == 1) return {{"rope_theta", model.rope_theta}, {"rope_type", "default"}};
  return {{"factor", model.rope_scaling_factor},
          {"high_freq_factor", model.rope_high_frequency_factor},
          {"low_freq_factor", model.rope_low_frequency_factor},
          {"original_max_position_embeddings", model.rope_original_length},
          {"rope_theta", model.rope_theta},
          {"rope_type", "llama3"}};
}

std::string repeated(std::string_view pattern, int64_t times) {
  std::string text;
  for (int64_t i = 0; i < times; ++i) text += pattern;
  return text;
}

}  // namespace

std::span<const Architecture> architectures() {
  return rows;
}

DescribedModel read_config_json(const std::filesystem::path& directory) {
  const Members members = read_members(directory / "config.json");
  const Architecture& row = read_architecture(members);
  refuse_other_arithmetic(members);
  ModelConfig model;
  model.hidden_size = members.integer("hidden_size");
  model.intermediate_size = members.integer("intermediate_size");
  model.query_heads = members.integer("num_attention_heads");
  model.vocab_size = members.integer("vocab_size");
  const int64_t layers = members.integer("num_hidden_layers");
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "num_hidden_layers"}) {
    if (members.integer(key) < 1) members.fail(key, fmt::format("is {}", members.integer(key)));
  }
  if (model.vocab_size % block_rows != 0) {
    members.fail("vocab_size", fmt::format("is {}, not a multiple of {}", model.vocab_size, block_rows),
                 fmt::format("pad embedding and head in Python: model.resize_token_embeddings(pad_to_multiple_of={}), "
                             "then save the model again",
                             block_rows));
  }
  const auto blocks = static_cast<int64_t>(row.names.layer_pattern.size());
  if (layers > largest_pattern / blocks) members.fail("num_hidden_layers", fmt::format("is {}", layers));
  model.pattern = repeated(row.names.layer_pattern, layers);
  model.kv_heads = members.integer("num_key_value_heads", model.query_heads);
  if (!members.has("head_dim") && model.hidden_size % model.query_heads != 0) {
    members.fail("hidden_size", "is no multiple of num_attention_heads, and there is no head_dim");
  }
  model.head_dim = members.integer("head_dim", model.hidden_size / model.query_heads);
  model.sequence_length = members.integer("max_position_embeddings");
  refuse_windows(members, row, model.sequence_length);
  read_rope(members, model);
  model.norm_epsilon = members.real("rms_norm_eps", 1e-6);
  model.tied_head = members.flag("tie_word_embeddings");
  model.init_std = members.real("initializer_range", model.init_std);
  model.qk_norm = row.qk_norm;
  model.qkv_bias = row.qkv_bias;
  const std::string dtype = members.text("dtype", members.text("torch_dtype", "bfloat16"));
  model.dtype = dtype == "float32" || dtype == "float64" ? DType::f32 : DType::bf16;
  return {&row, model};
}

const Architecture& architecture_of(const ModelConfig& model) {
  for (const Architecture& row : rows) {
    const auto blocks = static_cast<int64_t>(row.names.layer_pattern.size());
    const bool same_blocks =
        model.blocks() % blocks == 0 && model.pattern == repeated(row.names.layer_pattern, model.blocks() / blocks);
    if (same_blocks && row.qk_norm == model.qk_norm && row.qkv_bias == model.qkv_bias) return row;
  }
  throw Error(ExitCode::bad_config,
              fmt::format("no architecture of Hugging Face's is a model with model.pattern {}, model.qk_norm {} and "
                          "model.qkv_bias {}",
                          shown(model.pattern), model.qk_norm, model.qkv_bias),
              fmt::format("layers of attention and MLP, (*-)xN, can be written as {}", names_of_rows()));
}

int64_t layers_of(const Architecture& architecture, const ModelConfig& model) {
  return model.blocks() / static_cast<int64_t>(architecture.names.layer_pattern.size());
}

std::string config_json(const ModelConfig& model, const std::optional<SpecialTokenIds>& tokens, std::string_view dtype,
                        const nlohmann::ordered_json& quantization) {
  const Architecture& row = architecture_of(model);
  const bool scaled = model.rope_scaling_factor != 1;
  Json root = {{"architectures", {row.name}},
               {"attention_bias", false},
               {"attention_dropout", 0.0},
               {"bos_token_id", tokens ? Json(tokens->beginning) : Json()},
               {"dtype", dtype},
               {"eos_token_id", tokens ? Json(tokens->end) : Json()},
               {"head_dim", model.head_dim},
               {"hidden_act", "silu"},
               {"hidden_size", model.hidden_size},
               {"initializer_range", model.init_std},
               {"intermediate_size", model.intermediate_size},
               {"max_position_embeddings", model.sequence_length},
               {"mlp_bias", false},
               {"model_type", row.model_type},
               {"num_attention_heads", model.query_heads},
               {"num_hidden_layers", layers_of(row, model)},
               {"num_key_value_heads", model.kv_heads},
               {"rms_norm_eps", model.norm_epsilon},
               {"rope_parameters", rope_json(model)},
               {"rope_scaling", scaled ? rope_json(model) : Json()},
               {"rope_theta", model.rope_theta},
               {"tie_word_embeddings", model.tied_head},
               {"torch_dtype", dtype},
               {"use_cache", true},
               {"use_sliding_window", false},
               {"vocab_size", model.vocab_size}};
  if (!quantization.is_null()) root["quantization_config"] = quantization;
  return root.dump(2) + "\n";
}

}  // namespace nibble
