#include "trainer/run/divergence_meter.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/ops/loss/divergence.h"

namespace nibble {

DivergenceMeter::DivergenceMeter(LanguageModel& reference, DeviceKind device)
    : reference_(reference), arena_("sums of the divergence", device) {
  Arena* const arenas[] = {&arena_};
  planned(arenas, [&] { sums_ = allocate_tensor(arena_, DType::f32, {reference_.head_chunk_tokens(), 3}); });
}

double DivergenceMeter::loss(LanguageModel& model, const MicroBatch& batch, const StepContext& context,
                             std::span<double> divergences) {
  const int64_t length = batch.tokens().cols();
  std::fill(divergences.begin(), divergences.end(), 0.0);
  reference_.start_logits(batch.tokens(), context, batch.document_starts());
  return model.forward(
      batch.tokens(), batch.targets(), context, batch.document_starts(), [&](int64_t first, const Tensor& logits) {
        const int64_t chunk = reference_.head_chunk_tokens();
        for (int64_t begin = 0; begin < logits.rows(); begin += chunk) {
          const int64_t end = std::min(logits.rows(), begin + chunk);
          const Tensor sums = sums_.slice(0, end - begin);
          divergence_sums(
              {.p = reference_.logits_of(first + begin, first + end), .q = logits.slice(begin, end), .sums = sums});
          auto sequence_token = first + begin;
          for (const double divergence : nibble::divergences(sums)) {
            divergences[static_cast<size_t>(sequence_token++ / length)] += divergence;
          }
        }
      });
}

Divergence divergence_of(std::span<const double> sums, uint64_t length) {
  const auto count = static_cast<double>(sums.size());
  const auto tokens = static_cast<double>(length);
  double total = 0;
  for (const double sum : sums) total += sum;
  Divergence result{.mean = total / (count * tokens), .standard_error = std::nullopt};
  if (sums.size() < 2) return result;
  double squares = 0;
  for (const double sum : sums) squares += (sum / tokens - result.mean) * (sum / tokens - result.mean);
  result.standard_error = std::sqrt(squares / (count - 1) / count);
  return result;
}

}  // namespace nibble
