// The ranks of a run, behind one interface. SelfCommunicator is one rank and needs no MPI; MpiCommunicator is used when
// mpirun or srun started the process.
//
// All ranks enter the collectives in the same order. A collective ends within the deadline, or the whole job ends with
// ExitCode::peer_lost and names the rank that does not go on (dist/watch/control.h). Where one rank has raised an
// error, every collective throws it on the other ranks. None of these functions adds floating-point numbers: sums are
// formed in a fixed order of nibble's own (dist/zero/tree_reduction.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/error.h"
#include "dist/ranks/shared_memory.h"
#include "dist/watch/control.h"

namespace nibble {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int ranks_on_node() const = 0;

  virtual void barrier() = 0;
  // Every rank gets root's bytes.
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  // Works in place: rank r brings data[offsets[r] .. offsets[r+1]), and afterwards every rank has all of data.
  // `offsets` has size()+1 entries, in bytes.
  virtual void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) = 0;
  // Rank q gets send[q] of every other rank r and finds it in receive[r], which has the same length; empty spans cost
  // nothing. Both lists have size() entries; a rank's own entries are ignored.
  virtual void exchange(std::span<const std::span<const std::byte>> send,
                        std::span<const std::span<std::byte>> receive) = 0;
  virtual int64_t all_reduce_max(int64_t value) = 0;

  // Returns the communicator of the same ranks for data in memory of the CPU. That is this object, unless it moves
  // memory of GPUs (dist/ranks/device_communicator.h).
  virtual Communicator& host() { return *this; }

  // Returns the lowest rank on the machine of `rank`. Two ranks that may share memory have the same number.
  virtual int machine(int rank) const { return rank; }
  // Collective. Gives this rank at least `bytes` of zeroed memory that the ranks of its machine share. Returns null on
  // every rank if no two ranks are on one machine, or if a machine cannot share memory, after one warning that says
  // why.
  virtual std::unique_ptr<SharedMemory> share_memory(size_t bytes);

  // Carries errors and positions of the ranks (dist/watch/control.h). One rank alone has nobody to hear.
  virtual Control& control() { return alone_; }

  // Ends every process of the run at once with this exit code.
  [[noreturn]] virtual void abort(int exit_code) = 0;

 private:
  Control alone_;
};

// Returns true if a launcher (mpirun, srun) started this process.
bool under_launcher();

// What the environment says of the launcher that started this process: it has started at least `count` tasks.
// `variable` is the one that says so, and empty where none does.
struct LaunchedTasks {
  int count = 1;
  std::string variable;
};
LaunchedTasks launched_tasks();

// Makes the communicator of this process. timeout_s bounds every collective, in seconds; 0 means no bound. Throws
// ExitCode::bad_config for one of several tasks whose MPI sees one rank, as under srun with another MPI or with none:
// each would be a run of its own in one run directory.
std::unique_ptr<Communicator> make_communicator(double timeout_s);

// An error that every rank throws at the same point, so that each rank can end in order and none is aborted.
class AgreedError : public Error {
 public:
  using Error::Error;
};

// Collective, over host(). If any rank brings an error, every rank throws the error of the lowest such rank as an
// AgreedError, so that no rank goes on alone; the text names that rank unless it is 0. `error` is null for success.
void agree_on_error(Communicator& communicator, const Error* error);

// Collective, over host(). Runs a function that may throw on some ranks only, and makes all ranks throw or none. An
// exception of another library gets the exit code that as_error() gives it.
template <class Function>
void run_together(Communicator& communicator, Function&& function) {
  std::optional<Error> error;
  try {
    function();
  } catch (...) {
    error = as_error(std::current_exception());
  }
  agree_on_error(communicator, error ? &*error : nullptr);
}

// Collective, over host(). Runs a function on rank 0 alone; if it throws there, every rank throws.
template <class Function>
void on_leader(Communicator& communicator, Function&& function) {
  run_together(communicator, [&] {
    if (communicator.rank() == 0) function();
  });
}

// Collective. Returns the value of every rank; it is sent as plain bytes.
template <class T>
std::vector<T> gather_each(Communicator& communicator, const T& own) {
  const auto ranks = static_cast<size_t>(communicator.size());
  std::vector<T> values(ranks);
  values[static_cast<size_t>(communicator.rank())] = own;
  std::vector<uint64_t> offsets(ranks + 1);
  for (size_t rank = 0; rank <= ranks; ++rank) offsets[rank] = rank * sizeof(T);
  communicator.all_gather(std::as_writable_bytes(std::span(values)), offsets);
  return values;
}

// Collective, over host(). Returns root's text on every rank.
std::string broadcast_string(Communicator& communicator, std::string text, int root);

// Checks (NIBBLE_CHECK) the offsets of all_gather: there are ranks+1 of them, ascending, within `bytes`.
void check_offsets(std::span<const uint64_t> offsets, int ranks, uint64_t bytes);

}  // namespace nibble
