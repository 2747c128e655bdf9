// The port through which tokens reach the experts that they are routed to, and come back. A block of experts sends the
// rows of its micro-batch, computes what arrives for the experts that live here, returns the results, and collects its
// own rows. All ranks make these calls in the same order, also one that has no rows; only the numbers of rows differ.
//
//   send_rows(); while (next_round(round)) { ...; return_rows(); } collect_rows();
//
// A segment, the rows of one expert in one micro-batch, is whole in one round, because its operands and its weight
// gradient are quantised as one (law 4, docs/architecture.md).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/exchange.h"
#include "quant/tensor/tensor.h"

namespace nibble {

struct RowSegment {
  uint32_t micro_batch = 0;
  uint32_t expert = 0;
  int64_t first_row = 0;  // among the rows of the round
  int64_t rows = 0;
};

// Rows for the experts that live here, ordered by expert and then by micro-batch. Segments without rows are left out.
struct ExpertRows {
  Tensor rows;  // [rows, features]
  std::span<const RowSegment> segments = {};
};

class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;

  // Sends the rows [rows, features] of this rank's micro-batch: counts[e] of them for expert e, ordered by expert, and
  // inside an expert as the tokens are. The memory must not change before collect_rows(). In backward, the rows and
  // counts are those of gradients of the forward results.
  virtual void send_rows(const Tensor& rows, std::span<const int32_t> counts, uint32_t micro_batch,
                         Direction direction) = 0;
  // Returns false after the last round.
  virtual bool next_round(ExpertRows& round) = 0;
  // Gives back what was computed from the round's rows, in their order. The memory must not change before the next call
  // of the exchange has returned.
  virtual void return_rows(const Tensor& results) = 0;
  // Writes the results for this rank's rows, in the order in which they were sent.
  virtual void collect_rows(const Tensor& results) = 0;
};

// All experts live here: one round, which is what was sent.
class LocalExpertExchange final : public ExpertExchange {
 public:
  void send_rows(const Tensor& rows, std::span<const int32_t> counts, uint32_t micro_batch,
                 Direction direction) override;
  bool next_round(ExpertRows& round) override;
  void return_rows(const Tensor& results) override;
  void collect_rows(const Tensor& results) override;

 private:
  enum class State : uint8_t { idle, sent, computing, returned };
  State state_ = State::idle;
  Tensor rows_;     // as sent
  Tensor results_;  // as returned
  std::vector<RowSegment> segments_;
};

}  // namespace nibble
