#include "model/language_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dist/base/error.h"
#include "dist/device/pinned_memory.h"
#include "dist/device/profile.h"
#include "model/blocks/block_kind.h"
#include "model/objectives/objective_kind.h"
#include "model/ops/embedding.h"
#include "model/ops/loss/cross_entropy.h"
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

void start_copy(const Tensor& from, const Tensor& to) {
  start_copy_bytes({.to = to.data(),
                    .to_device = to.device(),
                    .from = from.data(),
                    .from_device = from.device(),
                    .bytes = from.bytes()});
}

}  // namespace

LanguageModel::LanguageModel(const ModelConfig& config, const Recipe& recipe, const LanguageModelOptions& options)
    : config_(config), options_(options) {
  validate(config_);
  validate(config_, options_);
  table_.begin_bucket("embedding");
  embedding_id_ = table_.add({.name = "embedding.weight",
                              .shape = {config_.vocab_size, config_.hidden_size},
                              .use = TensorUse::embedding,
                              .init_std = config_.init_std,
                              .dtype = config_.dtype});
  const int block_count = narrow<int>(config_.blocks());
  for (const BlockKind* kind : kinds_of(config_.pattern)) {
    table_.begin_bucket(fmt::format("blocks.{}", blocks_.size()));
    const BlockPosition position{.index = narrow<int>(blocks_.size()), .blocks = block_count};
    blocks_.push_back(kind->make({.config = config_, .recipe = recipe, .position = position, .table = table_}));
  }
  const ObjectiveSizes sizes{.sequences = options_.sequences,
                             .sequence_length = options_.sequence_length,
                             .training = options_.training,
                             .decoding = options_.decoding,
                             .chunk_tokens = options_.head_chunk_tokens,
                             .device = options_.device,
                             .sums_micro_batches = options_.sums_micro_batches};
  for (const ObjectiveKind& kind : objective_kinds()) {
    if (!kind.present(config_)) continue;
    table_.begin_bucket(std::string(kind.bucket));
    objectives_.push_back(kind.make({config_, recipe, sizes, embedding_id_, table_}));
  }
  arenas_ = {&quantized_weights_, &residual_stream_, &saved_activations_, &shared_activations_, &workspace_};
  for (const std::unique_ptr<Block>& block : blocks_) {
    for (Linear* linear : block->linears()) linears_.push_back(linear);
  }
  for (const std::unique_ptr<Objective>& objective : objectives_) {
    for (Arena* arena : objective->arenas()) arenas_.push_back(arena);
    for (Linear* linear : objective->linears()) linears_.push_back(linear);
  }
  if (options_.measure_only) {
    allocate();
    return;
  }
  planned(arenas_, [&] { allocate(); });
  if (rope_table_.empty()) return;
  fill_rope_table({.theta = config_.rope_theta,
                   .scaling_factor = config_.rope_scaling_factor,
                   .low_frequency_factor = config_.rope_low_frequency_factor,
                   .high_frequency_factor = config_.rope_high_frequency_factor,
                   .original_length = config_.rope_original_length},
                  rope_table_);
}

void LanguageModel::allocate() {
  const int64_t tokens = options_.sequences * options_.sequence_length;
  const int64_t hidden = config_.hidden_size;
  const std::vector<const BlockKind*> kinds = kinds_of(config_.pattern);
  if (std::any_of(kinds.begin(), kinds.end(), [](const BlockKind* kind) { return kind->has_positions; })) {
    rope_table_ = allocate_tensor(workspace_, DType::f32, {options_.sequence_length, config_.head_dim / 2, 2});
  }
  residual_.resize(options_.training ? blocks_.size() + 1 : 1);
  for (Tensor& input : residual_) input = allocate_tensor(residual_stream_, config_.dtype, {tokens, hidden});
  if (options_.training) gradient_ = allocate_tensor(workspace_, config_.dtype, {tokens, hidden});
  token_ids_ = allocate_tensor(workspace_, DType::i32, {tokens});
  target_ids_ = allocate_tensor(workspace_, DType::i32, {tokens});
  if (options_.document_mask) document_starts_ = allocate_tensor(workspace_, DType::i32, {tokens});
  non_finite_counts_ = allocate_tensor(quantized_weights_, DType::i64, {static_cast<int64_t>(linears_.size())});
  for (size_t i = 0; i < linears_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    linears_[i]->set_non_finite(non_finite_counts_.slice(index, index + 1));
  }
  if (options_.training) {
    const size_t mark = workspace_.mark();
    embedding_workspace_ = allocate_tensor(workspace_, DType::i32, {2, tokens});
    workspace_.release(mark);
  }
  allocate_blocks();
  for (const std::unique_ptr<Objective>& objective : objectives_) objective->allocate(quantized_weights_, workspace_);
}

void LanguageModel::allocate_blocks() {
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const bool shares = !options_.training || recomputes(b);
    Arena& arena = shares ? shared_activations_ : saved_activations_;
    const size_t mark = arena.mark();
    blocks_[b]->allocate({quantized_weights_, arena, workspace_, options_.sequences, options_.sequence_length,
                          options_.training, options_.document_mask, options_.decoding});
    if (shares) arena.release(mark);
  }
}

Pass LanguageModel::whole_micro_batch(const StepContext& context, bool keep) const {
  return {.context = context,
          .sequences = options_.sequences,
          .sequence_length = options_.sequence_length,
          .rope_table = rope_table_,
          .keep = keep};
}

void LanguageModel::check_tokens(const Tensor& tokens, int64_t sequences, int64_t sequence_length) const {
  NIBBLE_CHECK(tokens.elements() == sequences * sequence_length, "not the micro-batch's number of tokens");
  const int32_t* values = tokens.as<int32_t>();
  const bool in_range = std::all_of(values, values + tokens.elements(),
                                    [this](int32_t token) { return token >= 0 && token < config_.vocab_size; });
  NIBBLE_CHECK(in_range, "token outside the vocabulary");
}

Tensor LanguageModel::take_tokens(const Tensor& tokens, const Tensor& memory, int64_t sequences,
                                  int64_t sequence_length) const {
  check_tokens(tokens, sequences, sequence_length);
  const Tensor taken = memory.slice(0, tokens.elements());
  start_copy(tokens, taken);
  return taken;
}

Tensor LanguageModel::take_document_starts(const Tensor& given, int64_t sequences, int64_t sequence_length) const {
  if (given.empty()) return {};
  NIBBLE_CHECK(options_.document_mask, "no memory was planned for document starts");
  NIBBLE_CHECK(given.elements() == sequences * sequence_length, "not the micro-batch's number of tokens");
  const int32_t* values = given.as<int32_t>();
  for (int64_t i = 0; i < given.elements(); ++i) {
    const int64_t position = i % sequence_length;
    const bool continues = position > 0 && values[i] == values[i - 1];
    NIBBLE_CHECK(values[i] == position || continues, "a document begins where its first token is");
  }
  const Tensor taken = document_starts_.slice(0, given.elements());
  start_copy(given, taken);
  return taken;
}

void LanguageModel::acquire_block(size_t block, Direction direction) {
  blocks_[block]->bind(exchange_->acquire(bucket_of(block), direction));
}

template <class Work>
void LanguageModel::with_objective(size_t index, Direction direction, const Work& work) {
  Objective& objective = *objectives_[index];
  const bool tied = objective.uses_embedding();
  const BucketView embedding = tied ? exchange_->acquire(embedding_bucket, direction) : BucketView();
  objective.bind(exchange_->acquire(objective_bucket(index), direction), embedding);
  work(objective);
  exchange_->release(objective_bucket(index), direction);
  if (tied) exchange_->release(embedding_bucket, direction);
}

Tensor LanguageModel::run_forward(const Tensor& tokens, const Pass& pass, TextCache* cache) {
  NIBBLE_CHECK(compute_threads() <= threads_, "the thread pool has grown since memory was planned");
  const int64_t n = tokens.elements();
  embedding_forward({.tokens = tokens,
                     .weight = exchange_->acquire(embedding_bucket, Direction::forward)[embedding_id_].values,
                     .output = input_of(0).slice(0, n)});
  exchange_->release(embedding_bucket, Direction::forward);
  for (size_t b = 0; b < blocks_.size(); ++b) {
    Pass block_pass = pass;
    block_pass.keep = pass.keep && !recomputes(b);
    acquire_block(b, Direction::forward);
    const Tensor input = input_of(b).slice(0, n);
    const Tensor output = input_of(b + 1).slice(0, n);
    if (cache == nullptr) {
      blocks_[b]->forward(input, output, block_pass);
    } else {
      blocks_[b]->decode(input, output, block_pass, cache->blocks_[b].get());
    }
    exchange_->release(bucket_of(b), Direction::forward);
  }
  return input_of(blocks_.size()).slice(0, n);
}

void LanguageModel::run_backward(const Tensor& tokens, const Pass& pass) {
  for (size_t b = blocks_.size(); b-- > 0;) {
    acquire_block(b, Direction::backward);
    if (recomputes(b)) blocks_[b]->forward(input_of(b), Tensor(), pass);
    blocks_[b]->backward(input_of(b), gradient_, pass);
    exchange_->release(bucket_of(b), Direction::backward);
    exchange_->complete(bucket_of(b));
  }
  const BucketView embedding = exchange_->acquire(embedding_bucket, Direction::backward);
  // The gradient of a weight that an objective uses goes on from the objective's.
  const auto user =
      std::ranges::find_if(objectives_, [](const auto& objective) { return objective->uses_embedding(); });
  const bool continues = user != objectives_.end();
  embedding_backward({.tokens = tokens,
                      .grad_output = gradient_,
                      .grad_weight = continues ? (*user)->embedding_gradient() : embedding[embedding_id_].gradient,
                      .workspace = embedding_workspace_,
                      .continues = continues});
  if (continues) (*user)->add_embedding_gradient();
  exchange_->release(embedding_bucket, Direction::backward);
  exchange_->complete(embedding_bucket);
}

void LanguageModel::walk_trunk() {
  for (uint32_t bucket = embedding_bucket; bucket < objective_bucket(0); ++bucket) {
    exchange_->acquire(bucket, Direction::forward);
    exchange_->release(bucket, Direction::forward);
  }
}

void LanguageModel::walk_forward() {
  walk_trunk();
  with_objective(0, Direction::forward, [](Objective&) {});
}

void LanguageModel::walk_forward_backward() {
  walk_trunk();
  for (size_t i = 0; i < objectives_.size(); ++i) with_objective(i, Direction::backward, [](Objective&) {});
  for (size_t i = objectives_.size(); i-- > 0;) exchange_->complete(objective_bucket(i));
  for (uint32_t bucket = objective_bucket(0); bucket-- > embedding_bucket;) {
    exchange_->acquire(bucket, Direction::backward);
    exchange_->release(bucket, Direction::backward);
    exchange_->complete(bucket);
  }
}

std::vector<MemoryLine> LanguageModel::memory() const {
  std::vector<MemoryLine> lines;
  for (const Arena* arena : arenas_) {
    if (arena->planned_bytes() > 0) lines.push_back({arena->name(), arena->planned_bytes()});
  }
  return lines;
}

uint64_t LanguageModel::memory_bytes() const {
  uint64_t bytes = 0;
  for (const MemoryLine& line : memory()) bytes += line.bytes;
  return bytes;
}

void LanguageModel::bind(const Tensor& weights, const Tensor& gradients) {
  NIBBLE_CHECK(weights.dtype() == config_.dtype, "weights of another dtype");
  own_exchange_.bind(table_, weights, gradients);
  exchange_ = &own_exchange_;
  for (size_t b = 0; b < blocks_.size(); ++b) acquire_block(b, Direction::forward);
  for (size_t i = 0; i < objectives_.size(); ++i) with_objective(i, Direction::forward, [](Objective&) {});
}

void LanguageModel::set_weights_changed() {
  weights_changed_ = true;
  for (Linear* linear : linears_) linear->set_weights_changed();
}

Pass LanguageModel::take_for_forward(const Tensor& tokens, const StepContext& context, const Tensor& document_starts) {
  Pass pass = whole_micro_batch(context, /*keep=*/false);
  NIBBLE_CHECK(0 < tokens.size(0) && tokens.size(0) <= pass.sequences, "more sequences than memory was planned for");
  pass.sequences = tokens.size(0);
  take_tokens(tokens, token_ids_, pass.sequences, pass.sequence_length);
  pass.document_starts = take_document_starts(document_starts, pass.sequences, pass.sequence_length);
  return pass;
}

double LanguageModel::forward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                              const Tensor& document_starts, const LogitsReader& read) {
  const Pass pass = take_for_forward(tokens, context, document_starts);
  const Tensor wanted = take_tokens(targets, target_ids_, pass.sequences, pass.sequence_length);
  const Tensor input = run_forward(token_ids_.slice(0, tokens.elements()), pass);
  double loss = 0;
  with_objective(0, Direction::forward, [&](Objective& objective) {
    loss = objective.loss({.input = input, .targets = wanted, .context = context}, read);
  });
  return loss;
}

void LanguageModel::start_logits(const Tensor& tokens, const StepContext& context, const Tensor& document_starts) {
  const Pass pass = take_for_forward(tokens, context, document_starts);
  head_input_ = run_forward(token_ids_.slice(0, tokens.elements()), pass);
  head_context_ = context;
  head_segments_.clear();
}

Tensor LanguageModel::logits_of(int64_t begin, int64_t end) {
  const Tensor input = head_input_.slice(begin, end);
  std::vector<OperandSegment> segments;
  if (!head_segments_.empty()) segments.assign(head_segments_.begin() + begin, head_segments_.begin() + end);
  for (OperandSegment& segment : segments) segment.first_row -= begin;
  Tensor logits;
  with_objective(0, Direction::forward,
                 [&](Objective& objective) { logits = objective.logits(input, head_context_, segments); });
  return logits;
}

double LanguageModel::forward_backward(const Tensor& tokens, const Tensor& targets, const StepContext& context,
                                       float loss_scale, const Tensor& document_starts) {
  take(tokens, targets, document_starts);
  start_forward_backward(context, loss_scale);
  return sum_of_losses(losses());
}

void LanguageModel::take(const Tensor& tokens, const Tensor& targets, const Tensor& document_starts) {
  take_tokens(tokens, token_ids_, options_.sequences, options_.sequence_length);
  take_tokens(targets, target_ids_, options_.sequences, options_.sequence_length);
  taken_starts_ = take_document_starts(document_starts, options_.sequences, options_.sequence_length);
}

void LanguageModel::start_forward_backward(const StepContext& context, float loss_scale) {
  NIBBLE_CHECK(options_.training, "not set up for training");
  Pass pass = whole_micro_batch(context, /*keep=*/true);
  pass.document_starts = taken_starts_;
  const auto compute = [&] {
    const Tensor input = run_forward(token_ids_, pass);
    const ObjectivePass predicted{.input = input, .targets = target_ids_, .context = context};
    for (size_t i = 0; i < objectives_.size(); ++i) {
      with_objective(i, Direction::backward, [&](Objective& objective) {
        objective.loss_and_gradient(predicted, {.input = gradient_, .scale = loss_scale, .overwrite = i == 0});
      });
    }
    for (size_t i = objectives_.size(); i-- > 0;) exchange_->complete(objective_bucket(i));
    run_backward(token_ids_, pass);
  };
  // Measuring operands or time and checking a product wait for the device, and an exchange may use other streams; none
  // of it can be captured in a graph.
  const bool makes_weights = std::exchange(weights_changed_, false);
  const bool watched = std::ranges::any_of(linears_, [](const Linear* linear) { return linear->watched(); });
  if (watched || profiling() || exchange_->communicates()) {
    compute();
  } else {
    graph_.run((makes_weights ? 1 : 0) + (taken_starts_.empty() ? 0 : 2), compute);
  }
}

std::unique_ptr<TextCache> LanguageModel::make_cache() const {
  auto cache = std::unique_ptr<TextCache>(new TextCache(options_.device));
  Arena* const arenas[] = {&cache->memory_};
  planned(arenas, [&] {
    cache->blocks_.clear();
    for (const std::unique_ptr<Block>& block : blocks_) {
      cache->blocks_.push_back(block->make_cache(cache->memory_, options_.sequence_length));
    }
  });
  return cache;
}

void LanguageModel::decode(const Tensor& tokens, TextCache& cache, const StepContext& context) {
  const int64_t first = cache.length();
  const int64_t end = first + tokens.elements();
  NIBBLE_CHECK(options_.decoding && cache.blocks_.size() == blocks_.size(), "not set up for decoding");
  NIBBLE_CHECK(first < end && end <= options_.sequence_length, "a text of at least one token, at most a sequence");
  const Tensor ids = take_tokens(tokens, token_ids_, 1, end - first);
  head_segments_.clear();
  for (int64_t position = first; position < end; ++position) {
    head_segments_.push_back({.micro_batch = narrow<uint32_t>(position), .first_row = position - first, .rows = 1});
  }
  Pass pass = whole_micro_batch(context, /*keep=*/false);
  pass.sequences = 1;
  pass.sequence_length = end - first;
  if (!rope_table_.empty()) pass.rope_table = rope_table_.slice(first, end);
  pass.segments = head_segments_;
  head_input_ = run_forward(ids, pass, &cache);
  head_context_ = context;
  cache.length_ = end;
}

int64_t LanguageModel::take_non_finite_count() {
  const HostCopy counts(non_finite_counts_);
  int64_t count = 0;
  for (const int64_t of_layer : counts.as<int64_t>()) count += of_layer;
  if (count != 0) clear_non_finite_counts();
  return count;
}

void LanguageModel::move_non_finite_counts(const Tensor& counts) {
  copy(non_finite_counts_, counts);
  clear_non_finite_counts();
}

void LanguageModel::clear_non_finite_counts() {
  zero_bytes(non_finite_counts_.data(), non_finite_counts_.device(), non_finite_counts_.bytes());
}

}  // namespace nibble
