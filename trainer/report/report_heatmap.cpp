#include "trainer/report/report_heatmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "trainer/report/html_text.h"

namespace nibble {
namespace {

// Adds up one figure while records are added to their columns.
class Accumulator {
 public:
  Accumulator(std::string subject, std::string_view title, size_t cells)
      : figure_{std::move(subject), std::string(title), std::vector<double>(cells)}, counts_(cells) {}

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
  for (const GradientFigure& figure : gradient_figures) all.emplace_back("weight gradient", figure.title, cells);
  for (const OperandRole role : all_operand_roles) {
    for (const OperandFigure& figure : operand_figures) {
      all.emplace_back(std::string(name_of(role)), figure.title, cells);
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

// Rounds to four significant digits, which is more than a colour or a tooltip shows.
nlohmann::json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  const std::string text = fmt::format("{:.4g}", value);
  double result = 0;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return result;
}

nlohmann::json to_json(const Heatmap& heatmap) {
  nlohmann::json columns = nlohmann::json::array();
  for (const Heatmap::Column& column : heatmap.columns) columns.push_back({column.first_step, column.last_step});
  nlohmann::json figures = nlohmann::json::object();
  for (const HeatmapFigure& figure : heatmap.figures) {
    nlohmann::json cells = nlohmann::json::array();
    for (const double value : figure.cells) cells.push_back(rounded(value));
    figures[figure.subject + ": " + figure.title] = std::move(cells);
  }
  return {{"run", heatmap.run}, {"layers", heatmap.layers}, {"columns", columns}, {"figures", figures}};
}

// Returns the options for the figures that at least one run has, grouped by subject.
std::string options_html(const std::vector<Heatmap>& heatmaps) {
  std::string html;
  std::string subject;
  for (const Accumulator& all : make_accumulators(0)) {
    const HeatmapFigure figure = Accumulator(all).mean();
    const bool wanted = std::any_of(heatmaps.begin(), heatmaps.end(), [&](const Heatmap& heatmap) {
      return std::any_of(heatmap.figures.begin(), heatmap.figures.end(), [&](const HeatmapFigure& other) {
        return other.subject == figure.subject && other.title == figure.title;
      });
    });
    if (!wanted) continue;
    if (figure.subject != subject) {
      html += fmt::format("{}<optgroup label='{}'>", subject.empty() ? "" : "</optgroup>", escaped(figure.subject));
      subject = figure.subject;
    }
    html += fmt::format("<option>{}: {}</option>", escaped(figure.subject), escaped(figure.title));
  }
  return html + "</optgroup>";
}

// Each run has one canvas, which is drawn again for every choice. The arrow keys move from cell to cell, for readers
// without a mouse.
constexpr std::string_view script = R"js(
const heat_stops = [[0,34,78],[18,53,112],[59,73,108],[87,93,109],[112,113,115],[138,134,120],[165,156,116],[195,179,105],[254,232,56]];
function heat_color(share) {
  const at = share * (heat_stops.length - 1), low = Math.min(Math.floor(at), heat_stops.length - 2);
  return "rgb(" + heat_stops[low].map((c, i) => Math.round(c + (heat_stops[low + 1][i] - c) * (at - low))) + ")";
}
function heat_text(value) { return value == null ? "not measured" : value === 0 ? "0" : Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toPrecision(4); }
function heat_range(name) {
  let low = Infinity, high = -Infinity;
  for (const map of heatmaps) for (const value of map.figures[name] || []) {
    if (value != null) { low = Math.min(low, value); high = Math.max(high, value); }
  }
  const logarithmic = low > 0 && high / low > 30;  // else small values would all look alike
  const of = logarithmic ? Math.log : v => v;
  return {low, high, logarithmic, share: v => high > low ? (of(v) - of(low)) / (of(high) - of(low)) : 0.5};
}
const heat_views = heatmaps.map((map, index) => {
  const canvas = document.getElementById("heatmap-" + index), rows = map.layers.length, columns = map.columns.length;
  const width = document.getElementById("heatmaps").clientWidth, row = rows > 120 ? 5 : rows > 60 ? 9 : 15;
  const pen = canvas.getContext("2d");
  pen.font = "11px system-ui,sans-serif";
  const left = Math.min(width / 3, 12 + Math.max(...map.layers.map(name => pen.measureText(name).width)));
  const column = Math.min(60, (width - left - 20) / columns), height = rows * row + 34, ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio; canvas.height = height * ratio;
  canvas.style.width = width + "px"; canvas.style.height = height + "px";
  pen.scale(ratio, ratio);
  const view = {map, canvas, rows, columns, row, left, column, cell: 0, name: null};
  view.steps = c => map.columns[c][0] === map.columns[c][1] ? "step " + map.columns[c][0] : "steps " + map.columns[c].join(" to ");
  view.draw = (name, range) => {
    view.name = name;
    const cells = map.figures[name];
    pen.clearRect(0, 0, width, height);
    pen.font = "11px system-ui,sans-serif";
    const ink = getComputedStyle(document.body).color, every = Math.ceil(13 / row);
    for (let r = 0; r < rows; ++r) {
      for (let c = 0; c < columns; ++c) {
        const value = cells ? cells[r * columns + c] : null, x = left + c * column, y = r * row;
        if (value != null) {
          pen.fillStyle = heat_color(range.share(value));
          pen.fillRect(x, y, column + 0.3, row - (row > 6 ? 1 : 0));
        } else {
          pen.strokeStyle = "#999";
          pen.beginPath(); pen.moveTo(x + 1, y + row - 2); pen.lineTo(x + Math.min(column, row) - 1, y + 1); pen.stroke();
        }
      }
      pen.fillStyle = ink; pen.textAlign = "right"; pen.textBaseline = "middle";
      if (r % every === 0) pen.fillText(map.layers[r], left - 6, (r + 0.5) * row, left - 8);
    }
    pen.textAlign = "center"; pen.textBaseline = "top";
    const stride = Math.max(1, Math.ceil(56 / column));
    for (let c = stride - 1; c < columns; c += stride) pen.fillText(map.columns[c][1], left + (c + 0.5) * column, rows * row + 4);
    pen.textAlign = "left";
    pen.fillText("step", left, rows * row + 19);
    canvas.setAttribute("aria-label", map.run + ", " + name + ": " + rows + " layers, " + columns + " columns of steps, values from " +
      heat_text(range.low) + " to " + heat_text(range.high) + "; arrow keys read out the cells");
  };
  view.show = cell => {
    view.cell = cell;
    const r = Math.floor(cell / columns), c = cell % columns, tip = document.getElementById("heat-tip"), box = canvas.getBoundingClientRect();
    tip.textContent = map.layers[r] + ", " + view.steps(c) + ": " + heat_text(map.figures[view.name] ? map.figures[view.name][cell] : null);
    tip.style.display = "block";
    tip.style.left = Math.min(window.scrollX + box.left + left + c * column + 14, window.scrollX + box.right - tip.offsetWidth) + "px";
    tip.style.top = window.scrollY + box.top + (r + 1) * row + 6 + "px";
  };
  const hide = () => { document.getElementById("heat-tip").style.display = "none"; };
  canvas.addEventListener("mousemove", event => {
    const box = canvas.getBoundingClientRect(), scale = width / box.width;
    const c = Math.floor(((event.clientX - box.left) * scale - left) / column), r = Math.floor((event.clientY - box.top) * scale / row);
    if (c >= 0 && c < columns && r >= 0 && r < rows) view.show(r * columns + c); else hide();
  });
  canvas.addEventListener("mouseleave", hide);
  canvas.addEventListener("blur", hide);
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[event.key];
    if (step === undefined) return;
    event.preventDefault();
    view.show(Math.max(0, Math.min(rows * columns - 1, view.cell + step)));
  });
  return view;
});
function heat_draw() {
  const name = document.getElementById("heat-figure").value, range = heat_range(name), known = range.low <= range.high;
  document.getElementById("heat-low").textContent = known ? heat_text(range.low) : "-";
  document.getElementById("heat-high").textContent = known ? heat_text(range.high) + (range.logarithmic ? " (logarithmic)" : "") : "-";
  for (const view of heat_views) view.draw(name, range);
}
document.getElementById("heat-scale").style.background = "linear-gradient(to right," + heat_stops.map(c => "rgb(" + c + ")") + ")";
document.getElementById("heat-figure").addEventListener("change", heat_draw);
heat_draw();
)js";

}  // namespace

const std::string_view heatmap_style = R"css(
#heatmaps canvas{display:block;margin:4px 0 18px;max-width:100%}
#heatmaps canvas:focus{outline:2px solid #1f77b4}
#heat-scale{display:inline-block;width:240px;height:12px;margin:0 8px;vertical-align:middle;border:1px solid #888}
#heat-tip{position:absolute;display:none;pointer-events:none;padding:3px 8px;background:#222;color:#fff;border-radius:3px;
font-size:12px;white-space:nowrap;z-index:10}
)css";

std::optional<Heatmap> make_heatmap(const std::string& run, const std::vector<TelemetryRecord>& records,
                                    size_t most_columns) {
  if (records.empty()) return std::nullopt;
  Heatmap heatmap{.run = run, .layers = {}, .columns = {}, .figures = {}};
  std::map<std::string, size_t> row_of;
  for (const TelemetryRecord& record : records) {
    for (const LayerFigures& layer : record.layers) {
      if (row_of.emplace(layer.name, heatmap.layers.size()).second) heatmap.layers.push_back(layer.name);
    }
  }
  const size_t columns = std::min(records.size(), most_columns);
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

std::string heatmaps_html(const std::vector<Heatmap>& heatmaps) {
  if (heatmaps.empty()) return {};
  nlohmann::json data = nlohmann::json::array();
  std::string canvases;
  for (const Heatmap& heatmap : heatmaps) {
    canvases += fmt::format("<h3>{}</h3><canvas id='heatmap-{}' role='img' tabindex='0'></canvas>\n",
                            escaped(heatmap.run), data.size());
    data.push_back(to_json(heatmap));
  }
  return fmt::format(
      "<h2>Telemetry: layers by steps</h2>\n<p><label>figure <select id='heat-figure'>{}</select></label> "
      "<span id='heat-low'></span><span id='heat-scale'></span><span id='heat-high'></span></p>\n"
      "<div id='heatmaps'>{}</div><div id='heat-tip' role='status'></div>\n"
      "<script>const heatmaps = {};{}</script>\n",
      options_html(heatmaps), canvases, script_json(data), script);
}

}  // namespace nibble
