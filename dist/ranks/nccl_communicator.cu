#include "dist/ranks/nccl_communicator.h"

#if __has_include(<nccl.h>)
#include <exception>
#include <mutex>
#include <string>
#include <utility>

#include "dist/base/log_line.h"
#include "dist/device/cuda_device.h"
#include "dist/device/launch.cuh"
#include "dist/ranks/nccl_library.cuh"
#include "dist/watch/collective_watch.h"

namespace nibble::cuda {
namespace {

__global__ void mark_kernel(uint64_t* mark, uint64_t number) {
  *mark = number;
}

cudaEvent_t make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return event;
}

// Lets stream `later` wait for all work that `earlier` has been given so far.
void wait_for(cudaStream_t later, cudaStream_t earlier, cudaEvent_t event) {
  check(cudaEventRecord(event, earlier), "cudaEventRecord");
  check(cudaStreamWaitEvent(later, event, 0), "cudaStreamWaitEvent");
}

class NcclCommunicator final : public DeviceCommunicator {
 public:
  NcclCommunicator(Communicator& host_ranks, double timeout_s)
      : DeviceCommunicator(host_ranks),
        nccl_(nccl_library()),
        exceptions_at_start_(std::uncaught_exceptions()),
        marks_(static_cast<CollectiveMarks*>(allocate_pinned(sizeof(CollectiveMarks)))),
        before_(make_event()),
        after_(make_event()) {
    *marks_ = {};
    const auto find_problem = [this] { return problem(); };
    watch_ = std::make_unique<CollectiveWatch>(CollectiveWatch::Options{.library = "NCCL",
                                                                        .rank = host_ranks.rank(),
                                                                        .timeout_s = timeout_s,
                                                                        .marks = marks_,
                                                                        .control = &host_ranks.control(),
                                                                        .problem = find_problem});
    start();
  }

  ~NcclCommunicator() override {
    try {
      if (std::uncaught_exceptions() > exceptions_at_start_) {
        cancel();
      } else {
        leave();
      }
    } catch (const Error& error) {
      write_log(LogLevel::error, error.what());
      host().abort(static_cast<int>(error.code()));
    }
  }

  void broadcast(std::span<std::byte> data, int root) override {
    if (data.empty()) return;
    begin("broadcast", data.size());
    call([&] {
      return nccl_.broadcast(data.data(), data.data(), data.size(), ncclUint8, root, communicator_,
                             communication_stream());
    });
    end();
    finish_sums();
  }

  // Parts of equal size use NCCL's own all-gather; otherwise each part is broadcast.
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override {
    check_offsets(offsets, size(), data.size());
    const auto own = static_cast<size_t>(rank());
    const auto length = [&](size_t of) { return offsets[of + 1] - offsets[of]; };
    const auto ranks = static_cast<size_t>(size());
    bool equal = true;
    for (size_t other = 0; other < ranks; ++other) equal = equal && length(other) == length(0);
    if (offsets.back() == offsets.front()) return;
    begin("all-gather", offsets.back() - offsets.front());
    if (equal) {
      call([&] {
        return nccl_.all_gather(data.data() + offsets[own], data.data() + offsets[0], length(0), ncclUint8,
                                communicator_, communication_stream());
      });
    } else {
      group([&](auto add) {
        for (size_t other = 0; other < ranks; ++other) {
          if (length(other) == 0) continue;
          std::byte* const part = data.data() + offsets[other];
          add(nccl_.broadcast(part, part, length(other), ncclUint8, static_cast<int>(other), communicator_,
                              communication_stream()));
        }
      });
    }
    end();
    finish_sums();
  }

  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    const auto ranks = static_cast<size_t>(size());
    NIBBLE_CHECK(send.size() == ranks && receive.size() == ranks, "one span a rank");
    uint64_t bytes = 0;
    for (size_t other = 0; other < ranks; ++other) {
      if (other != static_cast<size_t>(rank())) bytes += send[other].size() + receive[other].size();
    }
    begin("exchange", bytes);
    group([&](auto add) {
      for (size_t step = 1; step < ranks; ++step) {
        const size_t next = (static_cast<size_t>(rank()) + step) % ranks;
        const size_t previous = (static_cast<size_t>(rank()) + ranks - step) % ranks;
        if (!send[next].empty()) {
          add(nccl_.send(send[next].data(), send[next].size(), ncclUint8, static_cast<int>(next), communicator_,
                         communication_stream()));
        }
        if (!receive[previous].empty()) {
          add(nccl_.receive(receive[previous].data(), receive[previous].size(), ncclUint8, static_cast<int>(previous),
                            communicator_, communication_stream()));
        }
      }
    });
    end();
    finish_sums();
  }

  bool sums_by_library() const override { return true; }

  void start_sum(std::span<float> values, int root) override {
    if (values.empty()) return;
    begin("sum", values.size_bytes());
    call([&] {
      return nccl_.reduce(values.data(), values.data(), values.size(), ncclFloat32, ncclSum, root, communicator_,
                          communication_stream());
    });
    end();
  }

  void finish_sums() override { wait_for(compute_stream(), communication_stream(), after_); }

 private:
  // Waits for all ranks and ends NCCL.
  void leave() {
    begin("end", 0);
    call([&] { return nccl_.finalize(communicator_); });
    end();
    check(cudaStreamSynchronize(communication_stream()), "end of NCCL");
    call([&] { return nccl_.destroy(std::exchange(communicator_, nullptr)); });
    watch_.reset();
    release_pinned(marks_);
    cudaEventDestroy(before_);
    cudaEventDestroy(after_);
  }

  // Ends operations that other ranks may never join, so that memory can be released while an exception unwinds. It is
  // the exception that is reported, not a failure of the abort. The marks stay, because the stream may still write
  // them.
  void cancel() {
    watch_->add(++issued_, "abort", 0);
    watched([&] { return nccl_.abort(std::exchange(communicator_, nullptr)); });
    watch_.reset();
  }

  // Starts NCCL for one rank a GPU.
  void start() {
    ncclUniqueId id{};
    const std::string problem = rank() == 0 ? watched([&] { return nccl_.get_unique_id(&id); }) : "";
    refuse_start(broadcast_string(host(), problem, 0));
    host().broadcast(std::as_writable_bytes(std::span(id.internal)), 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    refuse_start(watched([&] { return nccl_.init_rank(&communicator_, size(), id, rank(), &config); }));
  }

  static void refuse_start(const std::string& problem) {
    if (problem.empty()) return;
    throw Error(ExitCode::bad_config, "NCCL does not start: " + problem,
                "start one rank a GPU; NCCL_DEBUG=INFO tells more, and NCCL_SOCKET_IFNAME chooses the network");
  }

  // Runs a function that calls NCCL, while no other thread does and while the watch bounds its time. Returns why it
  // failed; empty on success.
  template <class Calls>
  std::string watched(const Calls& calls) {
    watch_->enter_call();
    const std::lock_guard lock(mutex_);
    const std::string problem = text_of(calls());
    watch_->leave_call();
    return problem;
  }

  // Runs a function that asks NCCL for the operation that begin() named.
  template <class Calls>
  void call(const Calls& calls) {
    if (const std::string problem = watched(calls); !problem.empty()) watch_->give_up("failed: " + problem);
  }

  // Asks NCCL for one operation of several parts. `calls` gives the result of each part to its argument.
  template <class Calls>
  void group(const Calls& calls) {
    call([&] {
      ncclResult_t result = nccl_.group_start();
      if (result != ncclSuccess) return result;
      calls([&](ncclResult_t part) {
        if (result == ncclSuccess) result = part;
      });
      const ncclResult_t end = nccl_.group_end();
      return result == ncclSuccess ? end : result;
    });
  }

  // Returns what a result says; empty for success.
  std::string text_of(ncclResult_t result) const {
    if (result == ncclSuccess) return {};
    const char* const last = nccl_.last_error(communicator_);
    return std::string(nccl_.error_string(result)) + (*last == '\0' ? "" : std::string(" (") + last + ")");
  }

  // Returns what NCCL reports as failed; empty if nothing has, and while another thread is inside NCCL. The watching
  // thread calls it.
  std::string problem() {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock || communicator_ == nullptr) return {};
    ncclResult_t state = ncclSuccess;
    const ncclResult_t result = nccl_.get_async_error(communicator_, &state);
    if (state == ncclInProgress) return {};
    return text_of(result == ncclSuccess ? state : result);
  }

  // Between begin() and end() the communication stream gets one operation, which runs after all that the compute stream
  // was given before.
  void begin(const char* name, uint64_t bytes) {
    watch_->add(++issued_, name, bytes);
    wait_for(communication_stream(), compute_stream(), before_);
    mark(&marks_->begun);
  }
  void end() { mark(&marks_->ended); }

  void mark(uint64_t* counter) const {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(1);
    config.blockDim = dim3(1);
    config.stream = communication_stream();
    check(cudaLaunchKernelEx(&config, mark_kernel, counter, issued_), "mark of a collective");
  }

  const NcclLibrary& nccl_;
  const int exceptions_at_start_;
  std::mutex mutex_;  // held by the thread that is inside NCCL
  ncclComm_t communicator_ = nullptr;
  CollectiveMarks* const marks_;  // memory of the CPU that the GPU writes
  cudaEvent_t before_, after_;
  uint64_t issued_ = 0;
  std::unique_ptr<CollectiveWatch> watch_;
};

}  // namespace

std::unique_ptr<DeviceCommunicator> make_nccl_communicator(Communicator& host, double timeout_s) {
  return std::make_unique<NcclCommunicator>(host, timeout_s);
}

}  // namespace nibble::cuda

#else

namespace nibble::cuda {

std::string nccl_problem() {
  return "nibble was built without nccl.h";
}

std::unique_ptr<DeviceCommunicator> make_nccl_communicator(Communicator& /*host*/, double /*timeout_s*/) {
  throw Error(ExitCode::bad_config, nccl_problem(), "install NCCL's header and build again");
}

}  // namespace nibble::cuda

#endif
