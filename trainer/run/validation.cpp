#include "trainer/run/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numbers>
#include <span>
#include <utility>

#include "data/tokenizers/tokenizer.h"
#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

std::vector<uint64_t> windows_to_read(uint64_t windows, uint64_t sequences) {
  const uint64_t count = sequences == 0 ? windows : std::min(windows, sequences);
  std::vector<uint64_t> chosen(count);
  for (uint64_t i = 0; i < count; ++i) chosen[i] = spread_window(windows, count, i);
  return chosen;
}

std::string fingerprint_of(const Loader& loader, std::span<const uint64_t> windows) {
  const std::string text =
      fmt::format("{} {} {}", loader.fingerprint(), loader.sequence_length(), to_hex(hash64(std::as_bytes(windows))));
  return to_hex(hash128(text));
}

// Returns the tokenizer of the run; null if there is none that nibble can read, as for shards of other programs.
std::unique_ptr<Tokenizer> find_tokenizer(const RunConfig& config) {
  std::error_code ignored;
  const std::filesystem::path path = tokenizer_path(config);
  if (!std::filesystem::is_regular_file(path, ignored)) return nullptr;
  try {
    return Tokenizer::load(path);
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace

void refuse_unknown_documents(const RunConfig& config, const Loader& set) {
  if (!config.data.document_mask) return;
  for (size_t i = 0; i < set.shards(); ++i) {
    const TokenShard& shard = set.shard(i);
    if (shard.knows_documents()) continue;
    throw Error(ExitCode::bad_config,
                fmt::format("{} ({}) does not say where its documents begin, but data.document_mask asks for it",
                            shard.name(), shard.format()),
                "set data.document_mask=false, or take shards of nibble or Megatron");
  }
}

Validation::Validation(const RunConfig& config)
    : seed_(config.run.seed),
      micro_batch_(micro_batch_shape(config)),
      micro_batch_sequences_(static_cast<uint64_t>(config.train.micro_batch_sequences)) {
  NIBBLE_CHECK(!config.data.validation.empty(), "validation without a set");
  const std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(config);
  if (tokenizer) token_bytes_ = tokenizer->token_bytes();
  for (const ShardSet& shards : config.data.validation) {
    auto loader =
        std::make_unique<Loader>(shards.patterns, static_cast<uint64_t>(config.model.sequence_length), config.run.seed,
                                 /*shuffle=*/false, shard_options(config));
    refuse_unknown_documents(config, *loader);
    std::vector<uint64_t> windows = windows_to_read(loader->windows(), static_cast<uint64_t>(config.eval.sequences));
    std::string fingerprint = fingerprint_of(*loader, windows);
    // Shards of other programs do not name their tokenizer: it is the one that data.tokenizer names.
    const bool is_named = loader->tokenizer_hash() == Hash128() && !config.data.tokenizer.empty();
    const bool is_known = tokenizer && (is_named || tokenizer->hash() == loader->tokenizer_hash());
    const bool has_bytes = is_known && !token_bytes_.empty();
    sets_.push_back({.name = shards.name,
                     .loader = std::move(loader),
                     .windows = std::move(windows),
                     .data_fingerprint = std::move(fingerprint),
                     .has_bytes = has_bytes});
  }
}

std::optional<std::vector<ValidationLoss>> Validation::losses(Communicator& communicator, LanguageModel& model,
                                                              uint64_t step, const std::function<bool()>& interrupted,
                                                              DivergenceMeter* meter) {
  std::vector<ValidationLoss> losses;
  for (const Set& set : sets_) {
    std::optional<ValidationLoss> loss = loss_of(communicator, {model, meter, step}, set, interrupted);
    if (!loss) return std::nullopt;
    losses.push_back(std::move(*loss));
  }
  return losses;
}

// `divergences` has an element for each sequence of the micro-batch.
Validation::Part Validation::compute(const Models& models, const Set& set, uint64_t micro_batch,
                                     std::span<double> divergences) {
  const StepContext context{
      .seed = seed_, .step = narrow<uint32_t>(models.step), .micro_batch = narrow<uint32_t>(micro_batch)};
  micro_batch_.load(*set.loader,
                    std::span(set.windows).subspan(micro_batch * micro_batch_sequences_, divergences.size()));
  const Tensor targets = micro_batch_.targets();
  Part part;
  if (models.meter != nullptr) {
    part.loss = models.meter->loss(models.model, micro_batch_, context, divergences);
  } else {
    part.loss = models.model.forward(micro_batch_.tokens(), targets, context, micro_batch_.document_starts());
  }
  for (int64_t i = 0; set.has_bytes && i < targets.elements(); ++i) {
    const auto id = static_cast<size_t>(targets.as<int32_t>()[i]);
    if (id >= token_bytes_.size()) {
      throw Error(ExitCode::bad_data,
                  fmt::format("{} have the id {}, but their tokenizer has {} tokens",
                              set.name.empty() ? "the validation shards" : "the validation shards of " + set.name, id,
                              token_bytes_.size()),
                  "let data.tokenizer name the tokenizer that the shards were made with");
    }
    part.bytes += token_bytes_[id];
  }
  return part;
}

std::optional<ValidationLoss> Validation::loss_of(Communicator& communicator, const Models& models, const Set& set,
                                                  const std::function<bool()>& interrupted) {
  const uint64_t windows = set.windows.size();
  const uint64_t micro_batches = div_ceil(windows, micro_batch_sequences_);
  const auto ranks = static_cast<uint64_t>(communicator.size());
  std::vector<Part> parts(micro_batches);  // rank r computes micro-batches r, r + ranks, ...
  std::vector<double> divergences(windows);
  const auto window_of = [&](uint64_t micro_batch) { return std::min(windows, micro_batch * micro_batch_sequences_); };
  for (uint64_t first = 0; first < micro_batches; first += ranks) {
    if (communicator.all_reduce_max(interrupted() ? 1 : 0) != 0) return std::nullopt;
    // An error of one rank ends the run: the ranks do not meet again.
    if (const uint64_t index = first + static_cast<uint64_t>(communicator.rank()); index < micro_batches) {
      communicator.control().at(fmt::format("validation micro-batch {}", index));
      const uint64_t begin = window_of(index);
      parts[index] = compute(models, set, index, std::span(divergences).subspan(begin, window_of(index + 1) - begin));
    } else {
      models.model.walk_forward();
    }
    std::vector<uint64_t> part_offsets, window_offsets;
    for (uint64_t rank = 0; rank <= ranks; ++rank) {
      const uint64_t end = std::min(first + rank, micro_batches);
      part_offsets.push_back(end * sizeof(Part));
      window_offsets.push_back(window_of(end) * sizeof(double));
    }
    communicator.all_gather(std::as_writable_bytes(std::span(parts)), part_offsets);
    if (models.meter != nullptr)
      communicator.all_gather(std::as_writable_bytes(std::span(divergences)), window_offsets);
  }
  std::vector<double> losses;
  uint64_t bytes = 0;
  for (const Part& part : parts) {
    losses.push_back(part.loss);
    bytes += part.bytes;
  }
  const double nats = tree_sum(losses);
  const uint64_t length = set.loader->sequence_length();
  ValidationLoss result{
      .name = set.name, .loss = nats / static_cast<double>(windows * length), .data_fingerprint = set.data_fingerprint};
  if (bytes > 0) result.bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(bytes);
  if (models.meter != nullptr) result.divergence = divergence_of(divergences, length);
  return result;
}

}  // namespace nibble
