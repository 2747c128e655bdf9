#include <array>
#include <span>

#include "bench/cuda_bench.h"
#include "dist/base/dynamic_library.h"
#include "model/ops/attention/attention_backend_kind.h"
#include "quant/gemm/gemm_backend_kind.h"

namespace nibble {
namespace {

// Every library of CUDA that nibble or cuDNN opens, and what it says of its version.
struct Library {
  std::array<std::string_view, 2> names;
  std::string (*version)(const DynamicLibrary& library);
};

constexpr Library libraries[] = {
    {{"libcuda.so.1"},
     [](const DynamicLibrary& library) {
       int version = 0;
       library.function<int(int*)>("cuDriverGetVersion")(&version);
       return fmt::format("CUDA {}.{}", version / 1000, version / 10 % 100);
     }},
    {{"libcublasLt.so.13", "libcublasLt.so.12"},
     [](const DynamicLibrary& library) { return fmt::to_string(library.function<size_t()>("cublasLtGetVersion")()); }},
    {{"libcudnn.so.9"},
     [](const DynamicLibrary& library) { return fmt::to_string(library.function<size_t()>("cudnnGetVersion")()); }},
    {{"libnvrtc.so.13", "libnvrtc.so.12"},
     [](const DynamicLibrary& library) {
       int major = 0;
       int minor = 0;
       library.function<int(int*, int*)>("nvrtcVersion")(&major, &minor);
       return fmt::format("{}.{}", major, minor);
     }},
    {{"libnccl.so.2"}, [](const DynamicLibrary& library) {
       int version = 0;
       library.function<int(int*)>("ncclGetVersion")(&version);
       return fmt::to_string(version);
     }}};

void print(const nlohmann::json& line) {
  fmt::print("{}\n", line.dump());
}

}  // namespace

void describe(Bench& bench) {
  const cuda::DeviceProperties& gpu = cuda::device_properties();
  print({{"name", "device"},
         {"is", gpu.name},
         {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
         {"mebibytes", gpu.memory_bytes >> 20},
         {"free_mebibytes", cuda::free_bytes() >> 20},
         {"bf16_peak_teraflops", gpu.bf16_flops / 1e12},
         {"data_sheet_gigabytes_per_second", gpu.memory_bandwidth / 1e9}});
  for (const Library& each : libraries) {
    const bool alternative = !each.names[1].empty();
    const DynamicLibrary library(std::span(each.names).first(alternative ? 2 : 1));
    nlohmann::json line{{"name", each.names[0]}};
    try {
      if (library.available()) {
        line.update({{"path", library.path()}, {"version", each.version(library)}});
      } else {
        line["missing"] = library.reason();
      }
    } catch (const Error& error) {
      line["error"] = error.what();  // a library that does not tell its version
    }
    print(line);
  }
  for (const Format format : {Format::bf16, Format::nvfp4, Format::fp8_e4m3, Format::mxfp8_e4m3}) {
    print({{"name", "products"}, {"is", cuda::describe_gemm(format, format)}});
  }
  const int64_t length = bench.smoke() ? 64 : 2048;
  for (const int head_dim : {32, 64, 128}) {
    const AttentionShape shape{
        .sequences = 1, .sequence_length = length, .query_heads = 4, .kv_heads = 4, .head_dim = head_dim};
    print({{"name", fmt::format("attention, head_dim {}", head_dim)},
           {"is", describe_attention_backend({.shape = shape})}});
  }
}

}  // namespace nibble
