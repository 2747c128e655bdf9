// One panel of curves. A chart gets a description {title, note, label, log, format, series, marks}; each series has
// {run, x, y, kind, label}, where kind is "line", "faint" (every step, behind the line), "edge" (of a band, with
// `band: true` on the second of two), "points" or "thin". All charts have one range to the side: view.range.
const view = {axis: "tokens", log_x: false, range: null, full: [0, 1], unit: {size: 1, name: ""}};
const charts = [];

function nice_step(range, count) {
  const raw = range / Math.max(1, count), size = Math.pow(10, Math.floor(Math.log10(raw)));
  return size * [1, 2, 5, 10].find(factor => factor * size >= raw * 0.999);
}
// Round numbers on an axis; on a logarithmic one that spans a decade or more, 1, 2 and 5 times powers of ten.
function splits_of(low, high, count, logarithmic) {
  if (!(high > low)) return [low];
  const found = [];
  if (logarithmic && high / low >= 12) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); ++power) {
      for (const factor of high / low > 1e4 ? [1] : [1, 2, 5]) {
        const value = factor * Math.pow(10, power);
        if (value >= low * 0.9999 && value <= high * 1.0001) found.push(+value.toPrecision(6));
      }
    }
    return found;
  }
  const step = nice_step(high - low, count);
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) found.push(+(i * step).toPrecision(12));
  return found;
}

function x_label() { return view.axis === "seconds" ? "time, " + view.unit.name : view.axis === "step" ? "steps" : "tokens"; }
function x_text(value) { return view.axis === "seconds" ? figure_text(value) + " " + view.unit.name : thousands(value) + (view.axis === "step" ? " steps" : " tokens"); }

function series_options(series) {
  const color = series.color || color_of(series.run), dash = dash_of(series.run);
  const common = {label: series.label, stroke: color, spanGaps: true, points: {show: false}, dash};
  if (series.kind === "line") return {...common, width: 2};
  if (series.kind === "thin") return {...common, width: 1.2, points: {show: true, size: 6, fill: color, stroke: color}};
  if (series.kind === "points") return {...common, paths: () => null, points: {show: true, size: 8, width: 1.6, fill: color, stroke: color}};
  return {...common, width: 1, dash: [], stroke: color + (series.kind === "edge" ? "00" : is_dark() ? "66" : "4d")};
}

function bands_of(series) {
  return series.flatMap((each, i) => each.band ? [{series: [i + 1, i + 2], fill: (each.color || color_of(each.run)) + (is_dark() ? "40" : "2e")}] : []);
}

function padded(low, high, logarithmic) {
  if (low === null || !isFinite(low)) return logarithmic ? [1, 10] : [0, 1];
  if (logarithmic) {
    const margin = Math.pow(Math.max(high / low, 1.0001), 0.04);
    return [low / margin, high * margin];
  }
  const margin = high - low > 1e-6 * Math.abs(high) ? 0.05 * (high - low) : Math.abs(high) * 0.05 || 1;
  return [low < 0 || low - margin > 0 ? low - margin : 0, high + margin];
}

// The value of a series nearest to the cursor, no further away than 2 % of the panel.
function nearest_value(data, series, index, reach) {
  const axis = data[0], column = data[series];
  for (let away = 0; away < 400; ++away) {
    for (const at of [index - away, index + away]) {
      if (at >= 0 && at < axis.length && column[at] !== null && Math.abs(axis[at] - axis[index]) <= reach) return column[at];
    }
  }
  return null;
}

function show_tip(chart, plot) {
  const tip = document.getElementById("tip"), {idx, left, top} = plot.cursor;
  if (idx === null || idx === undefined || left < 0) { tip.hidden = true; return; }
  const reach = (plot.scales.x.max - plot.scales.x.min) * 0.02, rows = [];
  chart.spec.series.forEach((series, i) => {
    if (series.kind === "edge" || series.kind === "faint") return;
    const value = nearest_value(plot.data, i + 1, idx, reach);
    if (value !== null) rows.push(element("div", {}, swatch(series.run), series.label + ": " + chart.spec.format(value)));
  });
  tip.replaceChildren(element("div", {text: x_text(plot.data[0][idx])}), ...rows.slice(0, 24));
  tip.hidden = rows.length === 0;
  const box = plot.over.getBoundingClientRect(), width = tip.offsetWidth;
  const right = window.scrollX + document.documentElement.clientWidth - width - 4;
  const beside = box.left + left + 18 + width > document.documentElement.clientWidth ? box.left + left - width - 14 : box.left + left + 18;
  tip.style.left = Math.max(4, Math.min(right, window.scrollX + beside)) + "px";
  tip.style.top = window.scrollY + box.top + top + 14 + "px";
}

function draw_marks(chart, plot) {
  const pen = plot.ctx, {top, height} = plot.bbox;
  pen.save();
  if (chart.spec.zero) {
    const y = plot.valToPos(0, "y", true);
    if (y > top && y < top + height) {
      pen.strokeStyle = css("--faint"); pen.lineWidth = 1;
      pen.beginPath(); pen.moveTo(plot.bbox.left, y); pen.lineTo(plot.bbox.left + plot.bbox.width, y); pen.stroke();
    }
  }
  for (const mark of chart.spec.marks || []) {
    if (mark.x < plot.scales.x.min || mark.x > plot.scales.x.max) continue;
    const x = plot.valToPos(mark.x, "x", true), size = 6 * devicePixelRatio;
    pen.fillStyle = color_of(mark.run);
    pen.beginPath(); pen.moveTo(x, top + height - 1.6 * size); pen.lineTo(x - size / 1.6, top + height); pen.lineTo(x + size / 1.6, top + height); pen.fill();
  }
  pen.restore();
}

function set_range(range) {
  view.range = range;
  const [min, max] = range || view.full;
  for (const chart of charts) chart.plot.setScale("x", {min, max});
}
function reset_zoom() {
  for (const chart of charts) chart.y_range = null;
  set_range(null);
}
// Zooms all panels about the middle of what they show. A factor below 1 shows less.
function zoom(factor) {
  const [low, high] = view.range || view.full;
  const of = view.log_x ? Math.log : v => v, back = view.log_x ? Math.exp : v => v;
  const middle = (of(low) + of(high)) / 2, half = (of(high) - of(low)) / 2 * factor;
  const wanted = [back(middle - half), back(middle + half)];
  if (factor > 1 && wanted[0] <= view.full[0] && wanted[1] >= view.full[1]) return set_range(null);
  set_range([Math.max(view.full[0], wanted[0]), Math.min(view.full[1], wanted[1])]);
}
function move(share) {
  if (!view.range) return;
  const width = (view.range[1] - view.range[0]) * share;
  if (view.range[0] + width < view.full[0] - 1e-9 || view.range[1] + width > view.full[1] + 1e-9) return;
  set_range([view.range[0] + width, view.range[1] + width]);
}
function zoom_upright(chart, factor) {
  const {min, max} = chart.plot.scales.y, middle = (min + max) / 2, half = (max - min) / 2 * factor;
  chart.y_range = [middle - half, middle + half];
  chart.plot.setScale("y", {min: chart.y_range[0], max: chart.y_range[1]});
}

// A drag ends: what was selected becomes the range. uPlot selects the whole height, or width, for a drag along one axis.
function take_selection(chart, plot) {
  const {left, top, width, height} = plot.select;
  if (width < 4 && height < 4) return;
  const whole = plot.over.getBoundingClientRect();
  if (height > 0 && height < whole.height - 1) chart.y_range = [plot.posToVal(top + height, "y"), plot.posToVal(top, "y")];
  const range = width > 0 && width < whole.width - 1 ? [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")] : view.range;
  plot.setSelect({left: 0, top: 0, width: 0, height: 0}, false);
  set_range(range);
  if (chart.y_range) plot.setScale("y", {min: chart.y_range[0], max: chart.y_range[1]});
}

function plot_keys(event, chart) {
  const actions = {"+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), "0": reset_zoom, Escape: reset_zoom,
    ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), ArrowUp: () => zoom_upright(chart, 0.7), ArrowDown: () => zoom_upright(chart, 1 / 0.7)};
  const action = actions[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
}

function plot_options(chart) {
  const spec = chart.spec, ink = css("--ink"), grid = {stroke: css("--grid"), width: 1};
  const font = "12px system-ui, sans-serif", ticks = {stroke: css("--line"), width: 1, size: 5};
  const axis = {stroke: ink, grid, ticks, font, labelFont: font, labelSize: 20};
  const count = chart.holder.clientWidth < 500 ? 4 : 8;
  return {
    width: chart.holder.clientWidth, height: spec.height, legend: {show: false}, bands: bands_of(spec.series),
    cursor: {sync: {key: "nibble", scales: ["x", null]}, focus: {prox: -1}, points: {show: false},
      drag: {x: true, y: true, uni: 30, setScale: false}, bind: {dblclick: () => () => { reset_zoom(); return null; }}},
    scales: {
      x: {time: false, distr: view.log_x ? 3 : 1, range: () => view.range || view.full},
      y: {distr: spec.log ? 3 : 1, range: (plot, low, high) => chart.y_range || padded(low, high, spec.log)},
    },
    axes: [
      {...axis, label: x_label(), size: 34, splits: (plot, i, low, high) => splits_of(low, high, count, view.log_x),
        values: (plot, values) => values.map(value => view.axis === "seconds" ? figure_text(value) : short_count(value)), filter: (plot, values) => values},
      {...axis, label: spec.label, size: 58, splits: (plot, i, low, high) => splits_of(low, high, 5, spec.log),
        values: (plot, values) => values.map(spec.tick || figure_text), filter: (plot, values) => values},
    ],
    series: [{}, ...spec.series.map(series_options)],
    hooks: {setCursor: [plot => { if (plot.cursor.event) show_tip(chart, plot); }], setSelect: [plot => take_selection(chart, plot)], draw: [plot => draw_marks(chart, plot)]},
  };
}

// What must be equal for a chart to take new data without being made again.
function shape_of(spec) {
  return JSON.stringify([spec.series.map(s => [s.run, s.kind, s.label, s.band, s.color]), spec.log, spec.height, view.axis, view.log_x, view.unit, is_dark()]);
}

function make_chart(spec, section) {
  const holder = element("div", {class: "plot", tabindex: 0, role: "img", "aria-label": spec.title + ", over " + x_label() + "; keys + - 0 and arrows zoom and move"});
  section.append(holder);
  const chart = {id: spec.id, spec, holder, y_range: null, shape: shape_of(spec)};
  const data = align(spec.series);
  chart.plot = new uPlot(plot_options(chart), data, holder);
  holder.addEventListener("keydown", event => plot_keys(event, chart));
  chart.plot.over.addEventListener("mouseleave", () => { document.getElementById("tip").hidden = true; });
  charts.push(chart);
  return chart;
}
function update_chart(chart, spec) {
  chart.spec = spec;
  const shape = shape_of(spec);
  if (shape === chart.shape) {
    chart.plot.setData(align(spec.series), false);
    const [min, max] = view.range || view.full;
    chart.plot.setScale("x", {min, max});
    return;
  }
  chart.shape = shape;
  chart.plot.destroy();
  chart.plot = new uPlot(plot_options(chart), align(spec.series), chart.holder);
  chart.plot.over.addEventListener("mouseleave", () => { document.getElementById("tip").hidden = true; });
}
