#include "model/expert_exchange.h"

#include "quant/tensor/tensor_copy.h"

namespace nibble {

void LocalExpertExchange::send_rows(const Tensor& rows, std::span<const int32_t> counts, uint32_t micro_batch,
                                    Direction /*direction*/) {
  NIBBLE_CHECK(state_ == State::idle, "the rows sent before have not been collected");
  segments_.clear();
  int64_t next = 0;
  for (size_t expert = 0; expert < counts.size(); ++expert) {
    NIBBLE_CHECK(counts[expert] >= 0, "a number of rows");
    if (counts[expert] == 0) continue;
    segments_.push_back({.micro_batch = micro_batch,
                         .expert = static_cast<uint32_t>(expert),
                         .first_row = next,
                         .rows = counts[expert]});
    next += counts[expert];
  }
  NIBBLE_CHECK(next == (rows.empty() ? 0 : rows.rows()), "the counts are those of the rows");
  rows_ = rows;
  state_ = State::sent;
}

bool LocalExpertExchange::next_round(ExpertRows& round) {
  NIBBLE_CHECK(state_ == State::sent || state_ == State::returned, "a round begins when the one before is returned");
  if (state_ == State::returned) return false;
  round = {.rows = rows_, .segments = segments_};
  state_ = State::computing;
  return true;
}

void LocalExpertExchange::return_rows(const Tensor& results) {
  NIBBLE_CHECK(state_ == State::computing, "no round has begun");
  NIBBLE_CHECK(results.empty() == rows_.empty() && (results.empty() || results.rows() == rows_.rows()),
               "a result for every row of the round");
  results_ = results;
  state_ = State::returned;
}

void LocalExpertExchange::collect_rows(const Tensor& results) {
  NIBBLE_CHECK(state_ == State::returned, "the results of a round are missing");
  if (!results_.empty() && results.data() != results_.data()) copy(results_, results);
  state_ = State::idle;
}

}  // namespace nibble
