// The devices that `nibble plan` knows by name, one row a device: what a plan needs of their data sheets.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Rates are dense (without sparsity) and with FP32 sums, in FLOP/s; 0: the device has no such units. Bandwidths are in
// bytes a second, `link` one way to the other GPUs of its machine.
struct PlannedDevice {
  std::string_view name;       // "b200"
  std::string_view full_name;  // as CUDA calls it, from which the BF16 rate follows (dist/device/data_sheet.h)
  int capability;              // ten times the major number, and the minor one
  double memory_bytes;         // that programs may use
  double fp8, nvfp4;
  double bandwidth, link;
  double lane_cycles;  // a second: multiprocessors x 128 lanes x clock; what quantisers are limited by
  double watts;
  int gpus_a_machine;  // that `link` connects
  // Shares of these rates that products and attention are assumed to reach (docs/plan.md says where they come from).
  double gemm_bf16, gemm_fp8, gemm_nvfp4, attention;
  std::string_view source;

  double bf16() const;
};

std::span<const PlannedDevice> planned_devices();
// Returns the names, "cpu" first.
std::vector<std::string_view> names_of_devices();

// Returns null for "cpu", which is this machine. Case, '-', '_' and spaces do not count. Throws ExitCode::usage for a
// name that is not in the table, with the list of those that are.
const PlannedDevice* find_device(const std::string& name);

}  // namespace nibble
