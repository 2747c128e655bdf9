// Compares the guard with a literal program of its rules, for every sequence of outcomes.
#include "trainer/state/step_guard.h"

#include <gtest/gtest.h>

#include <vector>

namespace nibble {
namespace {

// Makes the guard go on after the 100 steps of a checkpoint.
void restore(StepGuard& guard, const SkippedSteps& skipped) {
  CheckpointInfo checkpoint;
  checkpoint.step = 100;
  checkpoint.numbers = {{"skipped/in_a_row", skipped.in_a_row}, {"skipped/total", skipped.total}};
  guard.load(StateReader(checkpoint));
}

TEST(StepGuard, FiniteStepsAreAppliedAtOnce) {
  StepGuard guard({.in_a_row = 0, .total = 0});
  for (int step = 0; step < 100; ++step) EXPECT_EQ(guard.after_attempt(true), StepDecision::apply);
  EXPECT_EQ(guard.skipped(), SkippedSteps());
}

TEST(StepGuard, TransientFaultsCostNothingOfTheBudget) {
  StepGuard guard({.in_a_row = 0, .total = 0});
  for (int step = 0; step < 100; ++step) {
    EXPECT_EQ(guard.after_attempt(false), StepDecision::retry);
    EXPECT_EQ(guard.after_attempt(true), StepDecision::apply);
  }
  EXPECT_EQ(guard.skipped(), SkippedSteps());
}

TEST(StepGuard, AStepIsRetriedOnceThenSkipped) {
  StepGuard guard({.in_a_row = 1, .total = 9});
  EXPECT_EQ(guard.after_attempt(false), StepDecision::retry);
  EXPECT_EQ(guard.after_attempt(false), StepDecision::skip);
  EXPECT_EQ(guard.skipped(), (SkippedSteps{.in_a_row = 1, .total = 1}));
  EXPECT_EQ(guard.after_attempt(false), StepDecision::retry);
  EXPECT_EQ(guard.after_attempt(false), StepDecision::give_up);
  EXPECT_EQ(guard.skipped(), (SkippedSteps{.in_a_row = 2, .total = 2}));
}

TEST(StepGuard, ABudgetOfNoneEndsTheRunAtTheFirstSkip) {
  StepGuard guard({.in_a_row = 0, .total = 5});
  EXPECT_EQ(guard.after_attempt(false), StepDecision::retry);
  EXPECT_EQ(guard.after_attempt(false), StepDecision::give_up);
}

TEST(StepGuard, RestoredCountsGoOn) {
  StepGuard row({.in_a_row = 3, .total = 20});
  restore(row, {.in_a_row = 3, .total = 3});
  row.after_attempt(false);
  EXPECT_EQ(row.after_attempt(false), StepDecision::give_up);
  StepGuard total({.in_a_row = 3, .total = 20});
  restore(total, {.in_a_row = 0, .total = 20});
  EXPECT_EQ(total.after_attempt(true), StepDecision::apply);
  total.after_attempt(false);
  EXPECT_EQ(total.after_attempt(false), StepDecision::give_up);
  EXPECT_EQ(total.skipped(), (SkippedSteps{.in_a_row = 1, .total = 21}));
  // A budget that is lowered below the number of skipped steps ends the run at the next skip, not before.
  StepGuard lowered({.in_a_row = 1, .total = 1});
  restore(lowered, {.in_a_row = 0, .total = 7});
  EXPECT_EQ(lowered.after_attempt(true), StepDecision::apply);
  lowered.after_attempt(false);
  EXPECT_EQ(lowered.after_attempt(false), StepDecision::give_up);
}

TEST(StepGuard, CountsAreSavedAndImpossibleOnesRefused) {
  StepGuard guard({.in_a_row = 3, .total = 20});
  restore(guard, {.in_a_row = 1, .total = 7});
  guard.after_attempt(false);
  guard.after_attempt(false);
  CheckpointState state;
  StateWriter writer(state, 0);
  guard.save(101, writer);
  EXPECT_EQ(state.numbers, (std::vector<NamedNumber>{{"skipped/in_a_row", 2}, {"skipped/total", 8}}));
  guard.load(StateReader(CheckpointInfo{}));  // an older checkpoint has no counts
  EXPECT_EQ(guard.skipped(), SkippedSteps());
  EXPECT_THROW(restore(guard, {.in_a_row = 2, .total = 1}), Error);
  EXPECT_THROW(restore(guard, {.in_a_row = 0, .total = 101}), Error);
}

// Tests every run of eight steps, each finite, transiently or persistently not finite, with every small budget.
TEST(StepGuard, EverySequenceFollowsTheRules) {
  enum Step : int { finite, transient, persistent, kinds };
  constexpr int steps = 8;
  int sequences = 1;
  for (int i = 0; i < steps; ++i) sequences *= kinds;
  int ended = 0;
  for (uint64_t budget = 0; budget < 16; ++budget) {
    const SkipBudget limits{.in_a_row = budget % 4, .total = budget / 4};
    for (int sequence = 0; sequence < sequences; ++sequence) {
      StepGuard guard(limits);
      std::vector<int> done;
      for (int step = 0, rest = sequence; step < steps; ++step, rest /= kinds) {
        const int kind = rest % kinds;
        done.push_back(kind);
        StepDecision decision = guard.after_attempt(kind == finite);
        if (kind != finite) {
          ASSERT_EQ(decision, StepDecision::retry);
          decision = guard.after_attempt(kind == transient);
        }
        uint64_t total = 0;
        uint64_t in_a_row = 0;
        for (const int earlier : done) {
          total += earlier == persistent ? 1 : 0;
          in_a_row = earlier == persistent ? in_a_row + 1 : 0;
        }
        ASSERT_EQ(guard.skipped(), (SkippedSteps{.in_a_row = in_a_row, .total = total}));
        if (kind != persistent) {
          ASSERT_EQ(decision, StepDecision::apply);
          continue;
        }
        const bool over = in_a_row > limits.in_a_row || total > limits.total;
        ASSERT_EQ(decision, over ? StepDecision::give_up : StepDecision::skip);
        if (!over) continue;
        ++ended;
        break;
      }
    }
  }
  EXPECT_GT(ended, 0);
}

}  // namespace
}  // namespace nibble
