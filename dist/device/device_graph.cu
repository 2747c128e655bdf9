#include "dist/device/device_graph.h"

#include "dist/device/launch.cuh"

namespace nibble::cuda {
namespace {

class CapturedGraph {
 public:
  CapturedGraph() { check(cudaStreamEndCapture(compute_stream(), &graph_), "cudaStreamEndCapture"); }
  ~CapturedGraph() { cudaGraphDestroy(graph_); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;
  cudaGraph_t get() const { return graph_; }

 private:
  cudaGraph_t graph_ = nullptr;
};

bool update(cudaGraphExec_t executable, cudaGraph_t graph) {
  cudaGraphExecUpdateResultInfo info{};
  if (cudaGraphExecUpdate(executable, graph, &info) == cudaSuccess) return true;
  cudaGetLastError();  // the operations have changed, which is no failure
  return false;
}

}  // namespace

void begin_capture() {
  check(cudaStreamBeginCapture(compute_stream(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

void abandon_capture() {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(compute_stream(), &graph) == cudaSuccess) cudaGraphDestroy(graph);
  cudaGetLastError();  // the caller reports why the capture was abandoned
}

void* launch_captured(void* graph) {
  const CapturedGraph captured;
  auto* executable = static_cast<cudaGraphExec_t>(graph);
  if (executable != nullptr && !update(executable, captured.get())) {
    release_graph(executable);
    executable = nullptr;
  }
  if (executable == nullptr) check(cudaGraphInstantiate(&executable, captured.get(), 0), "cudaGraphInstantiate");
  check(cudaGraphLaunch(executable, compute_stream()), "cudaGraphLaunch");
  return executable;
}

void release_graph(void* graph) noexcept {
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

}  // namespace nibble::cuda
