#include "trainer/inference/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "dist/base/error.h"
#include "quant/format/format.h"
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

int32_t sample_next(LanguageModel& model, const std::vector<int32_t>& tokens, int64_t vocabulary,
                    const SamplingOptions& options) {
  NIBBLE_CHECK(!tokens.empty(), "a text to continue has at least one token");
  const auto longest = static_cast<size_t>(model.config().sequence_length);
  const size_t used = std::min(tokens.size(), longest);
  std::vector<int32_t> window(tokens.end() - static_cast<std::ptrdiff_t>(used), tokens.end());
  // Attention is causal, so padding after the text does not change its logits.
  window.resize(static_cast<size_t>(round_up<int64_t>(static_cast<int64_t>(used), block_rows)), window.back());
  const Tensor logits = model.logits(tensor_of(std::span<int32_t>(window), {static_cast<int64_t>(window.size())}),
                                     {.seed = options.seed, .step = 0, .micro_batch = 0});
  const HostCopy last(logits.slice(static_cast<int64_t>(used) - 1, static_cast<int64_t>(used)));
  return sample_token(last.as<float>().data(), std::min(vocabulary, logits.cols()), tokens.size(), options);
}

size_t settled_length(std::string_view text) {
  constexpr std::string_view replacement = "\xEF\xBF\xBD";
  while (text.ends_with(replacement)) text.remove_suffix(replacement.size());
  return text.size();
}

}  // namespace nibble
