#include "trainer/huggingface/tokenizer_files.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/base/log.h"

namespace nibble {
namespace {

using nlohmann::ordered_json;

// Returns the token of a tokenizer.json that has the id.
std::string token_of(const nlohmann::json& root, int32_t id) {
  for (const nlohmann::json& token : root.value("added_tokens", nlohmann::json::array())) {
    if (token.at("id") == id) return token.at("content");
  }
  for (const auto& [token, value] : root.at("model").at("vocab").items()) {
    if (value == id) return token;
  }
  NIBBLE_CHECK(false, "the token that ends a document is in no vocabulary");
  return {};
}

// Keys in alphabetical order, as transformers writes them. Without add_bos_token transformers 5 would let the file's
// own post-processor add tokens, and with split_special_tokens false </s> in a page of HTML would end a document.
ordered_json tokenizer_config(int64_t model_max_length) {
  return {{"add_bos_token", false},
          {"add_eos_token", false},
          {"clean_up_tokenization_spaces", false},
          {"model_max_length", model_max_length},
          {"split_special_tokens", true},
          {"tokenizer_class", "PreTrainedTokenizerFast"}};
}

}  // namespace

SpecialTokenIds write_tokenizer_files(const std::filesystem::path& tokenizer, uint32_t model_vocab_size,
                                      int64_t model_max_length, const std::filesystem::path& directory) {
  const auto loaded = Tokenizer::load(tokenizer);
  if (loaded->vocab_size() > model_vocab_size) {
    throw Error(ExitCode::bad_data,
                fmt::format("{} has {} tokens, but the model has a vocabulary of {}", tokenizer.string(),
                            loaded->vocab_size(), model_vocab_size),
                "name the tokenizer with which the model was trained");
  }
  const SpecialTokenIds ids{loaded->eos_id(), loaded->eos_id(), loaded->eos_id()};
  ordered_json config = tokenizer_config(model_max_length);
  const std::string json = loaded->as_tokenizer_json();
  if (!json.empty()) {
    const nlohmann::json root = nlohmann::json::parse(json);
    config["eos_token"] = token_of(root, ids.end);
    config["pad_token"] = config["eos_token"];
    const nlohmann::json unknown = root.at("model").value("unk_token", nlohmann::json());
    if (!unknown.is_null()) config["unk_token"] = unknown;
    write_file(directory / "tokenizer.json", json);
  } else if (loaded->file_name() == "tokenizer.model") {
    log_warning("{}: no tokenizer.json gives the same ids; the model is copied, and transformers may read it otherwise",
                tokenizer.string());
    loaded->save(directory / "tokenizer.model");
  } else {
    log_warning("{}: its pattern means something else to Hugging Face's library; no tokenizer is written",
                tokenizer.string());
    return ids;
  }
  write_file(directory / "tokenizer_config.json", nlohmann::json(config).dump(2) + "\n");
  return ids;
}

}  // namespace nibble
