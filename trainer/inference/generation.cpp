#include "trainer/inference/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "dist/base/error.h"
#include "quant/format/philox.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {

namespace {

double uniform(uint64_t seed, uint64_t position) {
  const PhiloxBlock block = random_block({.seed = seed, .purpose = Purpose::generation}, position);
  return (static_cast<double>(block.word[0]) + 0.5) / 4294967296.0;
}

}  // namespace

std::vector<int32_t> prompt_tokens(const Tokenizer& tokenizer, std::string_view prompt) {
  std::vector<int32_t> tokens = tokenizer.encode(prompt);
  if (tokens.empty()) tokens.push_back(tokenizer.eos_id());
  return tokens;
}

int32_t sample_token(const float* logits, int64_t vocabulary, uint64_t position, const SamplingOptions& options) {
  std::vector<int32_t> order(static_cast<size_t>(vocabulary));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [logits](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (options.temperature == 0) return order.front();
  const double highest = logits[order.front()];
  std::vector<double> weights;
  double total = 0;
  for (const int32_t token : order) {
    weights.push_back(std::exp((static_cast<double>(logits[token]) - highest) / options.temperature));
    total += weights.back();
  }
  double kept = 0;
  size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < options.top_p * total)) kept += weights[count++];
  double left = uniform(options.seed, position) * kept;
  for (size_t i = 0; i < count; ++i) {
    left -= weights[i];
    if (left <= 0) return order[i];
  }
  return order[count - 1];
}

size_t window_begin(size_t tokens, size_t longest) {
  if (tokens <= longest) return 0;
  return round_up(tokens - longest, std::max<size_t>(1, longest / 2));
}

TextWriter::TextWriter(LanguageModel& model, std::vector<int32_t> tokens, int64_t vocabulary,
                       const SamplingOptions& options)
    : model_(model),
      tokens_(std::move(tokens)),
      vocabulary_(std::min(vocabulary, model.config().vocab_size)),
      options_(options),
      cache_(model.make_cache()) {
  NIBBLE_CHECK(!tokens_.empty(), "a text to continue has at least one token");
}

int32_t TextWriter::next() {
  const size_t begin = window_begin(tokens_.size(), static_cast<size_t>(model_.config().sequence_length));
  if (begin != begin_) cache_->truncate(0);
  begin_ = begin;
  const std::span<int32_t> text = std::span(tokens_).subspan(begin + static_cast<size_t>(cache_->length()));
  const auto count = static_cast<int64_t>(text.size());
  model_.decode(tensor_of(text, {count}), *cache_, {.seed = options_.seed, .step = 0, .micro_batch = 0});
  const HostCopy last(model_.logits_of(count - 1, count));
  tokens_.push_back(sample_token(last.as<float>().data(), vocabulary_, tokens_.size(), options_));
  return tokens_.back();
}

size_t settled_length(std::string_view text) {
  constexpr std::string_view replacement = "\xEF\xBF\xBD";
  while (text.ends_with(replacement)) text.remove_suffix(replacement.size());
  return text.size();
}

}  // namespace nibble
