#include "dist/zero/gradient_reduction.h"

#include "dist/base/error.h"
#include "dist/ranks/device_communicator.h"
#include "dist/zero/library_reduction.h"
#include "dist/zero/striped_reduction.h"
#include "dist/zero/tree_reduction.h"

namespace nibble {
namespace {

template <class Memory>
std::unique_ptr<GradientReduction> by_order(Memory& memory, Communicator& communicator, const Placement& owned,
                                            const Schedule& schedule) {
  if (schedule.order() == Schedule::Order::rows) {
    return std::make_unique<TreeReduction>(memory, communicator, owned, schedule);
  }
  return std::make_unique<StripedReduction>(memory, communicator, owned, schedule);
}

}  // namespace

std::unique_ptr<GradientReduction> make_gradient_reduction(ReductionKind kind, SharedArena& memory,
                                                           Communicator& communicator, const Placement& owned,
                                                           const Schedule& schedule) {
  if (kind == ReductionKind::tree) return by_order(memory, communicator, owned, schedule);
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
  return by_order(arena, communicator, owned, schedule);
}

}  // namespace nibble
