// NCCL over MPI, for the simulator. An operation reads its operands in the order of its stream, and is executed at
// once, so that ranks that wait for each other on the host cannot block each other; its results reach device memory
// when the stream reaches the operation.
//
// NIBBLE_SIMULATED_NCCL_FAULT="error RANK NUMBER" makes this group (counted from 1) of that rank report an asynchronous
// error and never end; "silent RANK NUMBER" makes that rank not take part in it.
#include <mpi.h>
#include <nccl.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

struct ncclComm {
  MPI_Comm ranks = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  int groups = 0;
  std::atomic<int> polls_until_done{0};  // a call of the non-blocking mode ends after the caller has asked for it
  std::atomic<bool> aborted{false};
  std::atomic<ncclResult_t> error{ncclSuccess};
};

namespace {

struct Message {
  bool outgoing = false;
  int peer = 0;
  int tag = 0;
  std::vector<std::byte> bytes;
  const void* from = nullptr;
  void* to = nullptr;
  size_t place = 0;  // for sums
};

// The operations that a group has been asked for.
struct Group {
  int depth = 0;
  ncclComm_t communicator = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<Message> messages;
  struct Sum {
    const float* from;
    float* to;
    size_t count;
    int place;
  };
  std::vector<Sum> sums;
};
thread_local Group group;

constexpr int point_to_point_tag = 1;
constexpr int collective_tag = 2;

ncclResult_t open(ncclComm_t communicator, cudaStream_t stream) {
  if (communicator->polls_until_done > 0) {
    std::fprintf(stderr, "NCCL simulator: a call before the last one has ended\n");
    return ncclInvalidUsage;
  }
  if (group.communicator != nullptr && (group.communicator != communicator || group.stream != stream)) {
    return ncclInvalidUsage;
  }
  group.communicator = communicator;
  group.stream = stream;
  return ncclSuccess;
}

size_t bytes_of(size_t count, ncclDataType_t type) {
  return count * (type == ncclFloat32 ? sizeof(float) : 1);
}

void add_send(int peer, int tag, const void* from, size_t bytes) {
  group.messages.push_back({true, peer, tag, std::vector<std::byte>(bytes), from, nullptr, 0});
}
void add_receive(int peer, int tag, void* to, size_t bytes, size_t place = 0) {
  group.messages.push_back({false, peer, tag, std::vector<std::byte>(bytes), nullptr, to, place});
}

struct Fault {
  char kind[16] = "";
  int rank = -1;
  int number = 0;
};

Fault fault() {
  Fault result;
  const char* text = std::getenv("NIBBLE_SIMULATED_NCCL_FAULT");
  if (text != nullptr) std::sscanf(text, "%15s %d %d", result.kind, &result.rank, &result.number);
  return result;
}

ncclResult_t wait_until_aborted(const ncclComm& communicator) {
  while (!communicator.aborted) usleep(1000);
  return ncclSystemError;
}

ncclResult_t transfer(const ncclComm& communicator, std::vector<Message>& messages) {
  std::vector<MPI_Request> requests(messages.size(), MPI_REQUEST_NULL);
  for (size_t i = 0; i < messages.size(); ++i) {
    Message& message = messages[i];
    const auto count = static_cast<int>(message.bytes.size());
    const int result = message.outgoing ? MPI_Isend(message.bytes.data(), count, MPI_BYTE, message.peer, message.tag,
                                                    communicator.ranks, &requests[i])
                                        : MPI_Irecv(message.bytes.data(), count, MPI_BYTE, message.peer, message.tag,
                                                    communicator.ranks, &requests[i]);
    if (result != MPI_SUCCESS) return ncclSystemError;
  }
  for (int done = 0; done == 0;) {
    if (communicator.aborted) return ncclSystemError;
    if (MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS) {
      return ncclInternalError;
    }
    if (done == 0) sched_yield();
  }
  return ncclSuccess;
}

// The sums are added in descending order, which is not the order of any tree.
void finish_sums(const Group& done) {
  for (const Group::Sum& sum : done.sums) {
    std::vector<float> total(sum.from, sum.from + sum.count);
    for (size_t i = done.messages.size(); i-- > 0;) {
      const Message& message = done.messages[i];
      if (message.place != static_cast<size_t>(sum.place)) continue;
      const auto* const values = reinterpret_cast<const float*>(message.bytes.data());
      for (size_t j = 0; j < sum.count; ++j) total[j] = values[j] + total[j];
    }
    std::memcpy(sum.to, total.data(), sum.count * sizeof(float));
  }
}

ncclResult_t run_group() {
  const auto work = std::make_shared<Group>(std::exchange(group, {}));
  if (work->communicator == nullptr) return ncclSuccess;
  ncclComm& communicator = *work->communicator;
  simulator::enqueue(work->stream, [work] {
    for (Message& message : work->messages) {
      if (message.outgoing) std::memcpy(message.bytes.data(), message.from, message.bytes.size());
    }
  });
  cudaStreamSynchronize(work->stream);
  const Fault injected = fault();
  if (++communicator.groups == injected.number && communicator.rank == injected.rank) {
    if (std::strcmp(injected.kind, "error") == 0) communicator.error = ncclRemoteError;
    return wait_until_aborted(communicator);
  }
  if (const ncclResult_t result = transfer(communicator, work->messages); result != ncclSuccess) return result;
  simulator::enqueue(work->stream, [work] {
    for (const Message& message : work->messages) {
      if (message.to != nullptr) std::memcpy(message.to, message.bytes.data(), message.bytes.size());
    }
    finish_sums(*work);
  });
  communicator.polls_until_done = 3;
  return ncclInProgress;
}

ncclResult_t run_unless_grouped() {
  return group.depth > 0 ? ncclSuccess : run_group();
}

}  // namespace

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id->internal, 0x5A, sizeof id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  for (const char byte : id.internal) {
    if (byte != 0x5A) return ncclInvalidArgument;
  }
  if (config->blocking != 0) return ncclInvalidArgument;
  auto made = std::make_unique<ncclComm>();
  MPI_Comm_dup(MPI_COMM_WORLD, &made->ranks);
  MPI_Comm_set_errhandler(made->ranks, MPI_ERRORS_RETURN);
  MPI_Comm_rank(made->ranks, &made->rank);
  MPI_Comm_size(made->ranks, &made->size);
  if (made->rank != rank || made->size != ranks) return ncclInvalidArgument;
  made->polls_until_done = 3;
  *communicator = made.release();
  return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  communicator->polls_until_done = 3;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  MPI_Comm_free(&communicator->ranks);
  delete communicator;
  return ncclSuccess;
}
// The handle stays alive: the thread that waits in a group still reads it.
ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  communicator->aborted = true;
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  *state = communicator->error;
  if (*state == ncclSuccess && communicator->polls_until_done > 0) {
    --communicator->polls_until_done;
    *state = ncclInProgress;
  }
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error" : "simulated error";
}
const char* ncclGetLastError(ncclComm_t) {
  return "";
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) return ncclInvalidUsage;
  return --group.depth > 0 ? ncclSuccess : run_group();
}

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  if (const ncclResult_t result = open(communicator, stream); result != ncclSuccess) return result;
  add_send(peer, point_to_point_tag, from, bytes_of(count, type));
  return run_unless_grouped();
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  if (const ncclResult_t result = open(communicator, stream); result != ncclSuccess) return result;
  add_receive(peer, point_to_point_tag, to, bytes_of(count, type));
  return run_unless_grouped();
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t communicator, cudaStream_t stream) {
  if (const ncclResult_t result = open(communicator, stream); result != ncclSuccess) return result;
  if (communicator->rank == root) {
    if (from != to) return ncclInvalidArgument;  // nibble works in place
    for (int peer = 0; peer < communicator->size; ++peer) {
      if (peer != root) add_send(peer, collective_tag, from, bytes_of(count, type));
    }
  } else {
    add_receive(root, collective_tag, to, bytes_of(count, type));
  }
  return run_unless_grouped();
}
ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type, ncclComm_t communicator,
                           cudaStream_t stream) {
  if (const ncclResult_t result = open(communicator, stream); result != ncclSuccess) return result;
  const size_t bytes = bytes_of(count, type);
  auto* const all = static_cast<std::byte*>(to);
  if (from != all + static_cast<size_t>(communicator->rank) * bytes) return ncclInvalidArgument;
  for (int peer = 0; peer < communicator->size; ++peer) {
    if (peer == communicator->rank) continue;
    add_send(peer, collective_tag, from, bytes);
    add_receive(peer, collective_tag, all + static_cast<size_t>(peer) * bytes, bytes);
  }
  return run_unless_grouped();
}
ncclResult_t ncclReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t, int root,
                        ncclComm_t communicator, cudaStream_t stream) {
  if (const ncclResult_t result = open(communicator, stream); result != ncclSuccess) return result;
  if (type != ncclFloat32) return ncclInvalidArgument;
  if (communicator->rank != root) {
    add_send(root, collective_tag, from, bytes_of(count, type));
    return run_unless_grouped();
  }
  const size_t place = group.sums.size() + 1;
  group.sums.push_back({static_cast<const float*>(from), static_cast<float*>(to), count, static_cast<int>(place)});
  for (int peer = 0; peer < communicator->size; ++peer) {
    if (peer != root) add_receive(peer, collective_tag, nullptr, bytes_of(count, type), place);
  }
  return run_unless_grouped();
}
}
