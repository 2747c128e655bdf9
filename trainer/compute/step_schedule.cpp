#include "trainer/compute/step_schedule.h"

namespace nibble {

Schedule step_schedule(const RunConfig& config, int ranks) {
  return {config.micro_batch_groups(), ranks, Schedule::Order::rows};
}

}  // namespace nibble
