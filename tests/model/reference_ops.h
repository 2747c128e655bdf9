// The model's operators in FP64, slow and simple, which the production operators are compared with. Matrices are
// row-major vectors; gradients are written from the formulas, and tests check them with finite differences.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace nibble::reference {

using Values = std::vector<double>;

// ---- RMS norm: input [tokens, features], weight [features] ----

inline double inverse_rms(const Values& input, size_t token, size_t features, double epsilon) {
  double squares = 0;
  for (size_t i = 0; i < features; ++i) squares += input[token * features + i] * input[token * features + i];
  return 1 / std::sqrt(squares / static_cast<double>(features) + epsilon);
}

inline Values rms_norm(const Values& input, const Values& weight, double epsilon) {
  const size_t features = weight.size();
  Values output(input.size());
  for (size_t at = 0; at < input.size(); ++at) {
    output[at] = input[at] * inverse_rms(input, at / features, features, epsilon) * weight[at % features];
  }
  return output;
}

struct RmsNormGradients {
  Values input, weight;
};

inline RmsNormGradients rms_norm_backward(const Values& grad_output, const Values& input, const Values& weight,
                                          double epsilon) {
  const size_t features = weight.size();
  RmsNormGradients gradients{Values(input.size()), Values(features)};
  for (size_t token = 0; token < input.size() / features; ++token) {
    const double inverse = inverse_rms(input, token, features, epsilon);
    double sum = 0;
    for (size_t i = 0; i < features; ++i) {
      const size_t at = token * features + i;
      sum += grad_output[at] * weight[i] * input[at];
      gradients.weight[i] += grad_output[at] * input[at] * inverse;
    }
    for (size_t i = 0; i < features; ++i) {
      const size_t at = token * features + i;
      gradients.input[at] = inverse * grad_output[at] * weight[i] -
                            inverse * inverse * inverse * input[at] * sum / static_cast<double>(features);
    }
  }
  return gradients;
}

// ---- Rotary embedding, in place on query and key heads; direction -1 rotates back ----

inline Values rope(Values qkv, size_t sequence_length, size_t query_heads, size_t kv_heads, size_t head_dim,
                   double theta, double direction = 1) {
  const size_t width = (query_heads + 2 * kv_heads) * head_dim;
  for (size_t token = 0; token < qkv.size() / width; ++token) {
    const double position = static_cast<double>(token % sequence_length);
    for (size_t head = 0; head < query_heads + kv_heads; ++head) {
      for (size_t i = 0; i < head_dim / 2; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
        const double angle = direction * position * std::pow(theta, exponent);
        double& x = qkv[token * width + head * head_dim + i];
        double& y = qkv[token * width + head * head_dim + i + head_dim / 2];
        const double rotated = x * std::cos(angle) - y * std::sin(angle);
        y = x * std::sin(angle) + y * std::cos(angle);
        x = rotated;
      }
    }
  }
  return qkv;
}

// ---- Causal attention with grouped heads, inside documents if their starts are given ----

struct Attention {
  size_t sequences, length, query_heads, kv_heads, head_dim;
  std::vector<int32_t> document_starts = {};  // [sequences * length], each in its sequence; empty: none

  size_t width() const { return (query_heads + 2 * kv_heads) * head_dim; }
  size_t row(size_t sequence, size_t position) const { return sequence * length + position; }
  // Returns the index of a head's first element in qkv.
  size_t query(size_t sequence, size_t position, size_t head) const {
    return row(sequence, position) * width() + head * head_dim;
  }
  size_t key(size_t sequence, size_t position, size_t head) const {
    return query(sequence, position, query_heads + head * kv_heads / query_heads);
  }
  size_t value(size_t sequence, size_t position, size_t head) const {
    return key(sequence, position, head) + kv_heads * head_dim;
  }
  size_t output(size_t sequence, size_t position, size_t head) const {
    return (row(sequence, position) * query_heads + head) * head_dim;
  }
  double scale() const { return 1 / std::sqrt(static_cast<double>(head_dim)); }

  double dot(const Values& a, size_t first, const Values& b, size_t second) const {
    double sum = 0;
    for (size_t i = 0; i < head_dim; ++i) sum += a[first + i] * b[second + i];
    return sum;
  }

  // Returns the first key that a query sees.
  size_t first(size_t sequence, size_t position) const {
    return document_starts.empty() ? 0 : static_cast<size_t>(document_starts[row(sequence, position)]);
  }

  // Returns the scaled scores of one query for the keys up to its own; -infinity for keys that it does not see.
  Values scores(const Values& qkv, size_t sequence, size_t position, size_t head) const {
    Values result(position + 1, -std::numeric_limits<double>::infinity());
    for (size_t j = first(sequence, position); j <= position; ++j) {
      result[j] = scale() * dot(qkv, query(sequence, position, head), qkv, key(sequence, j, head));
    }
    return result;
  }

  static double log_sum_exp(const Values& scores) {
    double largest = scores[0];
    for (double score : scores) largest = score > largest ? score : largest;
    double sum = 0;
    for (double score : scores) sum += std::exp(score - largest);
    return largest + std::log(sum);
  }

  static Values softmax(const Values& scores) {
    const double normalizer = log_sum_exp(scores);
    Values result;
    for (double score : scores) result.push_back(std::exp(score - normalizer));
    return result;
  }

  Values forward(const Values& qkv) const {
    Values result(sequences * length * query_heads * head_dim);
    for (size_t s = 0; s < sequences; ++s) {
      for (size_t head = 0; head < query_heads; ++head) {
        for (size_t i = 0; i < length; ++i) {
          const Values probability = softmax(scores(qkv, s, i, head));
          for (size_t j = 0; j <= i; ++j) {
            for (size_t at = 0; at < head_dim; ++at) {
              result[output(s, i, head) + at] += probability[j] * qkv[value(s, j, head) + at];
            }
          }
        }
      }
    }
    return result;
  }

  Values backward(const Values& grad_output, const Values& qkv) const {
    Values gradient(qkv.size());
    for (size_t s = 0; s < sequences; ++s) {
      for (size_t head = 0; head < query_heads; ++head) {
        for (size_t i = 0; i < length; ++i) backward_query(grad_output, qkv, s, head, i, gradient);
      }
    }
    return gradient;
  }

 private:
  void backward_query(const Values& grad_output, const Values& qkv, size_t s, size_t head, size_t i,
                      Values& gradient) const {
    const Values probability = softmax(scores(qkv, s, i, head));
    Values grad_probability(i + 1);
    double mean = 0;
    for (size_t j = 0; j <= i; ++j) {
      grad_probability[j] = dot(grad_output, output(s, i, head), qkv, value(s, j, head));
      mean += probability[j] * grad_probability[j];
    }
    for (size_t j = 0; j <= i; ++j) {
      const double grad_score = probability[j] * (grad_probability[j] - mean) * scale();
      for (size_t at = 0; at < head_dim; ++at) {
        gradient[query(s, i, head) + at] += grad_score * qkv[key(s, j, head) + at];
        gradient[key(s, j, head) + at] += grad_score * qkv[query(s, i, head) + at];
        gradient[value(s, j, head) + at] += probability[j] * grad_output[output(s, i, head) + at];
      }
    }
  }
};

// ---- SwiGLU: gate_up [tokens, 2 * features] ----

inline double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

inline Values swiglu(const Values& gate_up, size_t features) {
  Values output(gate_up.size() / 2);
  for (size_t at = 0; at < output.size(); ++at) {
    const size_t gate = at / features * 2 * features + at % features;
    output[at] = gate_up[gate] * sigmoid(gate_up[gate]) * gate_up[gate + features];
  }
  return output;
}

inline Values swiglu_backward(const Values& grad_output, const Values& gate_up, size_t features) {
  Values gradient(gate_up.size());
  for (size_t at = 0; at < grad_output.size(); ++at) {
    const size_t gate = at / features * 2 * features + at % features;
    const double x = gate_up[gate];
    const double slope = sigmoid(x) + x * sigmoid(x) * sigmoid(-x);
    gradient[gate] = grad_output[at] * gate_up[gate + features] * slope;
    gradient[gate + features] = grad_output[at] * x * sigmoid(x);
  }
  return gradient;
}

// ---- Cross-entropy: logits [tokens, vocab] ----

inline Values cross_entropy(const Values& logits, const std::vector<int32_t>& targets) {
  const size_t vocab = logits.size() / targets.size();
  Values losses;
  for (size_t token = 0; token < targets.size(); ++token) {
    const Values row(logits.begin() + static_cast<std::ptrdiff_t>(token * vocab),
                     logits.begin() + static_cast<std::ptrdiff_t>((token + 1) * vocab));
    losses.push_back(Attention::log_sum_exp(row) - row[static_cast<size_t>(targets[token])]);
  }
  return losses;
}

inline Values cross_entropy_backward(const Values& logits, const std::vector<int32_t>& targets, double scale) {
  const size_t vocab = logits.size() / targets.size();
  Values gradient;
  for (size_t token = 0; token < targets.size(); ++token) {
    const Values row(logits.begin() + static_cast<std::ptrdiff_t>(token * vocab),
                     logits.begin() + static_cast<std::ptrdiff_t>((token + 1) * vocab));
    Values softmax = Attention::softmax(row);
    softmax[static_cast<size_t>(targets[token])] -= 1;
    for (double value : softmax) gradient.push_back(scale * value);
  }
  return gradient;
}

// ---- Embedding: weight [vocab, features] ----

inline Values embedding(const std::vector<int32_t>& tokens, const Values& weight, size_t features) {
  Values output;
  for (int32_t token : tokens) {
    for (size_t i = 0; i < features; ++i) output.push_back(weight[static_cast<size_t>(token) * features + i]);
  }
  return output;
}

inline Values embedding_backward(const std::vector<int32_t>& tokens, const Values& grad_output, size_t vocab) {
  const size_t features = grad_output.size() / tokens.size();
  Values gradient(vocab * features);
  for (size_t i = 0; i < grad_output.size(); ++i) {
    gradient[static_cast<size_t>(tokens[i / features]) * features + i % features] += grad_output[i];
  }
  return gradient;
}

}  // namespace nibble::reference
