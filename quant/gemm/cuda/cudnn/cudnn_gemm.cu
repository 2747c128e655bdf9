// nvfp4 GEMMs as a graph of cuDNN's backend API: both operands dequantised by block, multiplied, scaled by alpha,
// perhaps added to the output.
#include "quant/gemm/cuda/cudnn_gemm.h"

#include <array>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "dist/base/log_line.h"
#include "dist/device/cuda_device.h"
#include "quant/gemm/cuda/cudnn/cudnn_backend.h"
#include "quant/gemm/cuda/gemm_backend.h"
#include "quant/gemm/cuda/gemm_trial.h"
#include "quant/gemm/cuda/library_alpha.h"
#include "quant/gemm/gemm_backend_kind.h"
#include "quant/gemm/gemm_common.h"
#include "quant/tensor/device_operand.cuh"

namespace nibble::cuda {
namespace {

constexpr size_t workspace_bytes = size_t{64} << 20;
constexpr int32_t scale_block = 16;

// The unique ids of the tensors that the caller gives.
enum Id : int64_t { id_a = 1, id_b, id_a_scales, id_b_scales, id_alpha, id_output, id_sum, first_virtual };

using Extents = std::array<int64_t, 3>;

class Graph {
 public:
  Graph(const CudnnGemmShape& shape, const CudnnTarget& target);
  const CudnnDescriptor& descriptor() const { return graph_; }

 private:
  struct TensorShape {
    cudnnDataType_t type;
    Extents extents, strides;
  };
  CudnnDescriptor& keep(cudnnBackendDescriptorType_t type) { return kept_.emplace_back(CudnnDescriptor(type)); }
  CudnnDescriptor& describe(const TensorShape& shape, int64_t id);
  cudnnBackendDescriptor_t tensor(const TensorShape& shape, int64_t id);
  cudnnBackendDescriptor_t virtual_tensor(const TensorShape& shape);
  cudnnBackendDescriptor_t scales(const TensorShape& shape, int64_t id);
  void operation(CudnnDescriptor& operation) { operations_.push_back(operation.finalize().get()); }
  void dequantize(cudnnBackendDescriptor_t from, cudnnBackendDescriptor_t scales, cudnnBackendDescriptor_t to);
  void multiply(cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t to);
  void pointwise(cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t y,
                 cudnnBackendDescriptor_t to);

  std::vector<CudnnDescriptor> kept_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  CudnnDescriptor graph_;
  int64_t next_virtual_ = first_virtual;
};

CudnnDescriptor& Graph::describe(const TensorShape& shape, int64_t id) {
  constexpr int64_t alignment = 16;  // bytes
  return keep(CUDNN_BACKEND_TENSOR_DESCRIPTOR)
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, shape.type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, shape.extents)
      .set(CUDNN_ATTR_TENSOR_STRIDES, shape.strides)
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
}

cudnnBackendDescriptor_t Graph::tensor(const TensorShape& shape, int64_t id) {
  return describe(shape, id).finalize().get();
}

cudnnBackendDescriptor_t Graph::virtual_tensor(const TensorShape& shape) {
  return describe(shape, next_virtual_++).set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true).finalize().get();
}

// Describes block scales in the order of quant/format/swizzle.h.
cudnnBackendDescriptor_t Graph::scales(const TensorShape& shape, int64_t id) {
  const cudnnBackendTensorReordering_t swizzled = CUDNN_TENSOR_REORDERING_F8_128x4;
  return describe(shape, id)
      .set(CUDNN_ATTR_TENSOR_REORDERING_MODE, CUDNN_TYPE_TENSOR_REORDERING_MODE, 1, &swizzled)
      .finalize()
      .get();
}

void Graph::dequantize(cudnnBackendDescriptor_t from, cudnnBackendDescriptor_t scales, cudnnBackendDescriptor_t to) {
  operation(keep(CUDNN_BACKEND_OPERATION_BLOCK_SCALE_DEQUANTIZE_DESCRIPTOR)
                .set(CUDNN_ATTR_OPERATION_BLOCK_SCALE_DEQUANTIZE_XDESC, from)
                .set(CUDNN_ATTR_OPERATION_BLOCK_SCALE_DEQUANTIZE_SCALE_DESC, scales)
                .set(CUDNN_ATTR_OPERATION_BLOCK_SCALE_DEQUANTIZE_YDESC, to)
                .set(CUDNN_ATTR_OPERATION_BLOCK_SCALE_DEQUANTIZE_MATH_PREC, CUDNN_DATA_FLOAT)
                .set(CUDNN_ATTR_OPERATION_BLOCK_SCALE_DEQUANTIZE_BLOCK_SIZE, CUDNN_TYPE_INT32, 1, &scale_block));
}

void Graph::multiply(cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t to) {
  const cudnnBackendDescriptor_t matmul =
      keep(CUDNN_BACKEND_MATMUL_DESCRIPTOR).set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT).finalize().get();
  operation(keep(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
                .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a)
                .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b)
                .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, to)
                .set(CUDNN_ATTR_OPERATION_MATMUL_DESC, matmul));
}

void Graph::pointwise(cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t y,
                      cudnnBackendDescriptor_t to) {
  const cudnnBackendDescriptor_t point = keep(CUDNN_BACKEND_POINTWISE_DESCRIPTOR)
                                             .set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode)
                                             .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT)
                                             .finalize()
                                             .get();
  operation(keep(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
                .set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, point)
                .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
                .set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, y)
                .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, to));
}

Graph::Graph(const CudnnGemmShape& shape, const CudnnTarget& target) {
  const auto& [m, n, k, output, accumulate] = shape;
  const int64_t blocks = round_up<int64_t>(k / scale_block, 4);
  const int64_t scale_rows = round_up(m, swizzle_rows);
  const int64_t scale_columns = round_up(n, swizzle_rows);
  const Extents one{1, 1, 1};
  const Extents left{m * k, k, 1};
  const Extents right{k * n, 1, k};  // b lies in rows of k: a matrix k x n by columns
  const Extents rows{m * n, n, 1};
  const auto a = tensor({CUDNN_DATA_FP4_E2M1, {1, m, k}, left}, id_a);
  const auto b = tensor({CUDNN_DATA_FP4_E2M1, {1, k, n}, right}, id_b);
  const auto a_scales =
      scales({CUDNN_DATA_FP8_E4M3, {1, scale_rows, blocks}, {scale_rows * blocks, blocks, 1}}, id_a_scales);
  const auto b_scales =
      scales({CUDNN_DATA_FP8_E4M3, {1, blocks, scale_columns}, {blocks * scale_columns, 1, blocks}}, id_b_scales);
  const auto alpha = tensor({CUDNN_DATA_FLOAT, one, one}, id_alpha);
  const auto a_values = virtual_tensor({CUDNN_DATA_FLOAT, {1, m, k}, left});
  const auto b_values = virtual_tensor({CUDNN_DATA_FLOAT, {1, k, n}, right});
  const auto sums = virtual_tensor({CUDNN_DATA_FLOAT, {1, m, n}, rows});
  dequantize(a, a_scales, a_values);
  dequantize(b, b_scales, b_values);
  multiply(a_values, b_values, sums);
  const cudnnDataType_t type = output == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
  const auto result = tensor({type, {1, m, n}, rows}, id_output);
  if (accumulate) {
    const auto scaled = virtual_tensor({CUDNN_DATA_FLOAT, {1, m, n}, rows});
    pointwise(CUDNN_POINTWISE_MUL, sums, alpha, scaled);
    pointwise(CUDNN_POINTWISE_ADD, scaled, tensor({CUDNN_DATA_FLOAT, {1, m, n}, rows}, id_sum), result);
  } else {
    pointwise(CUDNN_POINTWISE_MUL, sums, alpha, result);
  }
  graph_ = cudnn_operation_graph(operations_, target);
}

// Returns the workspace, which is never freed: at the end of the process the driver may be gone first.
void* workspace() {
  static void* const memory = [] {
    void* const taken = allocate(workspace_bytes);
    if (taken == nullptr) {
      throw Error(ExitCode::out_of_memory, "no 64 MiB of GPU memory for the workspace of cuDNN's GEMMs",
                  out_of_memory_remedy);
    }
    allocate_library_scalars();
    return taken;
  }();
  return memory;
}

struct PlannedGemm {
  std::unique_ptr<Graph> graph;
  std::unique_ptr<CudnnPlan> plan;  // null: cuDNN has no plan that fits and passes its trial
  int64_t configuration = 0;        // its place in the heuristic's list
};

void run(const CudnnPlan& plan, const GemmProblem& problem) {
  const DeviceOperand a = device_operand(problem.a);
  const DeviceOperand b = device_operand(problem.b);
  const auto writable = [](const void* memory) { return const_cast<void*>(memory); };
  void* const output = problem.output.data();
  const std::array<int64_t, 7> ids{id_a, id_b, id_a_scales, id_b_scales, id_alpha, id_output, id_sum};
  const std::array<void*, 7> pointers{writable(a.values),
                                      writable(b.values),
                                      writable(a.block_scales),
                                      writable(b.block_scales),
                                      writable(library_alpha(problem.a, problem.b)),
                                      output,
                                      output};
  const size_t count = problem.accumulate ? 7 : 6;
  plan.execute(std::span(ids).first(count), std::span(pointers).first(count), workspace());
}

// Runs the plan, as a trial if that is asked for. Returns what is wrong with the result; empty: nothing is.
std::string first_run(const CudnnPlan& plan, const GemmProblem& problem, Trial trial) {
  if (trial == Trial::first_use) {
    const GemmTile whole{.rows = problem.a.rows, .columns = problem.b.rows};
    return fault_in_trial({.problem = problem, .part = whole, .workspace = workspace()}, [&] { run(plan, problem); });
  }
  run(plan, problem);
  return {};
}

// Makes the plan of the first configuration whose workspace fits ours and whose result is right, and runs it. It is the
// same in every run with the same library.
PlannedGemm make_plan(const CudnnGemmShape& shape, const GemmProblem& problem, Trial trial) {
  PlannedGemm planned;
  const CudnnTarget target = CudnnTarget::this_gpu();
  try {
    planned.graph = std::make_unique<Graph>(shape, target);
    for (const CudnnDescriptor& configuration : cudnn_heuristic_configurations(planned.graph->descriptor(), target)) {
      ++planned.configuration;
      try {
        auto plan = std::make_unique<CudnnPlan>(configuration, target);
        if (plan->workspace_bytes() > workspace_bytes) continue;
        if (const std::string fault = first_run(*plan, problem, trial); !fault.empty()) {
          write_log(LogLevel::warning, cudnn_version_text() + ": configuration " +
                                           std::to_string(planned.configuration) + " is not used for a GEMM " +
                                           std::to_string(shape.m) + " x " + std::to_string(shape.n) + " x " +
                                           std::to_string(shape.k) + ": " + fault + "; the next is tried");
          continue;
        }
        planned.plan = std::move(plan);
        break;
      } catch (const Error& error) {
        if (error.code() != ExitCode::bad_config) throw;
      }
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_config) throw;
  }
  return planned;
}

using PlanKey = std::tuple<int64_t, int64_t, int64_t, DType, bool>;
PlanKey key_of(const CudnnGemmShape& shape) {
  return {shape.m, shape.n, shape.k, shape.output, shape.accumulate};
}
CudnnGemmShape shape_for_cudnn(const GemmProblem& problem) {
  return {problem.a.rows, problem.b.rows, problem.a.inner, problem.output.dtype(), problem.accumulate};
}

// Plans that the self-test uses are not tried, and are not those of the run.
std::map<PlanKey, PlannedGemm>& plans_of(Trial trial) {
  static std::map<PlanKey, PlannedGemm> tried;
  static std::map<PlanKey, PlannedGemm> not_tried;
  return trial == Trial::first_use ? tried : not_tried;
}

class CudnnGemm final : public GemmBackend {
 public:
  std::string refusal(const GemmShape& shape) override;
  bool multiply(const GemmProblem& problem, Trial trial) override;
  std::string description() override { return cudnn_version_text(); }
  std::string algorithm(const GemmProblem& problem) override;
};

std::string CudnnGemm::refusal(const GemmShape& shape) {
  if (shape.a != Format::nvfp4 || shape.b != Format::nvfp4 || shape.outer_scales) {
    return "cuDNN multiplies two nvfp4 operands without outer scales";
  }
  const DeviceProperties& device = device_properties();
  if (device.major < 10) return device.name + " has no FP4 units";
  if (!cudnn_library().available) return cudnn_library().reason;
  if (shape.k % 32 != 0 || shape.n % 8 != 0) {
    return "4-bit GEMMs need k in multiples of 32 and n of 8, not " + std::to_string(shape.k) + " and " +
           std::to_string(shape.n);
  }
  workspace();
  return {};
}

bool CudnnGemm::multiply(const GemmProblem& problem, Trial trial) {
  cpu::check_gemm(problem);
  const CudnnGemmShape shape = shape_for_cudnn(problem);
  auto& plans = plans_of(trial);
  const auto found = plans.find(key_of(shape));
  if (found == plans.end()) {
    return plans.emplace(key_of(shape), make_plan(shape, problem, trial)).first->second.plan != nullptr;
  }
  if (found->second.plan == nullptr) return false;
  run(*found->second.plan, problem);
  return true;
}

std::string CudnnGemm::algorithm(const GemmProblem& problem) {
  const auto& plans = plans_of(Trial::first_use);
  const auto found = plans.find(key_of(shape_for_cudnn(problem)));
  if (found == plans.end()) return "native, no algorithm yet";
  return "native, configuration " + std::to_string(found->second.configuration);
}

}  // namespace

GemmBackend& cudnn_gemm() {
  static CudnnGemm backend;
  return backend;
}

int64_t cudnn_gemm_configurations(const CudnnGemmShape& shape, const std::string& device_json) {
  const CudnnTarget target = CudnnTarget::described(device_json);
  try {
    const Graph graph(shape, target);
    return static_cast<int64_t>(cudnn_heuristic_configurations(graph.descriptor(), target).size());
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_config) throw;
    return 0;
  }
}

}  // namespace nibble::cuda
