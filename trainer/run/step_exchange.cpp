#include "trainer/run/step_exchange.h"

#include <fmt/format.h>

namespace nibble {

StepExchange::StepExchange(Communicator& communicator, const RunConfig& config) : control_(communicator.control()) {
  if (config.fault.throws.empty()) return;
  fault_ = parse_fault_throw(config.fault.throws);
  NIBBLE_CHECK(fault_, "fault.throw was read before");
  if (fault_->rank >= communicator.size()) {
    throw Error(ExitCode::bad_config,
                fmt::format("fault.throw {} names a rank of a run with {}", config.fault.throws, communicator.size()),
                fmt::format("name a rank from 0 to {}", communicator.size() - 1));
  }
  if (fault_->rank != communicator.rank()) fault_.reset();
}

BucketView StepExchange::acquire(uint32_t bucket, Direction direction) {
  control_.at(fmt::format("{} of {}", name_of(direction), bucket_name(bucket)));
  // Bucket 0 is the embedding, and block b has bucket b + 1.
  if (fault_is_due() && bucket == fault_->block + 1 && (direction == Direction::backward) == fault_->in_backward) {
    throw Error(ExitCode::internal,
                fmt::format("fault.throw stops rank {} in step {}, in {} of block {}", fault_->rank, step_,
                            name_of(direction), fault_->block),
                "set fault.throw to nothing, and resume from the last checkpoint");
  }
  return LocalExchange::acquire(bucket, direction);
}

void StepExchange::complete(uint32_t bucket) {
  if (completed_) completed_(bucket);
}

}  // namespace nibble
