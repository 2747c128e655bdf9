// A model that decodes a text in parts, for the tests of decoding.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/model_fixture.h"

namespace nibble::test {

constexpr int64_t text_length = 160;  // more than two blocks of attention

// Every axis that a linear layer sums over is a multiple of 128, as some recipes need.
inline ModelConfig decode_config(DType dtype, bool norms_heads = false) {
  ModelConfig config;
  config.pattern = "*-*-";
  config.vocab_size = 48;
  config.hidden_size = 128;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  config.qk_norm = config.qkv_bias = norms_heads;
  config.intermediate_size = 256;
  config.sequence_length = text_length;
  config.init_std = 0.2;
  config.dtype = dtype;
  return config;
}

class Decoding {
 public:
  // With normalised heads the model also has a bias.
  Decoding(const Recipe& recipe, DType dtype, bool norms_heads = false)
      : test_(decode_config(dtype, norms_heads), recipe,
              {.sequence_length = text_length, .training = false, .decoding = true, .head_chunk_tokens = 48}) {}

  LanguageModel& model() { return test_.model; }
  std::vector<int32_t>& tokens() { return test_.tokens; }

  // Takes in tokens [first, first + count) of the text and returns their logits.
  std::vector<float> take(TextCache& cache, int64_t first, int64_t count) {
    const auto tokens = std::span(test_.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    model().decode(tensor_of(tokens, {count}), cache, context);
    return logits(count);
  }
  // Decodes the text in parts of these lengths, which may be less than all of it.
  std::vector<float> decode(const std::vector<int64_t>& parts) {
    const std::unique_ptr<TextCache> cache = model().make_cache();
    std::vector<float> all;
    for (const int64_t count : parts) {
      const std::vector<float> here = take(*cache, cache->length(), count);
      all.insert(all.end(), here.begin(), here.end());
    }
    return all;
  }
  // Returns the logits of a pass over the micro-batch that is one operand.
  std::vector<float> whole_pass() {
    model().start_logits(tensor_of(std::span(test_.tokens), {1, text_length}), context);
    return logits(text_length);
  }
  std::vector<float> part(const std::vector<float>& logits_of_text, int64_t begin, int64_t end) const {
    const int64_t vocabulary = test_.model.config().vocab_size;
    return {logits_of_text.begin() + begin * vocabulary, logits_of_text.begin() + end * vocabulary};
  }

  StepContext context{.seed = 7};

 private:
  std::vector<float> logits(int64_t count) {
    std::vector<float> all;
    const int64_t chunk = model().head_chunk_tokens();
    for (int64_t begin = 0; begin < count; begin += chunk) {
      const Tensor part = model().logits_of(begin, std::min(begin + chunk, count));
      all.insert(all.end(), part.as<float>(), part.as<float>() + part.elements());
    }
    return all;
  }

  TestModel test_;
};

}  // namespace nibble::test
