#include "trainer/page/heatmap.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace nibble {
namespace {

constexpr auto forward_x = static_cast<size_t>(OperandRole::forward_x);

// Returns a record with a quantised layer, which comes first, and a layer that is not quantised.
TelemetryRecord record_of(uint64_t step, double error) {
  TelemetryRecord record{.step = step};
  record.layers.resize(2);
  record.layers[0].name = "b";
  record.layers[0].operand[forward_x] = {.relative_error = error, .underflow = 0.5};
  record.layers[0].grad_zero_share = 0;
  record.layers[1].name = "a";
  record.layers[1].grad_zero_share = 0.125;
  return record;
}

const HeatmapFigure* find(const Heatmap& heatmap, const std::string& subject, const std::string& title) {
  const auto found = std::find_if(heatmap.figures.begin(), heatmap.figures.end(), [&](const HeatmapFigure& figure) {
    return figure.subject == subject && figure.title == title;
  });
  return found == heatmap.figures.end() ? nullptr : &*found;
}

TEST(HeatmapOfTelemetry, RowsAreLayersAndColumnsAreSteps) {
  const auto heatmap = make_heatmap({record_of(10, 0.25), record_of(20, std::nan("")), record_of(30, 0.75)});
  ASSERT_TRUE(heatmap);
  EXPECT_EQ(heatmap->layers, (std::vector<std::string>{"b", "a"}));
  ASSERT_EQ(heatmap->columns.size(), 3U);
  EXPECT_EQ(heatmap->columns[2].first_step, 30U);
  EXPECT_EQ(heatmap->columns[2].last_step, 30U);
  const HeatmapFigure* error = find(*heatmap, "forward.x", "relative error");
  ASSERT_NE(error, nullptr);
  ASSERT_EQ(error->cells.size(), 6U);
  EXPECT_EQ(error->cells[0], 0.25);
  EXPECT_TRUE(std::isnan(error->cells[1]));
  EXPECT_EQ(error->cells[2], 0.75);
  for (size_t cell = 3; cell < 6; ++cell) EXPECT_TRUE(std::isnan(error->cells[cell])) << "a layer without the operand";
  const HeatmapFigure* zeros = find(*heatmap, "weight gradient", "zeros");
  ASSERT_NE(zeros, nullptr);
  EXPECT_EQ(zeros->cells, (std::vector<double>{0, 0, 0, 0.125, 0.125, 0.125}));
  EXPECT_EQ(find(*heatmap, "weight gradient", "cosine with the probe"), nullptr) << "no run has it";
  EXPECT_EQ(find(*heatmap, "forward.w", "relative error"), nullptr);
  EXPECT_FALSE(make_heatmap({}));
}

TEST(HeatmapOfTelemetry, LongRunsAreMeansOverConsecutiveSteps) {
  std::vector<TelemetryRecord> records;
  for (uint64_t step = 1; step <= 5; ++step) records.push_back(record_of(step, static_cast<double>(step)));
  records[1].layers[0].operand[forward_x]->relative_error = std::nan("");
  const auto heatmap = make_heatmap(records, 2);
  ASSERT_TRUE(heatmap);
  ASSERT_EQ(heatmap->columns.size(), 2U);
  EXPECT_EQ(heatmap->columns[0].first_step, 1U);
  EXPECT_EQ(heatmap->columns[0].last_step, 3U);
  EXPECT_EQ(heatmap->columns[1].first_step, 4U);
  EXPECT_EQ(heatmap->columns[1].last_step, 5U);
  const HeatmapFigure* error = find(*heatmap, "forward.x", "relative error");
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(error->cells[0], 2.0);  // the mean of 1 and 3
  EXPECT_EQ(error->cells[1], 4.5);
}

TEST(HeatmapOfTelemetry, JsonHoldsOnlyTheFiguresThatAreThere) {
  const auto heatmap = make_heatmap({record_of(10, 0.123456)});
  const nlohmann::json json = heatmap_json(*heatmap);
  EXPECT_EQ(json.at("layers"), nlohmann::json({"b", "a"}));
  EXPECT_EQ(json.at("columns"), nlohmann::json::array({{10, 10}}));
  bool found = false;
  for (const nlohmann::json& figure : json.at("figures")) {
    EXPECT_NE(figure.at("subject"), "forward.w");
    if (figure.at("subject") != "forward.x" || figure.at("key") != "relative_error") continue;
    EXPECT_EQ(figure.at("cells"), nlohmann::json::array({0.1235, nullptr}));
    found = true;
  }
  EXPECT_TRUE(found);
}

TEST(HeatmapOfTelemetry, ManyLayersHaveFewerColumns) {
  std::vector<TelemetryRecord> records;
  for (uint64_t step = 1; step <= 100; ++step) {
    TelemetryRecord record{.step = step};
    for (int layer = 0; layer < 400; ++layer) record.layers.push_back({.name = fmt::format("layer {}", layer)});
    records.push_back(record);
  }
  const auto heatmap = make_heatmap(records);
  ASSERT_TRUE(heatmap);
  EXPECT_EQ(heatmap->layers.size(), 400U);
  EXPECT_LT(heatmap->columns.size(), 40U);
  EXPECT_GE(heatmap->columns.size(), 20U);
}

}  // namespace
}  // namespace nibble
