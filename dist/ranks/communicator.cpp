#include "dist/ranks/communicator.h"

#include <fmt/format.h>

#include <algorithm>
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

// Returns a variable as a number, or -1.
int number_in(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return -1;
  const std::string_view digits(text);
  int number = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && end == digits.data() + digits.size() ? number : -1;
}

}  // namespace

// A Slurm batch script has SLURM_PROCID set without any launcher, so only variables that MPI launchers set count.
bool under_launcher() {
  constexpr std::array names = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "PALS_RANKID"};
  return std::any_of(names.begin(), names.end(), [](const char* name) { return std::getenv(name) != nullptr; });
}

// The launcher nearest to the process is asked first: an mpirun that itself runs under srun hands down Slurm's
// variables. A plain process of a Slurm batch script has SLURM_NTASKS, and SLURM_PROCID 0, but no SLURM_STEP_ID.
LaunchedTasks launched_tasks() {
  constexpr std::array counts = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE",  "MV2_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE",
                                 "FLUX_JOB_SIZE",        "PALS_SIZE", "SLURM_STEP_NUM_TASKS"};
  constexpr std::array numbers = {"PMIX_RANK",   "PMI_RANK",       "MV2_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK",
                                  "PALS_RANKID", "FLUX_TASK_RANK", "ALPS_APP_PE",         "SLURM_PROCID"};
  for (const char* name : counts) {
    if (const int count = number_in(name); count > 0) return {count, name};
  }
  if (const int count = number_in("SLURM_NTASKS"); count > 0 && std::getenv("SLURM_STEP_ID") != nullptr) {
    return {count, "SLURM_NTASKS"};
  }
  for (const char* name : numbers) {
    if (const int number = number_in(name); number > 0) return {number + 1, name};
  }
  return {};
}

std::unique_ptr<Communicator> make_communicator(double timeout_s) {
  const LaunchedTasks launched = launched_tasks();
  std::unique_ptr<Communicator> communicator;
  if (under_launcher()) {
    communicator = make_mpi_communicator(MpiOptions{.timeout_s = timeout_s});
  } else {
    communicator = std::make_unique<SelfCommunicator>();
  }
  if (communicator->size() > 1 || launched.count == 1) return communicator;
  throw Error(
      ExitCode::bad_config,
      fmt::format("this process is one of {} tasks or more (${} says so), but MPI sees one rank: every task would "
                  "be a run of its own",
                  launched.count, launched.variable),
      "start nibble with the mpirun of its own MPI (nibble --version), or with srun --mpi=pmix where that MPI "
      "supports it; one process alone needs no launcher");
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
