#include "trainer/huggingface/source_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/log.h"
#include "dist/base/text.h"

namespace nibble {
namespace {

// The texts of the ids of a tokenizer, one by one.
class TokenTexts {
 public:
  explicit TokenTexts(const Tokenizer& tokenizer) : tokenizer_(tokenizer), bytes_(tokenizer.token_bytes()) {}

  // Returns nothing for an id that stands for no text: a special one, which each kind of tokenizer shows in its own
  // way. The text lacks the space in front of a word, which one kind gives for an id that stands alone and another does
  // not.
  std::optional<std::string> text_of(uint32_t id) const {
    if (!bytes_.empty() && bytes_[id] == 0) return std::nullopt;
    const std::array<int32_t, 1> ids{static_cast<int32_t>(id)};
    std::string text = tokenizer_.decode(ids);
    if (text.size() > 1 && text.front() == ' ') text.erase(0, 1);
    return text;
  }

 private:
  const Tokenizer& tokenizer_;
  std::vector<uint32_t> bytes_;
};

// Returns null, and says why, if a tokenizer cannot be read.
std::unique_ptr<Tokenizer> load_if_known(const std::filesystem::path& path) {
  try {
    return Tokenizer::load(path);
  } catch (const Error& error) {
    log_warning("the ids of the shards and of model.from cannot be compared: {}", error.what());
    return nullptr;
  }
}

void check_size(const ModelSource& source, const Tokenizer& tokenizer) {
  if (int64_t{tokenizer.vocab_size()} <= source.model().vocab_size) return;
  throw Error(ExitCode::bad_data,
              fmt::format("{} has {} tokens, but the head of the model has {}", source.tokenizer().string(),
                          tokenizer.vocab_size(), source.model().vocab_size),
              "put the tokenizer there that belongs to the model, or remove it");
}

}  // namespace

void check_source_tokenizer(const ModelSource& source, const TrainingTokens& tokens) {
  const std::filesystem::path theirs = source.tokenizer();
  if (theirs.empty()) return;
  const std::unique_ptr<Tokenizer> of_model = load_if_known(theirs);
  if (of_model == nullptr) return;
  check_size(source, *of_model);
  if (of_model->hash() == tokens.tokenizer || tokens.tokenizer == Hash128{}) return;
  const std::unique_ptr<Tokenizer> of_shards = load_if_known(tokens.file);
  if (of_shards == nullptr) return;
  const uint32_t both = std::min(of_model->vocab_size(), of_shards->vocab_size());
  const TokenTexts own_texts(*of_shards);
  const TokenTexts other_texts(*of_model);
  for (uint32_t id = 0; id < both; ++id) {
    const std::optional<std::string> own = own_texts.text_of(id);
    const std::optional<std::string> other = other_texts.text_of(id);
    if (!own || !other || *own == *other) continue;
    throw Error(ExitCode::bad_data,
                fmt::format("the training shards are of another tokenizer than the model in {}: id {} is {}, not {}",
                            source.location(), id, shown(*own), shown(*other)),
                fmt::format("tokenize with --tokenizer {}, or, to give the model another vocabulary, set "
                            "model.from_skip='embedding|head' and model.vocab_size=0",
                            theirs.string()));
  }
}

}  // namespace nibble
