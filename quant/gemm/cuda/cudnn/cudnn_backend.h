// The part of cuDNN's backend API that nibble uses: descriptors that free themselves, engine configurations and plans.
// The API describes a computation as a graph of operations, asks which engines can run it, and makes a plan of one.
// Attention and block-scaled GEMMs build such graphs. Host code, compiled only where cudnn.h is found; sources that
// include it are named cudnn_*.cu.
//
// cuDNN is opened at the first use. Graphs can be built for a GPU that is only described, on machines without one:
// cuDNN then says which engines would run them. Even then it wants some libcuda.so.1, if only the toolkit's stub.
// Source: cuDNN's documentation of the backend API and its header cudnn_graph.h.
#pragma once

#include <cudnn.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace nibble::cuda {

// cuDNN's functions, found in the library at run time.
struct CudnnFunctions {
  decltype(&::cudnnGetVersion) get_version;
  decltype(&::cudnnGetErrorString) get_error_string;
  decltype(&::cudnnGetLastErrorString) get_last_error_string;
  decltype(&::cudnnCreate) create;
  decltype(&::cudnnSetStream) set_stream;
  decltype(&::cudnnBackendCreateDescriptor) create_descriptor;
  decltype(&::cudnnBackendDestroyDescriptor) destroy_descriptor;
  decltype(&::cudnnBackendSetAttribute) set_attribute;
  decltype(&::cudnnBackendGetAttribute) get_attribute;
  decltype(&::cudnnBackendFinalize) finalize;
  decltype(&::cudnnBackendExecute) execute;
};

// Whether this machine has a cuDNN that nibble can use (9.10 or later), and if it has none, why.
struct CudnnLibrary {
  bool available = false;
  size_t version = 0;  // 91900 for 9.19.0
  std::string reason;  // why it is not available
};
const CudnnLibrary& cudnn_library();
std::string cudnn_version_text();  // "cuDNN 9.19.0"
inline constexpr size_t oldest_cudnn = 91000;

// Returns cuDNN's functions. Throws ExitCode::bad_config where cuDNN is not available.
const CudnnFunctions& cudnn();

// Both throw, with cuDNN's own words, unless the status is success. `operation` names what was tried. check_cudnn() is
// for descriptions that cuDNN refuses, for which callers may take another backend; check_cudnn_execution() is for
// failures of execution.
void check_cudnn(cudnnStatus_t status, const std::string& operation);
void check_cudnn_execution(cudnnStatus_t status, const std::string& operation);

// Returns the one handle of the process, on its GPU and its compute stream. use_device() must come first.
cudnnHandle_t cudnn_handle();

// One descriptor. Everything that it refers to must live as long as it does.
class CudnnDescriptor {
 public:
  CudnnDescriptor() = default;
  explicit CudnnDescriptor(cudnnBackendDescriptorType_t type);
  ~CudnnDescriptor();
  CudnnDescriptor(CudnnDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  CudnnDescriptor& operator=(CudnnDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

  CudnnDescriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                       const void* values);
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, int64_t value) {
    return set(name, CUDNN_TYPE_INT64, 1, &value);
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, std::span<const int64_t> values) {
    return set(name, CUDNN_TYPE_INT64, static_cast<int64_t>(values.size()), values.data());
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, bool value) {
    return set(name, CUDNN_TYPE_BOOLEAN, 1, &value);
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
    return set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, std::span<const cudnnBackendDescriptor_t> values) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(values.size()), values.data());
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, cudnnHandle_t value) {
    return set(name, CUDNN_TYPE_HANDLE, 1, &value);
  }
  CudnnDescriptor& finalize();

  int64_t get_integer(cudnnBackendAttributeName_t name) const;
  cudnnBackendDescriptor_t get() const { return descriptor_; }

 private:
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

// The GPU on which a graph is to run: the GPU of this process, or one of which there is only a description.
class CudnnTarget {
 public:
  static CudnnTarget this_gpu();
  // `json` holds the attributes that cuDNN's device-properties descriptor takes (tests/cuda/devices has some).
  static CudnnTarget described(const std::string& json);

  int major() const { return major_; }                                       // major number of its compute capability
  cudnnHandle_t handle() const { return handle_; }                           // null for a described one
  cudnnBackendDescriptor_t properties() const { return properties_.get(); }  // null for a real one

 private:
  int major_ = 0;
  cudnnHandle_t handle_ = nullptr;
  CudnnDescriptor properties_;
};

// Makes a graph of operations. `operations` must stay alive, with the tensors that they connect.
CudnnDescriptor cudnn_operation_graph(std::span<const cudnnBackendDescriptor_t> operations, const CudnnTarget& target);

// Returns the engine configurations that cuDNN's heuristic (mode A) proposes, best first; none if it supports no
// engine.
std::vector<CudnnDescriptor> cudnn_heuristic_configurations(const CudnnDescriptor& graph, const CudnnTarget& target);

// An engine configuration of the caller's choice.
struct CudnnEngineChoice {
  int64_t engine = 0;
  std::vector<std::pair<cudnnBackendKnobType_t, int64_t>> knobs;
};
class CudnnEngineConfiguration {
 public:
  // Throws ExitCode::bad_config where cuDNN refuses the engine or a knob.
  CudnnEngineConfiguration(const CudnnDescriptor& graph, const CudnnTarget& target, const CudnnEngineChoice& choice);
  const CudnnDescriptor& descriptor() const { return configuration_; }

 private:
  CudnnDescriptor engine_;
  std::vector<CudnnDescriptor> choices_;
  CudnnDescriptor configuration_;
};

// Returns the number of the engine that a configuration uses.
int64_t cudnn_engine_of(const CudnnDescriptor& configuration);

// A plan that cuDNN made of a configuration: kernels and the size of their workspace. Making one may take seconds,
// because kernels are compiled.
class CudnnPlan {
 public:
  CudnnPlan(const CudnnDescriptor& configuration, const CudnnTarget& target);
  size_t workspace_bytes() const { return workspace_bytes_; }

  // Puts the plan on the compute stream. `unique_ids` name the tensors to which `pointers` belong; pointers of by-value
  // tensors are to host memory.
  void execute(std::span<const int64_t> unique_ids, std::span<void* const> pointers, void* workspace) const;

 private:
  CudnnDescriptor plan_;
  size_t workspace_bytes_ = 0;
};

}  // namespace nibble::cuda
