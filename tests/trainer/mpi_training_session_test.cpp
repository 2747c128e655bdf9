// A training session with steps that are not finite. A communicator imitates a transient fault of the machine: it
// spoils the losses that the ranks exchange, on one rank and a given number of times. A weight that is NaN imitates a
// persistent problem.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "dist/ranks/self_communicator.h"
#include "quant/format/codec.h"
#include "trainer/session_fixture.h"

namespace nibble {
namespace {

// The test also covers the recipe's state (amax histories).
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

// The history holds applied steps only, the newest first. Scales come from it, so they are one step behind the weights.
TEST_F(TrainingSessionTest, AmaxHistoryIsThatOfTheAppliedSteps) {
  constexpr size_t history = 16;
  TrainingSession session(faulty_, config({"recipe=fp8_delayed"}));
  session.initialize_weights();
  const size_t operands = session.model().linears().size() * operand_roles;
  std::vector<float> before = amax_history(session);
  ASSERT_EQ(before, std::vector<float>(operands * history));
  for (uint64_t step = 0; step < 4; ++step) {
    const Parameter& parameter = session.model().parameters()[session.model().linears()[1]->weight_id()];
    const CheckpointState state = session.checkpoint_state(step);
    float weight_amax = 0;
    for (uint64_t i = parameter.offset; i < parameter.offset + parameter.count; ++i) {
      weight_amax = std::max(weight_amax, std::abs(to_float(state.arrays.front().values.as<BFloat16>()[i])));
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
    const float observed = after[(operand_roles + static_cast<size_t>(OperandRole::forward_w)) * history];
    EXPECT_EQ(observed, weight_amax);
    before = after;
  }
}

class SpoiltWeightTest : public TrainingSessionTest {
 protected:
  static void check(const RunConfig& config) {
    TrainingSession session(communicator(), config);
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
      // A spoilt weight is counted in every step, even if its quantised copy could have been kept.
      EXPECT_GT(result.attempt.non_finite, 0U);
      if (step == 1) non_finite = result.attempt.non_finite;
      EXPECT_EQ(session.guard().skipped(), (SkippedSteps{.in_a_row = step, .total = step}));
      EXPECT_EQ(saved_skips(session), session.guard().skipped());
    }
    EXPECT_EQ(state_bytes(session), before) << "a skipped step has changed weights or moments";
    SelfCommunicator self;
    TrainingSession alone(self, config);
    alone.initialize_weights();
    alone.train_step(0);
    spoil_weight(alone);
    EXPECT_EQ(alone.train_step(1).attempt.non_finite, non_finite) << "the count depends on the number of ranks";
  }
};

TEST_F(SpoiltWeightTest, HasTheSameBitsTwiceAndIsSkipped) {
  check(config());
}

// With one group and several ranks, micro-batches are dealt out.
TEST_F(SpoiltWeightTest, IsCountedAlikeInStripes) {
  check(config({"train.group_micro_batches=8"}));
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

  // All ranks save to rank 0's directory, and load from it.
  const std::filesystem::path run = broadcast_string(communicator(), (directory_ / "run").string(), 0);
  save_checkpoint(communicator(), run, session.checkpoint_state(3));
  const CheckpointInfo saved = find_checkpoint(communicator(), run);
  EXPECT_EQ(saved.number("skipped/in_a_row"), 1U);
  EXPECT_EQ(saved.number("skipped/total"), 2U);
  TrainingSession resumed(faulty_, config({"guard.skip_total=2"}));
  resumed.load(saved);
  EXPECT_EQ(resumed.train_step(3).decision, StepDecision::apply);
  EXPECT_EQ(skip_one(resumed, 4), StepDecision::give_up);
  EXPECT_EQ(resumed.guard().skipped(), (SkippedSteps{.in_a_row = 1, .total = 3}));
  communicator().barrier();  // keeps rank 0's directory until all ranks have read it
}

}  // namespace
}  // namespace nibble
