#include "trainer/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "dist/base/text.h"
#include "trainer/report/html_text.h"
#include "trainer/report/report_assets.h"
#include "trainer/report/report_heatmap.h"

namespace nibble {

namespace {

constexpr const char* palette[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf"};
constexpr double smoothing_share = 0.03;  // span of the moving average, as a share of the steps

const char* color(size_t index) {
  return palette[index % std::size(palette)];
}

// Returns the steps that every run made.
std::set<uint64_t> common_steps(const std::vector<ComparedRun>& runs) {
  std::map<uint64_t, size_t> count;
  for (const ComparedRun& run : runs) {
    for (const StepMetrics& step : run.history.steps) ++count[step.step];
  }
  std::set<uint64_t> steps;
  for (const auto& [step, times] : count) {
    if (times == runs.size()) steps.insert(step);
  }
  return steps;
}

Curve make_curve(const ComparedRun& run, const std::set<uint64_t>& steps) {
  Curve curve;
  curve.name = run.name;
  for (const StepMetrics& step : run.history.steps) {
    if (!steps.contains(step.step)) continue;
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

std::vector<double> relative_gap_percent(const Curve& base, const Curve& run) {
  std::vector<double> gap;
  for (size_t i = 0; i < base.loss.size(); ++i) gap.push_back(100 * (run.loss[i] / base.loss[i] - 1));
  return smoothed(gap, smoothing_share * static_cast<double>(gap.size()));
}

// Returns uPlot's aligned data: the curves over the baseline's tokens, with the few validation points as sparse series.
nlohmann::json loss_data(const Report& report) {
  const std::vector<double>& tokens = report.curves.front().tokens;
  nlohmann::json data = nlohmann::json::array({tokens});
  for (const Curve& curve : report.curves) {
    data.push_back(curve.loss);
    data.push_back(curve.smoothed_loss);
    nlohmann::json validation = nlohmann::json::array();
    for (const double at : tokens) {
      const auto match = std::find(curve.validation_tokens.begin(), curve.validation_tokens.end(), at);
      const auto index = static_cast<size_t>(match - curve.validation_tokens.begin());
      validation.push_back(match == curve.validation_tokens.end() ? nlohmann::json()
                                                                  : nlohmann::json(curve.validation_loss[index]));
    }
    data.push_back(validation);
  }
  return data;
}

std::string html_table(const Report& report) {
  std::string rows;
  for (size_t i = 0; i < report.comparisons.size(); ++i) {
    const auto row = [&](const std::string& what, const Gap& gap) {
      rows += fmt::format("<tr><td>{}<td>{}<td>{:.4f}<td>{:.4f}<td>{:+.4f}<td>{:+.2f}&#8239;%<td>{}</tr>\n",
                          escaped(report.runs[i + 1].name), what, gap.base_loss, gap.run_loss, gap.absolute,
                          100 * gap.relative, gap.steps > 1 ? fmt::format("{:.4f}", gap.standard_error) : "-");
    };
    for (const Gap& gap : report.comparisons[i].fractions) row(with_thousands(gap.tokens), gap);
    if (report.comparisons[i].validation) row("validation", *report.comparisons[i].validation);
  }
  return "<table class='data'><tr><th>run<th>tokens<th>baseline loss<th>run loss<th>gap (nats)<th>gap "
         "(relative)<th>standard "
         "error</tr>\n" +
         rows + "</table>\n";
}

// Returns the number of steps: "300", or "300 (2 skipped)".
std::string steps_of(const RunHistory& history) {
  const auto skipped =
      std::count_if(history.steps.begin(), history.steps.end(), [](const StepMetrics& step) { return !step.applied; });
  return fmt::format("{}{}", history.steps.size(), skipped == 0 ? "" : fmt::format(" ({} skipped)", skipped));
}

std::string html_runs(const Report& report) {
  std::string rows;
  for (size_t i = 0; i < report.runs.size(); ++i) {
    const ComparedRun& run = report.runs[i];
    rows += fmt::format("<tr><td><b style='color:{}'>{}</b><td>{}<td>{}<td>{}<td>{}</tr>\n", color(i),
                        escaped(run.name), escaped(run.config.recipe.name), run.config.run.seed, steps_of(run.history),
                        i == 0 ? std::string("-") : fmt::format("{:.2f}", report.comparisons[i - 1].throughput_ratio));
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
  {label: name + " (step)", stroke: colors[i] + "38", width: 1, points: {show: false}},
  {label: name, stroke: colors[i], width: i == 0 ? 4 : 1.5, points: {show: false}},
  {label: name + " validation", stroke: colors[i], paths: () => null, points: {show: true, size: i == 0 ? 11 : 6, fill: colors[i]}}]),
  loss_data, "loss");
plot("gap to the baseline (relative, smoothed)", 240, gap_names.map((name, i) =>
  ({label: name, stroke: colors[i + 1], width: 2, points: {show: false}, value: (u, v) => v == null ? "-" : v.toFixed(2) + " %"})), gap_data, "gap, %");
)js";

// A panel of an SVG, which maps data coordinates to pixels.
struct Panel {
  double left, top, width, height;
  double x_min, x_max, y_min, y_max;
  double x(double value) const { return left + (value - x_min) / (x_max - x_min) * width; }
  double y(double value) const { return top + (y_max - value) / (y_max - y_min) * height; }
};

Panel make_panel(double top, double height, const std::vector<double>& x,
                 const std::vector<std::vector<double>>& curves) {
  Panel panel{.left = 70,
              .top = top,
              .width = 700,
              .height = height,
              .x_min = 0,
              .x_max = std::max(1.0, x.back()),
              .y_min = 1e300,
              .y_max = -1e300};
  for (const auto& curve : curves) {
    for (const double value : curve) {
      if (!std::isfinite(value)) continue;
      panel.y_min = std::min(panel.y_min, value);
      panel.y_max = std::max(panel.y_max, value);
    }
  }
  if (panel.y_min > panel.y_max) panel.y_min = panel.y_max = 0;  // nothing to show
  const double margin = std::max(1e-9, 0.05 * (panel.y_max - panel.y_min));
  panel.y_min -= margin;
  panel.y_max += margin;
  return panel;
}

std::string svg_grid(const Panel& panel, const std::string& label) {
  std::string svg;
  constexpr int lines = 5;
  for (int i = 0; i <= lines; ++i) {
    const double value = panel.y_min + (panel.y_max - panel.y_min) * i / lines;
    const double tokens = panel.x_max * i / lines;
    svg += fmt::format(
        "<line x1='{0:.1f}' x2='{1:.1f}' y1='{2:.1f}' y2='{2:.1f}' stroke='#ddd'/><text x='{3:.1f}' y='{4:.1f}' "
        "text-anchor='end'>{5:.2f}</text><text x='{6:.1f}' y='{7:.1f}' text-anchor='middle'>{8}</text>\n",
        panel.left, panel.left + panel.width, panel.y(value), panel.left - 6, panel.y(value) + 4, value,
        panel.x(tokens), panel.top + panel.height + 16, with_thousands(static_cast<uint64_t>(tokens)));
  }
  return svg + fmt::format("<text x='{:.1f}' y='{:.1f}' font-weight='bold'>{}</text>\n", panel.left, panel.top - 8,
                           escaped(label));
}

std::string svg_curve(const Panel& panel, const std::vector<double>& x, const std::vector<double>& y,
                      const std::string& style) {
  constexpr size_t most_points = 1000;
  const size_t stride = std::max<size_t>(1, y.size() / most_points);
  std::string points;
  for (size_t i = 0; i < y.size(); i += stride) {
    if (std::isfinite(y[i])) points += fmt::format("{:.1f},{:.1f} ", panel.x(x[i]), panel.y(y[i]));
  }
  return fmt::format("<polyline fill='none' {} points='{}'/>\n", style, points);
}

}  // namespace

Report make_report(const std::vector<ComparedRun>& runs, const std::vector<Comparison>& comparisons) {
  Report report{.title = {}, .curves = {}, .runs = runs, .comparisons = comparisons};
  const std::set<uint64_t> steps = common_steps(runs);
  for (const ComparedRun& run : runs) report.curves.push_back(make_curve(run, steps));
  for (size_t i = 1; i < runs.size(); ++i) {
    report.title += (i == 1 ? "" : ", ") + runs[i].name;
    report.curves[i].gap_percent = relative_gap_percent(report.curves.front(), report.curves[i]);
  }
  report.title += " against " + runs.front().name;
  return report;
}

std::string report_html(const Report& report) {
  nlohmann::json names = nlohmann::json::array();
  nlohmann::json colors = nlohmann::json::array();
  nlohmann::json gap_data = nlohmann::json::array({report.curves.front().tokens});
  for (size_t i = 0; i < report.curves.size(); ++i) {
    names.push_back(report.curves[i].name);
    colors.push_back(color(i));
    if (i > 0) gap_data.push_back(report.curves[i].gap_percent);
  }
  nlohmann::json gap_names = names;
  gap_names.erase(0);
  std::string html =
      "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>" + escaped(report.title) +
      "</title><style>body{font:14px system-ui,sans-serif;margin:24px auto;max-width:1100px;padding:0 16px}"
      "table.data{border-collapse:collapse;margin:12px 0}.data td,.data th{border:1px solid #ccc;padding:3px 10px;"
      "text-align:right}.data td:first-child{text-align:left}\n";
  html += uplot_style;
  html += heatmap_style;
  html +=
      "</style></head><body><h1>" + escaped(report.title) + "</h1>\n" + html_runs(report) + "<div id='plots'></div>\n" +
      html_table(report) +
      "<p>Training losses are means over the last 5 % of the steps before each point; the standard error is that of "
      "the paired differences. It does not hold the spread between seeds: a small gap needs several.</p>\n"
      "<script>";
  html += uplot_script;
  html += fmt::format(
      "</script><script>const loss_names = {}, colors = {}, gap_names = {};\nconst loss_data = {};\n"
      "const gap_data = {};",
      script_json(names), script_json(colors), script_json(gap_names), script_json(loss_data(report)),
      script_json(gap_data));
  html += plot_script;
  return html + "</script>\n" + html_telemetry(report) + "</body></html>\n";
}

std::string report_svg(const Report& report) {
  const std::vector<double>& tokens = report.curves.front().tokens;
  std::vector<std::vector<double>> losses;
  std::vector<std::vector<double>> gaps;
  for (const Curve& curve : report.curves) {
    losses.push_back(curve.smoothed_loss);
    if (!curve.gap_percent.empty()) gaps.push_back(curve.gap_percent);
  }
  const Panel loss_panel = make_panel(40, 300, tokens, losses);
  std::string svg =
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 800 600' font-family='sans-serif' font-size='11'>"
      "<rect width='100%' height='100%' fill='#fff'/>\n" +
      svg_grid(loss_panel, "loss (nats, smoothed) by tokens");
  for (size_t i = 0; i < report.curves.size(); ++i) {
    // The baseline is a broad line, so that the thin lines of the other curves can be seen on it.
    const auto style = fmt::format("stroke='{}' stroke-width='{}'", color(i), i == 0 ? "4" : "1.5");
    const double legend_y = loss_panel.top + 16 + 16 * static_cast<double>(i);
    svg += svg_curve(loss_panel, tokens, report.curves[i].smoothed_loss, style);
    svg += fmt::format("<text x='760' y='{:.1f}' text-anchor='end' fill='{}'>{}</text>\n", legend_y, color(i),
                       escaped(report.curves[i].name));
  }
  if (!gaps.empty()) {
    const Panel gap_panel = make_panel(410, 140, tokens, gaps);
    svg += svg_grid(gap_panel, "gap to the baseline (%, smoothed)");
    for (size_t i = 0; i < gaps.size(); ++i) {
      svg += svg_curve(gap_panel, tokens, gaps[i], fmt::format("stroke='{}' stroke-width='1.8'", color(i + 1)));
    }
  }
  return svg + "</svg>\n";
}

std::string comparison_table(const ComparedRun& base, const ComparedRun& run, const Comparison& comparison) {
  std::string table = fmt::format("{} against {} ({} common steps, {:.2f}x tokens/s)\n", run.name, base.name,
                                  comparison.common_steps, comparison.throughput_ratio);
  table += fmt::format("{:>12}  {:>10}  {:>10}  {:>9}  {:>8}  {:>9}\n", "tokens", "base loss", "run loss", "gap",
                       "gap %", "std error");
  const auto row = [&table](const std::string& what, const Gap& gap) {
    table +=
        fmt::format("{:>12}  {:>10.4f}  {:>10.4f}  {:>+9.4f}  {:>+8.2f}  {:>9}\n", what, gap.base_loss, gap.run_loss,
                    gap.absolute, 100 * gap.relative, gap.steps > 1 ? fmt::format("{:.4f}", gap.standard_error) : "-");
  };
  for (const Gap& gap : comparison.fractions) row(with_thousands(gap.tokens), gap);
  if (comparison.validation) row("validation", *comparison.validation);
  return table;
}

}  // namespace nibble
