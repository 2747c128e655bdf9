#include "dist/ranks/gpu_choice.h"

#include <fmt/format.h>

#include <vector>

namespace nibble {
namespace {

using Uuid = std::array<uint8_t, 16>;

// As nvidia-smi -L prints it.
std::string text_of(const Uuid& uuid) {
  std::string text = "GPU";
  for (size_t i = 0; i < uuid.size(); ++i) {
    const bool begins_part = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
    text += fmt::format("{}{:02x}", begins_part ? "-" : "", uuid[i]);
  }
  return text;
}

}  // namespace

void check_gpu_choices(Communicator& communicator, const GpuChoice& own) {
  Communicator& host = communicator.host();
  const auto ranks = static_cast<size_t>(host.size());
  const auto own_rank = static_cast<size_t>(host.rank());
  const std::vector<Uuid> uuids = gather_each(host, own.uuid);
  const Uuid none{};
  run_together(host, [&] {
    for (size_t rank = own_rank + 1; rank < ranks; ++rank) {
      if ((uuids[rank] == none) != (own.uuid == none)) {
        throw Error(ExitCode::bad_config,
                    fmt::format("rank {} has a GPU and rank {} has none", own.uuid == none ? rank : own_rank,
                                own.uuid == none ? own_rank : rank),
                    "let every rank see a GPU, or set device: cpu");
      }
      const bool same_machine = host.machine(static_cast<int>(rank)) == host.machine(host.rank());
      if (own.uuid == none || uuids[rank] != own.uuid || !same_machine) continue;
      throw Error(
          ExitCode::bad_config,
          fmt::format("ranks {} and {} have the same GPU ({}, {})", own_rank, rank, own.name, text_of(own.uuid)),
          "start as many ranks on a machine as it has GPUs (mpirun --map-by ppr:N:node), and let each rank see "
          "all of them or one of its own (srun --gpus-per-task=1, CUDA_VISIBLE_DEVICES)");
    }
  });
}

}  // namespace nibble
