// A small model with its buffers, tokens and a step, which most tests of the model start from.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "model/language_model.h"
#include "quant/format/codec.h"
#include "quant/format/philox.h"

namespace nibble::test {

// The model is small enough for finite differences. Every size differs from every other, so that axes cannot be
// confused.
inline ModelConfig tiny_config() {
  ModelConfig config;
  config.pattern = "*-*-";
  config.vocab_size = 48;
  config.hidden_size = 32;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 12;
  config.intermediate_size = 80;
  config.sequence_length = 16;
  config.init_std = 0.2;
  config.dtype = DType::f32;
  return config;
}

inline Recipe plain(Format format) {
  return {.name = "plain", .linear = plain_recipe(format)};
}

// NVIDIA's recipe as published: 16x16 weights, rotated weight gradients, stochastically rounded gradients.
inline Recipe nvidia() {
  const OperandSpec rows{.format = Format::nvfp4};
  const OperandSpec tiles{.format = Format::nvfp4, .block = BlockShape::square};
  const OperandSpec gradient{.format = Format::nvfp4, .round = Rounding::stochastic};
  const OperandSpec rotated{.format = Format::nvfp4, .rotate = 16};
  const OperandSpec rotated_gradient{.format = Format::nvfp4, .round = Rounding::stochastic, .rotate = 16};
  return {.name = "nvidia",
          .linear = {rows, tiles, gradient, tiles, rotated_gradient, rotated},
          .high_precision = {{.layers = {.match = "embedding|head"}, .format = Format::bf16}}};
}

// Returns reproducible integers in [0, bound).
inline std::vector<int32_t> random_tokens(size_t count, int64_t bound, uint64_t seed) {
  std::vector<int32_t> tokens(count);
  const NoiseStream stream{.seed = seed, .purpose = Purpose::sample_order};
  for (size_t i = 0; i < count; ++i) {
    tokens[i] = static_cast<int32_t>(random_block(stream, i).word[0] % static_cast<uint32_t>(bound));
  }
  return tokens;
}

class TestModel {
 public:
  TestModel(const ModelConfig& config, const Recipe& recipe, const LanguageModelOptions& options)
      : shape_{options.sequences, options.sequence_length}, model(config, recipe, options) {
    const size_t size = model.parameters().flat_size();
    weights.resize(size);
    initialize(model.parameters(), 11, 0, size, weights.data());
    // Gains differ from one and biases from zero, and weights are numbers that both dtypes hold exactly.
    for (const Parameter& parameter : model.parameters().parameters()) {
      if (parameter.initialization == Initialization::normal) continue;
      for (uint64_t i = 0; i < parameter.count; ++i) {
        weights[parameter.offset + i] += 0.25F * std::sin(static_cast<float>(3 * i + 1));
      }
    }
    for (float& weight : weights) weight = to_float(bf16_nearest(weight));
    if (options.training) gradients.resize(size);
    const size_t tokens_count = static_cast<size_t>(options.sequences * options.sequence_length);
    tokens = random_tokens(tokens_count, config.vocab_size, 1);
    targets = random_tokens(tokens_count, config.vocab_size, 2);
    bind();
  }

  // Must be called after a change of `weights`.
  void bind() {
    model.bind(weights_in_dtype(), gradient_view());
    model.set_weights_changed();
  }
  // Lets the model compute through this exchange.
  void bind_to(LocalExchange& exchange) {
    exchange.bind(model.parameters(), weights_in_dtype(), gradient_view());
    model.set_exchange(exchange);
  }

  double forward(const StepContext& context) {
    return model.forward(tensor_of(std::span(tokens), {shape_[0], shape_[1]}),
                         tensor_of(std::span(targets), {shape_[0], shape_[1]}), context, documents_view());
  }
  // Sets the gradients to zero and runs forward and backward.
  double forward_backward(const StepContext& context, float loss_scale = 1.0F) {
    std::fill(gradients.begin(), gradients.end(), 0.0F);
    return model.forward_backward(tensor_of(std::span(tokens), {shape_[0], shape_[1]}),
                                  tensor_of(std::span(targets), {shape_[0], shape_[1]}), context, loss_scale,
                                  documents_view());
  }
  // Returns the logits of the first `count` tokens, at most a chunk of the head, after a pass over the micro-batch.
  std::vector<float> logits(int64_t count, const StepContext& context) {
    model.start_logits(tensor_of(std::span(tokens), {shape_[0], shape_[1]}), context, documents_view());
    const Tensor values = model.logits_of(0, count);
    const float* data = values.as<float>();
    return {data, data + values.elements()};
  }

 private:
  Tensor gradient_view() {
    return gradients.empty() ? Tensor() : tensor_of(std::span(gradients), {static_cast<int64_t>(gradients.size())});
  }
  Tensor weights_in_dtype() {
    const int64_t size = static_cast<int64_t>(weights.size());
    if (model.config().dtype == DType::f32) return tensor_of(std::span(weights), {size});
    bf16_weights_.resize(weights.size());
    for (size_t i = 0; i < weights.size(); ++i) bf16_weights_[i] = bf16_nearest(weights[i]);
    return tensor_of(std::span(bf16_weights_), {size});
  }

  int64_t shape_[2];

 public:
  LanguageModel model;
  std::vector<float> weights, gradients;  // flat
  std::vector<int32_t> tokens, targets;
  std::vector<int32_t> document_starts;  // of each token, in its sequence; empty: no mask

 private:
  Tensor documents_view() {
    return document_starts.empty() ? Tensor() : tensor_of(std::span(document_starts), {shape_[0], shape_[1]});
  }

  std::vector<BFloat16> bf16_weights_;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline std::span<const float> part(const std::vector<float>& flat, const Parameter& parameter) {
  return std::span(flat).subspan(parameter.offset, parameter.count);
}

inline double norm(std::span<const float> values) {
  double sum = 0;
  for (float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

inline double cosine(std::span<const float> a, std::span<const float> b) {
  double dot = 0;
  for (size_t i = 0; i < a.size(); ++i) dot += static_cast<double>(a[i]) * b[i];
  return dot / (norm(a) * norm(b));
}

}  // namespace nibble::test
