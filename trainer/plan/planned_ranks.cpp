#include "trainer/plan/planned_ranks.h"

#include <cstdlib>

namespace nibble {

// An error of this rank is the run's (agree_on_error()), which broadcasts it.
void PlannedRank::broadcast(std::span<std::byte> /*data*/, int root) {
  NIBBLE_CHECK(root == rank_, "a planned rank has no others to hear from");
}

void PlannedRank::all_gather(std::span<std::byte> /*data*/, std::span<const uint64_t> /*offsets*/) {
  NIBBLE_CHECK(size_ == 1, "a planned rank has no others to gather from");
}

void PlannedRank::exchange(std::span<const std::span<const std::byte>> /*send*/,
                           std::span<const std::span<std::byte>> /*receive*/) {
  NIBBLE_CHECK(size_ == 1, "a planned rank has no others to exchange with");
}

void PlannedRank::abort(int exit_code) {
  std::_Exit(exit_code);
}

}  // namespace nibble
