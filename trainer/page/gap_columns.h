// The gap of a run to its baseline as columns of numbers for the page: the differences of the losses of paired steps
// (trainer/report/comparison.h), thinned out as the steps of a run are, with what their error is computed from.
#pragma once

#include <cstddef>

#include <nlohmann/json_fwd.hpp>

#include "trainer/report/comparison.h"

namespace nibble {

// Returns {"columns", "correlation", "validations"}. The columns: "step", "tokens" and "seconds" of the run at a row's
// last pair; "count" of pairs with finite losses; "gap", the mean of run - base in nats; "variance" of the differences
// inside the row; "base", the mean loss of the baseline. "correlation" is that of the differences of neighbouring
// pairs, after the mean of the 64 pairs around is taken away: where it is above zero, fewer of them are independent
// than there are. "validations" has the gaps of all common validations behind the fork: "set", "step", "tokens",
// "seconds", "gap" and "base".
nlohmann::json gap_columns(const ComparedRun& base, const ComparedRun& run, size_t most_rows);

}  // namespace nibble
