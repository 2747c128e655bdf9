#include "trainer/page/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "dist/base/error.h"
#include "dist/base/file.h"

namespace nibble {

namespace {

using Anchor = FigureCanvas::Anchor;

constexpr double figure_width = 468;  // 6.5 inches, the text of a page
constexpr double left = 52, right = 12, top = 12, bottom = 40;
constexpr double loss_height = 216, gap_height = 96, between = 26;
constexpr double text_size = 9, line_height = 12;
constexpr size_t most_names_inside = 6;  // more names stand in a column of their own, and have no faint curves
constexpr double widest_name = 150;
constexpr double span_share = 0.03;    // of the moving means
constexpr double range_begins = 0.05;  // share of the tokens
constexpr size_t most_points = 1200;   // of a curve

struct Series {
  std::vector<double> tokens;
  std::vector<double> values;
};

struct RunCurves {
  std::string name;
  Series loss, mean, validation;
};
struct GapCurves {
  size_t run = 0;
  Series mean, validation;
};

Series mean_of(const Series& series) {
  const auto span = static_cast<size_t>(std::lround(span_share * static_cast<double>(series.values.size())));
  return {series.tokens, moving_mean(series.values, std::max<size_t>(1, span))};
}

void add(Series& series, uint64_t tokens, double value) {
  series.tokens.push_back(static_cast<double>(tokens));
  series.values.push_back(value);
}

RunCurves curves_of(const ComparedRun& run, bool is_base) {
  RunCurves curves{.name = run.name + (is_base ? " (baseline)" : ""), .loss = {}, .mean = {}, .validation = {}};
  for (const StepMetrics& step : run.history.steps) add(curves.loss, step.tokens, step.loss);
  for (const auto& validation : run.history.validations) add(curves.validation, validation.tokens, validation.loss());
  curves.mean = mean_of(curves.loss);
  return curves;
}

GapCurves gap_of(const std::vector<ComparedRun>& runs, const ComparedPair& pair) {
  GapCurves gap{.run = pair.run, .mean = {}, .validation = {}};
  Series steps;
  for (const PairedStep& step : paired_steps(runs[pair.base], runs[pair.run])) {
    add(steps, step.tokens, 100 * (step.run / step.base - 1));
  }
  gap.mean = mean_of(steps);
  const auto& validations = pair.comparison.validations;
  for (const ValidationGap& validation : validations) {
    if (validation.set == validations.front().set)
      add(gap.validation, validation.gap.tokens, 100 * validation.gap.relative);
  }
  return gap;
}

// The values that an axis must hold.
class Extent {
 public:
  void include(double value) {
    if (!std::isfinite(value)) return;
    low_ = std::min(low_, value);
    high_ = std::max(high_, value);
  }
  // Includes the values from a number of tokens on.
  void include(const Series& series, double from) {
    for (size_t i = 0; i < series.values.size(); ++i) {
      if (series.tokens[i] >= from) include(series.values[i]);
    }
  }
  // Returns the range with a margin; something sensible if it is empty or a point.
  std::pair<double, double> padded() const {
    if (low_ > high_) return {0, 1};
    const double margin = high_ > low_ ? 0.05 * (high_ - low_) : std::max(1e-3, 0.05 * std::abs(high_));
    return {low_ - margin, high_ + margin};
  }

 private:
  double low_ = std::numeric_limits<double>::infinity();
  double high_ = -std::numeric_limits<double>::infinity();
};

// Returns the lowest value from a number of tokens on; infinity if there is none.
double lowest(const Series& series, double from) {
  double found = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < series.values.size(); ++i) {
    if (series.tokens[i] >= from) found = std::fmin(found, series.values[i]);
  }
  return found;
}

struct Panel {
  double y = 0, height = 0;  // of its frame; x is `left`
  double width = 0;
  double tokens = 1;  // at its right end
  double low = 0, high = 1;

  double across(double value) const { return left + width * value / tokens; }
  double up(double value) const { return y + height * (high - value) / (high - low); }
};

// Returns the points of a series in a panel. Of many points it keeps the lowest and the highest of each group, so that
// a noisy curve stays as broad as it is.
std::vector<FigurePoint> points_in(const Panel& panel, const Series& series) {
  const size_t count = series.values.size();
  const size_t group = (2 * count + most_points - 1) / most_points;
  std::vector<FigurePoint> points;
  const auto keep = [&](size_t i) { points.push_back({panel.across(series.tokens[i]), panel.up(series.values[i])}); };
  for (size_t begin = 0; begin < count; begin += std::max<size_t>(1, group)) {
    const size_t end = std::min(count, begin + group);
    if (group <= 2) {
      for (size_t i = begin; i < end; ++i) keep(i);
      continue;
    }
    size_t lowest = begin, highest = begin;
    for (size_t i = begin; i < end; ++i) {
      if (!(series.values[i] >= series.values[lowest])) lowest = i;
      if (!(series.values[i] <= series.values[highest])) highest = i;
    }
    keep(std::min(lowest, highest));
    if (lowest != highest) keep(std::max(lowest, highest));
  }
  if (count > 0 && group > 2) keep(count - 1);
  return points;
}

std::string number(double value, double step) {
  const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  std::string text = fmt::format("{:.{}f}", std::abs(value) < 1e-9 * step ? 0.0 : value, decimals);
  if (text.front() == '-') text.replace(0, 1, "\xE2\x88\x92");  // the minus sign
  return text;
}

struct Unit {
  double tokens;
  const char* title;
};
Unit unit_of(double tokens) {
  for (const Unit unit : {Unit{1e12, "training tokens (trillions)"}, Unit{1e9, "training tokens (billions)"},
                          Unit{1e6, "training tokens (millions)"}, Unit{1e3, "training tokens (thousands)"}}) {
    if (tokens >= 2 * unit.tokens) return unit;
  }
  return {1, "training tokens"};
}

void draw_axes(FigureCanvas& canvas, const Panel& panel, const std::string& title, bool has_tokens) {
  const double end = panel.y + panel.height;
  const std::vector<double> levels = round_ticks(panel.low, panel.high, panel.height > 150 ? 8 : 5);
  for (const double level : levels) {
    canvas.line({left, panel.up(level)}, {left + panel.width, panel.up(level)}, 0.4, 0.87);
    canvas.text(left - 6, panel.up(level) + 3, number(level, levels.size() > 1 ? levels[1] - levels[0] : 1),
                Anchor::end);
  }
  const Unit unit = unit_of(panel.tokens);
  const std::vector<double> marks = round_ticks(0, panel.tokens / unit.tokens, 7);
  for (const double mark : marks) {
    const double x = panel.across(mark * unit.tokens);
    canvas.line({x, end}, {x, end + 3}, 0.6, 0.2);
    if (has_tokens) canvas.text(x, end + 13, number(mark, marks.size() > 1 ? marks[1] - marks[0] : 1), Anchor::middle);
  }
  canvas.line({left, panel.y}, {left, end}, 0.6, 0.2);
  canvas.line({left, end}, {left + panel.width, end}, 0.6, 0.2);
  canvas.set_font(text_size + 1);
  canvas.text_upwards(13, panel.y + panel.height / 2, title);
  if (has_tokens) canvas.text(left + panel.width / 2, end + 29, unit.title, Anchor::middle);
  canvas.set_font(text_size);
}

struct LegendLine {
  std::string text;
  CurveStyle style;
  double width = 1.4, opacity = 1;
  bool is_marker = false;
};

std::vector<LegendLine> legend_of(FigureCanvas& canvas, const std::vector<RunCurves>& runs, bool has_faint) {
  std::vector<LegendLine> lines;
  for (size_t i = 0; i < runs.size(); ++i) lines.push_back({canvas.fitting(runs[i].name, widest_name), curve_style(i)});
  const CurveStyle grey{0.35, 0.35, 0.35, {}, 0};
  lines.push_back({"mean over 3 % of the steps", grey});
  if (has_faint) lines.push_back({"each step", grey, 0.6, 0.35});
  if (std::any_of(runs.begin(), runs.end(), [](const RunCurves& run) { return !run.validation.values.empty(); })) {
    lines.push_back({"validation", grey, 0, 1, true});
  }
  return lines;
}

void draw_legend(FigureCanvas& canvas, const std::vector<LegendLine>& lines, double x, double y) {
  for (const LegendLine& line : lines) {
    if (line.is_marker) {
      canvas.marker({x + 11, y - 3}, line.style, 5);
    } else {
      canvas.curve({{x, y - 3}, {x + 22, y - 3}}, line.style, line.width, line.opacity);
    }
    canvas.text(x + 28, y, line.text, Anchor::begin);
    y += line_height;
  }
}

void draw_losses(FigureCanvas& canvas, const Panel& panel, const std::vector<RunCurves>& runs, bool has_faint) {
  canvas.clip(left, panel.y, panel.width + 3, panel.height);
  for (size_t i = 0; has_faint && i < runs.size(); ++i) {
    CurveStyle style = curve_style(i);
    style.dashes = {};
    canvas.curve(points_in(panel, runs[i].loss), style, 0.5, runs.size() <= 3 ? 0.3 : 0.2);
  }
  for (size_t i = 0; i < runs.size(); ++i) canvas.curve(points_in(panel, runs[i].mean), curve_style(i), 1.4, 1);
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const FigurePoint& point : points_in(panel, runs[i].validation)) canvas.marker(point, curve_style(i), 5);
  }
  canvas.unclip();
}

void draw_gaps(FigureCanvas& canvas, const Panel& panel, const std::vector<GapCurves>& gaps) {
  canvas.line({left, panel.up(0)}, {left + panel.width, panel.up(0)}, 0.7, 0.45);
  canvas.clip(left, panel.y, panel.width + 3, panel.height);
  for (const GapCurves& gap : gaps) canvas.curve(points_in(panel, gap.mean), curve_style(gap.run), 1.4, 1);
  for (const GapCurves& gap : gaps) {
    for (const FigurePoint& point : points_in(panel, gap.validation)) canvas.marker(point, curve_style(gap.run), 5);
  }
  canvas.unclip();
}

std::optional<FigureKind> kind_of(const std::filesystem::path& path) {
  if (path.extension() == ".svg") return FigureKind::svg;
  if (path.extension() == ".png") return FigureKind::png;
  if (path.extension() == ".pdf") return FigureKind::pdf;
  return std::nullopt;
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int most) {
  const double rough = (high - low) / most;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0, 20.0}) {
    const double step = factor * power;
    const double first = std::ceil(low / step - 1e-9), last = std::floor(high / step + 1e-9);
    if (last - first + 1 > most) continue;
    std::vector<double> ticks;
    for (int i = 0; i <= static_cast<int>(last - first); ++i) ticks.push_back((first + i) * step);
    return ticks;
  }
  return {};
}

std::vector<double> moving_mean(const std::vector<double>& values, size_t span) {
  std::vector<double> sums{0}, counts{0};
  for (const double value : values) {
    sums.push_back(sums.back() + (std::isfinite(value) ? value : 0));
    counts.push_back(counts.back() + (std::isfinite(value) ? 1 : 0));
  }
  std::vector<double> means;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t before = std::min(i, span / 2);
    const size_t behind = std::min(values.size() - 1 - i, std::min(i, span / 2));
    means.push_back((sums[i + behind + 1] - sums[i - before]) / (counts[i + behind + 1] - counts[i - before]));
  }
  return means;
}

std::string draw_figure(const std::vector<ComparedRun>& compared, const std::vector<ComparedPair>& pairs,
                        FigureKind kind) {
  std::vector<RunCurves> runs;
  for (size_t i = 0; i < compared.size(); ++i) {
    runs.push_back(curves_of(compared[i], std::any_of(pairs.begin(), pairs.end(),
                                                      [i](const ComparedPair& pair) { return pair.base == i; })));
  }
  std::vector<GapCurves> gaps;
  gaps.reserve(pairs.size());
  for (const ComparedPair& pair : pairs) gaps.push_back(gap_of(compared, pair));
  double tokens = 0;
  for (const RunCurves& run : runs) {
    for (const Series* series : {&run.loss, &run.validation}) {
      for (const double each : series->tokens) tokens = std::max(tokens, each);
    }
  }
  tokens = std::max(tokens, 1.0);
  Extent losses, percents;
  percents.include(0);
  const bool has_column = runs.size() > most_names_inside;
  const bool has_faint = !has_column;
  for (const RunCurves& run : runs) {
    if (has_faint) losses.include(lowest(run.loss, range_begins * tokens));
    losses.include(run.mean, range_begins * tokens);
    losses.include(run.validation, range_begins * tokens);
  }
  for (const GapCurves& gap : gaps) {
    percents.include(gap.mean, range_begins * tokens);
    percents.include(gap.validation, range_begins * tokens);
  }

  FigureCanvas ruler(kind, 1, 1);
  const std::vector<LegendLine> legend = legend_of(ruler, runs, has_faint);
  double legend_width = 0;
  for (const LegendLine& line : legend) legend_width = std::max(legend_width, 34 + ruler.text_width(line.text));
  const double legend_height = line_height * static_cast<double>(legend.size()) + 4;
  const double height = top + loss_height + (gaps.empty() ? 0 : between + gap_height) + bottom;
  FigureCanvas canvas(kind, figure_width + (has_column ? legend_width + right : 0),
                      has_column ? std::max(height, top + legend_height) : height);

  Panel panel{.y = top, .height = loss_height, .width = figure_width - left - right, .tokens = tokens};
  std::tie(panel.low, panel.high) = losses.padded();
  const double legend_x = has_column ? figure_width : left + panel.width - legend_width + 4;
  draw_axes(canvas, panel, "loss (nats per token)", gaps.empty());
  if (!has_column) canvas.rectangle(legend_x - 4, top, legend_width, legend_height, 1);  // behind the curves
  draw_losses(canvas, panel, runs, has_faint);
  draw_legend(canvas, legend, legend_x, top + 10);
  if (!gaps.empty()) {
    panel.y += panel.height + between;
    panel.height = gap_height;
    std::tie(panel.low, panel.high) = percents.padded();
    draw_axes(canvas, panel, "gap to baseline (%)", true);
    draw_gaps(canvas, panel, gaps);
  }
  return canvas.finish();
}

void write_figure(const std::filesystem::path& path, const std::vector<ComparedRun>& runs,
                  const std::vector<ComparedPair>& pairs) {
  const std::optional<FigureKind> kind = kind_of(path);
  if (!kind) {
    throw Error(ExitCode::usage, fmt::format("{}: a figure is an .svg, .png or .pdf file", path.string()),
                "end the name with one of these");
  }
  constexpr uint64_t largest = 64 << 20;  // bytes of a figure
  if (std::filesystem::exists(path) &&
      (!std::filesystem::is_regular_file(path) || std::filesystem::file_size(path) > largest ||
       !is_figure(read_file(path, largest)))) {
    throw Error(ExitCode::cannot_create, fmt::format("{} exists, and is no figure of nibble's", path.string()),
                "remove it, or give another name");
  }
  write_file(path, draw_figure(runs, pairs, *kind));
}

}  // namespace nibble
