#include "trainer/page/heatmap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "trainer/page/step_columns.h"

namespace nibble {
namespace {

// Adds up one figure while records are added to their columns.
class Accumulator {
 public:
  Accumulator(std::string subject, std::string_view key, std::string_view title, size_t cells)
      : figure_{std::string(key), std::move(subject), std::string(title), std::vector<double>(cells)}, counts_(cells) {}

  void add(size_t cell, double value) {
    present_ = true;
    if (!std::isfinite(value)) return;
    figure_.cells[cell] += value;
    ++counts_[cell];
  }
  bool present() const { return present_; }
  HeatmapFigure mean() && {
    for (size_t cell = 0; cell < counts_.size(); ++cell) {
      const int64_t count = counts_[cell];
      figure_.cells[cell] =
          count == 0 ? std::numeric_limits<double>::quiet_NaN() : figure_.cells[cell] / static_cast<double>(count);
    }
    return std::move(figure_);
  }

 private:
  HeatmapFigure figure_;
  std::vector<int64_t> counts_;
  bool present_ = false;
};

// The order is gradient figures first, then operand by operand; add() follows it too.
std::vector<Accumulator> make_accumulators(size_t cells) {
  std::vector<Accumulator> all;
  all.reserve(gradient_figures.size() + operand_roles * operand_figures.size());
  for (const GradientFigure& figure : gradient_figures)
    all.emplace_back("weight gradient", figure.key, figure.title, cells);
  for (const OperandRole role : all_operand_roles) {
    for (const OperandFigure& figure : operand_figures) {
      all.emplace_back(std::string(name_of(role)), figure.key, figure.title, cells);
    }
  }
  return all;
}

void add(const LayerFigures& layer, size_t cell, std::vector<Accumulator>& all) {
  for (size_t i = 0; i < gradient_figures.size(); ++i) {
    const std::optional<double>& value = layer.*(gradient_figures[i].value);
    if (value) all[i].add(cell, *value);
  }
  for (size_t role = 0; role < operand_roles; ++role) {
    if (!layer.operand[role]) continue;
    for (size_t i = 0; i < operand_figures.size(); ++i) {
      const size_t index = gradient_figures.size() + role * operand_figures.size() + i;
      all[index].add(cell, (*layer.operand[role]).*(operand_figures[i].value));
    }
  }
}

}  // namespace

std::optional<Heatmap> make_heatmap(const std::vector<TelemetryRecord>& records, size_t most_columns) {
  if (records.empty()) return std::nullopt;
  Heatmap heatmap;
  std::map<std::string, size_t> row_of;
  for (const TelemetryRecord& record : records) {
    for (const LayerFigures& layer : record.layers) {
      if (row_of.emplace(layer.name, heatmap.layers.size()).second) heatmap.layers.push_back(layer.name);
    }
  }
  // A page of a large model stays one that a browser opens at once.
  constexpr size_t most_cells = 400'000;
  constexpr size_t least_columns = 20;
  const size_t cells = heatmap.layers.size() * make_accumulators(0).size();
  const size_t fitting = std::max(least_columns, most_cells / std::max<size_t>(1, cells));
  const size_t columns = std::min({records.size(), most_columns, fitting});
  std::vector<Accumulator> all = make_accumulators(heatmap.layers.size() * columns);
  for (size_t i = 0; i < records.size(); ++i) {
    const size_t column = i * columns / records.size();
    if (column == heatmap.columns.size()) heatmap.columns.push_back({.first_step = records[i].step});
    heatmap.columns.back().last_step = records[i].step;
    for (const LayerFigures& layer : records[i].layers) add(layer, row_of.at(layer.name) * columns + column, all);
  }
  for (Accumulator& figure : all) {
    if (figure.present()) heatmap.figures.push_back(std::move(figure).mean());
  }
  return heatmap;
}

nlohmann::json heatmap_json(const Heatmap& heatmap) {
  nlohmann::json columns = nlohmann::json::array();
  for (const Heatmap::Column& column : heatmap.columns) columns.push_back({column.first_step, column.last_step});
  nlohmann::json figures = nlohmann::json::array();
  for (const HeatmapFigure& figure : heatmap.figures) {
    nlohmann::json cells = nlohmann::json::array();
    for (const double value : figure.cells) cells.push_back(short_number(value, 4));
    figures.push_back({{"key", figure.key}, {"subject", figure.subject}, {"title", figure.title}, {"cells", cells}});
  }
  return {{"layers", heatmap.layers}, {"columns", columns}, {"figures", figures}};
}

}  // namespace nibble
