// Telemetry of a training session changes no bit of the run. Its figures are those of a simple computation, and are the
// same for every number of ranks.
#include "trainer/state/telemetry.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "dist/ranks/self_communicator.h"
#include "trainer/session_fixture.h"

namespace nibble {
namespace {

class TelemetryTest : public TrainingSessionTest {
 protected:
  static bool leader() { return communicator().rank() == 0; }

  // Returns a record as JSON text without the time; a comparison of texts finds NaN equal to NaN.
  static std::string text_of(TelemetryRecord record) {
    record.seconds = 0;
    return to_event(record).dump();
  }
  struct Run {
    std::vector<double> losses;
    std::vector<std::byte> state;
    std::vector<std::string> telemetry;
  };
  static Run train(Communicator& ranks, const RunConfig& config, uint64_t steps) {
    Run run;
    TrainingSession session(ranks, config);
    session.initialize_weights();
    for (uint64_t step = 0; step < steps; ++step) {
      const StepResult result = session.train_step(step);
      run.losses.push_back(result.attempt.loss);
      run.losses.push_back(result.attempt.grad_norm);
      EXPECT_EQ(result.telemetry.has_value(), ranks.rank() == 0 && config.telemetry.every > 0 &&
                                                  (step + 1) % static_cast<uint64_t>(config.telemetry.every) == 0);
      if (result.telemetry) run.telemetry.push_back(text_of(*result.telemetry));
    }
    run.state = state_bytes(session);
    return run;
  }
};

TEST_F(TelemetryTest, ChangesNoBitOfTheRunAndDoesNotDependOnTheNumberOfRanks) {
  SelfCommunicator self;
  for (const std::string recipe : {"recipe=nvfp4", "recipe=fp4_all_the_way", "recipe=fp8_delayed", "recipe=bf16"}) {
    SCOPED_TRACE(recipe);
    const Run without = train(communicator(), config({recipe, "telemetry.every=0"}), 4);
    const Run with = train(communicator(), config({recipe, "telemetry.every=2", "train.recompute=1"}), 4);
    EXPECT_EQ(with.losses, without.losses);
    EXPECT_EQ(with.state, without.state);
    EXPECT_TRUE(without.telemetry.empty());
    const Run alone = train(self, config({recipe, "telemetry.every=2"}), 4);
    if (leader()) {
      EXPECT_EQ(with.telemetry, alone.telemetry);
    }
  }
}

// With fewer groups than ranks the first group is not on rank 0.
TEST_F(TelemetryTest, OneGroupOfManyRanks) {
  SelfCommunicator self;
  const std::vector<std::string> one_group{"train.group_micro_batches=8", "telemetry.every=1"};
  const Run run = train(communicator(), config(one_group), 2);
  const Run alone = train(self, config(one_group), 2);
  if (!leader()) return;
  EXPECT_EQ(alone.telemetry.size(), 2U);
  EXPECT_EQ(run.telemetry, alone.telemetry);
}

// The figures of the gradient of a step with one micro-batch are compared with a simple computation from two models.
TEST_F(TelemetryTest, FiguresAreThoseOfTheStepsFirstMicroBatch) {
  SelfCommunicator self;
  const RunConfig one =
      config({"train.tokens_per_step=32", "train.group_micro_batches=1", "telemetry.every=1", "model.tied_head=true"});
  TrainingSession session(self, one);
  session.initialize_weights();
  const CheckpointState state = session.checkpoint_state(0);
  const Tensor& shard = state.arrays.front().values;
  const std::vector<BFloat16> weights(shard.as<BFloat16>(), shard.as<BFloat16>() + shard.elements());
  const TelemetryRecord record = *session.train_step(0).telemetry;

  Loader loader(one.data.train.front().patterns, 32, one.run.seed, /*shuffle=*/true);
  MicroBatch micro_batch({.sequences = 1, .sequence_length = 32});
  micro_batch.load(loader, 0, 1);
  const auto gradient_with = [&](const Recipe& recipe, std::vector<LinearStatistics>* statistics) {
    LanguageModel model(session.config().model, recipe, {.sequences = 1, .sequence_length = 32});
    std::vector<BFloat16> copy = weights;
    std::vector<float> gradient(weights.size());
    const auto size = static_cast<int64_t>(weights.size());
    model.bind(Tensor(copy.data(), DType::bf16, {size}), Tensor(gradient.data(), DType::f32, {size}));
    if (statistics != nullptr) {
      statistics->resize(model.linears().size());
      for (size_t i = 0; i < statistics->size(); ++i) model.linears()[i]->set_statistics(&(*statistics)[i]);
    }
    model.forward_backward(micro_batch.tokens(), micro_batch.targets(), {.seed = one.run.seed}, 1.0F / 32);
    return gradient;
  };
  std::vector<LinearStatistics> statistics;
  const std::vector<float> gradient = gradient_with(one.recipe, &statistics);
  const std::vector<float> probe = gradient_with({.name = "bf16", .linear = plain_recipe(Format::bf16)}, nullptr);

  const ParameterTable& table = session.model().parameters();
  const std::span<Linear* const> layers = session.model().linears();
  ASSERT_EQ(record.layers.size(), layers.size());
  size_t quantised = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerFigures& layer = record.layers[i];
    SCOPED_TRACE(layers[i]->name());
    EXPECT_EQ(layer.name, layers[i]->name());
    const Parameter& parameter = table[layers[i]->weight_id()];
    double product = 0, squares = 0, probe_squares = 0, errors = 0, zeros = 0;
    for (size_t at = parameter.offset; at < parameter.offset + parameter.count; ++at) {
      const double g = gradient[at];
      const double p = probe[at];
      product += g * p;
      squares += g * g;
      probe_squares += p * p;
      errors += (g - p) * (g - p);
      zeros += g == 0 ? 1 : 0;
    }
    // The sums of `count` terms in double are computed in another order.
    const double tolerance = 2 * static_cast<double>(parameter.count) * 0x1p-52;
    EXPECT_NEAR(*layer.grad_cosine, product / std::sqrt(squares * probe_squares), tolerance);
    EXPECT_NEAR(*layer.grad_relative_error, errors / probe_squares, tolerance * errors / probe_squares);
    EXPECT_EQ(*layer.grad_zero_share, zeros / static_cast<double>(parameter.count));
    EXPECT_LT(*layer.grad_cosine, 1);
    for (size_t role = 0; role < operand_roles; ++role) {
      ASSERT_EQ(layer.operand[role].has_value(), statistics[i].made[role]);
      if (!layer.operand[role]) continue;
      ++quantised;
      const OperandStatistics& expected = statistics[i].operand[role];
      EXPECT_EQ(layer.operand[role]->relative_error, expected.relative_error());
      EXPECT_EQ(layer.operand[role]->underflow, expected.underflow_share());
      EXPECT_EQ(layer.operand[role]->clipped, expected.clipped_share());
      EXPECT_EQ(layer.operand[role]->scales_extreme, expected.extreme_scale_share());
      EXPECT_EQ(layer.operand[role]->zeros * static_cast<double>(expected.elements),
                static_cast<double>(expected.zeros));
      EXPECT_GT(layer.operand[role]->relative_error, 0);
    }
  }
  EXPECT_GT(quantised, 0U);
  EXPECT_LT(*record.grad_cosine, 1);
  EXPECT_GT(*record.grad_cosine, 0.5);
}

// A repeated step has one record, with the figures of a run without the fault. A step that is not finite in both
// attempts has figures that are null, not NaN.
TEST_F(TelemetryTest, AStepThatIsComputedAgainHasOneRecord) {
  const RunConfig every = config({"telemetry.every=1"});
  TrainingSession session(faulty_, every);
  session.initialize_weights();
  const Run clean = train(communicator(), every, 2);
  session.train_step(0);
  faulty_.faults = 1;
  const StepResult result = session.train_step(1);
  EXPECT_TRUE(result.first.has_value());
  ASSERT_EQ(result.telemetry.has_value(), leader());
  if (leader()) {
    EXPECT_EQ(text_of(*result.telemetry), clean.telemetry[1]);
  }

  spoil_weight(session);
  const StepResult spoilt = session.train_step(2);
  EXPECT_EQ(spoilt.decision, StepDecision::skip);
  if (!leader()) return;
  const nlohmann::json event = nlohmann::json::parse(text_of(*spoilt.telemetry));
  EXPECT_TRUE(event.at("grad_cosine").is_null());
}

// After a late switch of all GEMMs nothing is quantised: there is no probe, and the zeros of gradients are still
// counted.
TEST_F(TelemetryTest, SurvivesALateSwitch) {
  RunConfig switching = config({"telemetry.every=1"});
  switching.recipe.late_switch = LateSwitch{.at = 0.04, .gemms = SwitchedGemms::all, .to = Format::bf16};
  TrainingSession session(communicator(), switching);
  session.initialize_weights();
  for (uint64_t step = 0; step < 4; ++step) {
    const StepResult result = session.train_step(step);
    if (!leader()) continue;
    ASSERT_TRUE(result.telemetry.has_value());
    EXPECT_EQ(result.telemetry->grad_cosine.has_value(), step < 2);
    EXPECT_TRUE(result.telemetry->layers[0].grad_zero_share.has_value());
  }
}

TEST_F(TelemetryTest, ProbeTakesMemoryOnlyWhereThereIsSomethingToCompare) {
  const auto line = [&](const std::vector<std::string>& overrides) {
    const TrainingSession session(communicator(), config(overrides));
    for (const std::string& description : session.describe()) {
      if (description.starts_with("telemetry")) return description;
    }
    return std::string();
  };
  EXPECT_NE(line({}).find("every 100 steps, with a probe of the gradient: "), std::string::npos);
  EXPECT_NE(line({}).find(" MB on rank 0"), std::string::npos);
  EXPECT_NE(line({"telemetry.gradient_probe=false"}).find("without a probe"), std::string::npos);
  EXPECT_NE(line({"recipe=bf16"}).find("without a probe"), std::string::npos);
  EXPECT_NE(line({"telemetry.every=0"}).find("off"), std::string::npos);
}

}  // namespace
}  // namespace nibble
