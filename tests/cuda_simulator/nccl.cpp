// NCCL over MPI, for the simulator. An operation reads its operands in the order of its stream, and is executed at
// once, so that ranks that wait for each other on the host cannot block each other; its results reach device memory
// when the stream reaches the operation.
//
// It ends the program with a message when two threads are inside it at once (ncclCommAbort may be called beside another
// call), and when a communicator of the non-blocking mode is used before its last call has ended.
//
// NIBBLE_SIMULATED_NCCL_FAULT="KIND RANK NUMBER" is a fault in this group (counted from 1; 0 is the start) of that
// rank.
//   error: NCCL reports an asynchronous error, and the operation never ends on the device
//   silent: the call does not return, and the rank takes no part in the operation
//   refused: the call returns an error
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
#include <string_view>
#include <vector>

struct ncclComm {
  MPI_Comm ranks = MPI_COMM_NULL;  // not used by one rank
  int rank = 0;
  int size = 1;
  int groups = 0;
  bool blocking = true;
  std::atomic<int> polls_until_done{0};  // a call of the non-blocking mode ends when it has been asked for this often
  std::atomic<bool> aborted{false};
  std::atomic<ncclResult_t> error{ncclSuccess};
};

namespace {

[[noreturn]] void fail(const char* function, const char* reason) {
  std::fprintf(stderr, "NCCL simulator: %s %s\n", function, reason);
  std::abort();
}

// Stands at the head of every function that is not safe beside another one.
std::atomic<bool> occupied{false};
class Inside {
 public:
  explicit Inside(const char* function) {
    if (occupied.exchange(true)) fail(function, "was called while another thread is inside NCCL");
  }
  ~Inside() { occupied = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

// Ends a call that has done its work: in the non-blocking mode the caller has to ask until it is done.
ncclResult_t accepted(ncclComm& communicator) {
  if (communicator.blocking) return ncclSuccess;
  communicator.polls_until_done = 3;
  return ncclInProgress;
}

void refuse_before_last_call_has_ended(const ncclComm& communicator, const char* function) {
  if (communicator.polls_until_done > 0) fail(function, "was called before the last call has ended");
}

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
  refuse_before_last_call_has_ended(*communicator, "an operation");
  if (communicator->error != ncclSuccess) return communicator->error;
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

void wait_until_aborted(const ncclComm& communicator) {
  while (!communicator.aborted) usleep(1000);
}

// Returns the kind of the fault in group `number` of the rank; empty if there is none.
std::string_view fault_in(int rank, int number) {
  static const Fault injected = fault();
  return injected.rank == rank && injected.number == number ? injected.kind : "";
}

ncclResult_t transfer(const ncclComm& communicator, std::vector<Message>& messages) {
  if (communicator.size == 1) return ncclSuccess;
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
  const std::string_view wrong = fault_in(communicator.rank, ++communicator.groups);
  if (wrong == "refused") return ncclRemoteError;
  if (wrong == "silent") {
    wait_until_aborted(communicator);
    return ncclSystemError;
  }
  if (wrong == "error") {
    communicator.error = ncclRemoteError;
    simulator::enqueue(work->stream, [work] { wait_until_aborted(*work->communicator); });
    return accepted(communicator);
  }
  if (const ncclResult_t result = transfer(communicator, work->messages); result != ncclSuccess) return result;
  simulator::enqueue(work->stream, [work] {
    for (const Message& message : work->messages) {
      if (message.to != nullptr) std::memcpy(message.to, message.bytes.data(), message.bytes.size());
    }
    finish_sums(*work);
  });
  return accepted(communicator);
}

ncclResult_t run_unless_grouped() {
  return group.depth > 0 ? ncclSuccess : run_group();
}

// Joins the ranks. NCCL refuses two ranks on one GPU.
ncclResult_t connect(ncclComm& communicator) {
  if (communicator.size == 1) return ncclSuccess;
  MPI_Comm_dup(MPI_COMM_WORLD, &communicator.ranks);
  MPI_Comm_set_errhandler(communicator.ranks, MPI_ERRORS_RETURN);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(communicator.ranks, &rank);
  MPI_Comm_size(communicator.ranks, &size);
  if (communicator.rank != rank || communicator.size != size) return ncclInvalidArgument;
  int device = 0;
  cudaDeviceProp properties{};
  cudaGetDevice(&device);
  cudaGetDeviceProperties(&properties, device);
  std::vector<cudaUUID_t> all(static_cast<size_t>(size));
  MPI_Allgather(&properties.uuid, sizeof(cudaUUID_t), MPI_BYTE, all.data(), sizeof(cudaUUID_t), MPI_BYTE,
                communicator.ranks);
  for (int other = 0; other < size; ++other) {
    const void* const uuid = &all[static_cast<size_t>(other)];
    if (other != rank && std::memcmp(uuid, &properties.uuid, sizeof(cudaUUID_t)) == 0) return ncclInvalidUsage;
  }
  return ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const Inside inside("ncclGetUniqueId");
  std::memset(id->internal, 0x5A, sizeof id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const Inside inside("ncclCommInitRankConfig");
  for (const char byte : id.internal) {
    if (byte != 0x5A) return ncclInvalidArgument;
  }
  if (fault_in(rank, 0) == "refused") return ncclSystemError;
  if (fault_in(rank, 0) == "silent") pause();
  auto made = std::make_unique<ncclComm>();
  made->rank = rank;
  made->size = ranks;
  made->blocking = config->blocking != 0;
  if (const ncclResult_t result = connect(*made); result != ncclSuccess) return result;
  *communicator = made.release();
  return accepted(**communicator);
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  const Inside inside("ncclCommFinalize");
  refuse_before_last_call_has_ended(*communicator, "ncclCommFinalize");
  return accepted(*communicator);
}
ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  const Inside inside("ncclCommDestroy");
  refuse_before_last_call_has_ended(*communicator, "ncclCommDestroy");
  if (communicator->size > 1) MPI_Comm_free(&communicator->ranks);
  delete communicator;
  return ncclSuccess;
}
// The handle stays alive: an operation that waits still reads it.
ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  communicator->aborted = true;
  return ncclSuccess;
}
// Takes as long as the real one, which in the non-blocking mode joins the thread that made the operation.
ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* state) {
  const Inside inside("ncclCommGetAsyncError");
  usleep(30);
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
  const Inside inside("ncclGetLastError");
  return "";
}

ncclResult_t ncclGroupStart() {
  const Inside inside("ncclGroupStart");
  ++group.depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  const Inside inside("ncclGroupEnd");
  if (group.depth == 0) return ncclInvalidUsage;
  return --group.depth > 0 ? ncclSuccess : run_group();
}

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  const Inside inside("ncclSend");
  if (const ncclResult_t result = open(communicator, stream); result != ncclSuccess) return result;
  add_send(peer, point_to_point_tag, from, bytes_of(count, type));
  return run_unless_grouped();
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  const Inside inside("ncclRecv");
  if (const ncclResult_t result = open(communicator, stream); result != ncclSuccess) return result;
  add_receive(peer, point_to_point_tag, to, bytes_of(count, type));
  return run_unless_grouped();
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t communicator, cudaStream_t stream) {
  const Inside inside("ncclBroadcast");
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
  const Inside inside("ncclAllGather");
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
  const Inside inside("ncclReduce");
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
