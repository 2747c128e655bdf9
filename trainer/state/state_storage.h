// How a StepState (trainer/state/step_state.h) reaches checkpoints. Both classes are a thin layer over
// trainer/checkpoint/checkpoint.h: a state names what it stores and knows nothing else of the format.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quant/tensor/tensor.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nibble {

class StateWriter {
 public:
  explicit StateWriter(CheckpointState& checkpoint) : checkpoint_(checkpoint) {}

  // An array that is the same on every rank, of any dtype and on the CPU; the name is "GROUP/NAME". Its memory must not
  // change before the checkpoint has been saved.
  void replicated(const std::string& name, const Tensor& values);
  // This rank's shard of values that lie as the weights do, one for each element of the flat buffers. Its memory must
  // not change before the checkpoint has been saved.
  void sharded(const std::string& name, const Tensor& shard);
  // A number that is the same on every rank: a member of the manifest.
  void number(const std::string& name, uint64_t value);

 private:
  CheckpointState& checkpoint_;
};

// Functions that read throw ExitCode::bad_data if the checkpoint lacks what is asked for, or holds it in another shape
// or dtype. The checkpoint must outlive the reader.
class StateReader {
 public:
  // For a run that goes on. This rank has elements [begin, end) of the flat buffers in which `tensors` lie.
  StateReader(const CheckpointInfo& checkpoint, std::vector<TensorEntry> tensors, uint64_t begin, uint64_t end)
      : checkpoint_(checkpoint), tensors_(std::move(tensors)), begin_(begin), end_(end) {}
  // For a model that does not train on. A state takes what there is: the recipe may be another than the run's.
  explicit StateReader(const CheckpointInfo& checkpoint) : checkpoint_(checkpoint), read_only_(true) {}

  uint64_t steps() const { return checkpoint_.step; }
  bool read_only() const { return read_only_; }
  // Returns the shape of a replicated array; it is empty if the checkpoint does not have the array.
  std::vector<int64_t> shape_of(const std::string& name) const;
  void replicated(const std::string& name, const Tensor& destination) const;
  void sharded(const std::string& name, const Tensor& shard) const;
  uint64_t number(const std::string& name) const;  // 0 if the checkpoint does not have it
  // Throws ExitCode::bad_data: the checkpoint holds what the state cannot take.
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  const CheckpointInfo& checkpoint_;
  std::vector<TensorEntry> tensors_;
  uint64_t begin_ = 0, end_ = 0;
  bool read_only_ = false;
};

}  // namespace nibble
