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

Manifest example() {
  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.step = 18446744073709551615u;
  info.tokens = 9007199254740993;  // a double cannot hold it
  info.seed = 3;
  info.numbers = {{"skipped_in_a_row", 2}, {"skipped_total", 5}};
  info.data_fingerprint = "quote \" and \\";
  info.nibble_version = "0.1.0";
  info.layout = testing_support::small_layout();
  info.arrays = {{.name = "parameters", .dtype = DType::bf16}, {.name = "optimizer/adam_m"}};
  info.rank_files = {{"rank-00000.h5", {{0, 300}}}, {"rank-00001.h5", {{300, 720}}}};
  const std::string hash = to_hex(hash128("x"));
  manifest.files = {
      {"config.yaml", {1, hash}}, {"index.h5", {2, hash}}, {"rank-00000.h5", {3, hash}}, {"rank-00001.h5", {4, hash}}};
  return manifest;
}

// Returns the manifest with one change and with the hash of the changed text.
std::string forged(const std::function<void(Json&)>& change) {
  Json root = Json::parse(manifest_text(example()));
  root.erase("hash");
  change(root);
  std::string text = root.dump(2);
  text.resize(text.size() - 2);
  return text + ",\n  \"hash\": \"" + to_hex(hash128(text)) + "\"\n}\n";
}

ExitCode code_of(const std::string& text) {
  try {
    parse_manifest(text, "manifest.json");
    return ExitCode::ok;
  } catch (const Error& error) {
    return error.code();
  }
}

TEST(ManifestTest, ComesBackFromItsText) {
  const Manifest manifest = example();
  const Manifest back = parse_manifest(manifest_text(manifest), "manifest.json");
  EXPECT_EQ(manifest_text(back), manifest_text(manifest));
  EXPECT_EQ(back.info.tokens, 9007199254740993u);
  EXPECT_EQ(back.info.step, 18446744073709551615u);
  EXPECT_EQ(back.info.layout.tensors().size(), 5u);
  EXPECT_EQ(back.info.data_fingerprint, manifest.info.data_fingerprint);
  EXPECT_EQ(back.info.ranks, 2);
  EXPECT_EQ(back.info.numbers, manifest.info.numbers);
  EXPECT_EQ(back.info.number("skipped_total"), 5U);
  EXPECT_EQ(code_of(forged([](Json&) {})), ExitCode::ok);
}

TEST(ManifestTest, NumbersThatAreMissingAreZero) {
  const std::string old = forged([](Json& root) {
    root.erase("skipped_in_a_row");
    root.erase("skipped_total");
  });
  const CheckpointInfo info = parse_manifest(old, "manifest.json").info;
  EXPECT_TRUE(info.numbers.empty());
  EXPECT_EQ(info.number("skipped_total"), 0U);
}

TEST(ManifestTest, ReplicatedArraysComeBackAndAreChecked) {
  Manifest manifest = example();
  EXPECT_TRUE(parse_manifest(manifest_text(manifest), "manifest.json").info.replicated.empty());
  manifest.info.replicated = {{"quantization/amax_history", {12, 3}}, {"outliers/channels", {32}, DType::i32}};
  const Manifest back = parse_manifest(manifest_text(manifest), "manifest.json");
  ASSERT_EQ(back.info.replicated.size(), 2u);
  EXPECT_EQ(back.info.replicated[0].name, "quantization/amax_history");
  EXPECT_EQ(back.info.replicated[0].shape, (std::vector<int64_t>{12, 3}));
  EXPECT_EQ(back.info.replicated[0].dtype, DType::f32);
  EXPECT_EQ(back.info.replicated[1].shape, (std::vector<int64_t>{32}));
  EXPECT_EQ(back.info.replicated[1].dtype, DType::i32);
  EXPECT_EQ(manifest_text(back), manifest_text(manifest));
  const auto with = [](const char* name, const Json& shape) {
    return code_of(forged([&](Json& root) { root["replicated"] = {{{"name", name}, {"shape", shape}}}; }));
  };
  EXPECT_EQ(with("a/b", {1, 2}), ExitCode::ok);
  const auto with_dtype = [](const Json& dtype) {
    return code_of(forged([&](Json& root) {
      root["replicated"] = {{{"name", "a/b"}, {"dtype", dtype}, {"shape", {1}}}};
    }));
  };
  EXPECT_EQ(with_dtype("int64"), ExitCode::ok);
  EXPECT_EQ(with_dtype("fp7"), ExitCode::bad_data);
  EXPECT_EQ(with_dtype(7), ExitCode::bad_data);
  EXPECT_EQ(with("b", {1}), ExitCode::bad_data);
  EXPECT_EQ(with("a/../b", {1}), ExitCode::bad_data);
  EXPECT_EQ(with("a/b", {0}), ExitCode::bad_data);
  EXPECT_EQ(with("a/b", Json::array()), ExitCode::bad_data);
  EXPECT_EQ(with("a/b", {int64_t{1} << 40, int64_t{1} << 40}), ExitCode::bad_data);
}

TEST(ManifestTest, ReplicatedArraysWithoutADtypeAreFP32) {
  const std::string old = forged([](Json& root) { root["replicated"] = {{{"name", "a/b"}, {"shape", {2}}}}; });
  EXPECT_EQ(parse_manifest(old, "manifest.json").info.replicated.at(0).dtype, DType::f32);
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
      [](Json& root) { root["format"]["version"] = 2; },
      [](Json& root) { root["format"]["name"] = "other"; },
      [](Json& root) { root["step"] = -1; },
      [](Json& root) { root["step"] = 1.0; },
      [](Json& root) { root["tokens"] = "1"; },
      [](Json& root) { root.erase("seed"); },
      [](Json& root) { root["skipped_total"] = -1; },
      [](Json& root) { root["another_number"] = 0.5; },
      [](Json& root) { root["groups"][1]["name"] = "optimizer/../adam_m"; },
      [](Json& root) { root["groups"][1]["name"] = "/adam_m"; },
      [](Json& root) { root["groups"][1]["name"] = ""; },
      [](Json& root) { root["groups"][1]["dtype"] = "fp7"; },
      [](Json& root) { root["tensors"][0]["name"] = "a/b"; },
      [](Json& root) { root["tensors"][0]["name"] = ".."; },
      [](Json& root) { root["tensors"][0]["name"] = 7; },
      [](Json& root) { root["tensors"][0]["shape"] = Json::array(); },
      [](Json& root) {
        root["tensors"][0]["shape"] = {1, 1, 1, 1, 1};
      },
      [](Json& root) {
        root["tensors"][0]["shape"] = {24, -10};
      },
      [](Json& root) {
        root["tensors"][0]["shape"] = {24, 0};
      },
      [](Json& root) {
        root["tensors"][0]["shape"] = {uint64_t{1} << 33, uint64_t{1} << 33};
      },
      [](Json& root) { root["tensors"][1]["offset"] = 239; },
      [](Json& root) { root["tensors"][4]["offset"] = UINT64_MAX; },
      [](Json& root) { root["tensors"][4]["offset"] = 700; },
      [](Json& root) { root["shards"][1]["begin"] = 301; },
      [](Json& root) { root["shards"][1]["end"] = 299; },
      [](Json& root) { root["shards"] = Json::array(); },
      [](Json& root) { root["files"][2]["name"] = "../rank-00000.h5"; },
      [](Json& root) { root["files"][2]["name"] = "rank-00001.h5"; },
      [](Json& root) { root["files"].erase(3); },
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
