#include "trainer/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "dist/base/text.h"
#include "trainer/report/comparison_text.h"
#include "trainer/report/html_text.h"
#include "trainer/report/report_assets.h"
#include "trainer/report/report_heatmap.h"

namespace nibble {

namespace {

constexpr const char* palette[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"};
const char* color(size_t index) {
  return palette[index % std::size(palette)];
}

Curve make_curve(const ComparedRun& run) {
  Curve curve;
  curve.name = run.name;
  for (const StepMetrics& step : run.history.steps) {
    curve.tokens.push_back(static_cast<double>(step.tokens));
    curve.loss.push_back(step.loss);
  }
  curve.smoothed_loss = smoothed(curve.loss, smoothing_share * static_cast<double>(curve.loss.size()));
  for (const RunHistory::Validation& validation : run.history.validations) {
    curve.validation_tokens.push_back(static_cast<double>(validation.tokens));
    curve.validation_loss.push_back(validation.loss());
  }
  return curve;
}

GapCurve make_gap(const ComparedRun& base, const ComparedRun& run) {
  GapCurve gap;
  for (const PairedStep& pair : paired_steps(base, run)) {
    gap.tokens.push_back(static_cast<double>(pair.tokens));
    gap.percent.push_back(100 * (pair.run / pair.base - 1));
  }
  gap.percent = smoothed(gap.percent, smoothing_share * static_cast<double>(gap.percent.size()));
  return gap;
}

// uPlot's aligned data: numbers of tokens, ascending, and for each series its values there, null where it has none.
class AlignedData {
 public:
  void add(const std::vector<double>& tokens, const std::vector<double>& values) {
    series_.emplace_back();
    for (size_t i = 0; i < tokens.size(); ++i) series_.back()[tokens[i]] = values[i];
    axis_.insert(tokens.begin(), tokens.end());
  }
  nlohmann::json json() const {
    nlohmann::json data = nlohmann::json::array({axis_});
    for (const auto& values : series_) {
      nlohmann::json column = nlohmann::json::array();
      for (const double tokens : axis_) {
        const auto found = values.find(tokens);
        column.push_back(found == values.end() ? nlohmann::json() : nlohmann::json(found->second));
      }
      data.push_back(std::move(column));
    }
    return data;
  }

 private:
  std::set<double> axis_;
  std::vector<std::map<double, double>> series_;
};

nlohmann::json loss_data(const Report& report) {
  AlignedData data;
  for (const Curve& curve : report.curves) {
    data.add(curve.tokens, curve.loss);
    data.add(curve.tokens, curve.smoothed_loss);
    data.add(curve.validation_tokens, curve.validation_loss);
  }
  return data.json();
}

nlohmann::json gap_data(const Report& report) {
  AlignedData data;
  for (const GapCurve& gap : report.gaps) data.add(gap.tokens, gap.percent);
  return data.json();
}

bool is_base(const Report& report, size_t run) {
  return std::any_of(report.pairs.begin(), report.pairs.end(),
                     [run](const ComparedPair& pair) { return pair.base == run; });
}

std::string html_table(const Report& report) {
  std::string rows;
  std::string sentences;
  for (const ComparedPair& pair : report.pairs) {
    const ComparedRun& run = report.runs[pair.run];
    const auto row = [&](const std::string& what, const Gap& gap) {
      rows += fmt::format("<tr><td>{}<td>{}<td>{:.4f}<td>{:.4f}<td>{:+.4f}<td>{:+.2f}&#8239;%</tr>\n",
                          escaped(run.name), what, gap.base_loss, gap.run_loss, gap.absolute, 100 * gap.relative);
    };
    for (const Gap& gap : pair.comparison.fractions) row(with_thousands(gap.tokens), gap);
    for (const ValidationGap& each : pair.comparison.last_validations()) row("validation " + each.set, each.gap);
    for (const std::string& sentence :
         {fork_text(pair.comparison), equal_loss_text(report.runs[pair.base], run, pair.comparison)}) {
      if (!sentence.empty()) sentences += fmt::format("<p>{}</p>\n", escaped(sentence));
    }
  }
  return "<table class='data'><tr><th>run<th>tokens<th>baseline loss<th>run loss<th>gap (nats)<th>gap "
         "(relative)</tr>\n" +
         rows + "</table>\n" + sentences;
}

std::string html_differences(const Report& report) {
  std::string rows;
  for (const ComparedPair& pair : report.pairs) {
    const ComparedRun& base = report.runs[pair.base];
    const ComparedRun& run = report.runs[pair.run];
    for (const ConfigDifference& each : differences_of(base, run)) {
      rows += fmt::format("<tr><td>{}<td>{}<td>{}<td>{}</tr>\n", escaped(run.name), escaped(each.key),
                          escaped(each.before), escaped(each.after));
    }
  }
  if (rows.empty()) return "<p>The configurations are equal but for run.dir.</p>\n";
  return "<h2>Differences of configuration</h2>\n<table class='data'><tr><th>run<th>key<th>baseline<th>run</tr>\n" +
         rows + "</table>\n";
}

// Returns the number of steps: "300", or "300 (2 skipped)".
std::string steps_of(const RunHistory& history) {
  const auto skipped =
      std::count_if(history.steps.begin(), history.steps.end(), [](const StepMetrics& step) { return !step.applied; });
  return fmt::format("{}{}", history.steps.size(), skipped == 0 ? "" : fmt::format(" ({} skipped)", skipped));
}

std::string html_runs(const Report& report) {
  std::vector<std::string> throughput(report.runs.size(), "-");
  for (const ComparedPair& pair : report.pairs) {
    throughput[pair.run] = fmt::format("{:.2f}", pair.comparison.throughput_ratio);
  }
  std::string rows;
  for (size_t i = 0; i < report.runs.size(); ++i) {
    const ComparedRun& run = report.runs[i];
    rows +=
        fmt::format("<tr><td><b style='color:{}'>{}</b><td>{}<td>{}<td>{}<td>{}</tr>\n", color(i), escaped(run.name),
                    escaped(run.config.recipe.name), run.config.run.seed, steps_of(run.history), throughput[i]);
  }
  return "<table class='data'><tr><th>run<th>recipe<th>seed<th>steps<th>tokens/s against baseline</tr>\n" + rows +
         "</table>\n";
}

std::string html_telemetry(const Report& report) {
  std::vector<Heatmap> heatmaps;
  for (const ComparedRun& run : report.runs) {
    if (auto heatmap = make_heatmap(run.name, run.history.telemetry)) heatmaps.push_back(std::move(*heatmap));
  }
  return heatmaps_html(heatmaps);
}

constexpr std::string_view plot_script = R"js(
const tokens_axis = {label: "tokens", values: (u, ticks) => ticks.map(t => t >= 1e9 ? t/1e9 + "G" : t >= 1e6 ? t/1e6 + "M" : t >= 1e3 ? t/1e3 + "k" : t)};
const sync = {sync: {key: "nibble"}};
function plot(title, height, series, data, label) {
  new uPlot({width: document.getElementById("plots").clientWidth, height, title, cursor: sync, scales: {x: {time: false}},
    series: [{label: "tokens"}, ...series], axes: [tokens_axis, {label, size: 70}]}, data, document.getElementById("plots"));
}
plot("loss (nats): smoothed, with every step behind it and validation as dots", 420, loss_names.flatMap((name, i) => [
  {label: name + " (step)", stroke: colors[i] + "38", width: 1, points: {show: false}, spanGaps: true},
  {label: name, stroke: colors[i], width: bases[i] ? 4 : 1.5, points: {show: false}, spanGaps: true},
  {label: name + " validation", stroke: colors[i], paths: () => null, points: {show: true, size: bases[i] ? 11 : 6, fill: colors[i]}}]),
  loss_data, "loss");
plot("gap to the baseline (relative, smoothed)", 240, gap_names.map((name, i) =>
  ({label: name, stroke: gap_colors[i], width: 2, points: {show: false}, spanGaps: true, value: (u, v) => v == null ? "-" : v.toFixed(2) + " %"})), gap_data, "gap, %");
)js";

}  // namespace

Report make_report(const std::vector<ComparedRun>& runs, const std::vector<ComparedPair>& pairs) {
  Report report{.title = {}, .runs = runs, .pairs = pairs, .curves = {}, .gaps = {}, .seed_gap = {}};
  for (const ComparedRun& run : runs) report.curves.push_back(make_curve(run));
  for (const ComparedPair& pair : pairs) {
    report.title += (report.title.empty() ? "" : ", ") + runs[pair.run].name;
    report.gaps.push_back(make_gap(runs[pair.base], runs[pair.run]));
    report.gaps.back().run = pair.run;
  }
  report.title += " against " + runs[pairs.front().base].name;
  return report;
}

std::string report_html(const Report& report) {
  nlohmann::json names = nlohmann::json::array();
  nlohmann::json colors = nlohmann::json::array();
  nlohmann::json bases = nlohmann::json::array();
  nlohmann::json gap_names = nlohmann::json::array();
  nlohmann::json gap_colors = nlohmann::json::array();
  for (size_t i = 0; i < report.curves.size(); ++i) {
    names.push_back(report.curves[i].name);
    colors.push_back(color(i));
    bases.push_back(is_base(report, i));
  }
  for (const GapCurve& gap : report.gaps) {
    gap_names.push_back(report.runs[gap.run].name);
    gap_colors.push_back(color(gap.run));
  }
  std::string html =
      "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>" + escaped(report.title) +
      "</title><style>body{font:14px system-ui,sans-serif;margin:24px auto;max-width:1100px;padding:0 16px}"
      "table.data{border-collapse:collapse;margin:12px 0}.data td,.data th{border:1px solid #ccc;padding:3px 10px;"
      "text-align:right}.data td:first-child{text-align:left}\n";
  html += uplot_style;
  html += heatmap_style;
  const std::string error =
      report.seed_gap ? "Gap in validation loss: " + seed_gap_text(*report.seed_gap, report.pairs.size()) + "."
                      : one_seed_text() + ".";
  html +=
      "</style></head><body><h1>" + escaped(report.title) + "</h1>\n" + html_runs(report) + "<div id='plots'></div>\n" +
      html_table(report) +
      "<p>Training losses are means over the last 5 % of the steps before each point. Runs are paired by the tokens "
      "that they have trained on, and gaps are formed where both have the same number.</p>\n<p>" +
      escaped(error) + "</p>\n" + html_differences(report) + "<script>";
  html += uplot_script;
  html += fmt::format(
      "</script><script>const loss_names = {}, colors = {}, bases = {}, gap_names = {}, gap_colors = {};\n"
      "const loss_data = {};\nconst gap_data = {};",
      script_json(names), script_json(colors), script_json(bases), script_json(gap_names), script_json(gap_colors),
      script_json(loss_data(report)), script_json(gap_data(report)));
  html += plot_script;
  return html + "</script>\n" + html_telemetry(report) + "</body></html>\n";
}

}  // namespace nibble
