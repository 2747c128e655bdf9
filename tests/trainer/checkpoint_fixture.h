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

// The tensors' offsets are multiples of 16, as in a ParameterTable, so there are gaps between tensors.
inline std::vector<TensorEntry> small_tensors() {
  return {{"embedding.weight", {24, 10}, 0, 240},
          {"blocks.0.norm.weight", {10}, 240, 10},
          {"blocks.0.qkv.weight", {30, 10}, 256, 300},
          {"blocks.0.conv.weight", {3, 4, 5}, 560, 60},
          {"head.weight", {7, 13}, 624, 91}};
}
constexpr uint64_t small_flat_size = 720;

// checkpoint_h5py.py computes the same numbers. BF16 values have any bits except those of infinities and NaN.
inline float f32_value(uint64_t step, uint64_t group, uint64_t flat) {
  return 0.25f * static_cast<float>(flat) + 1000.0f * static_cast<float>(group) + static_cast<float>(step);
}
inline BFloat16 bf16_value(uint64_t step, uint64_t flat) {
  auto bits = static_cast<uint16_t>(flat * 40503 + step * 977);
  if ((bits & 0x7F80) == 0x7F80) bits = static_cast<uint16_t>(bits & ~0x4000);
  return {bits};
}

inline bool in_gap(const std::vector<TensorEntry>& tensors, uint64_t flat) {
  for (const TensorEntry& tensor : tensors) {
    if (flat >= tensor.offset && flat < tensor.offset + tensor.count) return false;
  }
  return true;
}

// The elements [begin, end) of the flat buffers of one step: BF16 parameters and two FP32 moments.
struct Shard {
  uint64_t step, begin, end;
  std::vector<TensorEntry> tensors;
  std::vector<BFloat16> parameters;
  std::vector<float> moment_m, moment_v;

  Shard(uint64_t shard_step, uint64_t shard_begin, uint64_t shard_end,
        const std::vector<TensorEntry>& entries = small_tensors())
      : step(shard_step), begin(shard_begin), end(shard_end), tensors(entries) {
    for (uint64_t flat = begin; flat < end; ++flat) {
      const bool gap = in_gap(tensors, flat);
      parameters.push_back(gap ? BFloat16{} : bf16_value(step, flat));
      moment_m.push_back(gap ? 0.0f : f32_value(step, 1, flat));
      moment_v.push_back(gap ? 0.0f : f32_value(step, 2, flat));
    }
  }

  CheckpointState state() {
    const auto count = static_cast<int64_t>(end - begin);
    CheckpointState state;
    state.step = step;
    state.tokens = step * 4096;
    state.seed = 0xFEDCBA9876543210;
    state.config_yaml = "run:\n  seed: 1\n# step " + std::to_string(step) + "\n";
    state.data_fingerprint = "0123abcd";
    state.tensors = tensors;
    state.buffers = {{"parameters", Tensor(parameters.data(), DType::bf16, {count})},
                     {"optimizer/adam_m", Tensor(moment_m.data(), DType::f32, {count})},
                     {"optimizer/adam_v", Tensor(moment_v.data(), DType::f32, {count})}};
    state.shard_begin = begin;
    state.shard_end = end;
    return state;
  }

  friend bool operator==(const Shard& a, const Shard& b) {
    return a.parameters == b.parameters && a.moment_m == b.moment_m && a.moment_v == b.moment_v;
  }
};

// Loads the elements [begin, end) from a checkpoint. The memory is filled with other values before.
inline Shard load_shard(const CheckpointInfo& info, uint64_t begin, uint64_t end,
                        const std::vector<TensorEntry>& tensors = small_tensors()) {
  Shard shard(info.step, begin, end, tensors);
  for (BFloat16& value : shard.parameters) value.bits = 0xDEAD;
  for (float& value : shard.moment_m) value = -1.5f;
  for (float& value : shard.moment_v) value = -2.5f;
  for (const StateBuffer& buffer : shard.state().buffers) {
    load_buffer(info, buffer.group, tensors, begin, end, buffer.shard);
  }
  return shard;
}

}  // namespace nibble::testing_support
