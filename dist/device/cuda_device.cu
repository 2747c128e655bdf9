#include "dist/device/cuda_device.h"

#include <cstring>
#include <memory>
#include <string>

#include "dist/device/data_sheet.h"
#include "dist/device/device_memory.h"
#include "dist/device/launch.cuh"
#include "dist/device/pinned_memory.h"

namespace nibble::cuda {
namespace {

struct Device {
  int index = 0;
  DeviceProperties properties;
  cudaStream_t compute = nullptr;
  cudaStream_t communication = nullptr;
};

// The object is never destroyed, because at the end of the process the driver may be gone before a destructor runs.
Device* device_of_process = nullptr;

const Device& device() {
  NIBBLE_CHECK(device_of_process != nullptr, "use_device() comes before any work on the GPU");
  return *device_of_process;
}

int attribute(cudaDeviceAttr which, int index) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, index), "cudaDeviceGetAttribute");
  return value;
}

DeviceProperties properties_of(int index) {
  cudaDeviceProp found{};
  check(cudaGetDeviceProperties(&found, index), "cudaGetDeviceProperties");
  const double clock = 1e3 * attribute(cudaDevAttrMemoryClockRate, index);       // Hz
  const double width = attribute(cudaDevAttrGlobalMemoryBusWidth, index) / 8.0;  // bytes
  std::array<uint8_t, 16> uuid{};
  std::memcpy(uuid.data(), &found.uuid, uuid.size());
  return {.name = found.name,
          .major = found.major,
          .minor = found.minor,
          .multiprocessors = found.multiProcessorCount,
          .memory_bytes = found.totalGlobalMem,
          .shared_bytes_per_block = found.sharedMemPerBlockOptin,
          .memory_bandwidth = 2 * clock * width,
          .bf16_flops = data_sheet_bf16_flops(found.name),
          .uuid = uuid};
}

const char* remedy_for(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver:
      return "update the driver to one for this version of CUDA, or build nibble with an older toolkit";
    case cudaErrorSystemNotReady:
      return "start the fabric manager, in the driver's version (systemctl start nvidia-fabricmanager)";
    case cudaErrorSystemDriverMismatch:
      return "the driver's library and its kernel module differ: restart the machine after a driver update";
    case cudaErrorCompatNotSupportedOnDevice:
      return "take the compatibility libcuda (cuda-compat) out of LD_LIBRARY_PATH, and update the driver";
    default: return "check nvidia-smi and the kernel's log (dmesg)";
  }
}

__global__ void probe_kernel() {}

void refuse_device_without_code(const DeviceProperties& properties) {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe_kernel));
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw Error(ExitCode::bad_config,
              "this build of nibble has no code for " + properties.name + " (compute capability " +
                  std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                  "): " + cudaGetErrorString(status),
              "build with -DNIBBLE_CUDA_TARGETS that names it, update the driver, or set device: cpu");
}

}  // namespace

void check(cudaError_t status, const char* operation) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears an error that does not stick, so that it is not reported twice
  const bool memory = status == cudaErrorMemoryAllocation;
  throw Error(
      memory ? ExitCode::out_of_memory : ExitCode::internal,
      std::string("CUDA: ") + operation + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")",
      memory ? out_of_memory_remedy
             : "resume from the last checkpoint; if it comes again, run scripts/gpu_check.sh and report it");
}

VisibleDevices visible_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return {.count = count};
  cudaGetLastError();
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);  // 0: there is no driver
  cudaRuntimeGetVersion(&runtime);
  if (status == cudaSuccess || status == cudaErrorNoDevice) {
    return {.problem = "no GPU is visible", .remedy = "check nvidia-smi and CUDA_VISIBLE_DEVICES", .no_device = true};
  }
  if (status == cudaErrorInsufficientDriver && driver == 0) {
    return {.problem = "no NVIDIA driver is installed",
            .remedy = "install the driver; in a container, start it with the GPUs (docker run --gpus all)",
            .no_device = true};
  }
  const auto version = [](int number) {
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
  };
  return {.problem = std::string("the GPUs cannot be used: ") + cudaGetErrorString(status) + " (" +
                     cudaGetErrorName(status) + "; the driver is for CUDA " + version(driver) +
                     ", nibble was built with " + version(runtime) + ")",
          .remedy = remedy_for(status)};
}

void use_device(int local_rank) {
  const VisibleDevices visible = visible_devices();
  if (visible.count == 0) throw Error(ExitCode::bad_config, visible.problem, visible.remedy);
  const int index = local_rank % visible.count;
  if (device_of_process != nullptr) {
    NIBBLE_CHECK(device_of_process->index == index, "a process uses one GPU");
    return;
  }
  check(cudaSetDevice(index), "cudaSetDevice");
  auto made = std::make_unique<Device>();
  made->index = index;
  made->properties = properties_of(index);
  refuse_device_without_code(made->properties);
  check(cudaStreamCreateWithFlags(&made->compute, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  check(cudaStreamCreateWithFlags(&made->communication, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  device_of_process = made.release();
}

const DeviceProperties& device_properties() {
  return device().properties;
}

cudaStream_t compute_stream() {
  return device().compute;
}

cudaStream_t communication_stream() {
  return device().communication;
}

void* allocate(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaMalloc");
  zero_bytes(memory, bytes);
  return memory;
}

void release(void* memory, size_t /*bytes*/) noexcept {
  cudaFree(memory);
}

void* allocate_pinned(size_t bytes) {
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault), "cudaHostAlloc");
  return memory;
}

void release_pinned(void* memory) noexcept {
  cudaFreeHost(memory);
}

size_t free_bytes() {
  size_t free = 0;
  size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

void synchronize() {
  check(cudaStreamSynchronize(device().communication), "the communication stream");
  check(cudaStreamSynchronize(device().compute), "the compute stream");
}

void wait_for_device() noexcept {
  cudaStreamSynchronize(device_of_process->compute);
}

void start_copy_bytes(const CopyBytes& problem) {
  if (problem.bytes == 0) return;
  const bool to_host = problem.to_device == DeviceKind::cpu;
  const bool from_host = problem.from_device == DeviceKind::cpu;
  const cudaMemcpyKind kind =
      to_host ? cudaMemcpyDeviceToHost : (from_host ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice);
  check(cudaMemcpyAsync(problem.to, problem.from, problem.bytes, kind, compute_stream()), "copy");
}

void copy_bytes(const CopyBytes& problem) {
  if (problem.bytes == 0) return;
  cuda::start_copy_bytes(problem);
  const bool ends_on_device = problem.to_device != DeviceKind::cpu && problem.from_device != DeviceKind::cpu;
  if (!ends_on_device) check(cudaStreamSynchronize(compute_stream()), "copy");
}

void* set_mark(void* mark) {
  auto* event = static_cast<cudaEvent_t>(mark);
  if (event == nullptr) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  check(cudaEventRecord(event, compute_stream()), "cudaEventRecord");
  return event;
}

void wait_for_mark(void* mark) {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(mark)), "cudaEventSynchronize");
}

void release_mark(void* mark) noexcept {
  cudaEventDestroy(static_cast<cudaEvent_t>(mark));
}

void zero_bytes(void* memory, size_t bytes) {
  if (bytes > 0) check(cudaMemsetAsync(memory, 0, bytes, compute_stream()), "clear memory");
}

}  // namespace nibble::cuda
