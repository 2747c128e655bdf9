#include "trainer/run/validation.h"

#include <algorithm>
#include <vector>

#include "dist/zero/tree_reduction.h"

namespace nibble {

std::optional<double> validation_loss(Communicator& communicator, LanguageModel& model, const ValidationSet& set,
                                      MicroBatch& micro_batch, const std::function<bool()>& interrupted) {
  const uint64_t windows = set.sequences == 0 ? set.loader.windows() : std::min(set.loader.windows(), set.sequences);
  const uint64_t micro_batches = div_ceil(windows, set.micro_batch_sequences);
  const auto ranks = static_cast<uint64_t>(communicator.size());
  std::vector<double> losses(micro_batches);  // sums over tokens; rank r computes micro-batches r, r + ranks, ...
  std::vector<uint64_t> samples;
  for (uint64_t first = 0; first < micro_batches; first += ranks) {
    if (communicator.all_reduce_max(interrupted() ? 1 : 0) != 0) return std::nullopt;
    run_together(communicator, [&] {
      const uint64_t index = first + static_cast<uint64_t>(communicator.rank());
      if (index >= micro_batches) return;
      const uint64_t end = std::min(windows, (index + 1) * set.micro_batch_sequences);
      samples.clear();
      for (uint64_t sequence = index * set.micro_batch_sequences; sequence < end; ++sequence) {
        samples.push_back(spread_window(set.loader.windows(), windows, sequence));
      }
      micro_batch.load(set.loader, samples);
      losses[index] =
          model.forward(micro_batch.tokens(), micro_batch.targets(),
                        {.seed = set.seed, .step = narrow<uint32_t>(set.step), .micro_batch = narrow<uint32_t>(index)},
                        micro_batch.document_starts());
    });
    const uint64_t round = std::min(ranks, micro_batches - first);
    std::vector<uint64_t> offsets;
    for (uint64_t rank = 0; rank <= ranks; ++rank) offsets.push_back(std::min(rank, round) * sizeof(double));
    communicator.all_gather(std::as_writable_bytes(std::span(losses).subspan(first, round)), offsets);
  }
  return tree_sum(losses) / static_cast<double>(windows * static_cast<uint64_t>(model.config().sequence_length));
}

}  // namespace nibble
