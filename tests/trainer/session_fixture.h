// A small run for tests of the training session, and a communicator that makes faults on request.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "data/shards/shard.h"
#include "dist/mpi_environment.h"
#include "quant/format/codec.h"
#include "trainer/run/training_session.h"

namespace nibble {

constexpr uint64_t groups = 4;
constexpr uint64_t micro_batches = 8;

// Passes everything on to another communicator. As long as `faults` is not zero, the all_gather of a step's losses
// leaves a NaN on this rank. With a changing payload, no two of these NaNs are equal.
class FaultyCommunicator final : public Communicator {
 public:
  int faults = 0;
  bool changing_payload = false;

  int rank() const override { return communicator().rank(); }
  int size() const override { return communicator().size(); }
  int ranks_on_node() const override { return communicator().ranks_on_node(); }
  void barrier() override { communicator().barrier(); }
  void broadcast(std::span<std::byte> data, int root) override { communicator().broadcast(data, root); }
  void all_gather(std::span<std::byte> data, std::span<const uint64_t> offsets) override {
    communicator().all_gather(data, offsets);
    if (faults == 0 || !holds_losses(data)) return;
    --faults;
    uint64_t bits = std::bit_cast<uint64_t>(std::numeric_limits<double>::quiet_NaN());
    if (changing_payload) bits += static_cast<uint64_t>(faults) + 1;
    std::memcpy(data.data() + 2 * sizeof(double), &bits, sizeof bits);
  }
  void exchange(std::span<const std::span<const std::byte>> send,
                std::span<const std::span<std::byte>> receive) override {
    communicator().exchange(send, receive);
  }
  int machine(int rank) const override { return communicator().machine(rank); }
  std::unique_ptr<SharedMemory> share_memory(size_t bytes) override { return communicator().share_memory(bytes); }
  int64_t all_reduce_max(int64_t value) override { return communicator().all_reduce_max(value); }
  [[noreturn]] void abort(int exit_code) override {
    communicator().abort(exit_code);
    std::abort();
  }

 private:
  // Returns whether the data are the losses of the micro-batches, each with its count of non-finite values. Other data
  // of that size are integers, which look like zeros and subnormal numbers.
  static bool holds_losses(std::span<const std::byte> data) {
    std::array<std::array<double, 2>, micro_batches> values{};
    if (data.size() != sizeof values) return false;
    std::memcpy(values.data(), data.data(), sizeof values);
    return std::ranges::all_of(values, [](const auto& value) { return std::isnormal(value[0]) && value[0] > 0; });
  }
};

// Every rank runs the tests in the same order, and each rank has its own shards with the same content.
class TrainingSessionTest : public testing::Test {
 protected:
  TrainingSessionTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = std::filesystem::temp_directory_path() /
                 (std::string("nibble-session-") + test->name() + "-" + std::to_string(getpid()));
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    ShardHeader format;
    format.vocab_size = 256;
    format.tokenizer = hash128("t");
    ShardWriter writer(directory_ / "train.bin", format);
    std::vector<int32_t> ids(4000);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(1 + (i * i + i / 7) % 255);
    writer.add_document(ids);
    writer.publish();
  }
  ~TrainingSessionTest() override { std::filesystem::remove_all(directory_); }

  // Returns a configuration with eight micro-batches in four groups.
  RunConfig config(const std::vector<std::string>& overrides = {}) const {
    const std::string text = R"(
run: {dir: unused, seed: 5}
recipe: nvfp4
model: {pattern: "*-*-", hidden_size: 32, query_heads: 2, kv_heads: 1, head_dim: 16, intermediate_size: 64,
        sequence_length: 32}
data: {train: )" + (directory_ / "train.bin").string() +
                             R"(}
train: {steps: 50, micro_batch_sequences: 1, tokens_per_step: 256, group_micro_batches: 2}
optimizer: {learning_rate: 3e-3}
)";
    return parse_run_config_text(text, NIBBLE_SOURCE_DIR "/configs/runs/test.yaml", parse_overrides(overrides));
  }

  // Returns all bytes of this rank's state that a checkpoint would hold.
  static std::vector<std::byte> state_bytes(const TrainingSession& session) {
    std::vector<std::byte> bytes;
    const CheckpointState state = session.checkpoint_state(1);
    for (const CheckpointArray& array : state.arrays) {
      for (const Slice& slice : array.slices) {
        const Tensor values = array.bytes_of(state.owned->layout(), slice);
        const auto* data = static_cast<const std::byte*>(values.data());
        bytes.insert(bytes.end(), data, data + values.bytes());
      }
    }
    for (const ReplicatedArray& array : state.replicated) {
      const auto* data = static_cast<const std::byte*>(array.values.data());
      bytes.insert(bytes.end(), data, data + array.values.bytes());
    }
    return bytes;
  }
  // Returns the counts that a checkpoint would hold.
  static SkippedSteps saved_skips(const TrainingSession& session) {
    CheckpointInfo info;
    info.numbers = session.checkpoint_state(1).numbers;
    return {.in_a_row = info.number("skipped/in_a_row"), .total = info.number("skipped/total")};
  }
  static std::vector<float> amax_history(const TrainingSession& session) {
    for (const ReplicatedArray& array : session.checkpoint_state(1).replicated) {
      if (array.name != "quantization/amax_history") continue;
      return {array.values.as<float>(), array.values.as<float>() + array.values.elements()};
    }
    return {};
  }

  // Spoils the same element of a quantised linear layer's weight in every rank's copy of the weights.
  static void spoil_weight(const TrainingSession& session) {
    const CheckpointState state = session.checkpoint_state(1);
    const std::vector<Parameter>& parameters = session.model().parameters().parameters();
    const auto quantised = std::find_if(parameters.begin(), parameters.end(), [](const Parameter& parameter) {
      return parameter.name.find("mlp.gate_up") != std::string::npos;
    });
    ASSERT_NE(quantised, parameters.end());
    state.arrays.front().values.as<BFloat16>()[quantised->offset + 3] =
        bf16_nearest(std::numeric_limits<float>::quiet_NaN());
  }

  FaultyCommunicator faulty_;
  std::filesystem::path directory_;
};

}  // namespace nibble
