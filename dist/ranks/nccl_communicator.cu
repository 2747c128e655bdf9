#include "dist/ranks/nccl_communicator.h"

#if __has_include(<nccl.h>)
#include <sched.h>

#include <algorithm>
#include <exception>
#include <string>

#include "dist/base/log_line.h"
#include "dist/base/stopwatch.h"
#include "dist/device/cuda_device.h"
#include "dist/device/launch.cuh"
#include "dist/ranks/collective_watch.h"
#include "dist/ranks/nccl_library.cuh"

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
        timeout_s_(timeout_s),
        exceptions_at_start_(std::uncaught_exceptions()),
        marks_(static_cast<CollectiveMarks*>(allocate_pinned(sizeof(CollectiveMarks)))),
        before_(make_event()),
        after_(make_event()) {
    *marks_ = {};
    start();
    watch_ =
        std::make_unique<CollectiveWatch>(CollectiveWatch::Options{.host = host_ranks,
                                                                   .library = "NCCL",
                                                                   .timeout_s = timeout_s,
                                                                   .marks = marks_,
                                                                   .problem = [this] { return problem(); },
                                                                   .abort = [this] { nccl_.abort(communicator_); }});
  }

  ~NcclCommunicator() override {
    if (std::uncaught_exceptions() > exceptions_at_start_) {
      watch_.reset();
      nccl_.abort(communicator_);
      return;
    }
    try {
      leave();
    } catch (const Error& error) {
      write_log(LogLevel::error, error.what());
      host().abort(static_cast<int>(error.code()));
    }
  }

  void broadcast(std::span<std::byte> data, int root) override {
    if (data.empty()) return;
    begin("broadcast", data.size());
    settle(
        nccl_.broadcast(data.data(), data.data(), data.size(), ncclUint8, root, communicator_, communication_stream()),
        "broadcast");
    end();
    finish_sums();
  }

  // Parts of equal size use NCCL's own all-gather; otherwise each part is broadcast.
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override {
    constexpr const char* name = "all-gather";
    check_offsets(offsets, size(), data.size());
    const auto own = static_cast<size_t>(rank());
    const auto length = [&](size_t of) { return offsets[of + 1] - offsets[of]; };
    const auto ranks = static_cast<size_t>(size());
    bool equal = true;
    for (size_t other = 0; other < ranks; ++other) equal = equal && length(other) == length(0);
    if (offsets.back() == offsets.front()) return;
    begin(name, offsets.back() - offsets.front());
    if (equal) {
      settle(nccl_.all_gather(data.data() + offsets[own], data.data() + offsets[0], length(0), ncclUint8, communicator_,
                              communication_stream()),
             name);
    } else {
      group(name, [&] {
        for (size_t other = 0; other < ranks; ++other) {
          if (length(other) == 0) continue;
          std::byte* const part = data.data() + offsets[other];
          expect(nccl_.broadcast(part, part, length(other), ncclUint8, static_cast<int>(other), communicator_,
                                 communication_stream()),
                 name);
        }
      });
    }
    end();
    finish_sums();
  }

  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    constexpr const char* name = "exchange";
    const auto ranks = static_cast<size_t>(size());
    NIBBLE_CHECK(send.size() == ranks && receive.size() == ranks, "one span a rank");
    uint64_t bytes = 0;
    for (size_t other = 0; other < ranks; ++other) {
      if (other != static_cast<size_t>(rank())) bytes += send[other].size() + receive[other].size();
    }
    begin(name, bytes);
    group(name, [&] {
      for (size_t step = 1; step < ranks; ++step) {
        send_to(static_cast<int>((static_cast<size_t>(rank()) + step) % ranks), send);
        receive_from(static_cast<int>((static_cast<size_t>(rank()) + ranks - step) % ranks), receive);
      }
    });
    end();
    finish_sums();
  }

  bool sums_by_library() const override { return true; }

  void start_sum(std::span<float> values, int root) override {
    if (values.empty()) return;
    begin("sum", values.size_bytes());
    settle(nccl_.reduce(values.data(), values.data(), values.size(), ncclFloat32, ncclSum, root, communicator_,
                        communication_stream()),
           "sum");
    end();
  }

  void finish_sums() override { wait_for(compute_stream(), communication_stream(), after_); }

 private:
  // Waits for all ranks and ends NCCL.
  void leave() {
    begin("end", 0);
    settle(nccl_.finalize(communicator_), "end");
    end();
    check(cudaStreamSynchronize(communication_stream()), "end of NCCL");
    watch_.reset();
    nccl_.destroy(communicator_);
    release_pinned(marks_);
    cudaEventDestroy(before_);
    cudaEventDestroy(after_);
  }

  // Starts NCCL for one rank a GPU, in its mode in which no call waits for other ranks.
  void start() {
    ncclUniqueId id{};
    ncclResult_t result = rank() == 0 ? nccl_.get_unique_id(&id) : ncclSuccess;
    host().broadcast(std::as_writable_bytes(std::span(&result, 1)), 0);
    if (result != ncclSuccess) fail_to_start(result);
    host().broadcast(std::as_writable_bytes(std::span(id.internal)), 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    result = nccl_.init_rank(&communicator_, size(), id, rank(), &config);
    const Stopwatch stopwatch;
    while (result == ncclInProgress) {
      if (nccl_.get_async_error(communicator_, &result) != ncclSuccess) result = ncclSystemError;
      if (!expired(stopwatch)) {
        sched_yield();
        continue;
      }
      nccl_.abort(communicator_);
      throw Error(ExitCode::peer_lost, "NCCL did not connect the ranks within " + std::to_string(timeout_s_) + " s",
                  remedy());
    }
    if (result != ncclSuccess) fail_to_start(result);
  }

  static std::string remedy() {
    return "start one rank a GPU; NCCL_DEBUG=INFO tells more, and NCCL_SOCKET_IFNAME chooses the network";
  }
  [[noreturn]] void fail_to_start(ncclResult_t result) const {
    throw Error(ExitCode::bad_config, std::string("NCCL does not start: ") + nccl_.error_string(result) + detail(),
                remedy());
  }
  std::string detail() const {
    const char* last = communicator_ == nullptr ? nullptr : nccl_.last_error(communicator_);
    return last == nullptr || *last == '\0' ? "" : std::string(" (") + last + ")";
  }
  bool expired(const Stopwatch& stopwatch) const { return timeout_s_ > 0 && stopwatch.seconds() > timeout_s_; }

  // Returns what NCCL reports as failed; empty if nothing has. The watching thread calls it.
  std::string problem() const {
    ncclResult_t state = ncclSuccess;
    if (nccl_.get_async_error(communicator_, &state) != ncclSuccess) state = ncclSystemError;
    return state == ncclSuccess || state == ncclInProgress ? "" : nccl_.error_string(state) + detail();
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

  template <class Calls>
  void group(const char* name, const Calls& calls) {
    expect(nccl_.group_start(), name);
    calls();
    settle(nccl_.group_end(), name);
  }

  void send_to(int peer, std::span<const std::span<const std::byte>> send) {
    const std::span<const std::byte> part = send[static_cast<size_t>(peer)];
    if (part.empty()) return;
    expect(nccl_.send(part.data(), part.size(), ncclUint8, peer, communicator_, communication_stream()), "exchange");
  }
  void receive_from(int peer, std::span<const std::span<std::byte>> receive) {
    const std::span<std::byte> part = receive[static_cast<size_t>(peer)];
    if (part.empty()) return;
    expect(nccl_.receive(part.data(), part.size(), ncclUint8, peer, communicator_, communication_stream()), "exchange");
  }

  // Checks the result of a call inside a group.
  void expect(ncclResult_t result, const char* name) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    watch_->give_up(std::string("failed in ") + name + ": " + nccl_.error_string(result) + detail());
  }

  // Waits until NCCL has put the operation into the stream. Before that, nothing else may be asked of NCCL.
  void settle(ncclResult_t result, const char* name) {
    const Stopwatch stopwatch;
    while (result == ncclInProgress) {
      if (nccl_.get_async_error(communicator_, &result) != ncclSuccess) result = ncclSystemError;
      if (expired(stopwatch)) watch_->give_up("took longer than " + std::to_string(timeout_s_) + " s to be accepted");
      sched_yield();
    }
    expect(result, name);
  }

  const NcclLibrary& nccl_;
  const double timeout_s_;
  const int exceptions_at_start_;
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
