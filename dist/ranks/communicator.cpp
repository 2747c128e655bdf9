#include "dist/ranks/communicator.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "dist/device/profile.h"
#include "dist/ranks/mpi_communicator.h"
#include "dist/ranks/self_communicator.h"

namespace nibble {
namespace {

std::span<std::byte> bytes_of(std::string& text) {
  return std::as_writable_bytes(std::span<char>(text.data(), text.size()));
}

// srun without MPI support starts every task as a run of its own, and all of them use the same run directory.
void refuse_tasks_without_mpi() {
  const char* text = std::getenv("SLURM_STEP_NUM_TASKS");
  if (text == nullptr) return;
  const std::string_view tasks(text);
  int count = 0;
  std::from_chars(tasks.data(), tasks.data() + tasks.size(), count);
  if (count <= 1) return;
  throw Error(ExitCode::bad_config, fmt::format("srun started {} tasks, but without MPI support", count),
              "start nibble with mpirun, or with srun --mpi=pmix");
}

}  // namespace

// A Slurm batch script has SLURM_PROCID set without any launcher, so only variables that MPI launchers set count.
bool under_launcher() {
  constexpr std::array names = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
  for (const char* name : names) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

std::unique_ptr<Communicator> make_communicator(double timeout_s) {
  if (under_launcher()) return make_mpi_communicator(MpiOptions{.timeout_s = timeout_s});
  refuse_tasks_without_mpi();
  return std::make_unique<SelfCommunicator>();
}

std::unique_ptr<SharedMemory> Communicator::share_memory(size_t /*bytes*/) {
  return nullptr;
}

void check_offsets(std::span<const uint64_t> offsets, int ranks, uint64_t bytes) {
  NIBBLE_CHECK(offsets.size() == static_cast<size_t>(ranks) + 1, "one offset a rank and the end");
  for (size_t i = 0; i + 1 < offsets.size(); ++i) NIBBLE_CHECK(offsets[i] <= offsets[i + 1], "offsets must ascend");
  NIBBLE_CHECK(offsets.back() <= bytes, "offsets lie beyond the buffer");
}

void agree_on_error(Communicator& communicator, const Error* error) {
  const ProfileScope scope(OperatorFamily::reduction, "agree");
  // If a peer is gone, there is nobody to agree with.
  if (error != nullptr && error->code() == ExitCode::peer_lost) throw Error(*error);
  Communicator& host = communicator.host();
  const int ranks = host.size();
  const int64_t lowest = host.all_reduce_max(error == nullptr ? 0 : ranks - host.rank());
  if (lowest == 0) return;
  const int rank = ranks - static_cast<int>(lowest);
  ExitCode code = error == nullptr ? ExitCode::ok : error->code();
  host.broadcast(std::as_writable_bytes(std::span<ExitCode>(&code, 1)), rank);
  const std::string agreed_what = broadcast_string(host, error == nullptr ? "" : error->what(), rank);
  const std::string agreed_remedy = broadcast_string(host, error == nullptr ? "" : error->remedy(), rank);
  throw AgreedError(code, rank == 0 ? agreed_what : fmt::format("rank {}: {}", rank, agreed_what), agreed_remedy);
}

std::string broadcast_string(Communicator& communicator, std::string text, int root) {
  uint64_t length = text.size();
  Communicator& host = communicator.host();
  host.broadcast(std::as_writable_bytes(std::span<uint64_t>(&length, 1)), root);
  text.resize(length);
  if (length > 0) host.broadcast(bytes_of(text), root);
  return text;
}

}  // namespace nibble
