#include "trainer/plan/device_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "dist/base/error.h"
#include "dist/base/text.h"
#include "dist/device/data_sheet.h"

namespace nibble {
namespace {

// clang-format off
constexpr std::array devices = std::to_array<PlannedDevice>({
    {.name = "h100", .full_name = "NVIDIA H100 80GB HBM3", .capability = 90, .memory_bytes = 80e9,
     .fp8 = 1978.9e12, .nvfp4 = 0, .bandwidth = 3.35e12, .link = 450e9, .lane_cycles = 132 * 128 * 1.755e9, .watts = 700,
     .gpus_a_machine = 8, .gemm_bf16 = 0.667, .gemm_fp8 = 0.6, .gemm_nvfp4 = 0, .attention = 0.4,
     .source = "NVIDIA H100 data sheet, SXM5"},
    {.name = "h200", .full_name = "NVIDIA H200", .capability = 90, .memory_bytes = 141e9,
     .fp8 = 1978.9e12, .nvfp4 = 0, .bandwidth = 4.8e12, .link = 450e9, .lane_cycles = 132 * 128 * 1.95e9, .watts = 700,
     .gpus_a_machine = 8, .gemm_bf16 = 0.667, .gemm_fp8 = 0.6, .gemm_nvfp4 = 0, .attention = 0.4,
     .source = "NVIDIA H200 data sheet, SXM"},
    {.name = "b200", .full_name = "NVIDIA B200", .capability = 100, .memory_bytes = 180e9,
     .fp8 = 4500e12, .nvfp4 = 9000e12, .bandwidth = 8e12, .link = 900e9, .lane_cycles = 148 * 128 * 1.85e9, .watts = 1000,
     .gpus_a_machine = 8, .gemm_bf16 = 0.667, .gemm_fp8 = 0.6, .gemm_nvfp4 = 0.444, .attention = 0.51,
     .source = "NVIDIA HGX B200 data sheet"},
    {.name = "gb200", .full_name = "NVIDIA GB200", .capability = 100, .memory_bytes = 186e9,
     .fp8 = 5000e12, .nvfp4 = 10000e12, .bandwidth = 8e12, .link = 900e9, .lane_cycles = 152 * 128 * 1.9e9, .watts = 1200,
     .gpus_a_machine = 72, .gemm_bf16 = 0.667, .gemm_fp8 = 0.6, .gemm_nvfp4 = 0.444, .attention = 0.51,
     .source = "NVIDIA GB200 NVL72 data sheet"},
    {.name = "b300", .full_name = "NVIDIA B300", .capability = 103, .memory_bytes = 270e9,
     .fp8 = 4500e12, .nvfp4 = 13125e12, .bandwidth = 8e12, .link = 900e9, .lane_cycles = 148 * 128 * 1.9e9, .watts = 1100,
     .gpus_a_machine = 8, .gemm_bf16 = 0.667, .gemm_fp8 = 0.6, .gemm_nvfp4 = 0.39, .attention = 0.51,
     .source = "NVIDIA HGX B300 data sheet"},
    {.name = "gb300", .full_name = "NVIDIA GB300", .capability = 103, .memory_bytes = 279e9,
     .fp8 = 5000e12, .nvfp4 = 15000e12, .bandwidth = 8e12, .link = 900e9, .lane_cycles = 152 * 128 * 1.92e9, .watts = 1400,
     .gpus_a_machine = 72, .gemm_bf16 = 0.667, .gemm_fp8 = 0.6, .gemm_nvfp4 = 0.39, .attention = 0.51,
     .source = "NVIDIA GB300 NVL72 data sheet"},
    {.name = "rtx5090", .full_name = "NVIDIA GeForce RTX 5090", .capability = 120, .memory_bytes = 32e9,
     .fp8 = 419e12, .nvfp4 = 1676e12, .bandwidth = 1.792e12, .link = 50e9, .lane_cycles = 170 * 128 * 2.41e9, .watts = 575,
     .gpus_a_machine = 8, .gemm_bf16 = 0.85, .gemm_fp8 = 0.75, .gemm_nvfp4 = 0.7, .attention = 0.6,
     .source = "NVIDIA RTX Blackwell architecture white paper; link: PCIe 5.0 x16"},
    {.name = "rtxpro6000", .full_name = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", .capability = 120,
     .memory_bytes = 96e9, .fp8 = 1007.6e12, .nvfp4 = 2015.2e12, .bandwidth = 1.792e12, .link = 50e9,
     .lane_cycles = 188 * 128 * 2.62e9, .watts = 600,
     .gpus_a_machine = 8, .gemm_bf16 = 0.75, .gemm_fp8 = 0.65, .gemm_nvfp4 = 0.6, .attention = 0.5,
     .source = "NVIDIA RTX PRO Blackwell architecture white paper; link: PCIe 5.0 x16"},
});
// clang-format on

std::string without_marks(const std::string& name) {
  std::string letters;
  for (const char c : name) {
    if (c == '-' || c == '_' || c == ' ') continue;
    letters += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return letters;
}

}  // namespace

double PlannedDevice::bf16() const {
  return data_sheet_bf16_flops(full_name);
}

std::span<const PlannedDevice> planned_devices() {
  return devices;
}

std::vector<std::string_view> names_of_devices() {
  std::vector<std::string_view> names{"cpu"};
  for (const PlannedDevice& device : devices) names.push_back(device.name);
  return names;
}

const PlannedDevice* find_device(const std::string& name) {
  const std::string wanted = without_marks(name);
  if (wanted == "cpu") return nullptr;
  const auto found = std::ranges::find(devices, wanted, &PlannedDevice::name);
  if (found != devices.end()) return &*found;
  const std::vector<std::string_view> names = names_of_devices();
  throw Error(ExitCode::usage, fmt::format("--device: unknown device {}", unknown_word(wanted, names)),
              fmt::format("use one of {}", fmt::join(names, ", ")));
}

}  // namespace nibble
