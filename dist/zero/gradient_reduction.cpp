#include "dist/zero/gradient_reduction.h"

#include "dist/base/error.h"
#include "dist/ranks/device_communicator.h"
#include "dist/zero/library_reduction.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {

std::unique_ptr<GradientReduction> make_gradient_reduction(ReductionKind kind, SharedArena& memory,
                                                           Communicator& communicator, const Placement& owned,
                                                           const Schedule& schedule) {
  if (kind == ReductionKind::tree) return std::make_unique<TreeReduction>(memory, communicator, owned, schedule);
  auto* const ranks = dynamic_cast<DeviceCommunicator*>(&communicator);
  const bool possible = memory.arena().device() == DeviceKind::cuda &&
                        (communicator.size() == 1 || (ranks != nullptr && ranks->sums_by_library()));
  if (!possible) {
    throw Error(ExitCode::bad_config, "gradients cannot be summed by NCCL: it is not in use",
                "set comm.reduction=tree, or train on GPUs with NCCL (libnccl.so.2)");
  }
  return std::make_unique<LibraryReduction>(memory.arena(), communicator.size() == 1 ? nullptr : ranks, owned,
                                            schedule);
}

std::unique_ptr<GradientReduction> make_small_reduction(Arena& arena, Communicator& communicator,
                                                        const Placement& owned, const Schedule& schedule) {
  return std::make_unique<TreeReduction>(arena, communicator, owned, schedule);
}

}  // namespace nibble
