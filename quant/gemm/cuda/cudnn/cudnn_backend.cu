#include "quant/gemm/cuda/cudnn/cudnn_backend.h"

#include <array>
#include <charconv>
#include <string_view>

#include "dist/base/dynamic_library.h"
#include "dist/base/error.h"
#include "dist/device/cuda_device.h"
#include "dist/device/launch.cuh"

namespace nibble::cuda {
namespace {

const char* const remedy_without_cudnn =
    "install cuDNN 9.10 or later where the dynamic linker finds libcudnn.so.9 (LD_LIBRARY_PATH), or choose a backend "
    "that does without it";

std::string version_text(size_t version) {
  return "cuDNN " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

// The library, which is searched once and stays open until the process ends.
struct Loaded {
  CudnnLibrary library;
  CudnnFunctions functions{};

  Loaded() {
    static constexpr std::array<std::string_view, 1> names{"libcudnn.so.9"};
    static const DynamicLibrary file(names);
    if (!file.available()) {
      library.reason = file.reason();
      return;
    }
    try {
      find_functions(file);
    } catch (const Error& error) {
      library.reason = error.what();
      return;
    }
    library.version = functions.get_version();
    library.available = library.version >= oldest_cudnn;
    if (!library.available) {
      library.reason =
          file.path() + " is " + version_text(library.version) + ", older than " + version_text(oldest_cudnn);
    }
  }

  void find_functions(const DynamicLibrary& file) {
    functions = {
        .get_version = file.function<decltype(::cudnnGetVersion)>("cudnnGetVersion"),
        .get_error_string = file.function<decltype(::cudnnGetErrorString)>("cudnnGetErrorString"),
        .get_last_error_string = file.function<decltype(::cudnnGetLastErrorString)>("cudnnGetLastErrorString"),
        .create = file.function<decltype(::cudnnCreate)>("cudnnCreate"),
        .set_stream = file.function<decltype(::cudnnSetStream)>("cudnnSetStream"),
        .create_descriptor = file.function<decltype(::cudnnBackendCreateDescriptor)>("cudnnBackendCreateDescriptor"),
        .destroy_descriptor = file.function<decltype(::cudnnBackendDestroyDescriptor)>("cudnnBackendDestroyDescriptor"),
        .set_attribute = file.function<decltype(::cudnnBackendSetAttribute)>("cudnnBackendSetAttribute"),
        .get_attribute = file.function<decltype(::cudnnBackendGetAttribute)>("cudnnBackendGetAttribute"),
        .finalize = file.function<decltype(::cudnnBackendFinalize)>("cudnnBackendFinalize"),
        .execute = file.function<decltype(::cudnnBackendExecute)>("cudnnBackendExecute"),
    };
  }
};

const Loaded& loaded() {
  static const Loaded once;
  return once;
}

std::string message(cudnnStatus_t status, const std::string& operation) {
  std::array<char, 2048> text{};
  cudnn().get_last_error_string(text.data(), text.size());
  return cudnn_version_text() + ": " + operation + ": " + cudnn().get_error_string(status) +
         (text[0] == '\0' ? "" : std::string(": ") + text.data());
}

// Returns the major compute capability of a described GPU: "deviceVer": 1030 is compute capability 10.3.
int described_major(std::string_view json) {
  constexpr std::string_view key = "\"deviceVer\":";
  int version = 0;
  const size_t place = json.find(key);
  if (place != std::string_view::npos) {
    std::string_view text = json.substr(place + key.size());
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    std::from_chars(text.data(), text.data() + text.size(), version);
  }
  NIBBLE_CHECK(version > 0, "a description of a GPU has deviceVer");
  return version / 100;
}

}  // namespace

const CudnnLibrary& cudnn_library() {
  return loaded().library;
}

std::string cudnn_version_text() {
  return version_text(cudnn_library().version);
}

const CudnnFunctions& cudnn() {
  if (!cudnn_library().available) {
    throw Error(ExitCode::bad_config, "cuDNN is not available: " + cudnn_library().reason, remedy_without_cudnn);
  }
  return loaded().functions;
}

void check_cudnn(cudnnStatus_t status, const std::string& operation) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error(ExitCode::bad_config, message(status, operation),
              "use another version of cuDNN, or choose a backend that does without it");
}

void check_cudnn_execution(cudnnStatus_t status, const std::string& operation) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error(ExitCode::internal, message(status, operation),
              "resume from the last checkpoint; if it comes again, choose a backend that does without cuDNN");
}

cudnnHandle_t cudnn_handle() {
  // The handle is never destroyed: at the end of the process the driver may be gone.
  static const cudnnHandle_t handle = [] {
    const cudaStream_t stream = compute_stream();
    cudnnHandle_t made = nullptr;
    check_cudnn(cudnn().create(&made), "create a handle");
    check_cudnn(cudnn().set_stream(made, stream), "bind the compute stream");
    return made;
  }();
  return handle;
}

CudnnDescriptor::CudnnDescriptor(cudnnBackendDescriptorType_t type) {
  check_cudnn(cudnn().create_descriptor(type, &descriptor_),
              "create descriptor of type " + std::to_string(static_cast<int>(type)));
}

CudnnDescriptor::~CudnnDescriptor() {
  if (descriptor_ != nullptr) cudnn().destroy_descriptor(descriptor_);
}

CudnnDescriptor& CudnnDescriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                                      const void* values) {
  check_cudnn(cudnn().set_attribute(descriptor_, name, type, count, values),
              "set attribute " + std::to_string(static_cast<int>(name)));
  return *this;
}

CudnnDescriptor& CudnnDescriptor::finalize() {
  check_cudnn(cudnn().finalize(descriptor_), "finalize a descriptor");
  return *this;
}

int64_t CudnnDescriptor::get_integer(cudnnBackendAttributeName_t name) const {
  int64_t value = 0;
  int64_t count = 0;
  check_cudnn(cudnn().get_attribute(descriptor_, name, CUDNN_TYPE_INT64, 1, &count, &value),
              "get attribute " + std::to_string(static_cast<int>(name)));
  return value;
}

CudnnTarget CudnnTarget::this_gpu() {
  CudnnTarget target;
  target.handle_ = cudnn_handle();
  target.major_ = device_properties().major;
  return target;
}

CudnnTarget CudnnTarget::described(const std::string& json) {
  CudnnTarget target;
  target.major_ = described_major(json);
  target.properties_ = CudnnDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  target.properties_.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<int64_t>(json.size()),
                         json.data());
  target.properties_.finalize();
  return target;
}

CudnnDescriptor cudnn_operation_graph(std::span<const cudnnBackendDescriptor_t> operations, const CudnnTarget& target) {
  CudnnDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations);
  if (target.handle() != nullptr) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, target.handle());
  graph.finalize();
  return graph;
}

std::vector<CudnnDescriptor> cudnn_heuristic_configurations(const CudnnDescriptor& graph, const CudnnTarget& target) {
  CudnnDescriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.get());
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (target.properties() != nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target.properties());
  heuristic.finalize();

  int64_t count = 0;
  const auto get = [&](int64_t wanted, cudnnBackendDescriptor_t* results) {
    check_cudnn(cudnn().get_attribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                      wanted, &count, results),
                "ask for engines");
  };
  get(0, nullptr);
  std::vector<CudnnDescriptor> configurations;
  std::vector<cudnnBackendDescriptor_t> results;
  for (int64_t i = 0; i < count; ++i) {
    results.push_back(configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  }
  if (count > 0) get(count, results.data());
  configurations.resize(static_cast<size_t>(count));
  return configurations;
}

CudnnEngineConfiguration::CudnnEngineConfiguration(const CudnnDescriptor& graph, const CudnnTarget& target,
                                                   const CudnnEngineChoice& choice)
    : engine_(CUDNN_BACKEND_ENGINE_DESCRIPTOR), configuration_(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR) {
  engine_.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph.get()).set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, choice.engine);
  if (target.properties() != nullptr) engine_.set(CUDNN_ATTR_ENGINE_DEVICEPROP, target.properties());
  engine_.finalize();
  std::vector<cudnnBackendDescriptor_t> knobs;
  for (const auto& [type, value] : choice.knobs) {
    CudnnDescriptor& knob = choices_.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
    knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value).finalize();
    knobs.push_back(knob.get());
  }
  configuration_.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine_.get());
  if (!knobs.empty()) configuration_.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, knobs);
  configuration_.finalize();
}

int64_t cudnn_engine_of(const CudnnDescriptor& configuration) {
  const CudnnDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t place = engine.get();
  int64_t count = 0;
  check_cudnn(cudnn().get_attribute(configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                    &count, &place),
              "ask for the engine of a configuration");
  return engine.get_integer(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
}

CudnnPlan::CudnnPlan(const CudnnDescriptor& configuration, const CudnnTarget& target)
    : plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration.get());
  if (target.handle() != nullptr) plan_.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, target.handle());
  if (target.properties() != nullptr) plan_.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, target.properties());
  plan_.finalize();
  workspace_bytes_ = static_cast<size_t>(plan_.get_integer(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
}

void CudnnPlan::execute(std::span<const int64_t> unique_ids, std::span<void* const> pointers, void* workspace) const {
  NIBBLE_CHECK(unique_ids.size() == pointers.size(), "a pointer for every tensor of the plan");
  CudnnDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, unique_ids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<int64_t>(pointers.size()),
           pointers.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  pack.finalize();
  check_cudnn_execution(cudnn().execute(cudnn_handle(), plan_.get(), pack.get()), "execute a plan");
}

}  // namespace nibble::cuda
