#include "trainer/report/metrics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "dist/base/error.h"
#include "trainer/record/tensorboard.h"

namespace nibble {
namespace {

std::filesystem::path fresh_directory(const std::string& name) {
  const auto path =
      std::filesystem::temp_directory_path() / ("nibble-metrics-test-" + name + "-" + std::to_string(getpid()));
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Metrics, HexadecimalBitsAreThoseOfTheDouble) {
  EXPECT_EQ(hexadecimal_bits(1.0), "3ff0000000000000");
  EXPECT_EQ(hexadecimal_bits(-0.0), "8000000000000000");
  EXPECT_NE(hexadecimal_bits(1.0), hexadecimal_bits(std::nextafter(1.0, 2.0)));
}

TEST(Metrics, StepLineHasTheKeysThatScriptsRelyOn) {
  const auto path = fresh_directory("keys") / "metrics.jsonl";
  MetricsLog(path).step({.step = 7,
                         .tokens = 700,
                         .loss = 2.5,
                         .grad_norm = 1,
                         .learning_rate = 0.1,
                         .tokens_per_second = 10,
                         .mfu = 0.5});
  const auto line = nlohmann::json::parse(contents(path));
  EXPECT_EQ(line.at("event"), "step");
  EXPECT_EQ(line.at("step"), 7);
  EXPECT_EQ(line.at("tokens"), 700);
  EXPECT_EQ(line.at("loss"), 2.5);
  EXPECT_EQ(line.at("loss_hex"), "4004000000000000");
  EXPECT_EQ(line.at("grad_norm"), 1);
  EXPECT_EQ(line.at("lr"), 0.1);
  EXPECT_EQ(line.at("tokens_per_second"), 10);
  for (const char* key : {"applied", "retried", "non_finite", "skipped_total"}) EXPECT_FALSE(line.contains(key)) << key;
}

TEST(Metrics, StepThatWasNotFiniteSaysWhatBecameOfIt) {
  const auto path = fresh_directory("guard") / "metrics.jsonl";
  {
    MetricsLog log(path);
    log.step({.step = 1, .tokens = 10, .loss = 2, .retried = true});
    log.step(
        {.step = 2, .tokens = 20, .loss = 2, .applied = false, .retried = true, .non_finite = 7, .skipped_total = 1});
    log.step({.step = 3, .tokens = 30, .loss = 2, .skipped_total = 1});
    log.warning(2, "skipped", {{"kind", "skipped_step"}});
  }
  std::istringstream text(contents(path));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0].at("retried"), true);
  EXPECT_FALSE(lines[0].contains("applied"));
  EXPECT_EQ(lines[1].at("applied"), false);
  EXPECT_EQ(lines[1].at("retried"), true);
  EXPECT_EQ(lines[1].at("non_finite"), 7);
  EXPECT_EQ(lines[1].at("skipped_total"), 1);
  EXPECT_FALSE(lines[2].contains("skipped_total"));
  EXPECT_EQ(lines[3].at("event"), "warning");
  EXPECT_EQ(lines[3].at("step"), 2);
  EXPECT_EQ(lines[3].at("text"), "skipped");
  EXPECT_EQ(lines[3].at("kind"), "skipped_step");
  const RunHistory history = read_history(path);
  ASSERT_EQ(history.steps.size(), 3U);
  EXPECT_TRUE(history.steps[0].applied && history.steps[0].retried);
  EXPECT_FALSE(history.steps[1].applied);
  EXPECT_EQ(history.steps[1].non_finite, 7U);
}

TEST(Metrics, ResumedPointsCountOnce) {
  const auto path = fresh_directory("resume") / "metrics.jsonl";
  {
    MetricsLog log(path);
    for (uint64_t step = 1; step <= 5; ++step) log.step({.step = step, .tokens = step * 10, .loss = 5});
    log.validation(4, 40, {{.loss = 4.5}});
  }
  {
    MetricsLog log(path);
    log.event({{"event", "resume"}, {"step", 3}});
    for (uint64_t step = 4; step <= 6; ++step) log.step({.step = step, .tokens = step * 10, .loss = 1});
    log.validation(4, 40, {{.loss = 1.5}});
  }
  const RunHistory history = read_history(path);
  ASSERT_EQ(history.steps.size(), 6U);
  EXPECT_EQ(history.steps[2].loss, 5);
  EXPECT_EQ(history.steps[3].loss, 1);
  ASSERT_EQ(history.validations.size(), 1U);
  EXPECT_EQ(history.validations[0].loss(), 1.5);
}

TEST(Metrics, ValidationSetsKeepTheirNamesAndTheFirstIsTheRunsLoss) {
  const auto path = fresh_directory("sets") / "metrics.jsonl";
  {
    MetricsLog log(path);
    log.validation(1, 10, {{.name = "web", .loss = 4.5, .data_fingerprint = "w"}, {.name = "code", .loss = 3}});
  }
  // A line of a version without sets.
  std::ofstream(path, std::ios::app) << R"({"event":"validation","step":2,"tokens":20,"loss":4.25})"
                                     << "\n";
  const RunHistory history = read_history(path);
  ASSERT_EQ(history.validations.size(), 2U);
  EXPECT_EQ(history.validations[0].loss(), 4.5);
  ASSERT_EQ(history.validations[0].losses.size(), 2U);
  EXPECT_EQ(history.validations[0].losses[0].name, "web");
  EXPECT_EQ(history.validations[0].losses[0].data_fingerprint, "w");
  EXPECT_EQ(history.validations[0].losses[1].name, "code");
  EXPECT_EQ(history.validations[0].losses[1].loss, 3);
  EXPECT_EQ(history.validations[1].loss(), 4.25);
  EXPECT_EQ(history.validations[1].losses[0].data_fingerprint, "");
}

TEST(Metrics, IncompleteLastLineIsIgnoredByReadersAndCutByTheNextWriter) {
  const auto path = fresh_directory("torn") / "metrics.jsonl";
  MetricsLog(path).step({.step = 1, .tokens = 1, .loss = 2});
  std::ofstream(path, std::ios::app) << R"({"event":"step","step":2,"tok)";
  EXPECT_EQ(read_history(path).steps.size(), 1U);
  MetricsLog(path).step({.step = 2, .tokens = 2, .loss = 2});
  EXPECT_EQ(read_history(path).steps.size(), 2U);
}

TEST(Metrics, BrokenLineIsNamed) {
  const auto path = fresh_directory("broken") / "metrics.jsonl";
  MetricsLog(path).step({.step = 1, .tokens = 1, .loss = 2});
  std::ofstream(path, std::ios::app) << "not json\n";
  try {
    read_history(path);
    FAIL() << "a broken line was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("metrics.jsonl:2"), std::string::npos) << error.what();
  }
}

TEST(Metrics, LossThatIsNotANumberSurvives) {
  const auto path = fresh_directory("nan") / "metrics.jsonl";
  MetricsLog(path).step({.step = 1, .tokens = 1, .loss = std::nan("")});
  EXPECT_TRUE(std::isnan(read_history(path).steps.at(0).loss));
}

// Reads records by an independent program: u64 length, masked CRC, bytes, masked CRC.
std::vector<std::string> records(const std::string& bytes) {
  const auto masked = [](std::string_view part) {
    const uint32_t crc = crc32c(part);
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
  };
  const auto number = [&bytes](size_t at, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value |= uint64_t{static_cast<uint8_t>(bytes.at(at + i))} << (8 * i);
    return value;
  };
  std::vector<std::string> result;
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t length = number(at, 8);
    EXPECT_EQ(number(at + 8, 4), masked(bytes.substr(at, 8)));
    result.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(number(at + 12 + length, 4), masked(result.back()));
    at += 16 + length;
  }
  return result;
}

TEST(Tensorboard, KnownChecksum) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
}

TEST(Tensorboard, RecordsAreFramedAndHoldTheScalars) {
  const auto directory = fresh_directory("tensorboard");
  {
    TensorboardWriter writer(directory);
    writer.session_start(3);
    writer.scalar("loss/train", 1.5, 300);
  }
  const auto file = std::filesystem::directory_iterator(directory)->path();
  EXPECT_TRUE(file.filename().string().starts_with("events.out.tfevents."));
  const auto events = records(contents(file));
  ASSERT_EQ(events.size(), 3U);
  EXPECT_NE(events[0].find("brain.Event:2"), std::string::npos);
  // Field 2 (step) varint 3; field 7 (session log) { field 1 (status) START = 1 }.
  EXPECT_NE(events[1].find(std::string("\x10\x03\x3A\x02\x08\x01", 6)), std::string::npos);
  // Step 300; summary { value { tag "loss/train", simple_value 1.5F } }.
  EXPECT_NE(events[2].find(std::string("\x10\xAC\x02\x2A\x13\x0A\x11\x0A\x0A"
                                       "loss/train\x15\x00\x00\xC0\x3F",
                                       24)),
            std::string::npos);
}

// The bytes are those that the protocol-buffer classes of TensorBoard write for the same messages.
TEST(Tensorboard, TextsAndHyperparametersAreSummariesOfTheirPlugins) {
  const auto directory = fresh_directory("tensorboard-text");
  {
    TensorboardWriter writer(directory);
    writer.text("configuration", "hi", 0);
    writer.hyperparameters({{"a", 1.0}, {"b", true}, {"c", std::string("x")}});
  }
  const auto events = records(contents(std::filesystem::directory_iterator(directory)->path()));
  ASSERT_EQ(events.size(), 3U);
  // metadata { plugin_data { plugin_name "text", content "" } }, tensor { DT_STRING, shape { dim { size 1 } }, "hi" }.
  EXPECT_NE(events[1].find(std::string("\x4A\x0A\x0A\x08\x0A\x04text\x12\x00\x42\x0C\x08\x07\x12\x04\x12\x02\x08\x01"
                                       "\x42\x02hi",
                                       26)),
            std::string::npos);
  // hparams { key "a", value { number 1 } }, { key "b", value { bool true } }, { key "c", value { string "x" } }.
  for (const std::string& parameter : {std::string("\x0A\x0E\x0A\x01"
                                                   "a\x12\x09\x11\x00\x00\x00\x00\x00\x00\xF0\x3F",
                                                   16),
                                       std::string("\x0A\x07\x0A\x01"
                                                   "b\x12\x02\x20\x01",
                                                   9),
                                       std::string("\x0A\x08\x0A\x01"
                                                   "c\x12\x03\x1A\x01x",
                                                   10)}) {
    EXPECT_NE(events[2].find(parameter), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble
