#include "trainer/run/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numbers>
#include <span>
#include <utility>

#include "data/text/tokenizer.h"
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

// Returns the tokenizer of the run; nothing if there is none that nibble can read, as for shards of other programs.
std::optional<Tokenizer> find_tokenizer(const RunConfig& config) {
  std::error_code ignored;
  const std::filesystem::path path = tokenizer_path(config);
  if (!std::filesystem::is_regular_file(path, ignored)) return std::nullopt;
  try {
    return Tokenizer::load(path);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

Validation::Validation(const RunConfig& config)
    : seed_(config.run.seed),
      micro_batch_(micro_batch_shape(config)),
      micro_batch_sequences_(static_cast<uint64_t>(config.train.micro_batch_sequences)) {
  NIBBLE_CHECK(!config.data.validation.empty(), "validation without a set");
  const std::optional<Tokenizer> tokenizer = find_tokenizer(config);
  if (tokenizer) token_bytes_ = tokenizer->token_bytes();
  for (const ShardSet& shards : config.data.validation) {
    auto loader =
        std::make_unique<Loader>(shards.patterns, static_cast<uint64_t>(config.model.sequence_length), config.run.seed,
                                 /*shuffle=*/false);
    std::vector<uint64_t> windows = windows_to_read(loader->windows(), static_cast<uint64_t>(config.eval.sequences));
    std::string fingerprint = fingerprint_of(*loader, windows);
    const bool has_bytes = tokenizer && tokenizer->hash() == loader->tokenizer_hash() && !token_bytes_.empty();
    sets_.push_back({.name = shards.name,
                     .loader = std::move(loader),
                     .windows = std::move(windows),
                     .data_fingerprint = std::move(fingerprint),
                     .has_bytes = has_bytes});
  }
}

std::optional<std::vector<ValidationLoss>> Validation::losses(Communicator& communicator, LanguageModel& model,
                                                              uint64_t step, const std::function<bool()>& interrupted) {
  std::vector<ValidationLoss> losses;
  for (const Set& set : sets_) {
    std::optional<ValidationLoss> loss = loss_of(communicator, model, step, set, interrupted);
    if (!loss) return std::nullopt;
    losses.push_back(std::move(*loss));
  }
  return losses;
}

Validation::Part Validation::compute(LanguageModel& model, uint64_t step, const Set& set, uint64_t micro_batch) {
  const std::span<const uint64_t> windows = set.windows;
  const uint64_t begin = micro_batch * micro_batch_sequences_;
  micro_batch_.load(*set.loader, windows.subspan(begin, std::min(micro_batch_sequences_, windows.size() - begin)));
  Part part;
  part.loss =
      model.forward(micro_batch_.tokens(), micro_batch_.targets(),
                    {.seed = seed_, .step = narrow<uint32_t>(step), .micro_batch = narrow<uint32_t>(micro_batch)},
                    micro_batch_.document_starts());
  if (!set.has_bytes) return part;
  const Tensor targets = micro_batch_.targets();
  for (int64_t i = 0; i < targets.elements(); ++i) {
    part.bytes += token_bytes_[static_cast<size_t>(targets.as<int32_t>()[i])];
  }
  return part;
}

std::optional<ValidationLoss> Validation::loss_of(Communicator& communicator, LanguageModel& model, uint64_t step,
                                                  const Set& set, const std::function<bool()>& interrupted) {
  const uint64_t micro_batches = div_ceil(set.windows.size(), micro_batch_sequences_);
  const auto ranks = static_cast<uint64_t>(communicator.size());
  std::vector<Part> parts(micro_batches);  // rank r computes micro-batches r, r + ranks, ...
  for (uint64_t first = 0; first < micro_batches; first += ranks) {
    if (communicator.all_reduce_max(interrupted() ? 1 : 0) != 0) return std::nullopt;
    run_together(communicator, [&] {
      const uint64_t index = first + static_cast<uint64_t>(communicator.rank());
      if (index < micro_batches) parts[index] = compute(model, step, set, index);
    });
    const uint64_t round = std::min(ranks, micro_batches - first);
    std::vector<uint64_t> offsets;
    for (uint64_t rank = 0; rank <= ranks; ++rank) offsets.push_back(std::min(rank, round) * sizeof(Part));
    communicator.all_gather(std::as_writable_bytes(std::span(parts).subspan(first, round)), offsets);
  }
  std::vector<double> losses;
  uint64_t bytes = 0;
  for (const Part& part : parts) {
    losses.push_back(part.loss);
    bytes += part.bytes;
  }
  const double nats = tree_sum(losses);
  ValidationLoss result{.name = set.name,
                        .loss = nats / static_cast<double>(set.windows.size() * set.loader->sequence_length()),
                        .data_fingerprint = set.data_fingerprint};
  if (bytes > 0) result.bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(bytes);
  return result;
}

}  // namespace nibble
