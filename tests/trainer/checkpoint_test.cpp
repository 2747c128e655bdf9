#include "trainer/checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "dist/base/error.h"
#include "dist/base/file.h"
#include "dist/ranks/self_communicator.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing_support::cut_at;
using testing_support::layout_of;
using testing_support::load_shard;
using testing_support::ScratchDirectory;
using testing_support::Shard;
using testing_support::small_flat_size;
using testing_support::small_layout;
using testing_support::whole_state;

class CheckpointTest : public testing::Test {
 protected:
  fs::path save(uint64_t step) {
    Shard shard = whole_state(step);
    return save_checkpoint(communicator_, run_, shard.state());
  }
  std::set<std::string> names() const {
    std::set<std::string> result;
    for (const auto& entry : fs::directory_iterator(run_ / "checkpoints")) result.insert(entry.path().filename());
    return result;
  }
  static std::map<std::string, std::string> contents(const fs::path& directory) {
    std::map<std::string, std::string> result;
    for (const auto& entry : fs::directory_iterator(directory)) {
      result[entry.path().filename()] = read_file(entry.path(), 1 << 30);
    }
    return result;
  }
  template <class Function>
  static void expect_error(ExitCode code, const std::string& text, Function&& function) {
    try {
      function();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  }

  ScratchDirectory scratch_{"nibble_checkpoint"};
  fs::path run_ = scratch_.path();
  SelfCommunicator communicator_;
};

TEST_F(CheckpointTest, EverythingComesBack) {
  EXPECT_EQ(save(100), run_ / "checkpoints/step-00000100");
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  Shard shard = whole_state(100);
  const CheckpointState saved = shard.state();
  EXPECT_EQ(info.step, 100u);
  EXPECT_EQ(info.tokens, saved.tokens);
  EXPECT_EQ(info.seed, saved.seed);
  EXPECT_EQ(info.config_yaml, saved.config_yaml);
  EXPECT_EQ(info.data.fingerprint, saved.data.fingerprint);
  EXPECT_EQ(info.data.tokenizer, saved.data.tokenizer);
  EXPECT_EQ(info.data.next_sample, 1600u);
  ASSERT_EQ(info.layout.tensors().size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(info.layout.tensors()[i].name, small_layout().tensors()[i].name);
    EXPECT_EQ(info.layout.tensors()[i].shape, small_layout().tensors()[i].shape);
    EXPECT_EQ(info.layout.tensors()[i].offset, small_layout().tensors()[i].offset);
  }
  EXPECT_EQ(info.ranks, 1);
  EXPECT_EQ(load_shard(info), whole_state(100));
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000100"}));
}

TEST_F(CheckpointTest, ReplicatedArraysComeBackAndAreMissedWhereTheyAreNot) {
  std::vector<float> history = {1.5F, -0.0F, 3e38F, 1e-45F, 5, 6};
  Shard shard = whole_state(100);
  CheckpointState state = shard.state();
  state.replicated = {{"quantization/amax_history", tensor_of(std::span(history), {3, 2})}};
  save_checkpoint(communicator_, run_, state);
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  EXPECT_EQ(load_shard(info), shard);
  std::vector<float> back(6, -1);
  load_replicated(info, "quantization/amax_history", tensor_of(std::span(back), {3, 2}));
  EXPECT_EQ(std::memcmp(back.data(), history.data(), 6 * sizeof(float)), 0);
  expect_error(ExitCode::bad_data, "holds quantization/amax_history as [3, 2], not [2, 3]", [&] {
    load_replicated(info, "quantization/amax_history", tensor_of(std::span(back), {2, 3}));
  });
  save(101);
  expect_error(ExitCode::bad_data, "has no quantization/amax_history", [&] {
    load_replicated(find_checkpoint(communicator_, run_), "quantization/amax_history",
                    tensor_of(std::span(back), {3, 2}));
  });
}

TEST_F(CheckpointTest, ReplicatedArraysHaveAnyDtype) {
  std::vector<float> old = {0, -7, 16777216};
  std::vector<float> broken = {0, 1.5F, NAN};
  std::vector<int32_t> numbers = {INT32_MIN, 16777217, INT32_MAX};
  std::vector<int64_t> large = {INT64_MIN, INT64_MAX};
  std::vector<uint8_t> codes = {0, 255};
  Shard shard = whole_state(100);
  CheckpointState state = shard.state();
  state.replicated = {{"a/old", tensor_of(std::span(old), {3})},
                      {"a/broken", tensor_of(std::span(broken), {3})},
                      {"a/numbers", tensor_of(std::span(numbers), {3})},
                      {"a/large", tensor_of(std::span(large), {2})},
                      {"a/codes", tensor_of(std::span(codes), {2})}};
  save_checkpoint(communicator_, run_, state);
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  std::vector<int32_t> back(3);
  load_replicated(info, "a/numbers", tensor_of(std::span(back), {3}));
  EXPECT_EQ(back, numbers);
  std::vector<int64_t> large_back(2);
  load_replicated(info, "a/large", tensor_of(std::span(large_back), {2}));
  EXPECT_EQ(large_back, large);
  std::vector<uint8_t> codes_back(2);
  load_replicated(info, "a/codes", tensor_of(std::span(codes_back), {2}));
  EXPECT_EQ(codes_back, codes);
  // Whole numbers that an older program saved as floats are read as integers; nothing else is converted.
  load_replicated(info, "a/old", tensor_of(std::span(back), {3}));
  EXPECT_EQ(back, (std::vector<int32_t>{0, -7, 16777216}));
  expect_error(ExitCode::bad_data, "holds 1.5 in a/broken, not whole numbers",
               [&] { load_replicated(info, "a/broken", tensor_of(std::span(back), {3})); });
  std::vector<float> floats(3);
  expect_error(ExitCode::bad_data, "holds a/numbers as int32, not fp32",
               [&] { load_replicated(info, "a/numbers", tensor_of(std::span(floats), {3})); });
  expect_error(ExitCode::bad_data, "holds a/old as fp32, not int64",
               [&] { load_replicated(info, "a/old", Tensor(floats.data(), DType::i64, {3})); });
}

TEST_F(CheckpointTest, AnyRangeLoads) {
  save(7);
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  for (uint64_t begin = 0; begin < small_flat_size; begin += 37) {
    for (uint64_t end = begin; end <= small_flat_size; end += 101) {
      const Placement placement = cut_at(small_layout(), {0, begin, end, small_flat_size});
      EXPECT_EQ(load_shard(info, placement, 1), Shard(7, placement, 1)) << begin << " " << end;
    }
  }
}

TEST_F(CheckpointTest, TensorsAreFoundByNameWhereverTheyLie) {
  save(7);
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  const Layout layout = layout_of({{.name = "blocks.0.norm.weight", .shape = {10}, .offset = 0},
                                   {.name = "blocks.0.qkv.weight", .shape = {30, 10}, .offset = 32}},
                                  400);
  std::vector<float> values(400, -1.0f);
  load_array(info, layout,
             {{.name = "optimizer/adam_m"}, tensor_of(std::span(values), {400}), {{1, {0, 300}, 32}, {0, {4, 10}, 4}}});
  for (uint64_t i = 0; i < 400; ++i) {
    const float expected = i >= 4 && i < 10     ? testing_support::f32_value(7, 1, 240 + i)
                           : i >= 32 && i < 332 ? testing_support::f32_value(7, 1, 256 + i - 32)
                                                : 0.0f;
    ASSERT_EQ(values[i], expected) << i;
  }
}

// FP32 weights in a BF16 model, moments in eight bits with a scale for every 16 elements, and arrays of some tensors.
TEST_F(CheckpointTest, ArraysOfEveryKindComeBack) {
  const Layout layout{{{.name = "all", .range = {0, 560}}},
                      {{.name = "a", .shape = {16, 10}, .tensor_id = 0, .offset = 0, .count = 160},
                       {.name = "b", .shape = {8, 4, 12}, .tensor_id = 1, .matrices = 8, .offset = 160, .count = 384},
                       {.name = "c", .shape = {9}, .tensor_id = 9, .offset = 544, .count = 9, .width = 4}}};
  const Placement owned = replicated(layout, 1);
  struct Values {
    std::vector<uint8_t> weights, codes;
    std::vector<float> scales;
    std::vector<CheckpointArray> arrays(const Placement& placement) {
      const auto tensor = [](auto& values) {
        return tensor_of(std::span(values), {static_cast<int64_t>(values.size())});
      };
      return {weights_array(tensor(weights), placement, 0),
              {{.name = "optimizer/codes", .dtype = DType::u8, .tensors = {{0, 1}, {9, 10}}},
               tensor(codes),
               {{0, {0, 160}, 0}, {2, {0, 9}, 160}}},
              {{.name = "optimizer/scales", .elements_a_value = 16, .tensors = {{0, 1}, {9, 10}}},
               tensor(scales),
               {{0, {0, 160}, 0}, {2, {0, 9}, 10}}}};
    }
  };
  Values saved{std::vector<uint8_t>(layout.weight_bytes()), std::vector<uint8_t>(169), std::vector<float>(11)};
  for (size_t i = 0; i < saved.weights.size(); ++i) {
    const bool gap = i >= 2 * 544 + 4 * 9;
    saved.weights[i] = gap ? uint8_t{0} : static_cast<uint8_t>(i * 37);
  }
  for (size_t i = 0; i < saved.codes.size(); ++i) saved.codes[i] = static_cast<uint8_t>(255 - i);
  for (size_t i = 0; i < saved.scales.size(); ++i) saved.scales[i] = 1.0F / static_cast<float>(i + 3);
  Shard any = whole_state(9);
  CheckpointState state = any.state();
  state.owned = &owned;
  state.arrays = saved.arrays(owned);
  state.optimizers = {{.name = "adamw", .state = {"codes", "scales"}}};
  save_checkpoint(communicator_, run_, state);

  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  EXPECT_EQ(info.layout.tensors()[2].width, 4);
  EXPECT_EQ(info.find_array("optimizer/scales")->elements_a_value, 16u);
  Values loaded{std::vector<uint8_t>(saved.weights.size(), 7), std::vector<uint8_t>(169, 7), std::vector<float>(11, 7)};
  for (const CheckpointArray& array : loaded.arrays(owned)) load_array(info, layout, array);
  EXPECT_EQ(loaded.weights, saved.weights);
  EXPECT_EQ(loaded.codes, saved.codes);
  EXPECT_EQ(loaded.scales, saved.scales);
  // A part of a tensor: its own values, and nothing else.
  std::vector<float> part(2, 7);
  load_array(
      info, layout,
      {{.name = "optimizer/scales", .elements_a_value = 16}, tensor_of(std::span(part), {2}), {{0, {32, 64}, 0}}});
  EXPECT_EQ(part, (std::vector<float>{saved.scales[2], saved.scales[3]}));
  std::vector<uint8_t> none(384);
  expect_error(ExitCode::bad_data, "has no tensor b in optimizer/codes", [&] {
    load_array(
        info, layout,
        {{.name = "optimizer/codes", .dtype = DType::u8}, tensor_of(std::span(none), {384}), {{1, {0, 384}, 0}}});
  });
}

TEST_F(CheckpointTest, LargeTensorsComeBack) {
  const Layout layout = layout_of(
      {{.name = "small", .shape = {3}, .offset = 0}, {.name = "large", .shape = {701, 1000}, .offset = 16}}, 701024);
  const Placement whole = replicated(layout, 1);
  Shard shard(5, whole, 0);
  save_checkpoint(communicator_, run_, shard.state());
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  EXPECT_EQ(load_shard(info, whole), shard);
  const Placement parts = cut_at(layout, {0, 1234, 600001, 701024});
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(load_shard(info, parts, rank), Shard(5, parts, rank));
}

TEST_F(CheckpointTest, SavingWhatWasLoadedMakesTheSameBytes) {
  const auto first = contents(save(100));
  Shard again = load_shard(find_checkpoint(communicator_, run_));
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // times that files stored would differ by a second
  const ScratchDirectory other("nibble_checkpoint_again");
  const auto second = contents(save_checkpoint(communicator_, other.path(), again.state()));
  ASSERT_EQ(first.size(), 4u);
  EXPECT_TRUE(first == second);
}

TEST_F(CheckpointTest, AMovedDirectoryIsStillACheckpoint) {
  const fs::path moved = run_ / "elsewhere";
  fs::rename(save(100), moved);
  const CheckpointInfo info = open_checkpoint(communicator_, moved);
  EXPECT_EQ(load_shard(info), whole_state(100));
}

TEST_F(CheckpointTest, TheNewestIsFoundAndForeignNamesArePassedOver) {
  save(100);
  save(99999);
  save(2000);
  fs::create_directory(run_ / "checkpoints/.tmp.step-00100000.1.0");
  fs::create_directory(run_ / "checkpoints/step-100001");
  fs::create_directory(run_ / "checkpoints/step-00100002x");
  fs::create_directory(run_ / "checkpoints/step-000100003");
  fs::create_directory_symlink(run_ / "checkpoints/step-00000100", run_ / "checkpoints/step-00100004");
  EXPECT_EQ(find_checkpoint(communicator_, run_).step, 99999u);
  EXPECT_EQ(open_checkpoint(communicator_, run_).step, 99999u);
  EXPECT_EQ(open_checkpoint(communicator_, run_ / "checkpoints/step-00002000").step, 2000u);
}

TEST_F(CheckpointTest, NoneAtAllIsMissingInput) {
  expect_error(ExitCode::missing_input, run_.string(), [&] { find_checkpoint(communicator_, run_); });
  expect_error(ExitCode::missing_input, "absent", [&] { open_checkpoint(communicator_, run_ / "absent"); });
}

TEST_F(CheckpointTest, ADirectoryOfAnotherStepIsDamaged) {
  fs::rename(save(100), run_ / "checkpoints/step-00000200");
  expect_error(ExitCode::bad_data, "is of step 100", [&] { find_checkpoint(communicator_, run_); });
}

TEST_F(CheckpointTest, WhatDoesNotFitIsRefused) {
  save(100);
  const CheckpointInfo info = find_checkpoint(communicator_, run_);
  std::vector<float> values(300);
  const auto load = [&](const ArrayInfo& array, const std::string& tensor, std::vector<int64_t> shape) {
    const Layout layout = layout_of({{.name = tensor, .shape = std::move(shape), .offset = 0}}, 304);
    load_array(info, layout, {array, tensor_of(std::span(values), {300}), {{0, {0, 300}, 0}}});
  };
  const ArrayInfo moments{.name = "optimizer/adam_m"};
  expect_error(ExitCode::bad_data, "has no optimizer/x", [&] { load({.name = "optimizer/x"}, "a", {300}); });
  expect_error(ExitCode::bad_data, "has no tensor a in optimizer/adam_m", [&] { load(moments, "a", {300}); });
  expect_error(ExitCode::bad_data, "[30, 10], not [10, 30]", [&] { load(moments, "blocks.0.qkv.weight", {10, 30}); });
  expect_error(ExitCode::bad_data, "as fp32, not bf16", [&] {
    load({.name = "optimizer/adam_m", .dtype = DType::bf16}, "blocks.0.qkv.weight", {30, 10});
  });
  expect_error(ExitCode::bad_data, "for every 1 elements, not for every 2", [&] {
    load({.name = "optimizer/adam_m", .elements_a_value = 2}, "blocks.0.qkv.weight", {30, 10});
  });
}

TEST_F(CheckpointTest, ACheckpointOfTheSameStepIsReplaced) {
  save(100);
  Shard shard = whole_state(100);
  shard.moment_m[3] = 42.0f;
  save_checkpoint(communicator_, run_, shard.state());
  EXPECT_EQ(load_shard(find_checkpoint(communicator_, run_)).moment_m[3], 42.0f);
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000100"}));
}

TEST_F(CheckpointTest, LeftoversAreRemovedAndLinksAreNotFollowed) {
  const ScratchDirectory outside("nibble_checkpoint_outside");
  std::ofstream(outside.path() / "precious") << "data";
  save(100);
  fs::create_directory(run_ / "checkpoints/.tmp.step-00000200.77.0");
  fs::create_directory_symlink(outside.path(), run_ / "checkpoints/.tmp.step-00000200.77.0/link");
  fs::create_directory_symlink(outside.path(), run_ / "checkpoints/.tmp.link");
  remove_leftovers(run_);
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000100"}));
  EXPECT_TRUE(fs::exists(outside.path() / "precious"));
}

TEST_F(CheckpointTest, PruningKeepsTheNewestAndTheMilestones) {
  for (const uint64_t step : {100, 200, 300, 400, 500, 600}) save(step);
  prune_checkpoints(run_, 600, {.keep_last = 2, .keep_every = 300});
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000300", "step-00000500", "step-00000600"}));
  prune_checkpoints(run_, 600, {.keep_last = 1, .keep_every = 0});
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000600"}));
  prune_checkpoints(run_, 600, {.keep_last = 0, .keep_every = 0});
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000600"}));
}

TEST_F(CheckpointTest, PruningNeverCountsADamagedManifestAsACheckpoint) {
  for (const uint64_t step : {100, 200, 300, 400}) save(step);
  std::ofstream(run_ / "checkpoints/step-00000200/manifest.json") << "{";
  prune_checkpoints(
      run_, 300, {.keep_last = 2, .keep_every = 0});  // 400 is newer than the checkpoint that was saved, and must stay
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000100", "step-00000200", "step-00000300", "step-00000400"}));
}

TEST_F(CheckpointTest, ALinkIsACheckpointAndWhatItLeadsToStays) {
  for (const uint64_t step : {100, 200, 300, 400}) save(step);
  const ScratchDirectory archive("nibble_checkpoint_archive");
  const auto link_to_archive = [&](const std::string& name) {
    fs::rename(run_ / "checkpoints" / name, archive.path() / name);
    fs::create_directory_symlink(archive.path() / name, run_ / "checkpoints" / name);
  };
  link_to_archive("step-00000100");
  link_to_archive("step-00000400");
  const auto before = contents(archive.path() / "step-00000100");
  EXPECT_EQ(load_shard(find_checkpoint(communicator_, run_)), whole_state(400));
  // Links are neither removed nor counted.
  prune_checkpoints(run_, 400, {.keep_last = 2, .keep_every = 0});
  EXPECT_EQ(names(), (std::set<std::string>{"step-00000100", "step-00000300", "step-00000400"}));
  EXPECT_EQ(contents(archive.path() / "step-00000100"), before);
  // A checkpoint that is saved under the name of a link takes the link's place.
  const auto archived = contents(archive.path() / "step-00000400");
  save(400);
  EXPECT_FALSE(fs::is_symlink(run_ / "checkpoints/step-00000400"));
  EXPECT_EQ(contents(archive.path() / "step-00000400"), archived);
  // A link whose target is away is passed over, and stays.
  fs::create_directory_symlink(archive.path() / "away", run_ / "checkpoints/step-00000500");
  EXPECT_EQ(find_checkpoint(communicator_, run_, DamagedCheckpoint::set_aside).step, 400u);
  EXPECT_TRUE(fs::is_symlink(run_ / "checkpoints/step-00000500"));
}

TEST(CheckpointPlan, CountsWhatIsOnTheDiskAtOnce) {
  const auto most = [](uint64_t steps, uint64_t every, uint64_t keep_last) {
    return CheckpointPlan{.steps = steps, .every = every, .keep_last = keep_last}.most_at_once();
  };
  EXPECT_EQ(most(1000, 100, 2), 3u);
  EXPECT_EQ(most(1000, 100, 1), 2u);
  EXPECT_EQ(most(1000, 100, 50), 11u);  // steps 0, 100, ..., 1000
  EXPECT_EQ(most(950, 100, 50), 11u);   // the last step is saved, too
  EXPECT_EQ(most(1000, 0, 5), 2u);      // steps 0 and 1000
  EXPECT_EQ(most(1000, 5000, 5), 2u);
  // The best one is kept beside them, and each validation may save one.
  EXPECT_EQ((CheckpointPlan{.steps = 1000, .every = 100, .keep_last = 2, .validations = 10}.most_at_once()), 4u);
  EXPECT_EQ((CheckpointPlan{.steps = 1000, .every = 0, .keep_last = 5, .validations = 1}.most_at_once()), 3u);
  EXPECT_EQ((CheckpointPlan{.steps = 1000, .every = 40, .keep_every = 100}.most_kept_for_ever()), 5u);
  EXPECT_EQ((CheckpointPlan{.steps = 1000, .every = 0, .keep_every = 100}.most_kept_for_ever()), 1u);
  EXPECT_EQ((CheckpointPlan{.steps = 1000, .every = 10}.most_kept_for_ever()), 0u);
}

TEST_F(CheckpointTest, InspectPrintsAndJudges) {
  const fs::path directory = save(100);
  testing::internal::CaptureStdout();
  inspect_checkpoint(run_);
  const std::string text = testing::internal::GetCapturedStdout();
  for (const char* part :
       {"step              100", "blocks.0.conv.weight [3, 4, 5]", "array             optimizer/adam_v (fp32)",
        "next sample       1600 of 256 tokens", "tokenizer         00112233445566778899aabbccddeeff"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  std::ofstream(directory / "rank-00000.h5", std::ios::app) << "x";
  testing::internal::CaptureStdout();
  expect_error(ExitCode::bad_data, "rank-00000.h5", [&] { inspect_checkpoint(directory); });
  EXPECT_NE(testing::internal::GetCapturedStdout().find("DAMAGED"), std::string::npos);
}

}  // namespace
}  // namespace nibble
