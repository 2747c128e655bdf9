// The choice of outlier channels is the same on any number of ranks, and with a step that had to be computed again.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "dist/ranks/self_communicator.h"
#include "trainer/session_fixture.h"
#include "trainer/state/outlier_selection.h"

namespace nibble {
namespace {

class RecipeStateTest : public TrainingSessionTest {
 protected:
  // Outliers are chosen from the norms of steps 1 to `window`. The layers with 128 channels can retain 32.
  RunConfig with_window(int window, const std::string& group_micro_batches = "2") const {
    const std::string recipe = (directory_ / ("window-" + std::to_string(window) + ".yaml")).string();
    std::ofstream(recipe) << "extends: nvfp4_guarded\nhigh_precision: [{match: head}]\n"
                          << "outliers: {share: 0.2, from_step: 1, window: " << window << "}\n";
    return config(
        {"recipe=" + recipe, "model.intermediate_size=128", "train.group_micro_batches=" + group_micro_batches});
  }
  // Returns an array of a checkpoint after so many steps; it is empty if the checkpoint does not have it.
  template <class Number>
  static std::vector<Number> array_of(const TrainingSession& session, const std::string& name, uint64_t steps) {
    for (const ReplicatedArray& array : session.checkpoint_state(steps).replicated) {
      if (array.name != name) continue;
      return {array.values.as<Number>(), array.values.as<Number>() + array.values.elements()};
    }
    return {};
  }
  static std::vector<float> norms_of(const TrainingSession& session, uint64_t steps) {
    return array_of<float>(session, "outliers/channel_norms", steps);
  }
  static std::vector<int32_t> choice_of(const TrainingSession& session, uint64_t steps) {
    return array_of<int32_t>(session, "outliers/channels", steps);
  }
};

TEST_F(RecipeStateTest, OutlierChannelsAreThoseOfTheLargestNorms) {
  SelfCommunicator self;
  RunConfig recomputing = with_window(4);
  recomputing.train.recompute = "all";
  TrainingSession chooses(faulty_, with_window(3));
  TrainingSession goes_on(self, recomputing);
  chooses.initialize_weights();
  goes_on.initialize_weights();
  for (uint64_t step = 0; step < 4; ++step) {
    EXPECT_TRUE(choice_of(chooses, step).empty());
    EXPECT_EQ(norms_of(chooses, step).empty(), step <= 1);
    faulty_.faults = step == 2 && communicator().rank() == 0 ? 1 : 0;
    EXPECT_EQ(chooses.train_step(step).first.has_value(), step == 2);
    goes_on.train_step(step);
    if (step == 3) continue;
    EXPECT_EQ(norms_of(chooses, step + 1), norms_of(goes_on, step + 1)) << step;
  }
  EXPECT_TRUE(norms_of(chooses, 4).empty());

  const std::vector<float> norms = norms_of(goes_on, 4);
  const std::vector<int32_t> chosen = choice_of(chooses, 4);
  ASSERT_EQ(chosen.size(), 64U);
  size_t first = 0;
  for (const OutlierLayer& layer : outlier_layers(chooses.model())) {
    const size_t end = first + static_cast<size_t>(layer.features_in);
    EXPECT_EQ(layer.count, layer.features_in == 128 ? 32 : 0) << layer.name;
    std::vector<float> inside;
    std::vector<float> outside;
    for (size_t channel = first; channel < end; ++channel) {
      const bool is_chosen = std::find(chosen.begin(), chosen.end(), static_cast<int32_t>(channel)) != chosen.end();
      (is_chosen ? inside : outside).push_back(norms[channel]);
    }
    EXPECT_EQ(static_cast<int64_t>(inside.size()), layer.count) << layer.name;
    if (layer.count > 0) {
      EXPECT_GE(*std::min_element(inside.begin(), inside.end()), *std::max_element(outside.begin(), outside.end()));
      EXPECT_GT(*std::max_element(outside.begin(), outside.end()), 0);
    }
    first = end;
  }
}

// With one group, several ranks take the micro-batches in stripes.
TEST_F(RecipeStateTest, NormsInStripesHaveTheBitsOfOneRank) {
  SelfCommunicator self;
  TrainingSession session(communicator(), with_window(3, "8"));
  TrainingSession alone(self, with_window(3, "8"));
  session.initialize_weights();
  alone.initialize_weights();
  for (uint64_t step = 0; step < 5; ++step) {
    EXPECT_EQ(session.train_step(step).attempt.loss, alone.train_step(step).attempt.loss);
    EXPECT_EQ(norms_of(session, step + 1), norms_of(alone, step + 1)) << step;
    EXPECT_EQ(choice_of(session, step + 1), choice_of(alone, step + 1)) << step;
  }
}

// A checkpoint restores the choice, also in a model for inference; a checkpoint of another run is refused.
TEST_F(RecipeStateTest, ChoiceComesBackFromACheckpoint) {
  const std::filesystem::path run = broadcast_string(communicator(), (directory_ / "run").string(), 0);
  TrainingSession session(communicator(), with_window(2));
  session.initialize_weights();
  for (uint64_t step = 0; step < 4; ++step) session.train_step(step);
  save_checkpoint(communicator(), run, session.checkpoint_state(4));
  const CheckpointInfo saved = find_checkpoint(communicator(), run);
  TrainingSession resumed(communicator(), with_window(2));
  resumed.load(saved);
  EXPECT_EQ(resumed.train_step(4).attempt.loss, session.train_step(4).attempt.loss);

  // The window of this run has not ended at step 4, so it needs norms that the other run no longer has.
  TrainingSession other(communicator(), with_window(5));
  try {
    other.load(saved);
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("has no outliers/channel_norms"), std::string::npos) << error.what();
  }
  communicator().barrier();  // keeps rank 0's directory until all ranks have read it
}

// Older programs saved the numbers of the channels as floats.
TEST_F(RecipeStateTest, ChoiceOfAnOlderCheckpointIsConverted) {
  const std::filesystem::path run = broadcast_string(communicator(), (directory_ / "run").string(), 0);
  TrainingSession session(communicator(), with_window(2));
  session.initialize_weights();
  for (uint64_t step = 0; step < 4; ++step) session.train_step(step);
  CheckpointState state = session.checkpoint_state(4);
  const std::vector<int32_t> chosen = choice_of(session, 4);
  std::vector<float> floats(chosen.begin(), chosen.end());
  ASSERT_EQ(state.replicated.size(), 1U);
  state.replicated[0].values = tensor_of(std::span(floats), {static_cast<int64_t>(floats.size())});
  save_checkpoint(communicator(), run, state);
  TrainingSession resumed(communicator(), with_window(2));
  resumed.load(find_checkpoint(communicator(), run));
  EXPECT_EQ(choice_of(resumed, 4), chosen);
  EXPECT_EQ(resumed.train_step(4).attempt.loss, session.train_step(4).attempt.loss);

  floats[1] += 0.5F;
  save_checkpoint(communicator(), run, state);
  EXPECT_THROW(resumed.load(find_checkpoint(communicator(), run)), Error);
  communicator().barrier();  // keeps rank 0's directory until all ranks have read it
}

}  // namespace
}  // namespace nibble
