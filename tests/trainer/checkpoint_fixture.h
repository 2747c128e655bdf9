// A small training state for tests of checkpoints. Every number is a function of its position.
#pragma once

#include <unistd.h>

#include <bit>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"

namespace nibble::testing_support {

// A directory of this test; the destructor removes it.
class ScratchDirectory {
 public:
  explicit ScratchDirectory(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / (name + "." + std::to_string(getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~ScratchDirectory() { std::filesystem::remove_all(path_); }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Returns a layout in one bucket; the tensors stand at these offsets.
inline Layout layout_of(std::vector<TensorLayout> tensors, uint64_t elements) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    TensorLayout& tensor = tensors[i];
    tensor.tensor_id = static_cast<uint32_t>(i);
    tensor.count = 1;
    for (const int64_t extent : tensor.shape) tensor.count *= static_cast<uint64_t>(extent);
  }
  return {{{.name = "all", .range = {0, elements}}}, std::move(tensors)};
}

constexpr uint64_t small_flat_size = 720;
// Offsets are multiples of 16, as in every Layout, so there are gaps between tensors.
inline const Layout& small_layout() {
  static const Layout layout = layout_of({{.name = "embedding.weight", .shape = {24, 10}, .offset = 0},
                                          {.name = "blocks.0.norm.weight", .shape = {10}, .offset = 240},
                                          {.name = "blocks.0.qkv.weight", .shape = {30, 10}, .offset = 256},
                                          {.name = "blocks.0.conv.weight", .shape = {3, 4, 5}, .offset = 560},
                                          {.name = "head.weight", .shape = {7, 13}, .offset = 624}},
                                         small_flat_size);
  return layout;
}

// Returns the placement in which rank r holds [boundaries[r], boundaries[r+1]) of the logical order.
inline Placement cut_at(const Layout& layout, const std::vector<uint64_t>& boundaries) {
  std::vector<Share> shares;
  for (size_t rank = 0; rank + 1 < boundaries.size(); ++rank) {
    for_each_part(layout.tensors(), {boundaries[rank], boundaries[rank + 1]}, [&](size_t tensor, Range part) {
      const uint64_t offset = layout.tensors()[tensor].offset;
      shares.push_back(
          {static_cast<uint32_t>(tensor), {part.begin - offset, part.end - offset}, {.first = static_cast<int>(rank)}});
    });
  }
  return {layout, static_cast<int>(boundaries.size()) - 1, std::move(shares), Placement::Cuts::anywhere};
}

// checkpoint_h5py.py computes the same numbers. BF16 values have any bits except those of infinities and NaN.
inline float f32_value(uint64_t step, uint64_t group, uint64_t flat) {
  return 0.25f * static_cast<float>(flat) + 1000.0f * static_cast<float>(group) + static_cast<float>(step);
}
inline BFloat16 bf16_value(uint64_t step, uint64_t flat) {
  auto bits = static_cast<uint16_t>(flat * 40503 + step * 977);
  if ((bits & 0x7F80) == 0x7F80) bits = static_cast<uint16_t>(bits & ~0x4000);
  return {bits};
}

// What one rank holds of the state after a step: BF16 parameters and two FP32 moments.
struct Shard {
  uint64_t step;
  const Placement* owned;
  int rank;
  std::vector<BFloat16> parameters;
  std::vector<float> moment_m, moment_v;

  Shard(uint64_t of_step, const Placement& placement, int of_rank)
      : step(of_step),
        owned(&placement),
        rank(of_rank),
        parameters(placement.elements(rank)),
        moment_m(parameters.size()),
        moment_v(parameters.size()) {
    for (const Slice& slice : owned->slices(rank)) {
      const uint64_t flat = owned->layout().tensors()[slice.tensor].offset + slice.elements.begin;
      for (uint64_t i = 0; i < slice.elements.count(); ++i) {
        parameters[slice.at + i] = bf16_value(step, flat + i);
        moment_m[slice.at + i] = f32_value(step, 1, flat + i);
        moment_v[slice.at + i] = f32_value(step, 2, flat + i);
      }
    }
  }

  std::vector<CheckpointArray> arrays() {
    return {shard_array("parameters", tensor(parameters.data(), DType::bf16), *owned, rank),
            shard_array("optimizer/adam_m", tensor(moment_m.data(), DType::f32), *owned, rank),
            shard_array("optimizer/adam_v", tensor(moment_v.data(), DType::f32), *owned, rank)};
  }

  CheckpointState state() {
    CheckpointState state;
    state.step = step;
    state.tokens = step * 4096;
    state.seed = 0xFEDCBA9876543210;
    state.config_yaml = "run:\n  seed: 1\n# step " + std::to_string(step) + "\n";
    state.data = {.fingerprint = "0123abcd",
                  .tokenizer = "00112233445566778899aabbccddeeff",
                  .sequence_length = 256,
                  .next_sample = step * 16,
                  .parts = {{.name = "train", .windows = 1000, .taken = step * 16}}};
    state.optimizers = {{.name = "adamw", .state = {"adam_m", "adam_v"}}};
    state.owned = owned;
    state.arrays = arrays();
    return state;
  }

  friend bool operator==(const Shard& a, const Shard& b) {
    return a.parameters == b.parameters && a.moment_m == b.moment_m && a.moment_v == b.moment_v;
  }

 private:
  Tensor tensor(void* data, DType dtype) const { return {data, dtype, {static_cast<int64_t>(parameters.size())}}; }
};

// The whole small state, as one rank holds it.
inline const Placement& small_placement() {
  static const Placement placement = replicated(small_layout(), 1);
  return placement;
}
inline Shard whole_state(uint64_t step) {
  return {step, small_placement(), 0};
}

// Loads what a rank holds from a checkpoint. The memory is filled with other values before.
inline Shard load_shard(const CheckpointInfo& info, const Placement& placement = small_placement(), int rank = 0) {
  Shard shard(info.step, placement, rank);
  for (BFloat16& value : shard.parameters) value.bits = 0xDEAD;
  for (float& value : shard.moment_m) value = -1.5f;
  for (float& value : shard.moment_v) value = -2.5f;
  for (const CheckpointArray& array : shard.arrays()) load_array(info, placement.layout(), array);
  return shard;
}

}  // namespace nibble::testing_support
