#include "trainer/compute/run_device.h"

#include <fmt/format.h>

#include "dist/device/cuda_device.h"
#include "dist/device/device.h"
#include "dist/device/dispatch.h"
#include "trainer/compute/measured_peak.h"

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
std::string gemm_plan() {
  return {};
}
void use_gemm_plan(const std::string& /*plan*/) {}
double peak_flops() {
  return measured_peak_flops();
}
GpuChoice use_gpu(int /*rank_on_machine*/, const RunConfig& /*config*/) {
  return {};
}
void refuse_slow_paths(const RunConfig& /*config*/) {}
std::vector<std::string> describe_device(const RunConfig& /*config*/) {
  return {};
}
}  // namespace
}  // namespace cpu

DeviceKind device_of(const RunConfig& config) {
  return resolve_device(name_of(config.device));
}

void use_device(Communicator& communicator, const RunConfig& config) {
  GpuChoice own;
  run_together(communicator,
               [&] { own = NIBBLE_DISPATCH(device_of(config), use_gpu, rank_on_machine(communicator), config); });
  check_gpu_choices(communicator, own);
}

void refuse_slow_paths(const RunConfig& config) {
  NIBBLE_DISPATCH(device_of(config), refuse_slow_paths, config);
}

double peak_flops(const RunConfig& config) {
  return NIBBLE_DISPATCH(device_of(config), peak_flops, );
}

std::string gemm_plan(const RunConfig& config) {
  return NIBBLE_DISPATCH(device_of(config), gemm_plan, );
}

void use_gemm_plan(const RunConfig& config, const std::string& plan) {
  NIBBLE_DISPATCH(device_of(config), use_gemm_plan, plan);
}

std::vector<std::string> describe_device(const RunConfig& config) {
  return NIBBLE_DISPATCH(device_of(config), describe_device, config);
}

}  // namespace nibble
