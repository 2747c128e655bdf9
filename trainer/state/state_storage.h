// How a StepState (trainer/state/step_state.h) reaches checkpoints. Both classes are a thin layer over
// trainer/checkpoint/checkpoint.h: a state names what it stores and knows nothing else of the format.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dist/zero/placement.h"
#include "quant/tensor/tensor.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nibble {

class StateWriter {
 public:
  StateWriter(CheckpointState& checkpoint, int rank) : checkpoint_(checkpoint), rank_(rank) {}

  // An array that is the same on every rank, of any dtype and on the CPU; the name is "GROUP/NAME". Its memory must not
  // change before the checkpoint has been saved.
  void replicated(const std::string& name, const Tensor& values);
  // This rank's values for the elements that it owns, as its buffer has them in the placement. Their memory must not
  // change before the checkpoint has been saved.
  void sharded(const std::string& name, const Tensor& shard);
  // A number that is the same on every rank, in the manifest; the name is "GROUP/NAME".
  void number(const std::string& name, uint64_t value);

 private:
  CheckpointState& checkpoint_;
  int rank_;
};

// Functions that read throw ExitCode::bad_data if the checkpoint lacks what is asked for, or holds it in another shape
// or dtype. The checkpoint must outlive the reader.
class StateReader {
 public:
  // For a run that goes on, in which this rank owns what the placement says.
  StateReader(const CheckpointInfo& checkpoint, const Placement& owned, int rank)
      : checkpoint_(checkpoint), owned_(&owned), rank_(rank) {}
  // For a model that does not train on. A state takes what there is: the recipe may be another than the run's.
  explicit StateReader(const CheckpointInfo& checkpoint) : checkpoint_(checkpoint) {}

  uint64_t steps() const { return checkpoint_.step; }
  bool read_only() const { return owned_ == nullptr; }
  // Returns the shape of a replicated array; it is empty if the checkpoint does not have the array.
  std::vector<int64_t> shape_of(const std::string& name) const;
  void replicated(const std::string& name, const Tensor& destination) const;
  void sharded(const std::string& name, const Tensor& shard) const;
  uint64_t number(const std::string& name) const;  // 0 if the checkpoint does not have it
  // Throws ExitCode::bad_data: the checkpoint holds what the state cannot take.
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  const CheckpointInfo& checkpoint_;
  const Placement* owned_ = nullptr;
  int rank_ = 0;
};

}  // namespace nibble
