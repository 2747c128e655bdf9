// Telemetry as heat maps, layers by time, inside the HTML report: one for each run, of the figure that its reader
// chooses. Colours are those of cividis, which colour-blind readers see as others do, on one scale for all runs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/report/telemetry_record.h"

namespace nibble {

struct HeatmapFigure {
  std::string subject;        // "forward.x", "weight gradient"
  std::string title;          // "relative error"
  std::vector<double> cells;  // [layers, columns]; NaN: not measured, or not finite
};

struct Heatmap {
  struct Column {
    uint64_t first_step = 0;
    uint64_t last_step = 0;
  };
  std::string run;
  std::vector<std::string> layers;
  std::vector<Column> columns;
  std::vector<HeatmapFigure> figures;  // only those that some layer has
};

// Records in ascending order. A run with more than `most_columns` gets means of consecutive ones. Nothing without
// records.
std::optional<Heatmap> make_heatmap(const std::string& run, const std::vector<TelemetryRecord>& records,
                                    size_t most_columns = 200);

// A part of an HTML body, which needs no network but heatmap_style in the head. Empty without heat maps.
std::string heatmaps_html(const std::vector<Heatmap>& heatmaps);
extern const std::string_view heatmap_style;

}  // namespace nibble
