// Telemetry of a run as a heat map, with layers as rows and time as columns. The page draws it
// (trainer/page/assets/heatmap.js).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "trainer/report/telemetry_record.h"

namespace nibble {

struct HeatmapFigure {
  std::string key;            // "relative_error": of the tables in trainer/report/telemetry_record.h
  std::string subject;        // "forward.x", "weight gradient"
  std::string title;          // "relative error"
  std::vector<double> cells;  // [layers, columns]; NaN = not measured, or not finite
};

struct Heatmap {
  struct Column {
    uint64_t first_step = 0;
    uint64_t last_step = 0;
  };
  std::vector<std::string> layers;
  std::vector<Column> columns;
  std::vector<HeatmapFigure> figures;  // only those that some layer has
};

// Makes the heat map of one run from its records in ascending order; returns nothing if there are none. If there are
// more than `most_columns` records, or more layers than a page can hold with so many columns, a column is the mean of
// consecutive records.
std::optional<Heatmap> make_heatmap(const std::vector<TelemetryRecord>& records, size_t most_columns = 200);

// Returns {"layers", "columns": [[first step, last step], ...], "figures": [{"key", "subject", "title", "cells"},
// ...]}.
nlohmann::json heatmap_json(const Heatmap& heatmap);

}  // namespace nibble
