#include "trainer/report/telemetry_record.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "trainer/report/metrics.h"

namespace nibble {
namespace {

constexpr auto forward_x = static_cast<size_t>(OperandRole::forward_x);
constexpr auto grad_weight_dy = static_cast<size_t>(OperandRole::grad_weight_dy);

// Returns a record of two layers: the first has two quantised operands; the second has one, with a figure that is NaN.
TelemetryRecord record_of(uint64_t step) {
  TelemetryRecord record{.step = step, .seconds = 0.25, .grad_cosine = 0.875, .grad_relative_error = 0.1};
  record.layers.resize(2);
  record.layers[0].name = "blocks.0.mlp.down.weight";
  record.layers[0].operand[forward_x] = {
      .relative_error = 0.01, .underflow = 0.02, .clipped = 0.03, .scales_extreme = 0.04, .zeros = 0.05};
  record.layers[0].operand[grad_weight_dy] = {.relative_error = 1.0 / 3};
  record.layers[0].grad_zero_share = 0.5;
  record.layers[0].grad_cosine = 0.75;
  record.layers[0].grad_relative_error = std::numeric_limits<double>::infinity();
  record.layers[1].name = "head.weight";
  record.layers[1].operand[forward_x] = {.relative_error = std::nan(""), .underflow = 0.06};
  record.layers[1].grad_zero_share = 0.25;
  return record;
}

TEST(TelemetryRecord, EventHasTheKeysThatReadersRelyOnAndNoNumberThatIsNotFinite) {
  const nlohmann::json event = to_event(record_of(100));
  EXPECT_EQ(event.at("event"), "telemetry");
  EXPECT_EQ(event.at("step"), 100);
  EXPECT_EQ(event.at("seconds"), 0.25);
  EXPECT_EQ(event.at("grad_cosine"), 0.875);
  const nlohmann::json& layer = event.at("layers").at(0);
  EXPECT_EQ(layer.at("name"), "blocks.0.mlp.down.weight");
  EXPECT_EQ(layer.at("operands").size(), 2U);
  EXPECT_EQ(layer.at("operands").at("forward.x"), nlohmann::json({{"relative_error", 0.01},
                                                                  {"underflow", 0.02},
                                                                  {"clipped", 0.03},
                                                                  {"scales_extreme", 0.04},
                                                                  {"zeros", 0.05}}));
  EXPECT_EQ(layer.at("operands").at("grad_weight.dy").at("relative_error"), 1.0 / 3);
  EXPECT_EQ(layer.at("grad_zero_share"), 0.5);
  EXPECT_EQ(layer.at("grad_cosine"), 0.75);
  EXPECT_FALSE(event.at("layers").at(1).contains("grad_cosine"));
  const nlohmann::json read_back = nlohmann::json::parse(event.dump());
  EXPECT_TRUE(read_back.at("layers").at(0).at("grad_relative_error").is_null());
  EXPECT_TRUE(read_back.at("layers").at(1).at("operands").at("forward.x").at("relative_error").is_null());
}

TEST(TelemetryRecord, IsReadBackAsItWasWritten) {
  const TelemetryRecord read = telemetry_of(nlohmann::json::parse(to_event(record_of(7)).dump()));
  EXPECT_EQ(read.step, 7U);
  EXPECT_EQ(read.grad_relative_error, 0.1);
  ASSERT_EQ(read.layers.size(), 2U);
  const LayerFigures& layer = read.layers[0];
  for (const OperandFigure& figure : operand_figures) {
    EXPECT_EQ((*layer.operand[forward_x]).*(figure.value),
              (*record_of(7).layers[0].operand[forward_x]).*(figure.value));
  }
  EXPECT_EQ(layer.operand[grad_weight_dy]->relative_error, 1.0 / 3);
  EXPECT_FALSE(layer.operand[static_cast<size_t>(OperandRole::forward_w)]);
  EXPECT_EQ(layer.grad_zero_share, 0.5);
  EXPECT_TRUE(std::isnan(*layer.grad_relative_error));
  EXPECT_TRUE(std::isnan(read.layers[1].operand[forward_x]->relative_error));
  EXPECT_FALSE(read.layers[1].grad_cosine);
}

TEST(TelemetryRecord, ScalarsAreMeansOfWhatIsFinite) {
  std::map<std::string, double> scalars;
  for (const NamedScalar& scalar : scalars_of(record_of(1))) {
    EXPECT_TRUE(scalars.emplace(scalar.tag, scalar.value).second) << scalar.tag;
    EXPECT_TRUE(std::isfinite(scalar.value)) << scalar.tag;
  }
  EXPECT_EQ(scalars.at("telemetry/relative_error/forward.x"), 0.01);
  EXPECT_EQ(scalars.at("telemetry/underflow/forward.x"), 0.04);
  EXPECT_EQ(scalars.at("telemetry/grad_zero_share"), 0.375);
  EXPECT_EQ(scalars.at("telemetry/grad_cosine"), 0.875);
  EXPECT_EQ(scalars.at("telemetry_layers/grad_cosine/blocks.0.mlp.down.weight"), 0.75);
  EXPECT_EQ(scalars.at("telemetry_layers/forward.x_relative_error/blocks.0.mlp.down.weight"), 0.01);
  EXPECT_FALSE(scalars.contains("telemetry_layers/forward.x_relative_error/head.weight"));
  EXPECT_FALSE(scalars.contains("telemetry/relative_error/forward.w"));
}

TEST(TelemetryRecord, PointsThatAResumeMadeAgainCountOnce) {
  const auto path =
      std::filesystem::temp_directory_path() / ("nibble-telemetry-record-" + std::to_string(getpid()) + ".jsonl");
  std::filesystem::remove(path);
  {
    MetricsLog log(path);
    log.event(to_event(record_of(10)));
    log.event(to_event(record_of(20)));
    log.event({{"event", "resume"}, {"step", 15}});
    log.event(to_event(record_of(20)));
    log.event(to_event(record_of(30)));
  }
  std::vector<uint64_t> steps;
  for (const TelemetryRecord& record : read_history(path).telemetry) steps.push_back(record.step);
  EXPECT_EQ(steps, (std::vector<uint64_t>{10, 20, 30}));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace nibble
