// A stretch of a step that only puts work on the device, handed over as one CUDA graph instead of one launch after the
// other. Results are the same: a graph runs the operations that a call would have launched.
//
// Each call is captured anew, since the operations' arguments (step, micro-batch, operands) change, and the graph made
// for the calls before it is brought up to date; where that is not possible, because there are other operations, it is
// made anew. The first call of a key runs without a graph: libraries take their memory then.
#pragma once

#include <map>

#include "dist/device/dispatch.h"

namespace nibble {

class DeviceGraph {
 public:
  // Where `enabled` is false, and on the CPU, run() just calls.
  DeviceGraph(DeviceKind device, bool enabled) : device_(device), enabled_(enabled && device == DeviceKind::cuda) {}
  ~DeviceGraph();
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  // `work` must not wait for the device, nor read what the device computes. Calls with other operations have another
  // key. What work throws is passed on, and then nothing has run.
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
  std::map<int, void*> graphs_;  // by key: what the device runs; null before the second call
};

namespace cuda {
void begin_capture();
void abandon_capture();
// Ends the capture and runs it. `graph`: of the call before, or null. Returns the one for the next.
void* launch_captured(void* graph);
void release_graph(void* graph) noexcept;
}  // namespace cuda

}  // namespace nibble
