// A part of a step that only puts work on the device, launched as one CUDA graph instead of one launch after the other.
// Results are the same: a graph runs the operations that the calls would have launched.
//
// Each call is captured anew, because the operations' arguments (step, micro-batch, operands) change, and the graph of
// the previous call is updated with them; where that is not possible, because the operations differ, the graph is built
// anew. The first call with a key runs without a graph, because libraries allocate their memory then.
#pragma once

#include <map>

#include "dist/device/device_kind.h"

namespace nibble {

class DeviceGraph {
 public:
  // run() just calls its function if `enabled` is false, and on the CPU.
  DeviceGraph(DeviceKind device, bool enabled) : device_(device), enabled_(enabled && device == DeviceKind::cuda) {}
  ~DeviceGraph();
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  // `work` must not wait for the device, nor read what the device computes. Calls that launch different operations need
  // different keys. An exception of `work` is passed on, and then none of the operations has run.
  template <class Work>
  void run(int key, Work&& work) {
    if (!captures(key)) return work();
    begin();
    try {
      work();
    } catch (...) {
      abandon();
      throw;
    }
    launch(key);
  }

 private:
  bool captures(int key) { return enabled_ && !graphs_.emplace(key, nullptr).second; }
  void begin() const;
  void abandon() const;
  void launch(int key);

  DeviceKind device_;
  bool enabled_;
  std::map<int, void*> graphs_;  // by key: the graph that the device runs; null before the second call
};

namespace cuda {
void begin_capture();
void abandon_capture();
// Ends the capture and launches the graph. `graph` is the one of the previous call, or null. Returns the graph for the
// next call.
void* launch_captured(void* graph);
void release_graph(void* graph) noexcept;
}  // namespace cuda

}  // namespace nibble
