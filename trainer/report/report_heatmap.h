// Telemetry as heat maps in the HTML report: one map for each run, with layers as rows and time as columns. The reader
// chooses the figure that the maps show. The colours are those of cividis, which colour-blind readers see as others do;
// all runs have one scale.
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
  std::vector<double> cells;  // [layers, columns]; NaN = not measured, or not finite
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

// Makes the heat map of one run from its records in ascending order; returns nothing if there are none. If there are
// more than `most_columns` records, a column is the mean of consecutive ones.
std::optional<Heatmap> make_heatmap(const std::string& run, const std::vector<TelemetryRecord>& records,
                                    size_t most_columns = 200);

// Returns a part of an HTML body; it is empty without heat maps. It needs heatmap_style in the head, and no network.
std::string heatmaps_html(const std::vector<Heatmap>& heatmaps);
extern const std::string_view heatmap_style;

}  // namespace nibble
