#include "model/language_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "dist/error.h"
#include "dist/thread_pool.h"
#include "model/attention_block.h"
#include "model/mlp_block.h"
#include "model/ops/cross_entropy.h"
#include "model/ops/elementwise.h"
#include "model/ops/embedding.h"
#include "model/ops/rope.h"

namespace nibble {
namespace {

constexpr int64_t token_multiple = 16;                // the weight gradient's GEMM sums over tokens in blocks
constexpr int64_t largest_tokens = int64_t{1} << 30;  // of a micro-batch

void validate(const ModelConfig& config, const LanguageModelOptions& options) {
  const int64_t sequences = options.sequences;
  const int64_t length = options.sequence_length;
  if (length < 1 || length > config.sequence_length) {
    throw Error(ExitCode::bad_config,
                fmt::format("sequences of {} tokens for a model of {}", length, config.sequence_length),
                "use 1 to model.sequence_length tokens");
  }
  if (sequences < 1 || sequences > largest_tokens / length) {
    throw Error(ExitCode::bad_config, fmt::format("a micro-batch of {} sequences of {} tokens", sequences, length),
                fmt::format("use 1 to {} sequences", largest_tokens / length));
  }
  if (sequences * length % token_multiple != 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("a micro-batch of {} sequences of {} tokens: its tokens are not a multiple of 16",
                            sequences, length),
                "tokens are quantised in blocks of 16: change the sequence length or the number of sequences");
  }
  if (!options.recompute.empty() && static_cast<int64_t>(options.recompute.size()) != config.blocks()) {
    throw Error(ExitCode::bad_config,
                fmt::format("recompute is given for {} blocks of {}", options.recompute.size(), config.blocks()),
                "give one value a block, or none");
  }
}

std::unique_ptr<Block> make_block(const ModelConfig& config, const Recipe& recipe, const BlockPosition& position,
                                  ParameterTable& table) {
  if (config.pattern[static_cast<size_t>(position.index)] == '*') {
    return std::make_unique<AttentionBlock>(config, recipe, position, table);
  }
  return std::make_unique<MlpBlock>(config, recipe, position, table);
}

}  // namespace

struct LanguageModel::State {
  State(const ModelConfig& model_config, const Recipe& recipe, const LanguageModelOptions& model_options);

  void allocate();
  void allocate_blocks(Arena& saved);
  void allocate_head(Arena& saved);
  bool recomputes(size_t block) const { return !options.recompute.empty() && options.recompute[block]; }
  LayerArenas arenas_with(Arena& saved) {
    return {quantized_weights, saved, workspace, options.sequences, options.sequence_length, options.training};
  }

  std::vector<Linear*> linears();
  Tensor input_of(size_t block) const { return residual[options.training ? block : 0]; }
  Pass whole_micro_batch(const StepContext& context, bool keep) const;
  void check_tokens(const Tensor& tokens, int64_t sequences, int64_t sequence_length) const;

  Tensor run_forward(const Tensor& tokens, const Pass& pass);
  double loss(const Tensor& targets, const Tensor& gradient_of_logits, float scale) const;
  void run_backward(const Tensor& tokens, const StepContext& context);

  ModelConfig config;
  LanguageModelOptions options;
  int threads = compute_threads();
  ParameterTable table;
  uint32_t embedding_id = 0;
  std::vector<std::unique_ptr<Block>> blocks;
  std::optional<Norm> final_norm;
  std::optional<Linear> head;

  Arena quantized_weights{"quantised weights"};
  Arena residual_stream{"inputs of the blocks"};
  Arena saved_activations{"activations saved for backward"};
  Arena shared_activations{"activations of one block, shared"};  // recomputed in backward; or never needed again
  Arena workspace{"workspace"};
  Arena head_memory{"logits and their gradient"};
  const std::vector<Arena*> arenas{&quantized_weights,  &residual_stream, &saved_activations,
                                   &shared_activations, &workspace,       &head_memory};

  Tensor embedding_weight, embedding_gradient;  // [vocab, hidden]
  Tensor rope_table;                            // f32 [sequence_length, head_dim / 2, 2]
  std::vector<Tensor> residual;                 // [tokens, hidden]: input of each block, and of the final norm
  Tensor gradient;                              // [tokens, hidden], of the residual stream
  Tensor normed, grad_normed;                   // [tokens, hidden]
  Tensor logits;                                // f32 [tokens, vocab]
  Tensor grad_logits;                           // [tokens, vocab]
  Tensor losses;                                // f32 [tokens]
};

LanguageModel::State::State(const ModelConfig& model_config, const Recipe& recipe,
                            const LanguageModelOptions& model_options)
    : config(model_config), options(model_options) {
  const std::vector<int64_t> embedding_shape{config.vocab_size, config.hidden_size};
  embedding_id = table.add("embedding.weight", embedding_shape, Initialization::normal, config.init_std, false);
  const int block_count = narrow<int>(config.blocks());
  for (int index = 0; index < block_count; ++index) {
    blocks.push_back(make_block(config, recipe, {.index = index, .blocks = block_count}, table));
  }
  final_norm.emplace("norm.weight", config, table);
  const uint32_t head_id =
      config.tied_head ? embedding_id
                       : table.add("head.weight", embedding_shape, Initialization::normal, config.init_std, false);
  head.emplace(LinearDescription{.name = "head.weight",
                                 .weight_id = head_id,
                                 .features_in = config.hidden_size,
                                 .features_out = config.vocab_size,
                                 .dtype = config.dtype,
                                 .recipe = resolve(recipe, "head.weight", -1, block_count),
                                 .places = resolve_places(recipe, "head.weight", -1, block_count),
                                 .outliers = recipe.outliers});
  allocate();
  for (Arena* arena : arenas) arena->commit();
  allocate();
  if (!rope_table.empty()) fill_rope_table(config.rope_theta, rope_table);
}

void LanguageModel::State::allocate() {
  const int64_t tokens = options.sequences * options.sequence_length;
  const int64_t hidden = config.hidden_size;
  if (config.pattern.find('*') != std::string::npos) {
    rope_table = allocate_tensor(workspace, DType::f32, {options.sequence_length, config.head_dim / 2, 2});
  }
  residual.resize(options.training ? blocks.size() + 1 : 1);
  for (Tensor& input : residual) input = allocate_tensor(residual_stream, config.dtype, {tokens, hidden});
  if (options.training) gradient = allocate_tensor(workspace, config.dtype, {tokens, hidden});
  Arena& saved = options.training ? saved_activations : shared_activations;
  allocate_blocks(saved);
  allocate_head(saved);
}

void LanguageModel::State::allocate_blocks(Arena& saved) {
  for (size_t b = 0; b < blocks.size(); ++b) {
    const bool shares = !options.training || recomputes(b);
    Arena& arena = shares ? shared_activations : saved;
    const size_t mark = arena.mark();
    blocks[b]->allocate(arenas_with(arena));
    if (shares) arena.release(mark);
  }
}

void LanguageModel::State::allocate_head(Arena& saved) {
  const int64_t tokens = options.sequences * options.sequence_length;
  normed = allocate_tensor(saved, config.dtype, {tokens, config.hidden_size});
  logits = allocate_tensor(head_memory, DType::f32, {tokens, config.vocab_size});
  losses = allocate_tensor(head_memory, DType::f32, {tokens});
  const size_t mark = workspace.mark();
  if (options.training) {
    grad_normed = allocate_tensor(workspace, config.dtype, {tokens, config.hidden_size});
    // FP32 gradients overwrite the logits.
    grad_logits =
        config.dtype == DType::f32 ? logits : allocate_tensor(head_memory, config.dtype, {tokens, config.vocab_size});
  }
  final_norm->allocate(arenas_with(saved));
  head->allocate(arenas_with(saved));
  workspace.release(mark);
}

std::vector<Linear*> LanguageModel::State::linears() {
  std::vector<Linear*> all;
  for (const std::unique_ptr<Block>& block : blocks) {
    for (Linear* linear : block->linears()) all.push_back(linear);
  }
  all.push_back(&*head);
  return all;
}

Pass LanguageModel::State::whole_micro_batch(const StepContext& context, bool keep) const {
  return {.context = context,
          .sequences = options.sequences,
          .sequence_length = options.sequence_length,
          .rope_table = rope_table,
          .keep = keep};
}

void LanguageModel::State::check_tokens(const Tensor& tokens, int64_t sequences, int64_t sequence_length) const {
  NIBBLE_CHECK(tokens.elements() == sequences * sequence_length, "not the micro-batch's number of tokens");
  const int32_t* values = tokens.as<int32_t>();
  const bool in_range = std::all_of(values, values + tokens.elements(),
                                    [this](int32_t token) { return token >= 0 && token < config.vocab_size; });
  NIBBLE_CHECK(in_range, "token outside the vocabulary");
}

// Returns the logits, [tokens, vocab].
Tensor LanguageModel::State::run_forward(const Tensor& tokens, const Pass& pass) {
  NIBBLE_CHECK(!embedding_weight.empty(), "bind() comes before the first pass");
  NIBBLE_CHECK(compute_threads() <= threads, "the thread pool has grown since memory was planned");
  const int64_t n = tokens.elements();
  embedding_forward({.tokens = tokens.reshape({n}), .weight = embedding_weight, .output = input_of(0).slice(0, n)});
  for (size_t b = 0; b < blocks.size(); ++b) {
    Pass block_pass = pass;
    block_pass.keep = pass.keep && !recomputes(b);
    blocks[b]->forward(input_of(b).slice(0, n), input_of(b + 1).slice(0, n), block_pass);
  }
  const Tensor head_input = normed.slice(0, n);
  const Tensor output = logits.slice(0, n);
  final_norm->forward(input_of(blocks.size()).slice(0, n), head_input);
  head->forward({.input = head_input, .output = output, .context = pass.context, .keep = pass.keep});
  return output;
}

double LanguageModel::State::loss(const Tensor& targets, const Tensor& gradient_of_logits, float scale) const {
  const int64_t n = targets.elements();
  return cross_entropy({.logits = logits.slice(0, n),
                        .targets = targets.reshape({n}),
                        .grad_logits = gradient_of_logits,
                        .scale = scale,
                        .losses = losses.slice(0, n)});
}

void LanguageModel::State::run_backward(const Tensor& tokens, const StepContext& context) {
  const Pass pass = whole_micro_batch(context, /*keep=*/true);
  head->backward({.grad_output = grad_logits, .grad_input = grad_normed, .context = context});
  fill_zero(gradient);
  final_norm->backward(grad_normed, input_of(blocks.size()), gradient);
  for (size_t b = blocks.size(); b-- > 0;) {
    if (recomputes(b)) blocks[b]->forward(input_of(b), Tensor(), pass);
    blocks[b]->backward(input_of(b), gradient, pass);
  }
  embedding_backward(
      {.tokens = tokens.reshape({tokens.elements()}), .grad_output = gradient, .grad_weight = embedding_gradient});
}

LanguageModel::LanguageModel(const ModelConfig& config, const Recipe& recipe, const LanguageModelOptions& options) {
  validate(config);
  validate(config, options);
  state_ = std::make_unique<State>(config, recipe, options);
}

LanguageModel::~LanguageModel() = default;

const ModelConfig& LanguageModel::config() const {
  return state_->config;
}

const ParameterTable& LanguageModel::parameters() const {
  return state_->table;
}

std::vector<MemoryLine> LanguageModel::memory() const {
  std::vector<MemoryLine> lines;
  for (const Arena* arena : state_->arenas) {
    if (arena->planned_bytes() > 0) lines.push_back({arena->name(), arena->planned_bytes()});
  }
  return lines;
}

std::vector<std::string> LanguageModel::describe_layers() const {
  std::vector<std::string> lines;
  for (const Linear* linear : state_->linears()) {
    lines.push_back(fmt::format("{}: {}", linear->name(), linear->describe()));
  }
  return lines;
}

void LanguageModel::bind(const Tensor& weights, const Tensor& gradients) {
  const bool has_gradients = !gradients.empty();
  NIBBLE_CHECK(weights.dtype() == state_->config.dtype, "weights of another dtype");
  NIBBLE_CHECK(!has_gradients || gradients.dtype() == DType::f32, "gradients are fp32");
  const ParameterTable& table = state_->table;
  state_->embedding_weight = table.view(weights, state_->embedding_id);
  state_->embedding_gradient = has_gradients ? table.view(gradients, state_->embedding_id) : Tensor();
  for (const auto& block : state_->blocks) block->bind(table, weights, gradients);
  state_->final_norm->bind(table, weights, gradients);
  state_->head->bind(table, weights, gradients);
}

void LanguageModel::set_weights_changed() {
  for (Linear* linear : state_->linears()) linear->set_weights_changed();
}

double LanguageModel::forward(const Tensor& tokens, const Tensor& targets, const StepContext& context) {
  Pass pass = state_->whole_micro_batch(context, /*keep=*/false);
  NIBBLE_CHECK(0 < tokens.size(0) && tokens.size(0) <= pass.sequences, "more sequences than memory was planned for");
  pass.sequences = tokens.size(0);
  state_->check_tokens(tokens, pass.sequences, pass.sequence_length);
  state_->check_tokens(targets, pass.sequences, pass.sequence_length);
  state_->run_forward(tokens, pass);
  return state_->loss(targets, Tensor(), 1.0F);
}

double LanguageModel::forward_backward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                                       float loss_scale) {
  NIBBLE_CHECK(state_->options.training && !state_->embedding_gradient.empty(), "not set up for training");
  const Pass pass = state_->whole_micro_batch(context, /*keep=*/true);
  state_->check_tokens(tokens, pass.sequences, pass.sequence_length);
  state_->check_tokens(targets, pass.sequences, pass.sequence_length);
  state_->run_forward(tokens, pass);
  const double total = state_->loss(targets, state_->grad_logits, loss_scale);
  state_->run_backward(tokens, context);
  return total;
}

Tensor LanguageModel::logits(const Tensor& tokens, const StepContext& context) {
  const int64_t n = tokens.elements();
  NIBBLE_CHECK(n > 0 && n % token_multiple == 0 && n <= state_->options.sequence_length,
               "logits() takes a multiple of 16 tokens, at most the sequence length");
  state_->check_tokens(tokens, 1, n);
  Pass pass = state_->whole_micro_batch(context, /*keep=*/false);
  pass.sequences = 1;
  pass.sequence_length = n;
  return state_->run_forward(tokens, pass);
}

std::vector<std::string> LanguageModel::linear_names() const {
  std::vector<std::string> names;
  for (const Linear* linear : state_->linears()) names.push_back(linear->name());
  return names;
}

std::vector<uint32_t> LanguageModel::linear_weights() const {
  std::vector<uint32_t> ids;
  for (const Linear* linear : state_->linears()) ids.push_back(linear->weight_id());
  return ids;
}

void LanguageModel::set_statistics(std::vector<LinearStatistics>* statistics) {
  const std::vector<Linear*> linears = state_->linears();
  if (statistics != nullptr) statistics->assign(linears.size(), {});
  for (size_t i = 0; i < linears.size(); ++i) {
    linears[i]->set_statistics(statistics != nullptr ? &(*statistics)[i] : nullptr);
  }
}

std::vector<int> LanguageModel::amax_histories() const {
  std::vector<int> histories;
  for (const Linear* linear : state_->linears()) {
    for (const OperandRole role : all_operand_roles) histories.push_back(linear->amax_history(role));
  }
  return histories;
}

void LanguageModel::bind_amax(const Tensor& scale_by, const Tensor& met) {
  const std::vector<Linear*> linears = state_->linears();
  const auto expected = static_cast<int64_t>(linears.size()) * operand_roles;
  NIBBLE_CHECK(scale_by.elements() == expected && met.elements() == expected, "amax [linear layers, operand roles]");
  for (size_t i = 0; i < linears.size(); ++i) {
    linears[i]->set_amax(scale_by.as<float>() + i * operand_roles, met.as<float>() + i * operand_roles);
  }
}

std::vector<LanguageModel::OutlierLayer> LanguageModel::outlier_layers() const {
  std::vector<OutlierLayer> layers;
  for (const Linear* linear : state_->linears()) {
    layers.push_back({linear->name(), linear->features_in(), linear->outlier_count()});
  }
  return layers;
}

void LanguageModel::bind_channel_norms(const Tensor& norms) {
  int64_t first = 0;
  for (Linear* linear : state_->linears()) {
    const int64_t end = first + linear->features_in();
    linear->set_channel_norms(norms.empty() ? norms : norms.slice(first, end));
    first = end;
  }
  NIBBLE_CHECK(norms.empty() || norms.elements() == first, "one norm a channel");
}

void LanguageModel::set_outlier_channels(std::span<const int64_t> channels) {
  int64_t first = 0;
  auto next = channels.begin();
  for (Linear* linear : state_->linears()) {
    const int64_t end = first + linear->features_in();
    std::vector<int32_t> own;
    for (; next != channels.end() && *next < end; ++next) own.push_back(narrow<int32_t>(*next - first));
    linear->set_outlier_channels(own);
    first = end;
  }
  NIBBLE_CHECK(next == channels.end(), "channels ascend within the layers");
}

void LanguageModel::dequantize_weights(uint64_t begin, uint64_t end, std::span<float> values,
                                       const StepContext& context) {
  NIBBLE_CHECK(values.size() == end - begin, "values of the range");
  std::ranges::fill(values, std::numeric_limits<float>::quiet_NaN());
  for (Linear* linear : state_->linears()) {
    const Parameter& weight = state_->table[linear->weight_id()];
    const uint64_t from = std::max(begin, weight.offset);
    const uint64_t to = std::min(end, weight.offset + weight.count);
    if (from >= to) continue;
    linear->dequantize_weight(from - weight.offset, to - weight.offset, values.data() + (from - begin), context);
  }
}

int64_t LanguageModel::take_non_finite_count() {
  int64_t count = 0;
  for (Linear* linear : state_->linears()) count += linear->take_non_finite_count();
  return count;
}

}  // namespace nibble
