#include "data/tokenizers/tokenizer_training.h"

#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "dist/base/log.h"
#include "dist/base/utf8.h"

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

template <class Visit>
void for_each_character(std::string_view text, Visit&& visit) {
  while (!text.empty()) {
    const size_t length = code_point_boundary(text, 1);
    visit(text.substr(0, length));
    text.remove_prefix(length);
  }
}

// Chooses the characters that get a token of their own: the most frequent ones, up to 99.95 % of the text and about
// half of the vocabulary beside the bytes. All other characters are encoded as bytes.
std::unordered_set<std::string> choose_alphabet(const std::vector<std::string>& sentences, uint32_t vocab_size) {
  std::unordered_map<std::string, uint64_t> counts;
  uint64_t total = 0;
  for (const std::string& sentence : sentences) {
    for_each_character(sentence, [&](std::string_view character) { ++counts[std::string(character)]; });
  }
  std::vector<std::pair<std::string, uint64_t>> sorted(counts.begin(), counts.end());
  for (const auto& [character, count] : sorted) total += count;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  const size_t room = (vocab_size - min_trained_vocab_size) / 2 + 32;
  std::unordered_set<std::string> alphabet;
  uint64_t covered = 0;
  for (const auto& [character, count] : sorted) {
    if (alphabet.size() == room || covered >= total - total / 2000) break;
    alphabet.insert(character);
    covered += count;
  }
  return alphabet;
}

// Replaces characters outside the alphabet by tabs, because no merge crosses a tab.
void mask_rare_characters(std::vector<std::string>& sentences, const std::unordered_set<std::string>& alphabet) {
  for (std::string& sentence : sentences) {
    std::string masked;
    for_each_character(sentence, [&](std::string_view character) {
      masked += alphabet.contains(std::string(character)) ? character : "\t";
    });
    sentence = std::move(masked);
  }
}

template <class Visit>
void for_each_long_word(std::string_view sentence, Visit&& visit) {
  constexpr size_t longest_usual_word = 48;
  while (!sentence.empty()) {
    const size_t end = std::min(sentence.find(' '), sentence.size());
    if (end > longest_usual_word) visit(sentence.substr(0, end));
    sentence.remove_prefix(std::min(end + 1, sentence.size()));
  }
}

// SentencePiece's message names a line of its source; of interest is only the largest vocabulary, if it says one.
[[noreturn]] void fail_training(uint32_t vocab_size, std::string_view message) {
  constexpr std::string_view before_largest = "a value <= ";
  const size_t at = message.find(before_largest);
  uint32_t largest = 0;
  if (at != std::string_view::npos) {
    const std::string_view number = message.substr(at + before_largest.size());
    std::from_chars(number.data(), number.data() + number.size(), largest);
  }
  const std::string what =
      fmt::format("the text is too small, or has too few different words, for a tokenizer of {} tokens", vocab_size);
  if (largest == 0) throw Error(ExitCode::bad_data, what, "choose a smaller --vocab-size, or give more text");
  throw Error(ExitCode::bad_data, fmt::format("{}: it has pieces for {}", what, largest),
              largest < min_trained_vocab_size
                  ? fmt::format("give more text; the least --vocab-size is {}", min_trained_vocab_size)
                  : fmt::format("choose a --vocab-size of at most {}, or give more text", largest));
}

}  // namespace

uint64_t mask_long_words(std::vector<std::string>& sentences, uint64_t most_bytes) {
  std::unordered_set<uint64_t> different;  // hashes
  uint64_t bytes = 0;
  for (const std::string& sentence : sentences) {
    for_each_long_word(sentence, [&](std::string_view word) {
      if (different.insert(hash64(word)).second) bytes += word.size();
    });
  }
  if (bytes <= most_bytes) return bytes;
  const auto limit = static_cast<uint64_t>(static_cast<double>(most_bytes) / static_cast<double>(bytes) * 0x1p64);
  for (std::string& sentence : sentences) {
    std::string masked;
    size_t copied = 0;
    for_each_long_word(sentence, [&](std::string_view word) {
      if (hash64(word) < limit) return;
      const auto begin = static_cast<size_t>(word.data() - sentence.data());
      masked += sentence.substr(copied, begin - copied) + "\t";
      copied = begin + word.size();
    });
    if (copied > 0) sentence = masked + sentence.substr(copied);
  }
  return bytes;
}

std::unique_ptr<Tokenizer> train_tokenizer(std::vector<std::string> sentences, uint32_t vocab_size) {
  if (vocab_size < min_trained_vocab_size || vocab_size > Tokenizer::max_vocab_size) {
    throw Error(ExitCode::usage,
                fmt::format("a vocabulary of {} is not in [{}, {}]", vocab_size, min_trained_vocab_size,
                            Tokenizer::max_vocab_size),
                "choose another --vocab-size");
  }
  mask_rare_characters(sentences, choose_alphabet(sentences, vocab_size));
  const uint64_t most_bytes = uint64_t{512} * std::max(vocab_size, 4096U);
  const uint64_t long_words = mask_long_words(sentences, most_bytes);
  if (long_words > most_bytes) {
    log_warning(
        "the text has {:.1f} MiB of different long words, as text without spaces does; {:.1f} MiB of them are used "
        "to train the tokenizer",
        static_cast<double>(long_words) / 1048576.0, static_cast<double>(most_bytes) / 1048576.0);
  }
  // The vocabulary must have a token for a space; otherwise a space could not be told from SentencePiece's mark for it.
  sentences.emplace_back(" ");
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", fmt::format("{}", vocab_size)},
      {"character_coverage", "1.0"},
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
  if (!status.ok()) fail_training(vocab_size, status.message());
  return std::make_unique<SentencePieceTokenizer>(std::move(model), "the trained tokenizer");
}

}  // namespace nibble
