#include "trainer/run_device.h"

#include <fmt/format.h>

#include "dist/cuda_device.h"
#include "dist/device.h"

namespace nibble {

namespace {

int rank_on_machine(const Communicator& communicator) {
  int before = 0;
  for (int rank = 0; rank < communicator.rank(); ++rank) {
    before += communicator.machine(rank) == communicator.machine(communicator.rank()) ? 1 : 0;
  }
  return before;
}

}  // namespace

namespace cpu {
namespace {
void use_device(int /*rank_on_machine*/) {}
std::vector<std::string> describe_device(const RunConfig& /*config*/) {
  return {};
}
}  // namespace
}  // namespace cpu

DeviceKind device_of(const RunConfig& config) {
  switch (config.device) {
    case RunConfig::Device::automatic: return resolve_device("auto");
    case RunConfig::Device::cpu: return resolve_device("cpu");
    case RunConfig::Device::cuda: return resolve_device("cuda");
  }
  return DeviceKind::cpu;
}

void use_device(const Communicator& communicator, const RunConfig& config) {
  NIBBLE_DISPATCH(device_of(config), use_device, rank_on_machine(communicator));
}

std::vector<std::string> describe_device(const RunConfig& config) {
  return NIBBLE_DISPATCH(device_of(config), describe_device, config);
}

}  // namespace nibble
