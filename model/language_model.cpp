// A language model: its construction and memory, and the passes over a micro-batch.
#include "model/language_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dist/base/error.h"
#include "dist/device/profile.h"
#include "model/blocks/attention_block.h"
#include "model/blocks/mlp_block.h"
#include "model/language_model_state.h"
#include "model/ops/embedding.h"
#include "model/ops/rope.h"
#include "quant/tensor/tensor_copy.h"

namespace nibble {
namespace {

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
  if (sequences * length % block_rows != 0) {
    throw Error(ExitCode::bad_config,
                fmt::format("a micro-batch of {} sequences of {} tokens: its tokens are not a multiple of {}",
                            sequences, length, block_rows),
                fmt::format("tokens are quantised in blocks of {}: change the sequence length or the number of "
                            "sequences",
                            block_rows));
  }
  if (!options.recompute.empty() && static_cast<int64_t>(options.recompute.size()) != config.blocks()) {
    throw Error(ExitCode::bad_config,
                fmt::format("recompute is given for {} blocks of {}", options.recompute.size(), config.blocks()),
                "give one value a block, or none");
  }
}

std::unique_ptr<Block> make_block(BlockKind kind, const ModelConfig& config, const Recipe& recipe,
                                  const BlockPosition& position, ParameterTable& table) {
  switch (kind) {
    case BlockKind::attention: return std::make_unique<AttentionBlock>(config, recipe, position, table);
    case BlockKind::mlp: return std::make_unique<MlpBlock>(config, recipe, position, table);
  }
  return nullptr;
}

}  // namespace

LanguageModel::State::State(const ModelConfig& model_config, const Recipe& recipe,
                            const LanguageModelOptions& model_options)
    : config(model_config), options(model_options) {
  const std::vector<int64_t> embedding_shape{config.vocab_size, config.hidden_size};
  embedding_id = table.add("embedding.weight", embedding_shape, Initialization::normal, config.init_std, false);
  const int block_count = narrow<int>(config.blocks());
  for (const BlockKind kind : block_kinds(config.pattern)) {
    first_element.push_back(table.flat_size());
    const BlockPosition position{.index = narrow<int>(blocks.size()), .blocks = block_count};
    blocks.push_back(make_block(kind, config, recipe, position, table));
  }
  first_element.push_back(table.flat_size());
  head.emplace(config, recipe,
               Head::Sizes{.sequences = options.sequences,
                           .sequence_length = options.sequence_length,
                           .training = options.training,
                           .chunk_tokens = options.head_chunk_tokens,
                           .device = options.device},
               embedding_id, table);
  arenas = {&quantized_weights, &residual_stream, &saved_activations, &shared_activations, &workspace, &head->memory()};
  planned(arenas, [&] { allocate(); });
  if (!rope_table.empty()) fill_rope_table(config.rope_theta, rope_table);
}

void LanguageModel::State::allocate() {
  const int64_t tokens = options.sequences * options.sequence_length;
  const int64_t hidden = config.hidden_size;
  if (has_block(config, BlockKind::attention)) {
    rope_table = allocate_tensor(workspace, DType::f32, {options.sequence_length, config.head_dim / 2, 2});
  }
  residual.resize(options.training ? blocks.size() + 1 : 1);
  for (Tensor& input : residual) input = allocate_tensor(residual_stream, config.dtype, {tokens, hidden});
  if (options.training) gradient = allocate_tensor(workspace, config.dtype, {tokens, hidden});
  token_ids = allocate_tensor(workspace, DType::i32, {tokens});
  target_ids = allocate_tensor(workspace, DType::i32, {tokens});
  if (options.document_mask) document_starts = allocate_tensor(workspace, DType::i32, {tokens});
  allocate_blocks();
  head->allocate(quantized_weights, workspace);
}

void LanguageModel::State::allocate_blocks() {
  for (size_t b = 0; b < blocks.size(); ++b) {
    const bool shares = !options.training || recomputes(b);
    Arena& arena = shares ? shared_activations : saved_activations;
    const size_t mark = arena.mark();
    blocks[b]->allocate({quantized_weights, arena, workspace, options.sequences, options.sequence_length,
                         options.training, options.document_mask});
    if (shares) arena.release(mark);
  }
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

Tensor LanguageModel::State::take_tokens(const Tensor& tokens, const Tensor& memory, int64_t sequences,
                                         int64_t sequence_length) const {
  check_tokens(tokens, sequences, sequence_length);
  const Tensor taken = memory.slice(0, tokens.elements());
  copy(tokens, taken);
  return taken;
}

Tensor LanguageModel::State::take_document_starts(const Tensor& given, int64_t sequences,
                                                  int64_t sequence_length) const {
  if (given.empty()) return {};
  NIBBLE_CHECK(options.document_mask, "no memory was planned for document starts");
  NIBBLE_CHECK(given.elements() == sequences * sequence_length, "not the micro-batch's number of tokens");
  const int32_t* values = given.as<int32_t>();
  for (int64_t i = 0; i < given.elements(); ++i) {
    const int64_t position = i % sequence_length;
    const bool continues = position > 0 && values[i] == values[i - 1];
    NIBBLE_CHECK(values[i] == position || continues, "a document begins where its first token is");
  }
  const Tensor taken = document_starts.slice(0, given.elements());
  copy(given, taken);
  return taken;
}

// Runs embedding and blocks. Returns the input of the head, [tokens, hidden].
Tensor LanguageModel::State::run_forward(const Tensor& tokens, const Pass& pass) {
  NIBBLE_CHECK(!embedding_weight.empty(), "bind() comes before the first pass");
  NIBBLE_CHECK(compute_threads() <= threads, "the thread pool has grown since memory was planned");
  const int64_t n = tokens.elements();
  embedding_forward({.tokens = tokens, .weight = embedding_weight, .output = input_of(0).slice(0, n)});
  for (size_t b = 0; b < blocks.size(); ++b) {
    Pass block_pass = pass;
    block_pass.keep = pass.keep && !recomputes(b);
    blocks[b]->forward(input_of(b).slice(0, n), input_of(b + 1).slice(0, n), block_pass);
  }
  return input_of(blocks.size()).slice(0, n);
}

// Runs backward of the blocks and the embedding, beginning with the gradient of the head's input.
void LanguageModel::State::run_backward(const Tensor& tokens, const Pass& pass) {
  announce(first_element.back(), table.flat_size());
  for (size_t b = blocks.size(); b-- > 0;) {
    if (recomputes(b)) blocks[b]->forward(input_of(b), Tensor(), pass);
    blocks[b]->backward(input_of(b), gradient, pass);
    announce(first_element[b], first_element[b + 1]);
  }
  embedding_backward({.tokens = tokens, .grad_output = gradient, .grad_weight = embedding_gradient});
  announce(0, first_element.front());
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

void LanguageModel::bind(const Tensor& weights, const Tensor& gradients) {
  const bool has_gradients = !gradients.empty();
  NIBBLE_CHECK(weights.dtype() == state_->config.dtype, "weights of another dtype");
  NIBBLE_CHECK(!has_gradients || gradients.dtype() == DType::f32, "gradients are fp32");
  const ParameterTable& table = state_->table;
  state_->embedding_weight = table.view(weights, state_->embedding_id);
  state_->embedding_gradient = has_gradients ? table.view(gradients, state_->embedding_id) : Tensor();
  for (const auto& block : state_->blocks) block->bind(table, weights, gradients);
  state_->head->bind(table, weights, gradients);
}

double LanguageModel::forward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                              const Tensor& document_starts) {
  Pass pass = state_->whole_micro_batch(context, /*keep=*/false);
  NIBBLE_CHECK(0 < tokens.size(0) && tokens.size(0) <= pass.sequences, "more sequences than memory was planned for");
  pass.sequences = tokens.size(0);
  const Tensor ids = state_->take_tokens(tokens, state_->token_ids, pass.sequences, pass.sequence_length);
  const Tensor wanted = state_->take_tokens(targets, state_->target_ids, pass.sequences, pass.sequence_length);
  pass.document_starts = state_->take_document_starts(document_starts, pass.sequences, pass.sequence_length);
  return state_->head->loss(state_->run_forward(ids, pass), wanted, context);
}

double LanguageModel::forward_backward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                                       float loss_scale, const Tensor& document_starts) {
  NIBBLE_CHECK(state_->options.training && !state_->embedding_gradient.empty(), "not set up for training");
  Pass pass = state_->whole_micro_batch(context, /*keep=*/true);
  const Tensor ids = state_->take_tokens(tokens, state_->token_ids, pass.sequences, pass.sequence_length);
  const Tensor wanted = state_->take_tokens(targets, state_->target_ids, pass.sequences, pass.sequence_length);
  pass.document_starts = state_->take_document_starts(document_starts, pass.sequences, pass.sequence_length);
  const auto compute = [&] {
    state_->head->loss_and_gradient({.input = state_->run_forward(ids, pass),
                                     .targets = wanted,
                                     .gradient = state_->gradient,
                                     .context = context,
                                     .scale = loss_scale});
    state_->run_backward(ids, pass);
  };
  // Measuring operands or time waits for the device, and announcing gradients uses other streams; neither can be
  // captured in a graph.
  const bool makes_weights = std::exchange(state_->weights_changed, false);
  if (state_->measuring || profiling() || state_->gradients_ready) {
    compute();
  } else {
    state_->graph.run((makes_weights ? 1 : 0) + (document_starts.empty() ? 0 : 2), compute);
  }
  return state_->head->loss_of_micro_batch();
}

Tensor LanguageModel::logits(const Tensor& tokens, const StepContext& context) {
  const int64_t n = tokens.elements();
  NIBBLE_CHECK(n > 0 && n % block_rows == 0 && n <= state_->options.sequence_length,
               "logits() takes a multiple of 16 tokens, at most the sequence length");
  const Tensor ids = state_->take_tokens(tokens, state_->token_ids, 1, n);
  Pass pass = state_->whole_micro_batch(context, /*keep=*/false);
  pass.sequences = 1;
  pass.sequence_length = n;
  return state_->head->logits(state_->run_forward(ids, pass), context);
}

}  // namespace nibble
