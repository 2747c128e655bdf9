#include "trainer/checkpoint/manifest.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "dist/base/error.h"
#include "dist/base/hash.h"
#include "trainer/checkpoint_fixture.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

// A matrix, a stack of eight matrices and an FP32 vector.
Layout mixed_layout() {
  return {{{.name = "all", .range = {0, 560}}},
          {{.name = "embedding.weight", .shape = {16, 10}, .tensor_id = 0, .offset = 0, .count = 160},
           {.name = "experts.weight", .shape = {8, 4, 12}, .tensor_id = 1, .matrices = 8, .offset = 160, .count = 384},
           {.name = "A_log", .shape = {9}, .tensor_id = 9, .offset = 544, .count = 9, .width = 4}}};
}

Manifest example() {
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.step = 18446744073709551615u;
  info.tokens = 9007199254740993;  // a double cannot hold it
  info.seed = 3;
  info.numbers = {{"skipped/in_a_row", 2}, {"skipped/total", 5}};
  const std::string hash = to_hex(hash128("x"));
  info.data = {.fingerprint = "quote \" and \\",
               .tokenizer = hash,
               .sequence_length = 256,
               .next_sample = 16000,
               .parts = {{.name = "web",
                          .weight = 0.75,
                          .windows = 81234,
                          .taken = 11200,
                          .tokens = 2867200,
                          .position = {.shards = {0xFEDCBA9876543210, 1},
                                       .across_shards = false,
                                       .epoch = 2,
                                       .taken = 30,
                                       .lengths = {1024, 256}}},
                         {.name = "code", .weight = 0.25, .windows = 9120, .taken = 4800, .used = false}}};
  info.ranks = 2;
  info.nibble_version = "0.1.0";
  info.commit = "0123456789ab";
  info.layout = mixed_layout();
  info.arrays = {{.name = "parameters", .dtype = DType::bf16},
                 {.name = "optimizer/adam_m", .dtype = DType::u8, .tensors = {{0, 1}, {9, 10}}},
                 {.name = "optimizer/adam_m.scales", .elements_a_value = 32, .tensors = {{0, 1}, {9, 10}}},
                 {.name = "optimizer/muon_m", .dtype = DType::bf16, .tensors = {{1, 9}}}};
  info.optimizers = {{.name = "muon", .state = {"muon_m"}}, {.name = "adamw", .state = {"adam_m", "adam_m.scales"}}};
  info.replicated = {{"quantization/amax_history", {12, 3}}, {"outliers/channels", {32}, DType::i32}};
  info.rank_files = {{"rank-00000.h5", {{0, 64}, {192, 320}}}, {"rank-00001.h5", {{64, 192}, {320, 560}}}};
  manifest.files = {
      {"config.yaml", {1, hash}}, {"index.h5", {2, hash}}, {"rank-00000.h5", {3, hash}}, {"rank-00001.h5", {4, hash}}};
  return manifest;
}

std::string with_hash(const Json& root) {
  std::string text = root.dump(2);
  text.resize(text.size() - 2);
  return text + ",\n  \"hash\": \"" + to_hex(hash128(text)) + "\"\n}\n";
}

// Returns the manifest with one change and with the hash of the changed text.
std::string forged(const std::function<void(Json&)>& change) {
  Json root = Json::parse(manifest_text(example()));
  root.erase("hash");
  change(root);
  return with_hash(root);
}

ExitCode code_of(const std::string& text) {
  try {
    parse_manifest(text, "manifest.json");
    return ExitCode::ok;
  } catch (const Error& error) {
    return error.code();
  }
}

std::string complaint_about(const std::string& text) {
  try {
    parse_manifest(text, "manifest.json");
    return "none";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ManifestTest, ComesBackFromItsText) {
  const Manifest manifest = example();
  const Manifest back = parse_manifest(manifest_text(manifest), "manifest.json");
  EXPECT_EQ(manifest_text(back), manifest_text(manifest));
  EXPECT_EQ(back.info.format_version, 2);
  EXPECT_EQ(back.info.tokens, 9007199254740993u);
  EXPECT_EQ(back.info.step, 18446744073709551615u);
  EXPECT_EQ(back.info.data.fingerprint, manifest.info.data.fingerprint);
  EXPECT_EQ(back.info.data.parts.at(1).taken, 4800u);
  EXPECT_FALSE(back.info.data.parts.at(1).used);
  EXPECT_TRUE(back.info.data.parts.at(1).position.lengths.empty());
  const DataPosition& position = back.info.data.parts.at(0).position;
  EXPECT_EQ(position.shards, (std::vector<uint64_t>{0xFEDCBA9876543210, 1}));
  EXPECT_FALSE(position.across_shards);
  EXPECT_EQ(position.epoch, 2u);
  EXPECT_EQ(position.taken, 30u);
  EXPECT_EQ(position.lengths, (std::vector<uint64_t>{1024, 256}));
  EXPECT_EQ(back.info.ranks, 2);
  EXPECT_EQ(back.info.numbers, manifest.info.numbers);
  EXPECT_EQ(back.info.number("skipped/total"), 5U);
  EXPECT_EQ(back.info.number("skipped/other"), 0U);
  ASSERT_EQ(back.info.layout.tensors().size(), 3u);
  EXPECT_EQ(back.info.layout.elements(), 560u);
  EXPECT_EQ(back.info.layout.tensors()[1].matrices, 8u);
  EXPECT_EQ(back.info.layout.tensors()[2].width, 4);
  EXPECT_EQ(back.info.arrays[0].dtype_of(back.info.layout.tensors()[2]), DType::f32);
  EXPECT_EQ(back.info.arrays[0].dtype_of(back.info.layout.tensors()[1]), DType::bf16);
  EXPECT_FALSE(back.info.arrays[1].covers(back.info.layout.tensors()[1]));
  EXPECT_TRUE(back.info.arrays[3].covers(back.info.layout.tensors()[1]));
  EXPECT_EQ(back.info.arrays[2].shape_of(back.info.layout.tensors()[0]), (std::vector<int64_t>{5}));
  EXPECT_EQ(back.info.rank_files[1].ranges, manifest.info.rank_files[1].ranges);
  EXPECT_EQ(code_of(forged([](Json&) {})), ExitCode::ok);
}

// Versions that know one part at a time must not go on with a mixture.
TEST(ManifestTest, AMixtureIsRequired) {
  Manifest manifest = example();
  for (DataPart& part : manifest.info.data.parts) part.used = true;
  const std::string text = manifest_text(manifest);
  EXPECT_EQ(Json::parse(text).at("format").at("requires"), Json::parse(R"(["mixture"])"));
  EXPECT_EQ(parse_manifest(text, "manifest.json").info.data.parts.at(1).taken, 4800U);
}

// Scripts of other people read these members.
TEST(ManifestTest, MembersHaveTheirNames) {
  const Json root = Json::parse(manifest_text(example()));
  const Json expected = Json::parse(R"({
    "format": {"name": "nibble checkpoint", "version": 2, "requires": []},
    "step": 18446744073709551615, "tokens": 9007199254740993, "next_sample": 16000, "seed": 3,
    "skipped": {"in_a_row": 2, "total": 5},
    "data": {"fingerprint": "quote \" and \\", "sequence_length": 256,
             "parts": [{"name": "web", "weight": 0.75, "windows": 81234, "taken": 11200, "tokens": 2867200, "across_shards": false, "epoch": 2,
                        "taken_in_epoch": 30, "lengths": [1024, 256], "shards": ["fedcba9876543210", "0000000000000001"]},
                       {"name": "code", "weight": 0.25, "windows": 9120, "taken": 4800, "tokens": 0, "used": false}]},
    "ranks": 2, "parallel": {"shard": "optimizer", "order": "rows"}, "elements": 560,
    "tensors": [{"name": "embedding.weight", "shape": [16, 10], "offset": 0, "id": 0},
                {"name": "experts.weight", "shape": [8, 4, 12], "offset": 160, "id": 1, "matrices": 8},
                {"name": "A_log", "shape": [9], "offset": 544, "id": 9, "dtype": "fp32"}],
    "arrays": [{"name": "parameters", "dtype": "bf16"},
               {"name": "optimizer/adam_m", "dtype": "uint8", "tensors": [[0, 1], [9, 10]]},
               {"name": "optimizer/adam_m.scales", "dtype": "fp32", "elements_a_value": 32, "tensors": [[0, 1], [9, 10]]},
               {"name": "optimizer/muon_m", "dtype": "bf16", "tensors": [[1, 9]]}],
    "optimizers": [{"name": "muon", "state": ["muon_m"]}, {"name": "adamw", "state": ["adam_m", "adam_m.scales"]}],
    "replicated": [{"name": "quantization/amax_history", "dtype": "fp32", "shape": [12, 3]},
                   {"name": "outliers/channels", "dtype": "int32", "shape": [32]}]})");
  for (const auto& [name, value] : expected.items()) EXPECT_EQ(root.at(name), value) << name;
  EXPECT_EQ(root.at("tokenizer").get<std::string>().size(), 32u);
  EXPECT_EQ(root.at("files")[2].at("ranges"), Json::parse("[[0, 64], [192, 320]]"));
  EXPECT_FALSE(root.at("files")[1].contains("ranges"));
  EXPECT_EQ(std::prev(root.end()).key(), "hash");
}

TEST(ManifestTest, NumbersThatAreMissingAreZero) {
  const std::string without = forged([](Json& root) { root.erase("skipped"); });
  const CheckpointInfo info = parse_manifest(without, "manifest.json").info;
  EXPECT_TRUE(info.numbers.empty());
  EXPECT_EQ(info.number("skipped/total"), 0U);
}

TEST(ManifestTest, WordsThatAReaderMustKnowAreRefusedByName) {
  const std::string text = forged([](Json& root) { root["format"]["requires"] = {"expert stacks"}; });
  EXPECT_EQ(code_of(text), ExitCode::bad_data);
  EXPECT_NE(complaint_about(text).find("requires \"expert stacks\""), std::string::npos) << complaint_about(text);
}

TEST(ManifestTest, RangesMustBeAllElementsOnce) {
  const auto complaint = [](size_t file, const Json& ranges) {
    return complaint_about(forged([&](Json& root) { root["files"][file]["ranges"] = ranges; }));
  };
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect(complaint(2, {{0, 96}, {192, 320}}), "two rank files have element 64");
  expect(complaint(2, {{0, 32}, {192, 320}}), "no rank file has element 32");
  expect(complaint(2, {{16, 64}, {192, 320}}), "no rank file has element 0");
  expect(complaint(3, {{64, 192}, {320, 544}}), "have 544 elements, not 560");
  expect(complaint(3, {{64, 192}, {320, 576}}), "have 576 elements, not 560");
  expect(complaint(3, {{320, 560}, {64, 192}}), "not ascending and apart");
  expect(complaint(3, {{64, 128}, {128, 192}, {320, 560}}), "not ascending and apart");
  expect(complaint(3, {{64, 64}, {320, 560}}), "not ascending and apart");
  expect(complaint(3, {64, 192}), "not pairs");
  expect(complaint(3, 7), "no list");
  // Element 80 is inside the third value of 32 elements; muon_m has one value an element.
  const std::string cut = complaint_about(forged([](Json& root) {
    root["files"][2]["ranges"] = {{0, 80}, {192, 320}};
    root["files"][3]["ranges"] = {{80, 192}, {320, 560}};
  }));
  expect(cut, "ends inside a value of optimizer/adam_m.scales of embedding.weight");
}

// The text that nibble 0.1 wrote.
Json version_1() {
  return Json::parse(R"({"format": {"name": "nibble checkpoint", "version": 1}, "nibble": "0.1.0", "libraries": {},
    "step": 30, "tokens": 7680, "seed": 3, "skipped_in_a_row": 1, "skipped_total": 2, "data_fingerprint": "f",
    "groups": [{"name": "parameters", "dtype": "bf16"}, {"name": "optimizer/adam_m", "dtype": "fp32"}],
    "tensors": [{"name": "a", "shape": [10, 3], "offset": 0}, {"name": "b", "shape": [9], "offset": 32}],
    "replicated": [{"name": "outliers/channels", "shape": [32]}],
    "shards": [{"begin": 0, "end": 24}, {"begin": 24, "end": 24}, {"begin": 24, "end": 48}],
    "files": [{"name": "config.yaml", "bytes": 1, "xxh3_128": "00000000000000000000000000000000"},
              {"name": "index.h5", "bytes": 1, "xxh3_128": "00000000000000000000000000000000"},
              {"name": "rank-00000.h5", "bytes": 1, "xxh3_128": "00000000000000000000000000000000"},
              {"name": "rank-00001.h5", "bytes": 1, "xxh3_128": "00000000000000000000000000000000"},
              {"name": "rank-00002.h5", "bytes": 1, "xxh3_128": "00000000000000000000000000000000"}]})");
}

TEST(ManifestTest, Version1IsRead) {
  const CheckpointInfo info = parse_manifest(with_hash(version_1()), "manifest.json").info;
  EXPECT_EQ(info.format_version, 1);
  EXPECT_EQ(info.ranks, 3);
  EXPECT_EQ(info.number("skipped/in_a_row"), 1u);
  EXPECT_EQ(info.number("skipped/total"), 2u);
  EXPECT_EQ(info.layout.elements(), 48u);
  EXPECT_EQ(info.layout.tensors().at(1).tensor_id, 1u);
  EXPECT_EQ(info.rank_files.at(0).ranges, (std::vector<Range>{{0, 24}}));
  EXPECT_TRUE(info.rank_files.at(1).ranges.empty());
  EXPECT_EQ(info.optimizers.at(0).state, (std::vector<std::string>{"adam_m"}));
  EXPECT_EQ(info.replicated.at(0).dtype, DType::f32);
  EXPECT_EQ(info.data.fingerprint, "f");
  EXPECT_TRUE(info.data.tokenizer.empty());
}

TEST(ManifestTest, Version1SaysTheNextSampleByItsConfiguration) {
  CheckpointInfo info = parse_manifest(with_hash(version_1()), "manifest.json").info;
  complete_version_1(info);  // without a configuration
  EXPECT_EQ(info.data.sequence_length, 0u);
  info.config_yaml = R"(run: {dir: unused}
recipe: nvfp4
model: {pattern: "*-", hidden_size: 32, query_heads: 2, kv_heads: 1, head_dim: 16, intermediate_size: 64, sequence_length: 32}
data: {train: nowhere.bin}
train: {steps: 50, micro_batch_sequences: 1, tokens_per_step: 256}
optimizer: {learning_rate: 3e-3}
)";
  info.directory = NIBBLE_SOURCE_DIR "/configs/runs";
  complete_version_1(info);
  EXPECT_EQ(info.data.sequence_length, 32u);
  EXPECT_EQ(info.data.next_sample, 240u);
  EXPECT_EQ(tokenizer_of_version_1(info), "");
}

TEST(ManifestTest, ImpossibleContentsOfVersion1AreRefused) {
  const std::vector<std::function<void(Json&)>> changes{
      [](Json& root) { root.erase("seed"); },
      [](Json& root) { root["skipped_total"] = -1; },
      [](Json& root) { root["groups"][1]["name"] = "optimizer/../adam_m"; },
      [](Json& root) { root["groups"][0]["dtype"] = "int32"; },
      [](Json& root) { root["tensors"][1]["offset"] = 29; },
      [](Json& root) { root["tensors"][1]["offset"] = 33; },
      [](Json& root) { root["tensors"][1]["offset"] = 48; },
      [](Json& root) { root["tensors"] = Json::array(); },
      [](Json& root) { root["shards"][1]["begin"] = 25; },
      [](Json& root) { root["shards"][2]["end"] = 23; },
      [](Json& root) { root["shards"] = Json::array(); },
      [](Json& root) { root["files"].erase(4); },
  };
  EXPECT_EQ(code_of(with_hash(version_1())), ExitCode::ok);
  for (size_t index = 0; index < changes.size(); ++index) {
    Json root = version_1();
    changes[index](root);
    EXPECT_EQ(code_of(with_hash(root)), ExitCode::bad_data) << "change " << index;
  }
}

TEST(ManifestTest, EveryFlippedBitIsNoticed) {
  const std::string text = manifest_text(example());
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string damaged = text;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_EQ(code_of(damaged), ExitCode::bad_data) << "bit " << bit;
  }
}

TEST(ManifestTest, EveryCutIsNoticed) {
  const std::string text = manifest_text(example());
  for (size_t length = 0; length < text.size(); ++length) {
    ASSERT_EQ(code_of(text.substr(0, length)), ExitCode::bad_data) << length;
  }
  EXPECT_EQ(code_of(text + " "), ExitCode::bad_data);
}

TEST(ManifestTest, ImpossibleContentsAreRefused) {
  const std::vector<std::function<void(Json&)>> changes{
      [](Json& root) { root["format"]["version"] = 3; },
      [](Json& root) { root["format"]["version"] = 1; },
      [](Json& root) { root["format"]["name"] = "other"; },
      [](Json& root) { root["format"]["requires"] = "none"; },
      [](Json& root) { root["format"].erase("requires"); },
      [](Json& root) { root["step"] = -1; },
      [](Json& root) { root["step"] = 1.0; },
      [](Json& root) { root["tokens"] = "1"; },
      [](Json& root) { root.erase("seed"); },
      [](Json& root) { root["skipped"]["total"] = -1; },
      [](Json& root) {
        root["another"] = {{"number", 0.5}};
      },
      [](Json& root) { root["next_sample"] = 15999; },  // the parts have taken another number
      [](Json& root) { root["tokenizer"] = "abc"; },
      [](Json& root) { root["data"].erase("fingerprint"); },
      [](Json& root) { root["data"]["sequence_length"] = 0; },
      [](Json& root) { root["data"]["parts"][0]["weight"] = 0; },
      [](Json& root) { root["data"]["parts"][0]["taken"] = UINT64_MAX; },
      [](Json& root) {
        root["data"]["parts"][0]["lengths"] = {1024, 300};
      },
      [](Json& root) { root["data"]["parts"][0]["lengths"] = Json::array(); },
      [](Json& root) { root["data"]["parts"][0]["shards"][0] = "fedcba987654321"; },
      [](Json& root) { root["data"]["parts"][0]["shards"][0] = "fedcba987654321g"; },
      [](Json& root) { root["data"]["parts"][0].erase("epoch"); },
      [](Json& root) { root["ranks"] = 3; },
      [](Json& root) { root["ranks"] = 0; },
      [](Json& root) { root["parallel"].erase("order"); },
      [](Json& root) { root["elements"] = 561; },
      [](Json& root) { root["elements"] = 544; },
      [](Json& root) { root["arrays"].erase(0); },  // no weights
      [](Json& root) { root["arrays"][0]["dtype"] = "uint8"; },
      [](Json& root) { root["arrays"][0]["tensors"] = Json::parse("[[0, 1]]"); },
      [](Json& root) { root["arrays"][1]["name"] = "optimizer/../adam_m"; },
      [](Json& root) { root["arrays"][1]["name"] = "/adam_m"; },
      [](Json& root) { root["arrays"][1]["name"] = ""; },
      [](Json& root) { root["arrays"][1]["name"] = "optimizer/muon_m"; },  // twice
      [](Json& root) { root["arrays"][1]["dtype"] = "fp7"; },
      [](Json& root) { root["arrays"][1]["tensors"] = Json::array(); },
      [](Json& root) { root["arrays"][1]["tensors"] = Json::parse("[[0, 2]]"); },  // ends inside the stack
      [](Json& root) { root["arrays"][1]["tensors"] = Json::parse("[[2, 9]]"); },  // begins inside the stack
      [](Json& root) { root["arrays"][1]["tensors"] = Json::parse("[[9, 11]]"); },
      [](Json& root) { root["arrays"][2]["elements_a_value"] = 0; },
      [](Json& root) { root["optimizers"][0]["state"] = {"adam_v"}; },
      [](Json& root) { root["optimizers"][0]["state"] = 7; },
      [](Json& root) { root["tensors"][0]["name"] = "a/b"; },
      [](Json& root) { root["tensors"][0]["name"] = ".."; },
      [](Json& root) { root["tensors"][0]["name"] = "A_log"; },  // twice
      [](Json& root) { root["tensors"][0]["name"] = 7; },
      [](Json& root) { root["tensors"][0]["shape"] = Json::array(); },
      [](Json& root) {
        root["tensors"][0]["shape"] = {1, 1, 1, 1, 1};
      },
      [](Json& root) {
        root["tensors"][0]["shape"] = {16, -10};
      },
      [](Json& root) {
        root["tensors"][0]["shape"] = {16, 0};
      },
      [](Json& root) {
        root["tensors"][0]["shape"] = {uint64_t{1} << 33, uint64_t{1} << 33};
      },
      [](Json& root) { root["tensors"][0]["offset"] = 16; },
      [](Json& root) { root["tensors"][1]["offset"] = 144; },
      [](Json& root) { root["tensors"][2]["offset"] = UINT64_MAX; },
      [](Json& root) { root["tensors"][2]["offset"] = 552; },
      [](Json& root) { root["tensors"][2]["id"] = 8; },  // one of the stack's
      [](Json& root) { root["tensors"][2]["id"] = uint64_t{1} << 32; },
      [](Json& root) { root["tensors"][1]["matrices"] = 4; },
      [](Json& root) { root["tensors"][1]["matrices"] = 0; },
      [](Json& root) { root["tensors"][2]["dtype"] = "int32"; },
      [](Json& root) { root["replicated"][0].erase("dtype"); },
      [](Json& root) { root["replicated"][0]["dtype"] = "fp7"; },
      [](Json& root) { root["replicated"][0]["name"] = "b"; },
      [](Json& root) { root["replicated"][0]["name"] = "a/../b"; },
      [](Json& root) { root["replicated"][0]["shape"] = {0}; },
      [](Json& root) { root["files"][2].erase("ranges"); },
      [](Json& root) { root["files"][2]["name"] = "../rank-00000.h5"; },
      [](Json& root) { root["files"][2]["name"] = "rank-00001.h5"; },
      [](Json& root) { root["files"].erase(3); },
      [](Json& root) { root["files"] = Json::array(); },
      [](Json& root) { root["files"][3]["xxh3_128"] = "abc"; },
      [](Json& root) { root["files"][3]["bytes"] = nullptr; },
      [](Json& root) {
        root = Json::array({1, 2});
      },
  };
  for (size_t index = 0; index < changes.size(); ++index) {
    EXPECT_EQ(code_of(forged(changes[index])), ExitCode::bad_data) << "change " << index;
  }
}

}  // namespace
}  // namespace nibble
