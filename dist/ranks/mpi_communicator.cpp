#include "dist/ranks/mpi_communicator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "dist/base/enum_names.h"
#include "dist/base/log.h"
#include "dist/base/stopwatch.h"
#include "dist/device/thread_pool.h"
#include "dist/ranks/mpi_control.h"
#include "dist/ranks/mpi_job.h"
#include "dist/ranks/mpi_window.h"

namespace nibble {
namespace {

enum class Operation : uint32_t { barrier, broadcast, all_gather, exchange, all_reduce_max, share_memory };
constexpr auto enum_names(Operation) {
  return std::to_array<EnumName<Operation>>({{Operation::barrier, "barrier"},
                                             {Operation::broadcast, "broadcast"},
                                             {Operation::all_gather, "all-gather"},
                                             {Operation::exchange, "exchange"},
                                             {Operation::all_reduce_max, "all-reduce"},
                                             {Operation::share_memory, "allocation of shared memory"}});
}

// The message that a rank sends to rank 0 when it enters a collective.
struct Arrival {
  uint64_t sequence = 0;
  Operation operation = Operation::barrier;
  int32_t root = 0;
  uint64_t bytes = 0;  // size of the operation, where all ranks must agree on it
  friend bool operator==(const Arrival&, const Arrival&) = default;
};

constexpr int arrival_tag = 1;
constexpr int go_tag = 2;
constexpr int data_tag = 3;
constexpr int peers_at_once = 16;  // bounds the messages in flight of one rank

// How a wait behaves: for how long past the deadline it lets rank 0 speak first, and for how long it polls without
// sleeping. Sleeping between polls would slow down data in flight, which moves only while both sides poll.
struct Patience {
  double grace_s;
  double awake_s;
};
constexpr Patience for_arrivals{0, 0.05};
constexpr Patience for_answer{2, 0.05};
constexpr Patience for_data{2, 5};

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(const MpiOptions& options)
      : options_(options), exceptions_at_start_(std::uncaught_exceptions()) {
    NIBBLE_CHECK(options.chunk_bytes >= 1 && options.chunk_bytes < (size_t{1} << 30), "length of an MPI message");
    int initialized = 0;
    MPI_Initialized(&initialized);
    NIBBLE_CHECK(initialized == 0, "MPI can be started once a process");
    die_with_launcher();
    int provided = 0;
    // Only the thread that makes the communicator calls MPI.
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "start");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &ranks_), "communicator set-up");
    MPI_Comm_set_errhandler(ranks_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(ranks_, &rank_);
    MPI_Comm_size(ranks_, &size_);
    find_machines();
    control_ = make_mpi_control(ranks_, options_);
    busy_polls_ = ranks_on_node_ > available_threads(1) ? 0 : 2000;
  }

  ~MpiCommunicator() override {
    if (std::uncaught_exceptions() > exceptions_at_start_) return;
    try {
      barrier();
      for (const auto& window : windows_) free_window(*window);
      MPI_Comm_free(&machine_ranks_);
      MPI_Comm_free(&ranks_);
      MPI_Finalize();
    } catch (const Error& error) {
      log_error("{}", error.what());
      abort_job(static_cast<int>(error.code()));
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int ranks_on_node() const override { return ranks_on_node_; }

  Control& control() override { return *control_; }

  void barrier() override { const Collective collective(*this, {.operation = Operation::barrier}); }

  void broadcast(std::span<std::byte> data, int root) override {
    NIBBLE_CHECK(root >= 0 && root < size_, "root rank");
    const Collective collective(*this, {.operation = Operation::broadcast, .root = root, .bytes = data.size()});
    for (size_t begin = 0; begin < data.size(); begin += options_.chunk_bytes) {
      requests_.assign(1, MPI_REQUEST_NULL);
      check_mpi(
          MPI_Ibcast(data.data() + begin, chunk_length(data.size() - begin), MPI_BYTE, root, ranks_, requests_.data()),
          "broadcast");
      transfer(requests_);
    }
  }

  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override {
    check_offsets(offsets, size_, data.size());
    const Collective collective(*this, {.operation = Operation::all_gather, .bytes = offsets.back() - offsets.front()});
    const auto part = [&](int rank) {
      const uint64_t begin = offsets[static_cast<size_t>(rank)];
      return data.subspan(begin, offsets[static_cast<size_t>(rank) + 1] - begin);
    };
    exchange_with([&](int) { return std::span<const std::byte>(part(rank_)); }, part);
  }

  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    NIBBLE_CHECK(send.size() == static_cast<size_t>(size_) && receive.size() == send.size(), "one span a rank");
    const Collective collective(*this, {.operation = Operation::exchange});
    exchange_with([&](int rank) { return send[static_cast<size_t>(rank)]; },
                  [&](int rank) { return receive[static_cast<size_t>(rank)]; });
  }

  int64_t all_reduce_max(int64_t value) override {
    const Collective collective(*this, {.operation = Operation::all_reduce_max});
    int64_t result = 0;
    requests_.assign(1, MPI_REQUEST_NULL);
    check_mpi(MPI_Iallreduce(&value, &result, 1, MPI_INT64_T, MPI_MAX, ranks_, requests_.data()), "all-reduce");
    transfer(requests_);
    return result;
  }

  int machine(int rank) const override { return machines_[static_cast<size_t>(rank)]; }

  std::unique_ptr<SharedMemory> share_memory(size_t bytes) override {
    free_released_windows();
    const auto numbers = std::set<int>(machines_.begin(), machines_.end()).size();
    if (numbers == machines_.size()) return nullptr;
    const size_t wanted = bytes_on_machine(bytes);
    if (refused(wanted > options_.shared_bytes ? "less is allowed" : shared_memory_problem(wanted))) return nullptr;
    {
      const Collective collective(*this, {.operation = Operation::share_memory});
      const Deadline deadline = blocking_deadline();
      windows_.push_back(std::make_shared<MpiWindow>(machine_ranks_, bytes));
    }
    const std::shared_ptr<MpiWindow>& window = windows_.back();
    auto memory = std::make_unique<WindowMemory>(window, machines_, rank_);
    std::string problem = window->problem();
    if (problem.empty()) problem = populate(memory->part(rank_));
    if (refused(problem)) return nullptr;
    return memory;
  }

  [[noreturn]] void abort(int exit_code) override { abort_job(exit_code); }

 private:
  // All ranks meet at its construction, before any data moves; while it lives, this rank is in the collective.
  class Collective {
   public:
    Collective(MpiCommunicator& ranks, const Arrival& arrival) : ranks_(ranks) { ranks_.arrive(arrival); }
    ~Collective() { ranks_.control_->leave_collective(); }
    Collective(const Collective&) = delete;
    Collective& operator=(const Collective&) = delete;

   private:
    MpiCommunicator& ranks_;
  };

  int chunk_length(size_t bytes) const { return static_cast<int>(std::min(bytes, options_.chunk_bytes)); }

  void find_machines() {
    constexpr const char* what = "communicator set-up";
    check_mpi(MPI_Comm_split_type(ranks_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine_ranks_), what);
    if (options_.machine_of_rank != nullptr) {
      MPI_Comm whole = machine_ranks_;
      check_mpi(MPI_Comm_split(whole, options_.machine_of_rank(rank_), 0, &machine_ranks_), what);
      MPI_Comm_free(&whole);
    }
    MPI_Comm_set_errhandler(machine_ranks_, MPI_ERRORS_RETURN);
    MPI_Comm_size(machine_ranks_, &ranks_on_node_);
    int lowest = rank_;
    check_mpi(MPI_Bcast(&lowest, 1, MPI_INT, 0, machine_ranks_), what);
    machines_.resize(static_cast<size_t>(size_));
    check_mpi(MPI_Allgather(&lowest, 1, MPI_INT, machines_.data(), 1, MPI_INT, ranks_), what);
  }

  // Collective. Returns the sum of `bytes` over the ranks of this machine.
  size_t bytes_on_machine(size_t bytes) {
    const std::vector<uint64_t> wanted = gather_each(*this, uint64_t{bytes});
    uint64_t sum = 0;
    for (size_t rank = 0; rank < wanted.size(); ++rank) sum += machines_[rank] == machine(rank_) ? wanted[rank] : 0;
    return sum;
  }

  // Collective. Returns true if some rank cannot share memory.
  bool refused(const std::string& problem) {
    const int64_t lowest = all_reduce_max(problem.empty() ? 0 : size_ - rank_);
    if (lowest == 0) return false;
    const int rank = size_ - static_cast<int>(lowest);
    const std::string text = broadcast_string(*this, problem, rank);
    if (rank_ == 0) {
      log_warning(
          "rank {} cannot share memory with the others on its machine: {}. Gradients and weights pass as messages, "
          "which is slower; in a container, start it with a larger /dev/shm (--shm-size)",
          rank, text);
    }
    return true;
  }

  // Collective. Frees the windows that no rank uses any more.
  void free_released_windows() {
    std::erase_if(windows_, [&](const std::shared_ptr<MpiWindow>& window) {
      if (all_reduce_max(window.use_count() > 1 ? 1 : 0) != 0) return false;
      free_window(*window);
      return true;
    });
  }

  // Frees a window. All ranks have just arrived.
  void free_window(MpiWindow& window) {
    const Deadline deadline = blocking_deadline();
    window.free();
  }

  // Returns the deadline of a call in which MPI itself waits for all ranks of the machine. This thread is inside MPI
  // then, so the deadline's thread ends the process without it, and the launcher ends the other ranks.
  Deadline blocking_deadline() {
    const double seconds = control_->is_alone() && options_.timeout_s > 0 ? options_.timeout_s + for_data.grace_s : 0;
    return Deadline(seconds, [this] {
      say_late("all ranks arrived, but MPI does not come back");
      _exit(static_cast<int>(ExitCode::peer_lost));
    });
  }

  bool expired(double grace_s) const {
    return control_->is_alone() && options_.timeout_s > 0 && since_entered_.seconds() > options_.timeout_s + grace_s;
  }

  // Rank 0 hears from every rank, so that it finds ranks that disagree about the next operation. Without a control, it
  // also names the missing ones when the deadline passes; the other ranks give it a moment to do so.
  void arrive(Arrival arrival) {
    current_ = arrival;
    current_.sequence = ++sequence_;
    since_entered_ = Stopwatch();
    control_->enter_collective(name_of(arrival.operation), current_.sequence);
    if (size_ == 1) return;
    if (rank_ == 0) {
      hear_from_all();
    } else {
      report_to_first();
    }
  }

  void hear_from_all() {
    const auto others = static_cast<size_t>(size_) - 1;
    arrivals_.resize(others);
    requests_.resize(others);
    for (size_t i = 0; i < others; ++i) {
      check_mpi(MPI_Irecv(&arrivals_[i], sizeof(Arrival), MPI_BYTE, static_cast<int>(i) + 1, arrival_tag, ranks_,
                          &requests_[i]),
                "arrival");
    }
    wait(requests_, for_arrivals, [&] { return fmt::format("not arrived: rank {}", fmt::join(missing(), ", ")); });
    for (size_t i = 0; i < others; ++i) {
      if (arrivals_[i] == current_) continue;
      log_error("rank {} enters {} number {} ({} bytes) while rank 0 enters {} number {} ({} bytes)", i + 1,
                name_of(arrivals_[i].operation), arrivals_[i].sequence, arrivals_[i].bytes, name_of(current_.operation),
                current_.sequence, current_.bytes);
      abort_job(static_cast<int>(ExitCode::internal));
    }
    for (size_t i = 0; i < others; ++i) {
      check_mpi(MPI_Isend(&go_, 1, MPI_BYTE, static_cast<int>(i) + 1, go_tag, ranks_, &requests_[i]), "arrival");
    }
    wait(requests_, for_answer, [] { return std::string("the others do not take the answer of rank 0"); });
  }

  void report_to_first() {
    requests_.resize(2);
    check_mpi(MPI_Irecv(&go_, 1, MPI_BYTE, 0, go_tag, ranks_, &requests_[0]), "arrival");
    check_mpi(MPI_Isend(&current_, sizeof(Arrival), MPI_BYTE, 0, arrival_tag, ranks_, &requests_[1]), "arrival");
    wait(requests_, for_answer,
         [] { return std::string("rank 0 does not answer: it or a rank it waits for is missing"); });
  }

  // Returns the ranks whose arrival has not come.
  std::vector<int> missing() {
    std::vector<int> ranks;
    for (size_t i = 0; i < requests_.size(); ++i) {
      int done = 1;
      if (requests_[i] != MPI_REQUEST_NULL) MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE);
      if (done == 0) ranks.push_back(static_cast<int>(i) + 1);
    }
    return ranks;
  }

  // Sends outgoing(peer) to every other rank and receives incoming(peer) from it.
  template <class Outgoing, class Incoming>
  void exchange_with(const Outgoing& outgoing, const Incoming& incoming) {
    for (int first = 1; first < size_; first += peers_at_once) {
      requests_.clear();
      const int end = std::min(size_, first + peers_at_once);
      for (int step = first; step < end; ++step) receive_chunks(incoming((rank_ + size_ - step) % size_), step);
      for (int step = first; step < end; ++step) send_chunks(outgoing((rank_ + step) % size_), step);
      transfer(requests_);
    }
  }

  void receive_chunks(std::span<std::byte> data, int step) {
    for (size_t begin = 0; begin < data.size(); begin += options_.chunk_bytes) {
      check_mpi(MPI_Irecv(data.data() + begin, chunk_length(data.size() - begin), MPI_BYTE,
                          (rank_ + size_ - step) % size_, data_tag, ranks_, &requests_.emplace_back(MPI_REQUEST_NULL)),
                name_of(current_.operation));
    }
  }

  void send_chunks(std::span<const std::byte> data, int step) {
    for (size_t begin = 0; begin < data.size(); begin += options_.chunk_bytes) {
      check_mpi(MPI_Isend(data.data() + begin, chunk_length(data.size() - begin), MPI_BYTE, (rank_ + step) % size_,
                          data_tag, ranks_, &requests_.emplace_back(MPI_REQUEST_NULL)),
                name_of(current_.operation));
    }
  }

  // Waits for data in flight.
  void transfer(std::span<MPI_Request> requests) {
    wait(requests, for_data, [] { return std::string("all ranks arrived, but the data does not"); });
  }

  // Polls until all requests are done. Past the deadline it ends the job with the text of reason().
  template <class Reason>
  void wait(std::span<MPI_Request> requests, const Patience& patience, const Reason& reason) {
    const Stopwatch stopwatch;
    for (int64_t polls = 0;; ++polls) {
      int done = 0;
      check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
                name_of(current_.operation));
      if (done != 0) return;
      if (polls < busy_polls_) continue;
      control_->check();
      if (expired(patience.grace_s)) give_up(reason());
      // Ranks may share a processor: the wait first lets other ranks run, and after a while it sleeps.
      if (stopwatch.seconds() < patience.awake_s) {
        sched_yield();
      } else {
        usleep(100);
      }
    }
  }

  [[noreturn]] void give_up(const std::string& reason) {
    say_late(reason);
    abort_job(static_cast<int>(ExitCode::peer_lost));
  }

  void say_late(const std::string& reason) const {
    log_error(
        "{} number {} ({} bytes) took longer than {} s; {}. The heartbeat files say what each rank was doing. "
        "resume from the last checkpoint; if the ranks were only slow, raise the timeout",
        name_of(current_.operation), current_.sequence, current_.bytes, options_.timeout_s, reason);
  }

  MpiOptions options_;
  int exceptions_at_start_;
  MPI_Comm ranks_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  int ranks_on_node_ = 1;
  MPI_Comm machine_ranks_ = MPI_COMM_NULL;
  std::vector<int> machines_;                        // [size] the lowest rank on each rank's machine
  std::vector<std::shared_ptr<MpiWindow>> windows_;  // in the order in which all ranks made them
  std::unique_ptr<Control> control_;  // alone if messages do not pass: this object then judges who is late
  int64_t busy_polls_ = 0;            // polls before a wait first gives up the processor
  uint64_t sequence_ = 0;
  Stopwatch since_entered_;  // runs since the current collective was entered
  Arrival current_;
  std::vector<Arrival> arrivals_;  // on rank 0: the arrivals of ranks 1, 2, ...
  std::vector<MPI_Request> requests_;
  char go_ = 1;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options) {
  return std::make_unique<MpiCommunicator>(options);
}

// After a comma or a line end, the library's text continues with its package and dates, which are left out.
std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  std::string name(text, std::min(std::strcspn(text, ",\n"), sizeof(text)));
  std::replace(name.begin(), name.end(), '\t', ' ');
  return name;
}

}  // namespace nibble
