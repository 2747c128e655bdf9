// A tensor of a checkpoint of nibble as an array. HDF5 validates little of what it reads, so it opens a file only after
// the file's hash has been compared with the checkpoint's manifest; other HDF5 files are refused.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/arrays/stored_array.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hdf5_file.h"

namespace nibble {

namespace {

// One array of a checkpoint, by the name of the dataset that shows it in index.h5.
struct Dataset {
  std::string name;  // "parameters/blocks.1.mlp.down.weight"
  std::vector<int64_t> shape;
  DType dtype = DType::f32;
  const ArrayInfo* array = nullptr;  // null: the array is the same on all ranks
  uint32_t tensor = 0;               // index in the checkpoint's layout
};

std::vector<Dataset> datasets_of(const CheckpointInfo& checkpoint) {
  std::vector<Dataset> datasets;
  const std::vector<TensorLayout>& tensors = checkpoint.layout.tensors();
  for (const ArrayInfo& array : checkpoint.arrays) {
    for (uint32_t i = 0; i < tensors.size(); ++i) {
      if (!array.covers(tensors[i])) continue;
      datasets.push_back(
          {array.name + "/" + tensors[i].name, array.shape_of(tensors[i]), array.dtype_of(tensors[i]), &array, i});
    }
  }
  for (const CheckpointInfo::Replicated& array : checkpoint.replicated) {
    datasets.push_back({array.name, array.shape, array.dtype});
  }
  return datasets;
}

Dataset find_dataset(const CheckpointInfo& checkpoint, const std::filesystem::path& path, std::string_view name) {
  if (name.starts_with('/')) name.remove_prefix(1);
  const std::vector<Dataset> datasets = datasets_of(checkpoint);
  const auto found = std::find_if(datasets.begin(), datasets.end(), [&](const auto& own) { return own.name == name; });
  if (found != datasets.end()) return *found;
  std::vector<std::string> names;
  names.reserve(datasets.size());
  for (const Dataset& dataset : datasets) names.push_back(dataset.name);
  const std::string content = fmt::format("the checkpoint holds {}", listed(names, names.size()));
  if (name.empty()) {
    throw Error(ExitCode::usage, fmt::format("{}: no tensor is named; {}", path.string(), content),
                fmt::format("name one: {}:GROUP/TENSOR", path.string()));
  }
  throw Error(ExitCode::missing_input,
              fmt::format("{}: there is no such tensor; {}", location_text(path, name), content),
              "check the tensor's name");
}

StoredDType stored_dtype_of(const Dataset& dataset, const std::string& location) {
  if (dataset.dtype == DType::f32) return StoredDType::f32;
  if (dataset.dtype == DType::bf16) return StoredDType::bf16;
  fail_array(location, fmt::format("its elements are {}, not BF16 or FP32", name_of(dataset.dtype)),
             "name another tensor");
}

void read_dataset(const CheckpointInfo& checkpoint, const Dataset& dataset, std::span<std::byte> target) {
  if (dataset.array != nullptr) {
    const Range all{0, checkpoint.layout.tensors()[dataset.tensor].count};
    load_elements(checkpoint, *dataset.array, dataset.tensor, all, target);
    return;
  }
  const size_t slash = dataset.name.rfind('/');
  Hdf5Reader(checkpoint.directory / checkpoint.rank_files.front().name)
      .read_slice({.group = dataset.name.substr(0, slash),
                   .name = dataset.name.substr(slash + 1),
                   .dtype = dataset.dtype,
                   .shape = dataset.shape,
                   .offset = 0,
                   .count = target.size() / size_of(dataset.dtype)},
                  0, target);
}

// A checkpoint's own names are index.h5 and rank-00000.h5, beside a manifest.
bool is_of_checkpoint(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  std::error_code ignored;
  return (name == "index.h5" || name.starts_with("rank-")) &&
         std::filesystem::exists(path.parent_path() / "manifest.json", ignored);
}

}  // namespace

LoadedArray load_checkpoint_array(const std::filesystem::path& path, const std::string& name) {
  const InputFile exists(path);
  if (!is_of_checkpoint(path)) {
    fail_array(path.string(), "of HDF5 files, only those of nibble's checkpoints are read",
               fmt::format("convert the dataset: python3 -c 'import sys, h5py, numpy; numpy.save(sys.argv[3], "
                           "h5py.File(sys.argv[1])[sys.argv[2]][()])' {} {} {}.npy",
                           path.string(), name.empty() ? "DATASET" : name, path.stem().string()));
  }
  SelfCommunicator communicator;
  const std::filesystem::path directory = path.has_parent_path() ? path.parent_path() : ".";
  const CheckpointInfo checkpoint = open_checkpoint(communicator, directory);
  const Dataset dataset = find_dataset(checkpoint, path, name);
  StoredArray array;
  array.location = location_text(path, dataset.name);
  array.name = dataset.name;
  array.shape.assign(dataset.shape.begin(), dataset.shape.end());
  array.type = stored_dtype_of(dataset, array.location);
  return read_stored(array, [&](std::span<std::byte> target) { read_dataset(checkpoint, dataset, target); });
}

}  // namespace nibble
