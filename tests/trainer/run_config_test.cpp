#include "trainer/config/run_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "dist/base/error.h"
#include "trainer/config/field_table.h"
#include "trainer/config/recompute_blocks.h"

namespace nibble {
namespace {

constexpr const char* minimal = R"(run: {dir: /runs/a}
recipe: {name: plain}
model:
  pattern: "*-*-"
  hidden_size: 64
  query_heads: 4
  kv_heads: 2
  head_dim: 16
  intermediate_size: 128
  sequence_length: 64
data: {train: "/data/train-*.bin"}
train:
  steps: 100
  micro_batch_sequences: 2
  tokens_per_step: 768
optimizer: {learning_rate: 3e-3}
)";

RunConfig parse(const std::vector<std::string>& overrides = {}, const std::string& text = minimal) {
  return parse_run_config_text(text, "c.yaml", parse_overrides(overrides));
}

void expect_refused(const std::vector<std::string>& overrides, const std::string& message,
                    const std::string& text = minimal, ExitCode code = ExitCode::bad_config) {
  try {
    parse(overrides, text);
    FAIL() << "accepted, expected: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(std::string(error.what()).substr(0, message.size()), message);
    EXPECT_FALSE(error.remedy().empty());
  }
}

TEST(RunConfig, DefaultsAndValues) {
  const RunConfig config = parse();
  EXPECT_EQ(config.run.dir, "/runs/a");
  EXPECT_EQ(config.run.seed, 1234U);
  EXPECT_EQ(config.model.pattern, "*-*-");
  EXPECT_EQ(config.model.dtype, DType::bf16);
  EXPECT_EQ(config.data.train.at(0).patterns, std::vector<std::string>{"/data/train-*.bin"});
  EXPECT_EQ(config.optimizer.learning_rate, 3e-3);
  EXPECT_EQ(config.optimizer.moment_dtype, DType::f32);
  EXPECT_EQ(config.comm.timeout_s, 600);
  EXPECT_EQ(config.micro_batches_per_step(), 6);
  EXPECT_EQ(tokenizer_path(config), "/data/tokenizer.model");
}

TEST(RunConfig, EveryFieldIsRead) {
  const RunConfig config = parse({"run.seed=18446744073709551615",
                                  "device=cpu",
                                  "cuda.gemm=exact",
                                  "cuda.attention=exact",
                                  "cuda.graphs=true",
                                  "cuda.offload_optimizer=true",
                                  "cuda.strict=true",
                                  "model.from=/m",
                                  "model.from_skip=head",
                                  "model.vocab_size=4Ki",
                                  "model.qkv_bias=true",
                                  "model.qk_norm=true",
                                  "model.rope_theta=500k",
                                  "model.rope_scaling_factor=8",
                                  "model.rope_low_frequency_factor=2",
                                  "model.rope_high_frequency_factor=5",
                                  "model.rope_original_length=4Ki",
                                  "model.norm_epsilon=1e-6",
                                  "model.tied_head=true",
                                  "model.init_std=0.01",
                                  "model.dtype=fp32",
                                  "data.train=[/a.bin, /b.bin]",
                                  "data.validation=/v.bin",
                                  "data.tokenizer=/t.model",
                                  "data.vocab_size=1500",
                                  "data.token_bytes=2",
                                  "data.allow_unused=true",
                                  "data.document_mask=true",
                                  "train.stop_at=50",
                                  "train.max_minutes=1.5",
                                  "train.gradient_groups=0",
                                  "train.group_micro_batches=2",
                                  "train.recompute=0,2-3",
                                  "train.threads=3",
                                  "train.head_chunk_tokens=32",
                                  "optimizer.beta1=0.8",
                                  "optimizer.beta2=0.99",
                                  "optimizer.epsilon=1e-6",
                                  "optimizer.weight_decay=0",
                                  "optimizer.clip_norm=2",
                                  "optimizer.master_dtype=fp32",
                                  "optimizer.moment_dtype=bf16",
                                  "schedule.kind=wsd",
                                  "schedule.warmup_steps=10",
                                  "schedule.min_ratio=0",
                                  "schedule.decay_share=0.5",
                                  "schedule.peaks={1200: 3e-4, 5: 0.01}",
                                  "guard.skip_in_a_row=0",
                                  "guard.skip_total=9",
                                  "guard.check_products_every=50",
                                  "guard.product_mismatch=warn",
                                  "telemetry.every=0",
                                  "telemetry.gradient_probe=false",
                                  "profile.every=7",
                                  "eval.every=5",
                                  "eval.sequences=7",
                                  "checkpoint.every=20",
                                  "checkpoint.keep_last=4",
                                  "checkpoint.keep_every=40",
                                  "checkpoint.keep_best=validation",
                                  "comm.timeout_s=1.5",
                                  "comm.reduction=nccl",
                                  "log.progress=none",
                                  "log.every=10",
                                  "log.tensorboard=false",
                                  "fault.throw=3:4:0:backward",
                                  "resume.allow=[schedule.kind, device]"});
  EXPECT_EQ(config.run.seed, UINT64_MAX);
  EXPECT_EQ(config.device, RunConfig::Device::cpu);
  EXPECT_EQ(config.model_origin.from, "/m");
  EXPECT_EQ(config.model_origin.from_skip, "head");
  EXPECT_EQ(config.model.vocab_size, 4096);
  EXPECT_EQ(config.model.rope_theta, 500'000);
  EXPECT_TRUE(config.model.tied_head);
  EXPECT_EQ(config.model.dtype, DType::f32);
  EXPECT_EQ(config.data.train.at(0).patterns, (std::vector<std::string>{"/a.bin", "/b.bin"}));
  EXPECT_EQ(config.data.vocab_size, 1500);
  EXPECT_EQ(config.data.token_bytes, 2);
  ASSERT_EQ(config.data.validation.size(), 1U);
  EXPECT_EQ(config.data.validation[0].patterns, (std::vector<std::string>{"/v.bin"}));
  EXPECT_EQ(config.guard.skip_in_a_row, 0);
  EXPECT_EQ(config.guard.skip_total, 9);
  EXPECT_EQ(config.telemetry.every, 0);
  EXPECT_FALSE(config.telemetry.gradient_probe);
  EXPECT_EQ(config.profile.every, 7);
  EXPECT_EQ(tokenizer_path(config), "/t.model");
  EXPECT_EQ(recompute_blocks(config), (std::vector<bool>{true, false, true, true}));
  EXPECT_EQ(config.optimizer.master_dtype, DType::f32);
  EXPECT_EQ(config.optimizer.moment_dtype, DType::bf16);
  EXPECT_EQ(config.schedule.kind, ScheduleKind::wsd);
  EXPECT_EQ(config.comm.timeout_s, 1.5);
  EXPECT_EQ(config.log.progress, RunConfig::Progress::none);
  EXPECT_EQ(config.schedule.peaks, (std::map<uint64_t, double>{{5, 0.01}, {1200, 3e-4}}));
  EXPECT_EQ(config.log.every, 10);
  EXPECT_FALSE(config.log.tensorboard);
  EXPECT_EQ(config.fault.throws, "3:4:0:backward");
  EXPECT_EQ(config.resume.allow, (std::vector<std::string>{"device", "schedule.kind"}));
  const RunConfig bf16 = parse({"optimizer.master_dtype=fp32", "comm.gather=nvfp4"});  // needs model.dtype bf16
  EXPECT_EQ(bf16.comm.gather, WeightFormat::nvfp4);
  // Every key has a member, and no two keys have the same one: all keys except the required ones were changed above.
  const RunConfig defaults = parse();
  for (const Field& field : config_fields()) {
    const bool changed = !same_value(field, config, defaults) || !same_value(field, bf16, defaults);
    const bool is_cleared = field.key == "model.preset";  // its keys are there instead
    EXPECT_TRUE(field.required || is_cleared || changed) << field.key;
  }
  EXPECT_EQ(resolved_yaml(parse({}, resolved_yaml(bf16))), resolved_yaml(bf16));
  EXPECT_EQ(resolved_yaml(parse({}, resolved_yaml(config))), resolved_yaml(config));
}

TEST(RunConfig, ValidationSetsHaveNames) {
  const std::string set = "data.validation={web: '/w/v-*.bin', code: [/a.bin, '/b [1].bin']}";
  const RunConfig config = parse({set});
  ASSERT_EQ(config.data.validation.size(), 2U);
  EXPECT_EQ(config.data.validation[0].name, "web");  // in the order in which they are written
  EXPECT_EQ(config.data.validation[0].patterns, (std::vector<std::string>{"/w/v-*.bin"}));
  EXPECT_EQ(config.data.validation[1].name, "code");
  EXPECT_EQ(config.data.validation[1].patterns, (std::vector<std::string>{"/a.bin", "/b [1].bin"}));
  const std::string resolved = resolved_yaml(config);
  EXPECT_NE(resolved.find(R"(validation: {web: ["/w/v-*.bin"], code: [/a.bin, "/b [1].bin"]})"), std::string::npos);
  EXPECT_EQ(resolved_yaml(parse({}, resolved)), resolved);
  EXPECT_EQ(parse({"data.validation.web=/w.bin"}).data.validation.at(0).name, "web");
  EXPECT_TRUE(parse({"data.validation={}"}).data.validation.empty());

  const RunConfig other = parse({"data.validation={web: '/w/v-*.bin', books: [/a.bin, '/b [1].bin']}"});
  const auto differences = config_differences(config, other);
  ASSERT_EQ(differences.size(), 1U);
  EXPECT_EQ(differences[0].key, "data.validation");
  EXPECT_NE(differences[0].after.find("books"), std::string::npos);

  const auto refuse = [](const std::string& value, const std::string& message) {
    expect_refused({"data.validation=" + value}, "--set data.validation=" + value + ": data.validation" + message);
  };
  refuse("{web: []}", ": the set \"web\" is empty");
  refuse("{web: }", " has no value");
  refuse("{a/b: /x.bin}", ": \"a/b\" cannot be the name of a set");
  refuse("{web: {x: /y.bin}}", " must be a single value");
  EXPECT_NO_THROW(parse({"eval.every=10", "data.validation={web: /w.bin}"}));
}

TEST(RunConfig, AMixtureHasPartsWithWeights) {
  const RunConfig config =
      parse({"data.train=[{shards: '/w/*.bin', weight: 0.7, name: web}, {shards: [/a.bin, /b.bin], weight: 3e-1}]"});
  ASSERT_EQ(config.data.train.size(), 2U);
  EXPECT_EQ(config.data.train[0], (ShardSet{.name = "web", .patterns = {"/w/*.bin"}, .weight = 0.7}));
  EXPECT_EQ(config.data.train[1], (ShardSet{.name = "part-2", .patterns = {"/a.bin", "/b.bin"}, .weight = 0.3}));
  const RunConfig again = parse_run_config_text(resolved_yaml(config), "again.yaml");
  EXPECT_EQ(again.data.train, config.data.train);
  // One part alone is a plain set.
  EXPECT_EQ(resolved_yaml(parse({"data.train=[{shards: '/w/*.bin', weight: 5}]"})),
            resolved_yaml(parse({"data.train=/w/*.bin"})));
  for (const auto& [value, message] : std::vector<std::pair<std::string, std::string>>{
           {"[{shards: /a.bin, weight: 0}]", "is no weight"},
           {"[{shards: /a.bin, weight: -1}]", "is no weight"},
           {"[{shards: /a.bin, weight: nan}]", "is no weight"},
           {"[{shards: /a.bin, weight: 1e-9}, {shards: /b.bin, weight: 1}]", "less than a millionth"},
           {"[{shards: /a.bin}]", "has no weight"},
           {"[{weight: 1}]", "has no shards"},
           {"[{shards: [], weight: 1}]", "has no shards"},
           {"[{shards: /a.bin, weigth: 1}]", "did you mean"},
           {"[{shards: /a.bin, weight: 1}, /b.bin]", "a pattern beside parts"},
           {"[{shards: /a.bin, weight: 1, name: a}, {shards: /b.bin, weight: 1, name: a}]", "two parts have the name"},
           {"[{shards: /a.bin, weight: 1, name: 'a b'}]", "cannot be the name"},
           {"{web: /a.bin}", "is a mapping"}}) {
    try {
      parse({"data.train=" + value});
      ADD_FAILURE() << value;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_config);
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  }
}

TEST(RunConfig, EveryShapeOfTheScheduleHasAName) {
  const RunConfig config = parse({"schedule.kind=wsd_sqrt", "schedule.warmup_steps=10", "schedule.min_ratio=0.25",
                                  "schedule.decay_share=0.4", "optimizer.learning_rate=8e-4"});
  EXPECT_EQ(config.schedule.kind, ScheduleKind::wsd_sqrt);
  EXPECT_EQ(resolved_yaml(parse({}, resolved_yaml(config))), resolved_yaml(config));
  EXPECT_NE(resolved_yaml(config).find("kind: wsd_sqrt"), std::string::npos);
  const ScheduleConfig schedule = schedule_config(config);
  constexpr double peak = 8e-4;
  constexpr double low = peak * 0.25;
  for (uint64_t step = 10; step <= 60; ++step) EXPECT_EQ(learning_rate(schedule, step), peak) << step;
  for (uint64_t step = 60; step < 100; ++step) {
    const double done = static_cast<double>(step - 60) / 40;
    EXPECT_NEAR(learning_rate(schedule, step), low + (peak - low) * (1 - std::sqrt(done)), 1e-18) << step;
  }
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 100), low);
  expect_refused({"schedule.kind=wsd_sqrt", "schedule.warmup_steps=90"}, "c.yaml: warm-up and decay overlap");
}

TEST(RunConfig, ResolvedTextStandsAlone) {
  const RunConfig config = parse_run_config(NIBBLE_SOURCE_DIR "/configs/runs/quickstart.yaml");
  const std::string text = resolved_yaml(config);
  EXPECT_EQ(config.recipe.name, "nvfp4");
  EXPECT_EQ(resolved_yaml(parse_run_config_text(text, "/elsewhere/config.yaml")), text);
  EXPECT_EQ(config.run.dir, (std::filesystem::current_path() / "runs/quickstart/nvfp4").string());
}

TEST(RunConfig, UnknownKeysAreRefusedWithTheirPlace) {
  const auto with = [](const std::string& line) { return std::string(minimal) + line; };
  expect_refused({}, "c.yaml:17:1: unknown key \"scheduel\" (did you mean \"schedule\"?)", with("scheduel: {}\n"));
  expect_refused({}, "c.yaml:17:8: unknown key \"eval.evry\" (did you mean \"eval.every\"?)",
                 with("eval: {evry: 1}\n"));
  expect_refused({}, "c.yaml:17:8: unknown key \"eval.beta1\" (did you mean \"optimizer.beta1\"?)",
                 with("eval: {beta1: 1}\n"));
  expect_refused({}, "c.yaml:17:1: key \"eval.every\" is not nested", with("eval.every: 3\n"));
  expect_refused({}, "c.yaml:17:7: \"eval\" is a section, not a value", with("eval: 3\n"));
  expect_refused({"train.stepps=3"},
                 "--set train.stepps=3: unknown key \"train.stepps\" (did you mean \"train.steps\"?)");
  expect_refused({"recipe.forward.x.round=nearest", "recipe.forwrd=1"}, "--set recipe.forwrd=1: unknown key");
  EXPECT_NO_THROW(parse({}, with("eval:\n  # every: 3\n")));
}

TEST(RunConfig, WrongTypesAndRangesAreRefused) {
  expect_refused({"train.steps=many"}, "--set train.steps=many: train.steps is not a whole number: \"many\"");
  expect_refused({"train.steps=1.5"}, "--set train.steps=1.5: train.steps is not a whole number");
  expect_refused({"train.steps=\"100\""}, "--set train.steps=\"100\": train.steps must be a number, not the string");
  expect_refused({"train.steps="}, "--set train.steps=: train.steps has no value");
  expect_refused({"train.steps=[1]"}, "--set train.steps=[1]: train.steps must be a single value");
  expect_refused({"train.steps=0"}, "--set train.steps=0: train.steps is 0, out of range");
  expect_refused({"train.steps=-5"}, "--set train.steps=-5: train.steps is -5, out of range");
  expect_refused({"train.steps=4294967296"}, "--set train.steps=4294967296: train.steps is 4294967296, out of range");
  expect_refused({"run.seed=-1"}, "--set run.seed=-1: run.seed is -1, out of range");
  expect_refused({"run.seed=18446744073709551616"},
                 "--set run.seed=18446744073709551616: run.seed is not a whole number");
  expect_refused({"optimizer.learning_rate=0"},
                 "--set optimizer.learning_rate=0: optimizer.learning_rate is 0, out of");
  expect_refused({"optimizer.learning_rate=nan"},
                 "--set optimizer.learning_rate=nan: optimizer.learning_rate is not a");
  expect_refused({"optimizer.beta1=1"}, "--set optimizer.beta1=1: optimizer.beta1 is 1, out of range");
  expect_refused({"log.tensorboard=yes"}, "--set log.tensorboard=yes: log.tensorboard must be true or false");
  expect_refused({"log.tensorboard=1"}, "--set log.tensorboard=1: log.tensorboard must be true or false");
  expect_refused({"schedule.kind=cosin"}, "--set schedule.kind=cosin: schedule.kind cannot be \"cosin\" (did you mean");
  expect_refused({"data.token_bytes=3"}, "--set data.token_bytes=3: data.token_bytes is 3");
  expect_refused({"data.train=[]"}, "--set data.train=[]: data.train is empty");
  expect_refused({"run.dir=\"a\\x00b\""}, "--set run.dir=\"a\\x00b\": run.dir has control characters");
  expect_refused({"recipe=no_such"}, "--set recipe=no_such: no recipe \"no_such\"", minimal, ExitCode::missing_input);
  expect_refused({}, "c.yaml: is empty", "");
  expect_refused({}, "c.yaml:1:1: not a mapping", "- a\n");
  expect_refused({}, "c.yaml: missing keys run.dir, recipe, model.pattern", "device: cpu\n");
}

TEST(RunConfig, ContradictionsAreRefusedWithTheirPlace) {
  expect_refused({"train.tokens_per_step=800"}, "--set train.tokens_per_step=800: train.tokens_per_step 800 is not a");
  expect_refused({"model.sequence_length=80"}, "c.yaml:15:20: train.tokens_per_step 768 is not a multiple");
  expect_refused({"train.stop_at=101"}, "--set train.stop_at=101: train.stop_at is 101, beyond the 100 steps");
  expect_refused({"schedule.warmup_steps=101"},
                 "--set schedule.warmup_steps=101: schedule.warmup_steps is 101, beyond");
  expect_refused({"schedule.kind=wsd", "schedule.warmup_steps=90"}, "c.yaml: warm-up and decay overlap");
  expect_refused({"eval.every=10"}, "--set eval.every=10: eval.every is set, but there is no data.validation");
  for (const char* blocks :
       {"4", "0-4", "2-1", "x", "", "0,", ",0", "0;1", "-1", "1-", "all,1", "99999999999999999999"}) {
    const std::string assignment = "train.recompute=\"" + std::string(blocks) + "\"";
    expect_refused({assignment}, "--set " + assignment + ": train.recompute \"");
  }
  expect_refused({"comm.gather=fp8"},
                 "--set comm.gather=fp8: comm.gather fp8 rounds weights that are BF16 and have FP32 "
                 "masters, but optimizer.master_dtype is bf16");
  expect_refused({"comm.gather=nvfp4", "model.dtype=fp32", "optimizer.master_dtype=fp32"},
                 "--set comm.gather=nvfp4: comm.gather nvfp4 rounds weights that are BF16 and have FP32 masters, but "
                 "model.dtype is fp32");
  expect_refused({"model.kv_heads=3"}, "--set model.kv_heads=3: model.kv_heads 3 does not divide");
  expect_refused({"model.pattern=*x"}, "--set model.pattern=*x: model.pattern has 'x'");
}

TEST(RunConfig, ResumeAllowNamesNumericKeysOnly) {
  expect_refused({"resume.allow=train.stepps"}, "--set resume.allow=train.stepps: resume.allow names no key");
  expect_refused({"resume.allow=model.pattern"},
                 "--set resume.allow=model.pattern: resume.allow names \"model.pattern\", "
                 "which is frozen");
  expect_refused({"resume.allow=[eval.every]"},
                 "--set resume.allow=[eval.every]: resume.allow names \"eval.every\", "
                 "which is free");
}

TEST(RunConfig, DifferencesAndResume) {
  const RunConfig before = parse();
  EXPECT_TRUE(config_differences(before, before).empty());

  const RunConfig after = parse({"optimizer.learning_rate=1e-3", "eval.sequences=9", "model.hidden_size=128",
                                 "model.vocab_size=512", "recipe.name=renamed"});
  const std::vector<ConfigDifference> differences = config_differences(before, after);
  ASSERT_EQ(differences.size(), 3U);  // a vocabulary size of the data and a recipe's name are no differences
  EXPECT_EQ(differences[0].key, "model.hidden_size");
  EXPECT_EQ(differences[0].compare_group, "model");
  EXPECT_EQ(differences[1].key, "optimizer.learning_rate");
  EXPECT_EQ(differences[1].before, "0.003");
  EXPECT_EQ(differences[1].after, "0.001");
  EXPECT_EQ(differences[1].resume, ResumeClass::numeric);
  EXPECT_EQ(differences[1].compare_group, "schedule");
  EXPECT_EQ(differences[2].resume, ResumeClass::free);

  const auto refusal = [&](const std::vector<std::string>& overrides) -> std::string {
    try {
      check_resume(before, parse(overrides));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_config);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal({"eval.sequences=9", "train.threads=2", "run.dir=/b"}), "");
  EXPECT_EQ(refusal({"model.hidden_size=128", "optimizer.beta1=0.5"}),
            "the checkpoint does not fit the changed model.hidden_size (64 -> 128)");
  EXPECT_EQ(
      refusal({"optimizer.learning_rate=1e-3", "train.steps=200"}),
      "resuming would change the run's numbers: train.steps (100 -> 200), optimizer.learning_rate (0.003 -> 0.001)");
  EXPECT_EQ(refusal({"optimizer.learning_rate=1e-3", "resume.allow=optimizer.learning_rate"}), "");
  EXPECT_EQ(refusal({"recipe.forward.x.format=nvfp4"}),
            "resuming would change the run's numbers: recipe (plain -> plain with other settings)");
}

TEST(RunConfig, GroupsCutTheMicroBatchesOfAStep) {
  for (const int64_t micro_batches : {1, 3, 8, 9, 13, 100}) {
    for (const char* key : {"gradient_groups", "group_micro_batches"}) {
      for (const int64_t value : {1, 2, 3, 8, 1000}) {
        const RunConfig config = parse({"train.tokens_per_step=" + std::to_string(128 * micro_batches),
                                        "train." + std::string(key) + "=" + std::to_string(value)});
        const uint64_t groups = config.gradient_groups();
        const bool by_groups = config.train.gradient_groups > 0;
        EXPECT_EQ(groups, static_cast<uint64_t>(by_groups ? std::min(value, micro_batches)
                                                          : (micro_batches + value - 1) / value));
        const MicroBatchGroups cut = config.micro_batch_groups();
        EXPECT_EQ(cut.count(), groups);
        EXPECT_EQ(cut.micro_batches(), static_cast<uint64_t>(micro_batches));
        for (uint64_t group = 0; group < groups; ++group) {
          ASSERT_LT(cut.first(group), cut.first(group + 1));
          const bool full = by_groups || group + 1 == groups ||
                            cut.first(group + 1) - cut.first(group) == static_cast<uint64_t>(value);
          EXPECT_TRUE(full) << group;
        }
        EXPECT_EQ(resolved_yaml(parse({}, resolved_yaml(config))), resolved_yaml(config));
      }
    }
  }
  expect_refused({"train.gradient_groups=2", "train.group_micro_batches=2"},
                 "--set train.gradient_groups=2: train.gradient_groups and train.group_micro_batches say the same");
  expect_refused({"train.gradient_groups=0"},
                 "--set train.gradient_groups=0: train.gradient_groups and train.group_micro_batches are both 0");
}

}  // namespace
}  // namespace nibble
