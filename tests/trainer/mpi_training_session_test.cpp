// What a training session does with a step that is not finite. A transient fault of the machine is played by a
// communicator that spoils, on one rank and a given number of times, the losses that the ranks exchange; a persistent
// problem by a weight that is not a number.
#include "trainer/training_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>

#include "data/shard.h"
#include "dist/mpi_environment.h"
#include "dist/self_communicator.h"
#include "quant/codec.h"

namespace nibble {
namespace {

const auto* const environment = testing::AddGlobalTestEnvironment(new MpiEnvironment({.timeout_s = 60}));

constexpr size_t groups = 4;

// Passes everything on. While `faults` lasts, an all_gather of `groups` doubles, which is that of a step's losses,
// leaves a NaN on this rank; with changing payload, no two are the same.
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
    const bool losses = data.size() == groups * sizeof(double) && ++gathered_ % 2 == 1;  // then the counts
    if (!losses || faults == 0) return;
    --faults;
    uint64_t bits = std::bit_cast<uint64_t>(std::numeric_limits<double>::quiet_NaN());
    if (changing_payload) bits += static_cast<uint64_t>(faults) + 1;
    std::memcpy(data.data() + sizeof(double), &bits, sizeof bits);
  }
  void all_to_all(std::span<const std::byte> send, std::span<const uint64_t> send_offsets, std::span<std::byte> receive,
                  std::span<const uint64_t> receive_offsets) override {
    communicator().all_to_all(send, send_offsets, receive, receive_offsets);
  }
  int64_t all_reduce_max(int64_t value) override { return communicator().all_reduce_max(value); }
  [[noreturn]] void abort(int exit_code) override {
    communicator().abort(exit_code);
    std::abort();
  }

 private:
  int gathered_ = 0;
};

// Every test runs in the same order on every rank, each rank on shards of its own with the same content.
class TrainingSessionTest : public testing::Test {
 protected:
  TrainingSessionTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    directory_ = std::filesystem::temp_directory_path() /
                 (std::string("nibble-session-") + test->name() + "-rank-" + std::to_string(communicator().rank()) +
                  "-of-" + std::to_string(communicator().size()));
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

  // Eight micro-batches in four groups.
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
    return parse_run_config_text(text, std::string(NIBBLE_SOURCE_DIR) + "/configs/runs/test.yaml", overrides);
  }

  // Everything that a checkpoint would hold of the state, on this rank.
  static std::vector<std::byte> state_bytes(const TrainingSession& session) {
    std::vector<std::byte> bytes;
    for (const StateBuffer& buffer : session.checkpoint_state(1).buffers) {
      const auto* data = static_cast<const std::byte*>(buffer.shard.data());
      bytes.insert(bytes.end(), data, data + buffer.shard.bytes());
    }
    for (const ReplicatedArray& array : session.checkpoint_state(1).replicated) {
      const auto* data = static_cast<const std::byte*>(array.values.data());
      bytes.insert(bytes.end(), data, data + array.values.bytes());
    }
    return bytes;
  }
  static std::vector<float> amax_history(const TrainingSession& session) {
    for (const ReplicatedArray& array : session.checkpoint_state(1).replicated) {
      if (array.name != "quantization/amax_history") continue;
      return {array.values.as<float>(), array.values.as<float>() + array.values.elements()};
    }
    return {};
  }

  // The same element of a quantised linear layer's weight in every rank's copy of the weights.
  static void spoil_weight(const TrainingSession& session) {
    const CheckpointState state = session.checkpoint_state(1);
    const std::vector<Parameter>& parameters = session.model().parameters().parameters();
    const auto quantised = std::find_if(parameters.begin(), parameters.end(), [](const Parameter& parameter) {
      return parameter.name.find("mlp.gate_up") != std::string::npos;
    });
    ASSERT_NE(quantised, parameters.end());
    auto* weights = state.buffers.front().shard.as<BFloat16>() - state.shard_begin;  // the shard is a view
    weights[quantised->offset + 3] = bf16_nearest(std::numeric_limits<float>::quiet_NaN());
  }

  FaultyCommunicator faulty_;
  std::filesystem::path directory_;
};

// The recipe's own state, too: amax histories.
TEST_F(TrainingSessionTest, TransientFaultOnOneRankIsComputedAgainByAllAndLeavesNoTrace) {
  const RunConfig delayed = config({"recipe=fp8_delayed"});
  TrainingSession clean(communicator(), delayed);
  TrainingSession session(faulty_, delayed);
  clean.initialize_weights();
  session.initialize_weights();
  for (uint64_t step = 0; step < 4; ++step) {
    const bool last_rank = communicator().rank() == communicator().size() - 1;
    faulty_.faults = step == 2 && last_rank ? 1 : 0;
    const StepResult expected = clean.train_step(step);
    const StepResult result = session.train_step(step);
    ASSERT_EQ(result.decision, StepDecision::apply);
    EXPECT_EQ(result.first.has_value(), step == 2);
    EXPECT_FALSE(expected.first.has_value());
    EXPECT_EQ(result.attempt.loss, expected.attempt.loss);
    EXPECT_EQ(result.attempt.grad_norm, expected.attempt.grad_norm);
    if (!result.first) continue;
    EXPECT_FALSE(result.first->finite);
    EXPECT_FALSE(result.same_bits);
    EXPECT_EQ(std::isnan(result.first->loss), last_rank);
  }
  EXPECT_EQ(state_bytes(session), state_bytes(clean));
  EXPECT_EQ(session.guard().skipped(), SkippedSteps());
}

// Applied steps only, newest first. Scales come from it: they lag one step behind the weights.
TEST_F(TrainingSessionTest, AmaxHistoryIsThatOfTheAppliedSteps) {
  constexpr size_t history = 16;
  TrainingSession session(faulty_, config({"recipe=fp8_delayed"}));
  session.initialize_weights();
  const size_t operands = session.model().linear_names().size() * operand_roles;
  std::vector<float> before = amax_history(session);
  ASSERT_EQ(before, std::vector<float>(operands * history));
  for (uint64_t step = 0; step < 4; ++step) {
    const Parameter& parameter = session.model().parameters()[session.model().linear_weights()[1]];
    // This rank's part of the weights is enough where it is alone.
    const CheckpointState state = session.checkpoint_state(step);
    float weight_amax = 0;
    for (uint64_t i = parameter.offset; i < parameter.offset + parameter.count; ++i) {
      if (i < state.shard_begin || i >= state.shard_end) continue;
      weight_amax =
          std::max(weight_amax, std::abs(to_float(state.buffers.front().shard.as<BFloat16>()[i - state.shard_begin])));
    }
    faulty_.faults = step == 2 ? 2 : 0;
    const bool applied = session.train_step(step).decision == StepDecision::apply;
    EXPECT_EQ(applied, step != 2);
    const std::vector<float> after = amax_history(session);
    if (!applied) {
      EXPECT_EQ(after, before);
      continue;
    }
    for (size_t operand = 0; operand < operands; ++operand) {
      const bool head = operand >= operands - operand_roles;  // bf16
      EXPECT_EQ(after[operand * history] > 0, !head) << operand;
      for (size_t i = 1; i < history; ++i) ASSERT_EQ(after[operand * history + i], before[operand * history + i - 1]);
    }
    const float met = after[(operand_roles + static_cast<size_t>(OperandRole::forward_w)) * history];
    if (communicator().size() == 1) {
      EXPECT_EQ(met, weight_amax);
    } else {
      EXPECT_GE(met, weight_amax);
    }
    before = after;
  }
}

TEST_F(TrainingSessionTest, PersistentProblemHasTheSameBitsTwiceAndIsSkipped) {
  TrainingSession session(communicator(), config());
  session.initialize_weights();
  session.train_step(0);
  spoil_weight(session);
  const std::vector<std::byte> before = state_bytes(session);
  uint64_t non_finite = 0;
  for (uint64_t step = 1; step <= 4; ++step) {
    const StepResult result = session.train_step(step);
    EXPECT_EQ(result.decision, step <= 3 ? StepDecision::skip : StepDecision::give_up);
    ASSERT_TRUE(result.first.has_value());
    EXPECT_TRUE(result.same_bits);
    EXPECT_FALSE(result.attempt.finite);
    // A spoilt weight is counted in every step, also where its quantised copy could have been kept.
    EXPECT_GT(result.attempt.non_finite, 0U);
    if (step == 1) non_finite = result.attempt.non_finite;
    EXPECT_EQ(session.guard().skipped(), (SkippedSteps{.in_a_row = step, .total = step}));
    EXPECT_EQ(session.checkpoint_state(step).skipped, session.guard().skipped());
  }
  EXPECT_EQ(state_bytes(session), before) << "a skipped step has changed weights or moments";
  SelfCommunicator self;
  TrainingSession alone(self, config());
  alone.initialize_weights();
  alone.train_step(0);
  spoil_weight(alone);
  EXPECT_EQ(alone.train_step(1).attempt.non_finite, non_finite) << "the count depends on the number of ranks";
}

TEST_F(TrainingSessionTest, TwoFaultsWithOtherBitsAreToldApart) {
  TrainingSession session(faulty_, config());
  session.initialize_weights();
  faulty_.changing_payload = true;
  faulty_.faults = communicator().rank() == 0 ? 2 : 0;
  const StepResult result = session.train_step(0);
  EXPECT_EQ(result.decision, StepDecision::skip);
  EXPECT_FALSE(result.same_bits);
  EXPECT_EQ(session.train_step(1).decision, StepDecision::apply);
  EXPECT_EQ(session.guard().skipped(), (SkippedSteps{.in_a_row = 0, .total = 1}));
}

TEST_F(TrainingSessionTest, BudgetOfTheWholeRunIsRestored) {
  TrainingSession session(faulty_, config({"guard.skip_total=2"}));
  session.initialize_weights();
  const auto skip_one = [&](TrainingSession& of, uint64_t step) {
    faulty_.faults = 2;
    const StepDecision decision = of.train_step(step).decision;
    faulty_.faults = 0;
    return decision;
  };
  EXPECT_EQ(skip_one(session, 0), StepDecision::skip);
  EXPECT_EQ(session.train_step(1).decision, StepDecision::apply);
  EXPECT_EQ(skip_one(session, 2), StepDecision::skip);

  // All ranks save where rank 0 says, and load what was saved.
  const std::filesystem::path run = broadcast_string(communicator(), (directory_ / "run").string(), 0);
  save_checkpoint(communicator(), run, session.checkpoint_state(3));
  const CheckpointInfo saved = find_checkpoint(communicator(), run);
  EXPECT_EQ(saved.skipped, (SkippedSteps{.in_a_row = 1, .total = 2}));
  TrainingSession resumed(faulty_, config({"guard.skip_total=2"}));
  resumed.load(saved);
  EXPECT_EQ(resumed.train_step(3).decision, StepDecision::apply);
  EXPECT_EQ(skip_one(resumed, 4), StepDecision::give_up);
  EXPECT_EQ(resumed.guard().skipped(), (SkippedSteps{.in_a_row = 1, .total = 3}));
  communicator().barrier();  // rank 0's directory is read until here
}

}  // namespace
}  // namespace nibble
