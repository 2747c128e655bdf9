#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <functional>
#include <unordered_map>

#include "data/tokenizer.h"
#include "data/utf8.h"
#include "dist/error.h"

namespace nibble {
namespace {

class SentenceList : public sentencepiece::SentenceIterator {
 public:
  explicit SentenceList(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return index_ >= sentences_.size(); }
  void Next() override { ++index_; }
  const std::string& value() const override { return sentences_[index_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  size_t index_ = 0;
};

// Share of all characters that get a token of their own: the most frequent ones up to 99.95 %, but never more than half
// of the vocabulary that is left beside the bytes. The rest is written in bytes.
double character_coverage(const std::vector<std::string>& sentences, uint32_t vocab_size) {
  std::unordered_map<std::string_view, uint64_t> counts;
  uint64_t total = 0;
  for (const std::string& sentence : sentences) {
    for (std::string_view rest = sentence; !rest.empty();) {
      const size_t length = code_point_boundary(rest, 1);
      ++counts[rest.substr(0, length)];
      ++total;
      rest.remove_prefix(length);
    }
  }
  std::vector<uint64_t> sorted;
  for (const auto& [character, count] : counts) sorted.push_back(count);
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const size_t room = (vocab_size - Tokenizer::min_vocab_size) / 2 + 16;
  uint64_t covered = 0;
  for (size_t i = 0; i < std::min(room, sorted.size()); ++i) covered += sorted[i];
  if (total == 0 || sorted.size() <= room) return 0.9995;
  return std::clamp(static_cast<double>(covered) / static_cast<double>(total), 0.01, 0.9995);
}

}  // namespace

Tokenizer Tokenizer::train(const std::vector<std::string>& sentences, uint32_t vocab_size) {
  if (vocab_size < min_vocab_size || vocab_size > max_vocab_size) {
    throw Error(ExitCode::usage,
                fmt::format("a vocabulary of {} is not in [{}, {}]", vocab_size, min_vocab_size, max_vocab_size),
                "Choose another --vocab-size.");
  }
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", fmt::format("{}", vocab_size)},
      {"character_coverage", fmt::format("{:.9f}", character_coverage(sentences, vocab_size))},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"user_defined_symbols", "\n,\t"},
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "-1"},
      {"max_sentence_length", "1000000"},
      {"num_threads", "1"},
      {"minloglevel", "2"},
  };
  SentenceList list(sentences);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &list, &model);
  if (!status.ok()) {
    throw Error(ExitCode::bad_data,
                fmt::format("cannot train a tokenizer of {} tokens: {}", vocab_size, status.message()),
                "Choose a smaller --vocab-size, or give more text.");
  }
  return from_model(std::move(model), "the trained tokenizer");
}

}  // namespace nibble
