#include "trainer/run/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

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

}  // namespace

Validation::Validation(const RunConfig& config)
    : seed_(config.run.seed),
      micro_batch_(micro_batch_shape(config)),
      micro_batch_sequences_(static_cast<uint64_t>(config.train.micro_batch_sequences)) {
  NIBBLE_CHECK(!config.data.validation.empty(), "validation without a set");
  for (const ShardSet& shards : config.data.validation) {
    auto loader =
        std::make_unique<Loader>(shards.patterns, static_cast<uint64_t>(config.model.sequence_length), config.run.seed,
                                 /*shuffle=*/false);
    std::vector<uint64_t> windows = windows_to_read(loader->windows(), static_cast<uint64_t>(config.eval.sequences));
    std::string fingerprint = fingerprint_of(*loader, windows);
    sets_.push_back({.name = shards.name,
                     .loader = std::move(loader),
                     .windows = std::move(windows),
                     .data_fingerprint = std::move(fingerprint)});
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

std::optional<ValidationLoss> Validation::loss_of(Communicator& communicator, LanguageModel& model, uint64_t step,
                                                  const Set& set, const std::function<bool()>& interrupted) {
  const std::span<const uint64_t> windows = set.windows;
  const uint64_t micro_batches = div_ceil(windows.size(), micro_batch_sequences_);
  const auto ranks = static_cast<uint64_t>(communicator.size());
  std::vector<double> losses(micro_batches);  // sums over tokens; rank r computes micro-batches r, r + ranks, ...
  for (uint64_t first = 0; first < micro_batches; first += ranks) {
    if (communicator.all_reduce_max(interrupted() ? 1 : 0) != 0) return std::nullopt;
    run_together(communicator, [&] {
      const uint64_t index = first + static_cast<uint64_t>(communicator.rank());
      if (index >= micro_batches) return;
      const uint64_t begin = index * micro_batch_sequences_;
      micro_batch_.load(*set.loader, windows.subspan(begin, std::min(micro_batch_sequences_, windows.size() - begin)));
      losses[index] =
          model.forward(micro_batch_.tokens(), micro_batch_.targets(),
                        {.seed = seed_, .step = narrow<uint32_t>(step), .micro_batch = narrow<uint32_t>(index)},
                        micro_batch_.document_starts());
    });
    const uint64_t round = std::min(ranks, micro_batches - first);
    std::vector<uint64_t> offsets;
    for (uint64_t rank = 0; rank <= ranks; ++rank) offsets.push_back(std::min(rank, round) * sizeof(double));
    communicator.all_gather(std::as_writable_bytes(std::span(losses).subspan(first, round)), offsets);
  }
  return ValidationLoss{.name = set.name,
                        .loss = tree_sum(losses) / static_cast<double>(windows.size() * set.loader->sequence_length()),
                        .data_fingerprint = set.data_fingerprint};
}

}  // namespace nibble
