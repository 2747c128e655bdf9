// The steps of a run as columns of numbers for the page. A long run is thinned out: a row stands for `stride`
// consecutive steps, with the mean and the smallest and largest loss of them. The stride is a power of two, and rows
// begin at multiples of it, so that a row does not change when steps are added, until the stride doubles. The last
// steps have a row each.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/report/metrics.h"

namespace nibble {

// Which steps, by their index, share a row.
struct Thinning {
  size_t stride = 1;
  size_t recent = 0;  // from this index on each step has a row of its own; a multiple of the stride

  bool operator==(const Thinning&) const = default;
};
// Returns the thinning that leaves about `most_rows` rows before the last steps, of which at least 128 stay as they
// are. `recent` moves in jumps of at least 64 steps, so that the rows before it change seldom.
Thinning thinning_of(size_t steps, size_t most_rows);

// Calls row(begin, end) for each row of the steps [begin, end).
template <class Row>
void for_each_row(const Thinning& thinning, size_t begin, size_t end, Row row) {
  for (size_t at = begin; at < end;) {
    const size_t next = at < thinning.recent ? at + thinning.stride : at + 1;
    row(at, next < end ? next : end);
    at = next;
  }
}

// Returns the value with so many significant digits, and null if it is not finite. Seven are more than a curve shows,
// and four more than a colour or a tooltip.
nlohmann::json short_number(double value, int digits = 7);

// Returns the columns of the steps [begin, end): "step", "tokens" and "seconds" of a row's last step; "count", the
// number of its losses that are finite; their mean "loss", "loss_low" and "loss_high"; "grad_norm", "grad_norm_high",
// "lr", "tokens_per_second" and "mfu" (means but for the highest); "skipped", the number of steps not applied.
nlohmann::json step_columns(const std::vector<StepMetrics>& steps, const Thinning& thinning, size_t begin, size_t end);

}  // namespace nibble
