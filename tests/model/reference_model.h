// The whole model in FP64, straight from the formulas: one token, one head, one element at a time. It shares no code
// with the library except the configuration and the table of parameters.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/layers/parameter.h"

namespace nibble::test {

class ReferenceModel {
 public:
  using Vector = std::vector<double>;
  using Matrix = std::vector<Vector>;  // [tokens][features]

  ReferenceModel(ModelConfig config, const ParameterTable& table, Vector flat_weights)
      : weights(std::move(flat_weights)), config_(std::move(config)), table_(table) {}

  // Returns the sum of the cross-entropies in nats. The sequences are independent, and so are the documents in them, if
  // there are any.
  double loss(const std::vector<int32_t>& tokens, const std::vector<int32_t>& targets, size_t sequence_length) const {
    double sum = 0;
    for (size_t first = 0; first < tokens.size(); first += sequence_length) {
      const Matrix rows = logits({tokens.begin() + static_cast<int64_t>(first),
                                  tokens.begin() + static_cast<int64_t>(first + sequence_length)},
                                 first);
      for (size_t t = 0; t < sequence_length; ++t) {
        double largest = rows[t][0];
        for (double value : rows[t]) largest = std::max(largest, value);
        double total = 0;
        for (double value : rows[t]) total += std::exp(value - largest);
        sum += largest + std::log(total) - rows[t][static_cast<size_t>(targets[first + t])];
      }
    }
    return sum;
  }

  // Returns the logits of one sequence; its document starts are those from `first` on.
  Matrix logits(const std::vector<int32_t>& tokens, size_t first = 0) const {
    Matrix stream;
    for (int32_t token : tokens) stream.push_back(row("embedding.weight", static_cast<size_t>(token)));
    for (size_t b = 0; b < config_.pattern.size(); ++b) {
      const std::string block = "blocks." + std::to_string(b) + ".";
      Matrix normed;
      for (const Vector& x : stream) normed.push_back(normalise(x, row(block + "norm.weight", 0)));
      const Matrix change = config_.pattern[b] == '*' ? attention(normed, block, first) : mlp(normed, block);
      for (size_t t = 0; t < stream.size(); ++t) {
        for (size_t i = 0; i < stream[t].size(); ++i) stream[t][i] += change[t][i];
      }
    }
    Matrix result;
    for (const Vector& x : stream) {
      result.push_back(
          multiply(config_.tied_head ? "embedding.weight" : "head.weight", normalise(x, row("norm.weight", 0))));
    }
    return result;
  }

  Vector weights;                        // flat
  std::vector<int32_t> document_starts;  // of every token, in its sequence; empty: a sequence is one document

 private:
  const Parameter& parameter(const std::string& name) const {
    for (const Parameter& candidate : table_.parameters()) {
      if (candidate.name == name) return candidate;
    }
    throw std::runtime_error("no parameter " + name);
  }

  Vector row(const std::string& name, size_t index) const {
    const Parameter& p = parameter(name);
    const size_t width = static_cast<size_t>(p.shape.back());
    const auto begin = weights.begin() + static_cast<int64_t>(p.offset + index * width);
    return {begin, begin + static_cast<int64_t>(width)};
  }

  // Returns W x.
  Vector multiply(const std::string& name, const Vector& x) const {
    const Parameter& p = parameter(name);
    Vector y(static_cast<size_t>(p.shape[0]));
    for (size_t o = 0; o < y.size(); ++o) {
      for (size_t i = 0; i < x.size(); ++i) y[o] += weights[p.offset + o * x.size() + i] * x[i];
    }
    return y;
  }

  Vector normalise(const Vector& x, const Vector& gain) const {
    double squares = 0;
    for (double value : x) squares += value * value;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(x.size()) + config_.norm_epsilon);
    Vector y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * factor * gain[i];
    return y;
  }

  // Returns the angle from one position to the next, written with the length of a wave in tokens.
  double frequency(size_t pair) const {
    const double exponent = -2.0 * static_cast<double>(pair) / static_cast<double>(config_.head_dim);
    const double plain = std::pow(config_.rope_theta, exponent);
    const double wave = 2 * 3.14159265358979323846 / plain;
    const double context = static_cast<double>(config_.rope_original_length);
    const double low = config_.rope_low_frequency_factor;
    const double high = config_.rope_high_frequency_factor;
    if (wave < context / high) return plain;
    if (wave > context / low) return plain / config_.rope_scaling_factor;
    const double smooth = (context / wave - low) / (high - low);
    return (1 - smooth) * plain / config_.rope_scaling_factor + smooth * plain;
  }

  // Returns head `index` of a row of queries, keys and values.
  Vector head(const Vector& qkv, size_t index) const {
    const auto d = static_cast<int64_t>(config_.head_dim);
    const auto begin = qkv.begin() + static_cast<int64_t>(index) * d;
    return {begin, begin + d};
  }

  // Returns a head of queries or keys, normalised if the model does so, and rotated by its position.
  Vector turned(Vector x, const std::string& gain, size_t position) const {
    const size_t d = x.size();
    if (config_.qk_norm) x = normalise(x, row(gain, 0));
    Vector y(d);
    for (size_t i = 0; i < d / 2; ++i) {
      const double angle = static_cast<double>(position) * frequency(i);
      y[i] = x[i] * std::cos(angle) - x[i + d / 2] * std::sin(angle);
      y[i + d / 2] = x[i + d / 2] * std::cos(angle) + x[i] * std::sin(angle);
    }
    return y;
  }

  Matrix attention(const Matrix& normed, const std::string& block, size_t first) const {
    const size_t d = static_cast<size_t>(config_.head_dim);
    const size_t query_heads = static_cast<size_t>(config_.query_heads);
    const size_t kv_heads = static_cast<size_t>(config_.kv_heads);
    Matrix qkv;
    for (const Vector& x : normed) {
      qkv.push_back(multiply(block + "attention.qkv.weight", x));
      if (!config_.qkv_bias) continue;
      const Vector bias = row(block + "attention.qkv.bias", 0);
      for (size_t i = 0; i < bias.size(); ++i) qkv.back()[i] += bias[i];
    }
    Matrix result;
    for (size_t t = 0; t < normed.size(); ++t) {
      Vector attended(query_heads * d);
      for (size_t h = 0; h < query_heads; ++h) {
        const size_t group = h / (query_heads / kv_heads);
        const Vector query = turned(head(qkv[t], h), block + "attention.q_norm.weight", t);
        Vector weight(t + 1);
        double total = 0;
        const size_t start = document_starts.empty() ? 0 : static_cast<size_t>(document_starts[first + t]);
        for (size_t s = start; s <= t; ++s) {
          const Vector key = turned(head(qkv[s], query_heads + group), block + "attention.k_norm.weight", s);
          double score = 0;
          for (size_t i = 0; i < d; ++i) score += query[i] * key[i];
          weight[s] = std::exp(score / std::sqrt(static_cast<double>(d)));
          total += weight[s];
        }
        for (size_t s = start; s <= t; ++s) {
          const Vector value = head(qkv[s], query_heads + kv_heads + group);
          for (size_t i = 0; i < d; ++i) attended[h * d + i] += weight[s] / total * value[i];
        }
      }
      result.push_back(multiply(block + "attention.output.weight", attended));
    }
    return result;
  }

  Matrix mlp(const Matrix& normed, const std::string& block) const {
    Matrix result;
    for (const Vector& x : normed) {
      const Vector gate_up = multiply(block + "mlp.gate_up.weight", x);
      const size_t width = gate_up.size() / 2;
      Vector activated(width);
      for (size_t i = 0; i < width; ++i) {
        activated[i] = gate_up[i] / (1 + std::exp(-gate_up[i])) * gate_up[width + i];
      }
      result.push_back(multiply(block + "mlp.down.weight", activated));
    }
    return result;
  }

  ModelConfig config_;
  const ParameterTable& table_;
};

}  // namespace nibble::test
