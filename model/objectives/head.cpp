#include "model/objectives/head.h"

#include <fmt/format.h>

#include <algorithm>

#include "dist/device/profile.h"
#include "model/ops/elementwise.h"
#include "model/ops/loss/cross_entropy.h"

namespace nibble {
namespace {

constexpr int64_t least_tokens = 256;                // least tokens of a chunk
constexpr int64_t cached_logits = int64_t{2} << 20;  // elements
constexpr int64_t gpu_tokens = 8192;                 // most tokens of a chunk on a GPU
constexpr int64_t gpu_logits = int64_t{1} << 29;     // elements, 2 GiB

Linear make_linear(const ModelConfig& config, const Recipe& recipe, uint32_t embedding_id, ParameterTable& table) {
  const int block_count = narrow<int>(config.blocks());
  const std::string name = "head.weight";
  const uint32_t id = config.tied_head ? embedding_id
                                       : table.add({.name = name,
                                                    .shape = {config.vocab_size, config.hidden_size},
                                                    .use = TensorUse::head,
                                                    .init_std = config.init_std,
                                                    .dtype = config.dtype});
  return Linear({.name = name,
                 .weight_id = id,
                 .features_in = config.hidden_size,
                 .features_out = config.vocab_size,
                 .dtype = config.dtype,
                 .recipe = resolve(recipe, name, -1, block_count),
                 .locations = resolve_locations(recipe, name, -1, block_count),
                 .outliers = recipe.outliers});
}

std::string memory_name(int64_t chunk, int64_t tokens) {
  if (chunk >= tokens) return "logits and their gradient";
  return fmt::format("logits and their gradient, {} tokens at a time", chunk);
}

int64_t chunk_of(const Linear& linear, const ObjectiveSizes& sizes, int64_t vocabulary) {
  if (linear.quantizes()) return sizes.tokens();
  if (sizes.chunk_tokens == 0) return head_chunk_tokens(sizes.tokens(), vocabulary);
  return std::min(sizes.tokens(), sizes.chunk_tokens);
}

}  // namespace

int64_t head_chunk_tokens(int64_t tokens, int64_t vocabulary, DeviceKind device) {
  const int64_t held =
      device == DeviceKind::cpu ? cached_logits / vocabulary : std::min(gpu_tokens, gpu_logits / vocabulary);
  const int64_t wanted = std::max(least_tokens, held);
  const int64_t chunks = div_ceil(tokens, wanted);
  return std::min(tokens, round_up(div_ceil(tokens, chunks), block_rows));
}

Head::Head(const ModelConfig& config, const Recipe& recipe, const ObjectiveSizes& sizes, uint32_t embedding_id,
           ParameterTable& table)
    : config_(config),
      sizes_(sizes),
      norm_("norm.weight", config, table),
      linear_(make_linear(config, recipe, embedding_id, table)),
      chunk_(chunk_of(linear_, sizes, config.vocab_size)),
      has_own_gradients_(sizes.training && sizes.sums_micro_batches && (config.tied_head || chunk_ < sizes.tokens())),
      memory_(memory_name(chunk_, sizes.tokens()), sizes.device),
      gradient_memory_("the head's gradient of one micro-batch", sizes.device) {}

void Head::allocate(Arena& weights, Arena& workspace) {
  const LayerArenas arenas{.weights = weights,
                           .saved = memory_,
                           .workspace = workspace,
                           .sequences = 1,
                           .sequence_length = chunk_,
                           .training = sizes_.training,
                           .decoding = sizes_.decoding};
  normed_ = allocate_tensor(memory_, config_.dtype, {chunk_, config_.hidden_size});
  logits_ = allocate_tensor(memory_, DType::f32, {chunk_, config_.vocab_size});
  losses_ = allocate_tensor(memory_, DType::f32, {sizes_.tokens()});
  if (sizes_.training) {
    grad_normed_ = allocate_tensor(memory_, config_.dtype, {chunk_, config_.hidden_size});
    grad_logits_ =
        config_.dtype == DType::f32 ? logits_ : allocate_tensor(memory_, config_.dtype, {chunk_, config_.vocab_size});
  }
  if (has_own_gradients_) {
    own_.norm = allocate_tensor(gradient_memory_, DType::f32, {config_.hidden_size});
    own_.weight = allocate_tensor(gradient_memory_, DType::f32, {config_.vocab_size, config_.hidden_size});
  }
  norm_.allocate(arenas);
  linear_.allocate(arenas);
}

void Head::bind(const BucketView& own, const BucketView& embedding) {
  norm_.bind(own);
  linear_.bind(config_.tied_head ? embedding : own);
  if (!has_own_gradients_ || norm_.grad_weight().empty()) return;
  bound_ = {norm_.grad_weight(), linear_.grad_weight()};
  norm_.set_grad_weight(own_.norm);
  linear_.set_grad_weight(own_.weight);
}

Tensor Head::logits(const Tensor& input, const StepContext& context, std::span<const OperandSegment> segments) {
  const int64_t count = input.rows();
  NIBBLE_CHECK(count <= chunk_, "logits of more tokens than memory was planned for");
  const Tensor normed = normed_.slice(0, count);
  const Tensor output = logits_.slice(0, count);
  norm_.forward(input, normed);
  linear_.forward({.input = normed, .output = output, .context = context, .keep = false, .segments = segments});
  return output;
}

double Head::loss(const ObjectivePass& pass, const LogitsReader& read) {
  const ProfileScope scope(OperatorFamily::head, "head_loss");
  const int64_t tokens = pass.input.rows();
  for (int64_t begin = 0; begin < tokens; begin += chunk_) {
    const int64_t end = std::min(tokens, begin + chunk_);
    const Tensor of_chunk = logits(pass.input.slice(begin, end), pass.context);
    if (read) read(begin, of_chunk);
    cross_entropy({.logits = of_chunk,
                   .targets = pass.targets.slice(begin, end),
                   .grad_logits = Tensor(),
                   .losses = losses_.slice(begin, end)});
  }
  return sum_of_losses(losses_.slice(0, tokens));
}

void Head::loss_and_gradient(const ObjectivePass& pass, const ObjectiveGradient& gradient) {
  const ProfileScope scope(OperatorFamily::head, "head_loss_and_gradient");
  const int64_t tokens = sizes_.tokens();
  NIBBLE_CHECK(sizes_.training && pass.input.rows() == tokens, "a whole micro-batch, and memory for gradients");
  if (has_own_gradients_) {
    fill_zero(own_.norm);
    fill_zero(own_.weight);
  }
  for (int64_t begin = 0; begin < tokens; begin += chunk_) {
    const int64_t end = std::min(tokens, begin + chunk_);
    chunk_loss_and_gradient(
        {.input = pass.input.slice(begin, end), .targets = pass.targets.slice(begin, end), .context = pass.context},
        {.input = gradient.input.slice(begin, end), .scale = gradient.scale, .overwrite = gradient.overwrite},
        losses_.slice(begin, end), begin == 0);
  }
  if (!has_own_gradients_) return;
  add(bound_.norm, own_.norm, bound_.norm);
  if (!config_.tied_head) add(bound_.weight, own_.weight, bound_.weight);
}

void Head::add_embedding_gradient() {
  const ProfileScope scope(OperatorFamily::head, "add_embedding_gradient");
  if (uses_embedding() && has_own_gradients_) add(bound_.weight, own_.weight, bound_.weight);
}

// The norm stays in the loop over chunks: its weight's gradient is a sum over tokens, and goes on from chunk to chunk.
void Head::chunk_loss_and_gradient(const ObjectivePass& chunk, const ObjectiveGradient& gradient, const Tensor& losses,
                                   bool first) {
  const int64_t count = chunk.input.rows();
  norm_.forward(chunk.input, normed_.slice(0, count));
  linear_.forward({.input = normed_, .output = logits_, .context = chunk.context, .keep = true});
  cross_entropy({.logits = logits_.slice(0, count),
                 .targets = chunk.targets,
                 .grad_logits = grad_logits_.slice(0, count),
                 .scale = gradient.scale,
                 .losses = losses});
  // A shorter last chunk is followed by rows of the previous chunk. Their gradient is set to zero, so they add nothing.
  if (count < chunk_) fill_zero(grad_logits_.slice(count, chunk_));
  linear_.backward({.grad_output = grad_logits_, .grad_input = grad_normed_, .context = chunk.context});
  if (gradient.overwrite) fill_zero(gradient.input);
  norm_.backward(grad_normed_.slice(0, count), chunk.input, gradient.input, /*continues=*/!first);
}

}  // namespace nibble
