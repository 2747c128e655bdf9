// The ranks of a run, one GPU each, for data in memory of those GPUs.
//
// broadcast(), all_gather() and exchange() take spans of device memory and run in the order of the compute stream: they
// read what earlier kernels wrote, and later kernels read what they brought. They may return before the work is done.
// All other collectives, and those of agree_on_error(), run_together() and broadcast_string(), go through the host
// communicator. Each rank counts as a machine of its own, because GPUs do not share memory.
#pragma once

#include <memory>

#include "dist/device/device_kind.h"
#include "dist/ranks/communicator.h"

namespace nibble {

class DeviceCommunicator : public Communicator {
 public:
  explicit DeviceCommunicator(Communicator& host_ranks) : host_(host_ranks) {}

  Communicator& host() override { return host_; }
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  int ranks_on_node() const override { return host_.ranks_on_node(); }
  Control& control() override { return host_.control(); }
  void barrier() override { host_.barrier(); }
  int64_t all_reduce_max(int64_t value) override { return host_.all_reduce_max(value); }
  [[noreturn]] void abort(int exit_code) override {
    host_.abort(exit_code);
    __builtin_unreachable();
  }

  // Sums that another library forms in an order of its own; their bits depend on the number of ranks. start_sum()
  // begins to add `values` of all ranks in place on root, from the values at this point of the compute stream; the
  // compute stream goes on meanwhile. Afterwards `values` of the other ranks are undefined. The compute stream has all
  // sums after finish_sums(). Both are collective, in the same order on all ranks; start_sum() throws
  // ExitCode::bad_config on every rank if sums_by_library() is false.
  virtual bool sums_by_library() const { return false; }
  virtual void start_sum(std::span<float> values, int root);
  virtual void finish_sums() {}

 private:
  Communicator& host_;
};

// Collective, after use_device(). Returns null where `host` itself serves: on the CPU, and for one rank, which
// exchanges nothing. On GPUs the result uses NCCL or, where NCCL is missing, memory of the CPU and `host`, after one
// warning; with `nccl_only`, ExitCode::bad_config on every rank instead. timeout_s bounds every operation; 0 means no
// bound. `host` must outlive the result.
std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& host, DeviceKind device, double timeout_s,
                                                             bool nccl_only);

// Returns the bytes of the GPU that a run should leave free for what libraries take after its plan; 0 on the CPU.
size_t gpu_bytes_of_libraries(const Communicator& host, DeviceKind device);
// The same for a GPU of so many that exchange through NCCL.
size_t gpu_bytes_of_libraries(int ranks);

}  // namespace nibble
