// A state that the session does not know takes part in every event of a step, and comes back from a checkpoint.
#include "trainer/state/step_state.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include "dist/ranks/self_communicator.h"
#include "trainer/session_fixture.h"

namespace nibble {
namespace {

// Writes down what it is told, and counts attempts in every way in which a state can be saved.
class Diary final : public StepState {
 public:
  Diary(Communicator& communicator, uint64_t shard_elements)
      : communicator_(communicator), marks_(static_cast<size_t>(shard_elements)) {}

  std::string_view name() const override { return "diary"; }
  void attach(LanguageModel& model) override { model_ = &model; }
  void begin_attempt(const StepEvent& event) override {
    EXPECT_TRUE(model_ == nullptr || &event.model == model_);
    note(fmt::format("{} attempt {}", event.step, event.again ? "again" : "first"));
    ++attempts_;
    ++wide_[1];
    ++small_[2];
    for (float& mark : marks_) mark += 1;
  }
  void begin_micro_batch(const StepEvent& event) override {
    note(fmt::format("{} micro-batch {}", event.step, event.micro_batch));
    EXPECT_EQ(event.tensors->context.micro_batch, event.micro_batch);
    EXPECT_EQ(event.tensors->tokens.elements(), 32);
  }
  bool reads_gradients(const StepEvent& event) const override { return event.micro_batch == 5; }
  void end_micro_batch(const StepEvent& event) override { note(fmt::format("{} computed", event.micro_batch)); }
  void end_slot(const StepEvent& event) override {
    EXPECT_EQ(event.tensors, nullptr);
    note(fmt::format("slot {}", event.slot));
  }
  void end_attempt(const StepEvent& event) override {
    total_ += communicator_.all_reduce_max(1);  // collective
    note(fmt::format("{} attempted", event.step));
  }
  void before_update(const StepEvent& event) override { note(fmt::format("{} before {}", event.step, event.applied)); }
  bool after_update(const StepEvent& event) override {
    note(fmt::format("{} after {}", event.step, event.applied));
    return false;
  }
  void save(uint64_t /*steps*/, StateWriter& writer) const override {
    writer.number("diary/attempts", attempts_);
    writer.replicated("diary/wide", tensor_of(std::span(wide_), {2}));
    writer.replicated("diary/small", tensor_of(std::span(small_), {3}));
    writer.sharded("diary_marks", tensor_of(std::span(marks_), {static_cast<int64_t>(marks_.size())}));
  }
  void load(const StateReader& reader) override {
    attempts_ = reader.number("diary/attempts");
    reader.replicated("diary/wide", tensor_of(std::span(wide_), {2}));
    reader.replicated("diary/small", tensor_of(std::span(small_), {3}));
    reader.sharded("diary_marks", tensor_of(std::span(marks_), {static_cast<int64_t>(marks_.size())}));
  }
  std::string describe() const override { return fmt::format("{} attempts", attempts_); }

  void note(const std::string& line) { lines_.push_back(line); }
  std::vector<std::string> take() { return std::exchange(lines_, {}); }
  bool has_counted(uint64_t attempts) const {
    return attempts_ == attempts && wide_ == std::vector<int64_t>{INT64_MIN, static_cast<int64_t>(attempts) + 7} &&
           small_ == std::vector<uint8_t>{1, 255, static_cast<uint8_t>(attempts)};
  }
  const std::vector<float>& marks() const { return marks_; }
  int64_t total() const { return total_; }

 private:
  Communicator& communicator_;
  const LanguageModel* model_ = nullptr;  // that was attached last
  std::vector<std::string> lines_;
  uint64_t attempts_ = 0;
  int64_t total_ = 0;
  // A Tensor views memory that may be written, also in save().
  mutable std::vector<int64_t> wide_{INT64_MIN, 7};
  mutable std::vector<uint8_t> small_{1, 255, 0};
  mutable std::vector<float> marks_;  // [elements of this rank's shard]
};

class StepStateTest : public TrainingSessionTest {
 protected:
  static Diary& add_diary(TrainingSession& session) {
    const CheckpointState state = session.checkpoint_state(0);
    const int rank = state.owned->ranks() == 1 ? 0 : communicator().rank();
    return session.states().add<Diary>(communicator(), state.owned->elements(rank));
  }
  // Returns what a diary holds after an attempt, on this rank.
  static std::vector<std::string> attempt(const std::string& step, const std::string& which) {
    std::vector<std::string> lines{step + " attempt " + which};
    const Schedule schedule(MicroBatchGroups::of_count(micro_batches, groups), communicator().size(),
                            Schedule::Order::rows);
    for (uint64_t slot = 0; slot < schedule.slots(); ++slot) {
      if (const std::optional<uint64_t> micro_batch = schedule.micro_batch(slot, communicator().rank())) {
        lines.push_back(fmt::format("{} micro-batch {}", step, *micro_batch));
        lines.push_back(fmt::format("{} computed", *micro_batch));
      }
      lines.push_back(fmt::format("slot {}", slot));
    }
    lines.push_back(step + " attempted");
    return lines;
  }
};

TEST_F(StepStateTest, EveryEventOfAStepReachesEveryState) {
  TrainingSession session(faulty_, config());
  session.initialize_weights();
  Diary& diary = add_diary(session);
  TrainingSession without(communicator(), config());
  without.initialize_weights();

  session.train_step(0);
  std::vector<std::string> expected = attempt("0", "first");
  expected.insert(expected.end(), {"0 before true", "0 after true"});
  EXPECT_EQ(diary.take(), expected);
  EXPECT_EQ(session.train_step(1).attempt.loss, (without.train_step(0), without.train_step(1).attempt.loss));

  diary.take();
  faulty_.faults = 2;  // both attempts: the step is skipped
  session.train_step(2);
  expected = attempt("2", "first");
  const std::vector<std::string> again = attempt("2", "again");
  expected.insert(expected.end(), again.begin(), again.end());
  expected.insert(expected.end(), {"2 before false", "2 after false"});
  EXPECT_EQ(diary.take(), expected);
  EXPECT_EQ(diary.total(), 4);
  const std::vector<std::string> lines = session.describe();
  EXPECT_NE(std::find(lines.begin(), lines.end(), "diary      4 attempts"), lines.end());
}

TEST_F(StepStateTest, AStateComesBackFromACheckpointOnAnyNumberOfRanks) {
  const std::filesystem::path run = broadcast_string(communicator(), (directory_ / "run").string(), 0);
  TrainingSession session(communicator(), config());
  session.initialize_weights();
  add_diary(session);
  for (uint64_t step = 0; step < 3; ++step) session.train_step(step);
  save_checkpoint(communicator(), run, session.checkpoint_state(3));

  SelfCommunicator self;
  TrainingSession alone(self, config());
  Diary& diary = add_diary(alone);
  EXPECT_FALSE(diary.has_counted(3));
  alone.load(find_checkpoint(communicator(), run));
  EXPECT_TRUE(diary.has_counted(3));
  // The gaps between tensors are not saved, and come back as zeros.
  const std::vector<Parameter>& parameters = alone.model().parameters().parameters();
  for (const Parameter& parameter : parameters) {
    const auto first = diary.marks().begin() + static_cast<int64_t>(parameter.offset);
    EXPECT_TRUE(std::all_of(first, first + static_cast<int64_t>(parameter.count), [](float mark) { return mark == 3; }))
        << parameter.name;
  }
  EXPECT_EQ(alone.train_step(3).attempt.loss, session.train_step(3).attempt.loss);
  EXPECT_TRUE(diary.has_counted(4));
  // A checkpoint without the state is refused, with the state's name.
  TrainingSession plain(communicator(), config());
  save_checkpoint(communicator(), run, plain.checkpoint_state(4));
  try {
    alone.load(find_checkpoint(communicator(), run));
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("has no diary/wide"), std::string::npos) << error.what();
  }
  communicator().barrier();  // keeps rank 0's directory until all ranks have read it
}

}  // namespace
}  // namespace nibble
