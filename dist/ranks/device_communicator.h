// The ranks of a run, one GPU each, for data in memory of those GPUs.
//
// broadcast(), all_gather() and exchange() take spans of device memory. They happen in the order of what the compute
// stream is asked for: they read what earlier kernels wrote, and later kernels find what they brought. The host may not
// have waited when they return. Everything else, and all that agree_on_error() and the like exchange, goes through the
// host communicator. Each rank counts as a machine of its own: GPUs do not share memory.
#pragma once

#include <memory>

#include "dist/device/dispatch.h"
#include "dist/ranks/communicator.h"

namespace nibble {

class DeviceCommunicator : public Communicator {
 public:
  explicit DeviceCommunicator(Communicator& host_ranks) : host_(host_ranks) {}

  Communicator& host() override { return host_; }
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int ranks_on_node() const override { return host_.ranks_on_node(); }
  void barrier() override { host_.barrier(); }
  int64_t all_reduce_max(int64_t value) override { return host_.all_reduce_max(value); }
  [[noreturn]] void abort(int exit_code) override {
    host_.abort(exit_code);
    __builtin_unreachable();
  }

  // Sums that another library forms, in an order of its own: not the same bits from one number of ranks to another.
  // start_sum() begins to bring root the sum over all ranks of `values`, in place, from what is in them when the
  // compute stream gets here; the compute stream goes on meanwhile. What other ranks have in `values` is undefined
  // afterwards. After finish_sums() the compute stream has all sums. Collective, and in the same order on all ranks;
  // throws ExitCode::bad_config on every rank where sums_by_library() is false.
  virtual bool sums_by_library() const { return false; }
  virtual void start_sum(std::span<float> values, int root);
  virtual void finish_sums() {}

 private:
  Communicator& host_;
};

// Null where `host` itself serves: on the CPU, and for one rank, which exchanges nothing. On GPUs: NCCL; where there is
// none, memory of the CPU and `host`, after one warning. Collective, after use_device(). timeout_s bounds every
// operation; 0 means no bound. `host` must outlive it.
std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& host, DeviceKind device, double timeout_s);

}  // namespace nibble
