#include "data/text/sentence_sample.h"

#include <algorithm>
#include <utility>

#include "data/text/text_cut.h"
#include "dist/base/hash.h"

namespace nibble {
namespace {
constexpr size_t max_sentence_bytes = 4096;
}

void SentenceSample::add(std::string_view document, uint64_t document_hash) {
  uint64_t index = 0;
  const char* begin = document.data();
  while (!document.empty()) {
    const size_t end = std::min(document.find('\n'), document.size());
    for (const std::string_view piece : cut_text(document.substr(0, end), max_sentence_bytes)) {
      offer(piece, document_hash, index++, static_cast<uint64_t>(piece.data() + piece.size() - begin));
    }
    document.remove_prefix(std::min(end + 1, document.size()));
  }
}

// The seed of a line's hash is the document's hash plus the line's index, so that frequent lines are thinned out and
// not kept or dropped as a whole.
void SentenceSample::offer(std::string_view text, uint64_t document, uint64_t index, uint64_t end) {
  const uint64_t hash = hash64(text, document + index);
  if (hash > limit_) return;
  sentences_.push_back({hash, document, end, std::string(text)});
  bytes_ += text.size();
  while (bytes_ > max_bytes_) halve();
}

void SentenceSample::halve() {
  limit_ /= 2;
  std::erase_if(sentences_, [&](const Sentence& sentence) {
    if (sentence.hash <= limit_) return false;
    bytes_ -= sentence.text.size();
    return true;
  });
}

std::vector<std::string> SentenceSample::take(const DocumentSplit& split) {
  std::vector<std::string> texts;
  for (Sentence& sentence : std::exchange(sentences_, {})) {
    if (split.is_training(sentence.document, sentence.end)) texts.push_back(std::move(sentence.text));
  }
  bytes_ = 0;
  return texts;
}

}  // namespace nibble
