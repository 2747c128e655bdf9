#include "model/ops/attention/attention_trial.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "dist/base/hash.h"
#include "dist/device/thread_pool.h"
#include "model/ops/attention/attention_exact.h"
#include "quant/format/codec.h"
#include "quant/format/philox.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble::cuda {
namespace {

using Heads = std::vector<std::vector<float>>;

// The distance of a row of head_dim elements to the exact kernels' row, over the exact row's length and the usual
// length of the head's rows. Roundings of probabilities to BF16 and other orders of sums give about 0.01; a wrong mask,
// scale or head gives about 1.
constexpr double largest_distance = 0.1;
constexpr double largest_log_distance = 0.05;  // of log_sum_exp, in nats

// Fills a tensor, whatever its dtype, with bf16 numbers from 0.5 to 2 of both signs. Of such queries and keys the
// scores, once scaled, are some units apart.
void fill(const Tensor& tensor, uint32_t key) {
  const HostStage stage(tensor);
  const std::span<std::byte> bytes = stage.bytes();
  constexpr size_t at_once = sizeof(PhiloxBlock);
  parallel_for(div_ceil(bytes.size(), at_once), size_t{1} << 14, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const auto index = static_cast<uint64_t>(i);
      PhiloxBlock block =
          philox4x32_10({{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0}}, key, 0);
      for (uint32_t& word : block.word) word = (word & 0x80FF80FFU) | 0x3F003F00U;
      std::memcpy(bytes.data() + i * at_once, &block, std::min(at_once, bytes.size() - i * at_once));
    }
  });
  stage.finish();
}

// Writes documents of pseudo-random lengths, several a sequence.
void fill_document_starts(const Tensor& starts, const AttentionShape& shape) {
  const HostStage stage(starts);
  const auto longest = static_cast<uint32_t>(div_ceil<int64_t>(shape.sequence_length, 4));
  int32_t start = 0;
  int64_t end = 0;
  uint32_t documents = 0;
  for (int64_t i = 0; i < shape.tokens(); ++i) {
    const int64_t position = i % shape.sequence_length;
    if (position == 0 || position == end) {
      start = static_cast<int32_t>(position);
      end = position + 1 + philox4x32_10({{documents++, 0, 0, 0}}, 0, 1).word[0] % longest;
    }
    stage.as<int32_t>()[static_cast<size_t>(i)] = start;
  }
  stage.finish();
}

// Reads heads of rows [sequence_length, heads * head_dim].
Heads take(const Tensor& rows, std::span<const int64_t> heads, int64_t head_dim) {
  const HostCopy copy(rows);
  const BFloat16* const values = copy.tensor().as<BFloat16>();
  Heads taken;
  for (const int64_t head : heads) {
    std::vector<float>& one = taken.emplace_back();
    for (int64_t row = 0; row < rows.rows(); ++row) {
      for (int64_t i = 0; i < head_dim; ++i) one.push_back(to_float(values[row * rows.cols() + head * head_dim + i]));
    }
  }
  return taken;
}

// Writes rows that consist of these heads, in this order.
void put(const Heads& heads, int64_t head_dim, const Tensor& rows) {
  const HostStage stage(rows);
  for (size_t head = 0; head < heads.size(); ++head) {
    for (int64_t row = 0; row < rows.rows(); ++row) {
      for (int64_t i = 0; i < head_dim; ++i) {
        stage.as<BFloat16>()[static_cast<size_t>(row * rows.cols() + static_cast<int64_t>(head) * head_dim + i)] =
            bf16_nearest(heads[head][static_cast<size_t>(row * head_dim + i)]);
      }
    }
  }
  stage.finish();
}

std::vector<int64_t> numbers(int64_t first, int64_t count) {
  std::vector<int64_t> result;
  for (int64_t i = 0; i < count; ++i) result.push_back(first + i);
  return result;
}

// The heads of the trial's part, among those of qkv: the query heads of the last head of keys and values, and its key
// and value.
std::vector<int64_t> part_heads(const AttentionShape& shape) {
  const int64_t group = shape.query_heads / shape.kv_heads;
  std::vector<int64_t> heads = numbers(shape.query_heads - group, group);
  heads.push_back(shape.query_heads + shape.kv_heads - 1);
  heads.push_back(shape.query_heads + 2 * shape.kv_heads - 1);
  return heads;
}

double length_of(std::span<const float> row) {
  double sum = 0;
  for (const float value : row) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}

// Returns the largest distance of a row, as above; NaN if a row has one.
double distance(const Heads& exact, const Heads& actual, int64_t head_dim) {
  const auto width = static_cast<size_t>(head_dim);
  double largest = 0;
  for (size_t head = 0; head < exact.size(); ++head) {
    const size_t rows = exact[head].size() / width;
    const double usual = length_of(exact[head]) / std::sqrt(static_cast<double>(rows));
    for (size_t row = 0; row < rows; ++row) {
      const std::span<const float> wanted = std::span(exact[head]).subspan(row * width, width);
      std::vector<float> off(wanted.begin(), wanted.end());
      for (size_t i = 0; i < width; ++i) off[i] -= actual[head][row * width + i];
      const double here = length_of(off) / (length_of(wanted) + usual);
      if (!(here <= largest)) largest = here;
    }
  }
  return largest;
}

}  // namespace

AttentionTrial::AttentionTrial(const AttentionShape& shape)
    : shape_(shape), arena_("the trial of attention", DeviceKind::cuda), part_shape_(shape) {
  planned(arena_, [&] {
    qkv_ = allocate_tensor(arena_, DType::bf16, {shape.tokens(), shape.qkv_features()});
    output_ = allocate_tensor(arena_, DType::bf16, {shape.tokens(), shape.output_features()});
    grad_output_ = allocate_tensor(arena_, DType::bf16, {shape.tokens(), shape.output_features()});
    grad_qkv_ = allocate_tensor(arena_, DType::bf16, {shape.tokens(), shape.qkv_features()});
    log_sum_exp_ = allocate_tensor(arena_, DType::f32, {shape.sequences, shape.query_heads, shape.sequence_length});
    if (shape.document_mask) document_starts_ = allocate_tensor(arena_, DType::i32, {shape.tokens()});
  });
  fill(qkv_, 1);
  fill(grad_output_, 2);
  if (shape.document_mask) fill_document_starts(document_starts_, shape);
  part_shape_.sequences = 1;
  part_shape_.query_heads = shape.query_heads / shape.kv_heads;
  part_shape_.kv_heads = 1;
  compute_exact_part();
}

Tensor AttentionTrial::last_sequence(const Tensor& tensor) const {
  return tensor.slice(shape_.tokens() - shape_.sequence_length, shape_.tokens());
}

void AttentionTrial::compute_exact_part() {
  const AttentionShape& part = part_shape_;
  Arena arena("the exact part of a trial of attention", DeviceKind::cuda);
  struct Tensors {
    Tensor qkv, output, grad_output, grad_qkv, log_sum_exp, workspace;
  };
  const Tensors on_gpu = planned(arena, [&] {
    return Tensors{.qkv = allocate_tensor(arena, DType::bf16, {part.tokens(), part.qkv_features()}),
                   .output = allocate_tensor(arena, DType::bf16, {part.tokens(), part.output_features()}),
                   .grad_output = allocate_tensor(arena, DType::bf16, {part.tokens(), part.output_features()}),
                   .grad_qkv = allocate_tensor(arena, DType::bf16, {part.tokens(), part.qkv_features()}),
                   .log_sum_exp = allocate_tensor(arena, DType::f32, {1, part.query_heads, part.sequence_length}),
                   .workspace = allocate_tensor(arena, DType::f32, {exact_attention::workspace_floats(part)})};
  });
  const std::vector<int64_t> heads = part_heads(shape_);
  const auto query_heads = std::span(heads).first(static_cast<size_t>(part.query_heads));
  put(take(last_sequence(qkv_), heads, part.head_dim), part.head_dim, on_gpu.qkv);
  put(take(last_sequence(grad_output_), query_heads, part.head_dim), part.head_dim, on_gpu.grad_output);
  const Tensor starts = document_starts_.empty() ? Tensor() : last_sequence(document_starts_);
  exact_attention::forward({part, on_gpu.qkv, on_gpu.output, on_gpu.log_sum_exp, on_gpu.workspace, starts});
  exact_attention::backward({part, on_gpu.grad_output, on_gpu.qkv, on_gpu.output, on_gpu.log_sum_exp, on_gpu.grad_qkv,
                             on_gpu.workspace, starts});
  exact_.output = take(on_gpu.output, numbers(0, part.query_heads), part.head_dim);
  exact_.gradient = take(on_gpu.grad_qkv, numbers(0, part.query_heads + 2), part.head_dim);
  const HostCopy logarithms(on_gpu.log_sum_exp);
  exact_.log_sum_exp.assign(logarithms.as<float>().begin(), logarithms.as<float>().end());
}

bool AttentionTrial::same_bits_twice(const std::function<void(const Tensor& workspace)>& run, int64_t workspace_floats,
                                     std::initializer_list<Tensor> results) {
  Arena arena("workspace of a trial of attention", DeviceKind::cuda);
  const Tensor workspace =
      planned(arena, [&] { return allocate_tensor(arena, DType::f32, {std::max<int64_t>(1, workspace_floats)}); });
  const auto hash_of_run = [&](uint32_t key) {
    fill(workspace, key);
    for (const Tensor& result : results) fill(result, key);
    run(workspace);
    uint64_t hash = 0;
    for (const Tensor& result : results) hash = hash64(HostCopy(result).bytes(), hash);
    return hash;
  };
  return hash_of_run(3) == hash_of_run(4);
}

std::string AttentionTrial::distance_of_forward() const {
  const std::vector<int64_t> heads = part_heads(shape_);
  const auto query_heads = std::span(heads).first(static_cast<size_t>(part_shape_.query_heads));
  const double of_output =
      distance(exact_.output, take(last_sequence(output_), query_heads, shape_.head_dim), shape_.head_dim);
  const HostCopy logarithms(log_sum_exp_);
  const auto actual = logarithms.as<float>().last(exact_.log_sum_exp.size());  // of the last sequence and heads
  double of_logarithms = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double here = std::abs(static_cast<double>(actual[i]) - static_cast<double>(exact_.log_sum_exp[i]));
    if (!(here <= of_logarithms)) of_logarithms = here;
  }
  if (of_output <= largest_distance && of_logarithms <= largest_log_distance) return {};
  return "its output is " + std::to_string(of_output) + " away from the exact one, and its log-sum-exp " +
         std::to_string(of_logarithms);
}

std::string AttentionTrial::distance_of_backward() const {
  const double of_gradient =
      distance(exact_.gradient, take(last_sequence(grad_qkv_), part_heads(shape_), shape_.head_dim), shape_.head_dim);
  if (of_gradient <= largest_distance) return {};
  return "its gradient is " + std::to_string(of_gradient) + " away from the exact one";
}

std::string AttentionTrial::run(const AttentionPlan& plan, AttentionPass pass) {
  const bool forward = pass == AttentionPass::forward;
  try {
    const bool same_bits = forward
                               ? same_bits_twice(
                                     [&](const Tensor& workspace) {
                                       plan.forward({shape_, qkv_, output_, log_sum_exp_, workspace, document_starts_});
                                     },
                                     plan.workspace_floats(), {output_, log_sum_exp_})
                               : same_bits_twice(
                                     [&](const Tensor& workspace) {
                                       plan.backward({shape_, grad_output_, qkv_, output_, log_sum_exp_, grad_qkv_,
                                                      workspace, document_starts_});
                                     },
                                     plan.workspace_floats(), {grad_qkv_});
    if (!same_bits) return "two runs on the same operands have different bits";
  } catch (const Error& error) {
    if (error.code() != ExitCode::internal) throw;
    return error.what();
  }
  return forward ? distance_of_forward() : distance_of_backward();
}

}  // namespace nibble::cuda
