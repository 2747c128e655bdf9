#include "dist/device/device_graph.h"

#include "dist/device/dispatch.h"

namespace nibble {
namespace cpu {
namespace {

// These functions are never reached: on the CPU nothing is captured.
void begin_capture() {}
void abandon_capture() {}
void* launch_captured(void* graph) {
  return graph;
}
void release_graph(void* /*graph*/) {}

}  // namespace
}  // namespace cpu

DeviceGraph::~DeviceGraph() {
  for (const auto& [key, graph] : graphs_) {
    if (graph != nullptr) NIBBLE_DISPATCH(device_, release_graph, graph);
  }
}

void DeviceGraph::begin() const {
  NIBBLE_DISPATCH(device_, begin_capture, );
}

void DeviceGraph::abandon() const {
  NIBBLE_DISPATCH(device_, abandon_capture, );
}

void DeviceGraph::launch(int key) {
  void*& graph = graphs_[key];
  graph = NIBBLE_DISPATCH(device_, launch_captured, graph);
}

}  // namespace nibble
