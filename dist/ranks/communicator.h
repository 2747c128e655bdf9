// The ranks of a run, behind one interface. SelfCommunicator is one rank and needs no MPI; MpiCommunicator is used when
// the process was started by mpirun or srun.
//
// Every collective is entered by all ranks in the same order. It ends, or the whole job ends with
// ExitCode::peer_lost within the deadline, naming the operation, its number and the ranks that have not arrived.
// None of these functions adds floating-point numbers: sums are formed in our own fixed order
// (dist/zero/tree_reduction.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dist/base/error.h"
#include "dist/ranks/shared_memory.h"

namespace nibble {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int ranks_on_node() const = 0;

  virtual void barrier() = 0;
  // Everyone gets root's bytes.
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  // In place: rank r's part is data[offsets[r] .. offsets[r+1]); afterwards everyone has all of data. offsets has
  // size()+1 entries, in bytes.
  virtual void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) = 0;
  // Rank q gets send[q] of every other rank r and finds it in receive[r], which is as long; empty ones cost nothing.
  // size() entries each; nobody looks at a rank's own.
  virtual void exchange(std::span<const std::span<const std::byte>> send,
                        std::span<const std::span<std::byte>> receive) = 0;
  virtual int64_t all_reduce_max(int64_t value) = 0;

  // The same ranks for data in memory of the CPU: itself, but for those that move memory of GPUs
  // (dist/ranks/device_communicator.h).
  virtual Communicator& host() { return *this; }

  // The lowest rank on the machine of `rank`: the same for two ranks that may share memory.
  virtual int machine(int rank) const { return rank; }
  // Collective. At least `bytes`, zeroed, for this rank. Null on every rank if there are no two ranks on one machine,
  // or if a machine cannot: then one warning says why.
  virtual std::unique_ptr<SharedMemory> share_memory(size_t bytes);

  // Ends every process of the run at once with this exit code.
  [[noreturn]] virtual void abort(int exit_code) = 0;
};

// True when a launcher (mpirun, srun) started this process.
bool under_launcher();

// The communicator of this process. timeout_s bounds every collective; 0 means no bound.
std::unique_ptr<Communicator> make_communicator(double timeout_s);

// An error that every rank throws at the same point: each may leave in order, nobody has to be aborted.
class AgreedError : public Error {
 public:
  using Error::Error;
};

// Collective, over host() as the two below. If any rank brings an error, every rank throws the one of the lowest such
// rank as an AgreedError (the text names that rank unless it is 0), so that no rank goes on alone. `error_code` is 0
// for success.
void agree_on_error(Communicator& communicator, int error_code, const std::string& what, const std::string& remedy);

// Runs a function that may throw on some ranks only, and makes all ranks throw or none.
template <class Function>
void run_together(Communicator& communicator, Function&& function) {
  int code = 0;
  std::string what;
  std::string remedy;
  try {
    function();
  } catch (const Error& error) {
    code = static_cast<int>(error.code());
    what = error.what();
    remedy = error.remedy();
  } catch (const std::exception& error) {
    code = static_cast<int>(ExitCode::internal);
    what = error.what();
  }
  agree_on_error(communicator, code, what, remedy);
}

std::string broadcast_string(Communicator& communicator, std::string text, int root);

// Defect check of the offsets of all_gather: ranks+1 of them, ascending, within `bytes`.
void check_offsets(std::span<const uint64_t> offsets, int ranks, uint64_t bytes);

}  // namespace nibble
