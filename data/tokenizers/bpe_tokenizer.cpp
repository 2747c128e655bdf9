#include "data/tokenizers/bpe_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "data/tokenizers/tiktoken_file.h"
#include "dist/base/error.h"
#include "dist/base/utf8.h"
#include "dist/device/thread_pool.h"

namespace nibble {
namespace {

constexpr size_t long_document = size_t{1} << 18U;  // bytes; shorter ones are encoded by one thread each
constexpr size_t chunk_bytes = size_t{1} << 16U;
constexpr size_t batch_bytes = size_t{8} << 20U;

}  // namespace

class BpeTokenizer::Scratch {
 public:
  explicit Scratch(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {
    {
      const std::lock_guard guard(tokenizer.mutex_);
      if (!tokenizer.scratch_.empty()) {
        scratch_ = std::move(tokenizer.scratch_.back());
        tokenizer.scratch_.pop_back();
      }
    }
    if (!scratch_) scratch_ = tokenizer.parts_.model->make_scratch();
  }
  ~Scratch() {
    const std::lock_guard guard(tokenizer_.mutex_);
    tokenizer_.scratch_.push_back(std::move(scratch_));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  BpeScratch& operator*() const { return *scratch_; }

 private:
  const BpeTokenizer& tokenizer_;
  std::shared_ptr<BpeScratch> scratch_;
};

BpeTokenizer::BpeTokenizer(std::string file, const TokenizerOptions& options, std::string name, BpeParts parts)
    : Tokenizer(std::move(file), options), name_(std::move(name)), parts_(std::move(parts)) {
  vocab_size_ = narrow<uint32_t>(parts_.text.size());
  eos_id_ = parts_.eos_id;
  scratch_.reserve(static_cast<size_t>(available_threads(1)));
}

// Calls text(piece) and id(token) in order; pieces may lie in memory that goes away after before_end().
template <class Text, class Id, class BeforeEnd>
void BpeTokenizer::cut_document(std::string_view document, Text&& text, Id&& id, BeforeEnd&& before_end) const {
  parts_.raw_tokens.split(document, [&](std::string_view raw, int32_t token) {
    if (token >= 0) return id(token);
    std::string buffer;
    const std::string_view normalized = parts_.normalizer.apply(raw, buffer);
    const bool begins = raw.data() == document.data();
    parts_.normalized_tokens.split(normalized, [&](std::string_view part, int32_t normalized_token) {
      if (normalized_token >= 0) return id(normalized_token);
      parts_.pre_tokenizer.cut(part, begins && part.data() == normalized.data(), text, before_end);
    });
    if (normalized.data() == buffer.data()) before_end();
  });
}

void BpeTokenizer::encode_word(std::string_view text, const Word& word, BpeScratch& scratch,
                               std::vector<int32_t>& ids) const {
  const std::string_view part = text.substr(word.begin, word.end - word.begin);
  if (word.is_kept) return parts_.model->encode(part, scratch, ids);
  if (!parts_.words_cover_text) return;
  throw Error(ExitCode::bad_data,
              fmt::format("{}: its pattern leaves out a part of the text: \"{}\"", name_,
                          part.substr(0, code_point_boundary(part, 40))),
              "give a --pattern that matches every character");
}

void BpeTokenizer::encode_piece(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (!parts_.words) return parts_.model->encode(piece, scratch, ids);
  const auto search = parts_.words->search(piece, 0, false);
  for (Word word{}; search->next(word);) encode_word(piece, word, scratch, ids);
}

std::vector<int32_t> BpeTokenizer::encode_document(std::string_view document) const {
  const Scratch scratch(*this);
  std::vector<int32_t> ids;
  cut_document(
      document, [&](std::string_view piece) { encode_piece(piece, *scratch, ids); },
      [&](int32_t token) { ids.push_back(token); }, [] {});
  return ids;
}

// Pieces are gathered and encoded in batches. A long piece is cut anywhere: from there on words are found until one
// begins where a word begins that was found from the left, and from that place on they are the same words.
class BpeTokenizer::LongDocument {
 public:
  explicit LongDocument(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::vector<int32_t> encode(std::string_view document) {
    tokenizer_.cut_document(
        document,
        [this](std::string_view piece) {
          add({piece, -1});
        },
        [this](int32_t token) {
          add({{}, token});
        },
        [this] { flush(); });
    flush();
    return std::move(ids_);
  }

 private:
  struct Item {
    std::string_view text;
    int32_t token;  // if it is not -1
  };
  struct Job {
    size_t first_item, end_item;
    size_t begin = 0, end = 0;  // of the text of one item; 0, 0: whole items
    std::vector<int32_t> ids{};
    std::vector<std::pair<size_t, size_t>> starts{};  // of words, and the number of ids before
    size_t stop = 0;                                  // where the first word begins that is not encoded
  };

  void add(const Item& item) {
    items_.push_back(item);
    gathered_ += item.text.size() + sizeof(Item);
    if (gathered_ >= batch_bytes) flush();
  }

  bool is_cut(const Item& item) const { return tokenizer_.parts_.words && item.text.size() > 2 * chunk_bytes; }

  void flush() {
    std::vector<Job> jobs;
    size_t planned = 0;
    size_t group_bytes = 0;
    const auto run_if = [&](bool is_due) {
      if (!is_due) return;
      run(jobs);
      jobs.clear();
      planned = 0;
    };
    for (size_t i = 0; i < items_.size(); ++i) {
      const std::string_view text = items_[i].text;
      if (!is_cut(items_[i])) {
        const bool joins = group_bytes > 0 && group_bytes < chunk_bytes;
        if (!joins) jobs.push_back({.first_item = i, .end_item = i});
        jobs.back().end_item = i + 1;
        group_bytes = (joins ? group_bytes : 0) + text.size() + 1;
        continue;
      }
      group_bytes = 0;
      position_ = 0;
      for (size_t begin = 0; begin < text.size(); begin = jobs.back().end) {
        run_if(planned >= batch_bytes);
        const size_t end = begin + code_point_boundary(text.substr(begin), chunk_bytes);
        jobs.push_back({.first_item = i, .end_item = i + 1, .begin = begin, .end = end});
        planned += end - begin;
      }
      run_if(true);  // position_ belongs to this item
    }
    run_if(true);
    items_.clear();
    gathered_ = 0;
  }

  void run(std::vector<Job>& jobs) {
    parallel_for(jobs.size(), 1, [&](size_t begin, size_t end) {
      const Scratch scratch(tokenizer_);
      for (size_t i = begin; i < end; ++i) compute(jobs[i], *scratch);
    });
    for (Job& job : jobs) take(job);
  }

  void compute(Job& job, BpeScratch& scratch) const {
    if (job.end == 0) {
      for (size_t i = job.first_item; i < job.end_item; ++i) {
        if (items_[i].token >= 0) {
          job.ids.push_back(items_[i].token);
        } else {
          tokenizer_.encode_piece(items_[i].text, scratch, job.ids);
        }
      }
      return;
    }
    const std::string_view whole = items_[job.first_item].text;
    // Beyond the chunk only as much is looked at as the last word may need; what needs more is left to take().
    const size_t limit = job.end + code_point_boundary_or_end(whole.substr(job.end), chunk_bytes);
    const std::string_view text = whole.substr(0, limit);
    const auto search = tokenizer_.parts_.words->search(text, job.begin, limit < whole.size());
    size_t at = job.begin;
    for (Word word{}; at < job.end && search->next(word); at = word.end) {
      if (!word.is_kept && tokenizer_.parts_.words_cover_text) break;  // an error only if a word does begin here
      job.starts.emplace_back(at, job.ids.size());
      tokenizer_.encode_word(text, word, scratch, job.ids);
    }
    job.stop = at;
  }

  static size_t code_point_boundary_or_end(std::string_view text, size_t limit) {
    return text.size() <= limit ? text.size() : code_point_boundary(text, limit);
  }

  void take(Job& job) {
    if (job.end == 0) {
      ids_.insert(ids_.end(), job.ids.begin(), job.ids.end());
      return;
    }
    const std::string_view text = items_[job.first_item].text;
    std::unique_ptr<WordSearch> search;  // from position_ on, where the chunk's own words do not begin there
    const Scratch scratch(tokenizer_);
    while (position_ < job.end) {
      const auto start = std::lower_bound(job.starts.begin(), job.starts.end(), std::pair(position_, size_t{0}));
      if (start != job.starts.end() && start->first == position_) {
        ids_.insert(ids_.end(), job.ids.begin() + static_cast<std::ptrdiff_t>(start->second), job.ids.end());
        position_ = job.stop;
        job.starts.clear();
        search.reset();
        continue;
      }
      if (!search) search = tokenizer_.parts_.words->search(text, position_, false);
      Word word{};
      const bool found = search->next(word);
      NIBBLE_CHECK(found && word.end > position_, "a word of a whole text has an end");
      tokenizer_.encode_word(text, word, *scratch, ids_);
      position_ = word.end;
    }
  }

  const BpeTokenizer& tokenizer_;
  std::vector<Item> items_;
  size_t gathered_ = 0;  // bytes
  size_t position_ = 0;  // in the item that is cut: where the next word begins
  std::vector<int32_t> ids_;
};

std::vector<std::vector<int32_t>> BpeTokenizer::encode_all(std::span<const std::string> documents) const {
  std::vector<std::vector<int32_t>> result(documents.size());
  const auto check = [](const std::string& document) {
    const auto bad = find_invalid_utf8(document);
    if (!bad) return;
    throw Error(ExitCode::bad_data, fmt::format("byte {} of the text is not UTF-8", *bad), "convert the text to UTF-8");
  };
  parallel_for(documents.size(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      check(documents[i]);
      if (documents[i].size() <= long_document) result[i] = encode_document(documents[i]);
    }
  });
  for (size_t i = 0; i < documents.size(); ++i) {
    if (documents[i].size() > long_document) result[i] = LongDocument(*this).encode(documents[i]);
  }
  return result;
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) {
    NIBBLE_CHECK(id >= 0 && static_cast<uint32_t>(id) < vocab_size(), "token id outside the vocabulary");
    text += parts_.text[static_cast<size_t>(id)];
  }
  if (!parts_.first_text.empty() && text.starts_with(parts_.first_text)) text.erase(0, parts_.first_text.size());
  replace_invalid_utf8(text);
  return text;
}

std::string BpeTokenizer::as_tokenizer_json() const {
  return is_tiktoken_file(file()) ? tiktoken_as_json(file(), name_, options()) : file();
}

std::vector<uint32_t> BpeTokenizer::token_bytes() const {
  std::vector<uint32_t> bytes;
  if (!parts_.counts_bytes) return bytes;
  for (const std::string& text : parts_.text) bytes.push_back(narrow<uint32_t>(text.size()));
  return bytes;
}

}  // namespace nibble
