// What a checkpoint holds: arrays of values for the elements of a Layout's tensors, of which each rank writes what it
// owns, and small arrays that are the same on every rank. checkpoint.h saves and loads them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/data_position.h"
#include "dist/zero/placement.h"
#include "quant/tensor/tensor.h"

namespace nibble {

constexpr std::string_view weights_array_name = "parameters";

// An array with values for the elements of tensors: weights, moments, paths.
struct ArrayInfo {
  std::string name = {};            // "parameters", "optimizer/adam_m"; names the groups in which HDF5 has it
  DType dtype = DType::f32;         // weights have the dtype of each tensor's width instead
  uint64_t elements_a_value = 1;    // element e of a tensor has value number e / elements_a_value of the tensor
  std::vector<Range> tensors = {};  // ids of the tensors that have values; empty: all have

  bool covers(const TensorLayout& tensor) const;
  DType dtype_of(const TensorLayout& tensor) const;
  // Returns the values that elements of a tensor have.
  Range values_of(Range elements) const;
  // Returns the shape of a tensor's values: the tensor's own if every element has one.
  std::vector<int64_t> shape_of(const TensorLayout& tensor) const;
};

// This rank's values of an array.
struct CheckpointArray : ArrayInfo {
  Tensor values = {};  // one axis; of the array's dtype, or u8: the bytes of weights of several widths
  // What the rank has of the tensors that the array covers, in order; `at` counts elements of `values`.
  std::vector<Slice> slices = {};

  // Returns the memory of a slice's values as a tensor of bytes.
  Tensor bytes_of(const Layout& layout, const Slice& slice) const;
};
// Values that lie as the rank's buffer does in a placement, one for each element.
CheckpointArray shard_array(std::string name, const Tensor& shard, const Placement& owned, int rank);
// The rank's slices of weights that lie whole in one buffer (allocate_weights()).
CheckpointArray weights_array(const Tensor& weights, const Placement& owned, int rank);
// All of them.
CheckpointArray weights_array(const Tensor& weights, const Layout& layout);

// Numbers that are the same on every rank. They are stored once, in the first rank's file.
struct ReplicatedArray {
  std::string name;  // "quantization/amax_history": a group and a name
  Tensor values;     // on the CPU, 1 to 4 axes, none of them empty
};

// A number that is the same on every rank. The manifest has it as member NAME of the object GROUP.
struct NamedNumber {
  std::string name;  // "GROUP/NAME"; no other member of the manifest is called GROUP
  uint64_t value = 0;
  friend bool operator==(const NamedNumber&, const NamedNumber&) = default;
};

// A data set that a run has read, and where it stands in it.
struct DataPart {
  std::string name = {};
  double weight = 1;           // its share of the samples
  uint64_t windows = 0;        // in one epoch
  uint64_t taken = 0;          // samples of the whole run
  uint64_t tokens = 0;         // in these samples
  bool used = true;            // false: the run has gone on with other data (resume.allow)
  DataPosition position = {};  // its `lengths` are empty if an older version saved the checkpoint
};
struct DataState {
  std::string fingerprint = {};
  std::string tokenizer = {};  // 32 digits, as in the shards' header; zeros: the shards do not say; empty: not known
  uint64_t sequence_length = 0;
  uint64_t next_sample = 0;  // samples read so far in the whole run; the parts have taken so many together
  std::vector<DataPart> parts = {};
};

// How the run that saved was divided among its ranks; a reader needs none of it.
struct ParallelInfo {
  std::string shard = "optimizer";  // what each rank holds a part of
  std::string order = "rows";       // how it computed micro-batches: Schedule::Order
};

// An optimizer of the run and its state arrays; "adam_m" stands for the array "optimizer/adam_m".
struct OptimizerInfo {
  std::string name = {};
  std::vector<std::string> state = {};
};
constexpr std::string_view optimizer_prefix = "optimizer/";

// What a checkpoint says of its run.
struct RunFacts {
  uint64_t step = 0;
  uint64_t tokens = 0;  // trained on
  uint64_t seed = 0;
  std::string config_yaml = {};  // resolved
  DataState data = {};
  ParallelInfo parallel = {};
  std::vector<OptimizerInfo> optimizers = {};
  std::vector<NamedNumber> numbers = {};
};

struct CheckpointState : RunFacts {
  // Which rank writes what; every element has one owner. It must outlive the state, and its layout is the tensors'.
  const Placement* owned = nullptr;
  std::vector<CheckpointArray> arrays = {};  // the same in the same order on every rank, but for values and slices
  std::vector<ReplicatedArray> replicated = {};
};

struct CheckpointInfo : RunFacts {
  struct Replicated {
    std::string name;
    std::vector<int64_t> shape;
    DType dtype = DType::f32;
  };
  struct RankFile {
    std::string name;
    std::vector<Range> ranges;  // of the logical order; ascending, apart from each other
  };

  std::filesystem::path directory;
  int format_version =
      0;          // 1: data.next_sample, sequence_length and tokenizer are what complete_version_1() could find
  int ranks = 0;  // number of ranks of the run that saved
  std::string nibble_version;
  std::string commit;
  Layout layout;  // of the run that saved; in one bucket
  std::vector<ArrayInfo> arrays;
  std::vector<RankFile> rank_files;
  std::vector<Replicated> replicated;

  // Returns 0 if there is no such number.
  uint64_t number(std::string_view name) const;
  // Return null if there is no such array.
  const ArrayInfo* find_array(std::string_view name) const;
  const Replicated* find_replicated(std::string_view name) const;
};

}  // namespace nibble
