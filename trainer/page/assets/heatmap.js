// Telemetry: a heat map for each run that has it, with layers as rows and steps as columns, in the colours of
// figures.js, and the curve of the layer that the reader has chosen.
const heat = {figure: null, wanted: null, layer: null, views: []};  // `wanted` is what the reader has chosen

function telemetry_runs() { return shown_runs().filter(run => part("telemetry-" + run)); }
function figure_name(figure) { return figure.subject + ": " + figure.title; }
function figure_names(runs) { return [...new Set(runs.flatMap(run => part("telemetry-" + run).figures.map(figure_name)))]; }
function find_figure(run, name) { return part("telemetry-" + run).figures.find(figure => figure_name(figure) === name); }
function steps_text(column) { return column[0] === column[1] ? "step " + column[0] : "steps " + column[0] + " to " + column[1]; }

function color_box(color) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), box = document.createElementNS(space, "rect");
  svg.setAttribute("width", 26); svg.setAttribute("height", 14); svg.setAttribute("aria-hidden", "true");
  box.setAttribute("width", 26); box.setAttribute("height", 14); box.setAttribute("fill", color);
  svg.append(box);
  return svg;
}

function draw_scale(holder, scale) {
  holder.replaceChildren(...scale.stops.flatMap(([value, meaning], i) => [
    element("span", {}, color_box(share_color(i / (scale.stops.length - 1))), " " + figure_text(value)), element("span", {text: meaning})]));
}

function draw_heatmap(canvas, run) {
  const map = part("telemetry-" + run), figure = find_figure(run, heat.figure), rows = map.layers.length, columns = map.columns.length;
  const width = canvas.parentElement.clientWidth, row = rows > 120 ? 6 : rows > 60 ? 9 : 16, pen = canvas.getContext("2d");
  const font = "11px system-ui, sans-serif", ratio = window.devicePixelRatio || 1;
  pen.font = font;
  const left = Math.min(width * 0.42, 12 + Math.max(...map.layers.map(name => pen.measureText(name).width)));
  const column = Math.min(60, (width - left - 24) / columns), height = rows * row + 34;
  canvas.width = width * ratio; canvas.height = height * ratio;
  canvas.style.width = width + "px"; canvas.style.height = height + "px";
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = font;
  const ink = css("--ink"), every = Math.ceil(13 / row), scale = figure && figure_scales[figure.key];
  for (let r = 0; r < rows; ++r) {
    for (let c = 0; c < columns; ++c) {
      const value = figure ? figure.cells[r * columns + c] : null, x = left + c * column, y = r * row;
      pen.fillStyle = value === null ? css("--panel") : share_color(scale_share(scale, value));
      pen.fillRect(x, y, column + (columns > 60 ? 0.3 : -1), row - (row > 6 ? 1 : 0));
    }
    pen.fillStyle = ink; pen.textAlign = "right"; pen.textBaseline = "middle";
    pen.font = (map.layers[r] === heat.layer ? "bold " : "") + font;
    if (r % every === 0) pen.fillText(map.layers[r], left - 6, (r + 0.5) * row, left - 8);
  }
  pen.font = font; pen.textAlign = "center"; pen.textBaseline = "top";
  const stride = Math.max(1, Math.ceil(56 / column));
  for (let c = stride - 1; c < columns; c += stride) pen.fillText(map.columns[c][1], left + (c + 0.5) * column, rows * row + 4);
  pen.textAlign = "left";
  pen.fillText("step", left, rows * row + 19);
  return {rows, columns, row, left, column};
}

function heat_cell(shape, canvas, event) {
  const box = canvas.getBoundingClientRect();
  const c = Math.floor((event.clientX - box.left - shape.left) / shape.column), r = Math.floor((event.clientY - box.top) / shape.row);
  const label = event.clientX - box.left < shape.left;
  return r >= 0 && r < shape.rows && (label || (c >= 0 && c < shape.columns)) ? [r, label ? 0 : c] : null;
}

function show_cell(seen, canvas, r, c) {
  const map = part("telemetry-" + seen.run), figure = find_figure(seen.run, heat.figure), tip = document.getElementById("tip");
  const value = figure ? figure.cells[r * seen.shape.columns + c] : null, box = canvas.getBoundingClientRect();
  tip.textContent = map.layers[r] + ", " + steps_text(map.columns[c]) + ": " + (value === null ? "not measured" : figure_text(value));
  tip.hidden = false;
  seen.cell = [r, c];
  canvas.setAttribute("aria-label", run_name(seen.run) + ", " + heat.figure + ", " + tip.textContent + ". Arrow keys read cells, Enter draws the layer's curve");
  const beside = Math.min(box.left + seen.shape.left + c * seen.shape.column + 14, document.documentElement.clientWidth - tip.offsetWidth - 6);
  tip.style.left = window.scrollX + Math.max(4, beside) + "px";
  tip.style.top = window.scrollY + box.top + (r + 1) * seen.shape.row + 6 + "px";
}

function heat_keys(event, seen, canvas) {
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose_layer(part("telemetry-" + seen.run).layers[seen.cell[0]]); return; }
  if (!step) return;
  event.preventDefault();
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  show_cell(seen, canvas, within(seen.cell[0] + step[0], seen.shape.rows), within(seen.cell[1] + step[1], seen.shape.columns));
}

function choose_layer(layer) {
  heat.layer = layer;
  draw_telemetry();
}

// The curve of the chosen layer over steps: telemetry has no tokens of its own, so each run's steps are looked up.
function layer_series(runs) {
  const series = [];
  for (const run of runs) {
    const map = part("telemetry-" + run), figure = find_figure(run, heat.figure), r = map.layers.indexOf(heat.layer);
    if (!figure || r < 0) continue;
    const own = columns_of(run), places = across(own);
    const x = map.columns.map(column => {
      let at = own.step.findIndex(step => step >= column[1]);
      if (at < 0) at = own.step.length - 1;
      return places[at];
    });
    series.push({run, x, y: figure.cells.slice(r * map.columns.length, (r + 1) * map.columns.length), kind: "thin", label: run_name(run)});
  }
  return drawable(series);
}

function draw_curve(holder, runs) {
  let chart = charts.find(each => each.id === "curve");
  if (!heat.layer || !runs.length) {
    if (chart) { chart.plot.destroy(); charts.splice(charts.indexOf(chart), 1); }
    holder.replaceChildren();
    return;
  }
  const spec = {id: "curve", title: heat.layer + ", " + heat.figure, label: heat.figure.split(": ")[1], height: 230, series: layer_series(runs), format: figure_text};
  if (!chart) {
    const section = element("section", {class: "panel", "data-panel": "curve"}, element("h3", {}));
    holder.replaceChildren(section);
    chart = make_chart(spec, section);
    chart.section = section;
  } else {
    update_chart(chart, spec);
  }
  chart.section.querySelector("h3").textContent = spec.title;
}

function heat_controls(names) {
  const select = element("select", {id: "heat-figure", "aria-label": "Figure of the heat maps"});
  const groups = new Map();
  for (const name of names) {
    const subject = name.split(": ")[0];
    if (!groups.has(subject)) { groups.set(subject, element("optgroup", {label: subject})); select.append(groups.get(subject)); }
    groups.get(subject).append(element("option", {value: name, text: name, selected: name === heat.figure}));
  }
  select.addEventListener("change", () => { heat.wanted = select.value; draw_telemetry(); });
  return select;
}

function heat_view(run) {
  const canvas = element("canvas", {tabindex: 0, role: "img", "data-heatmap": run_name(run)}), seen = {run, canvas, cell: [0, 0]};
  canvas.addEventListener("mousemove", event => {
    const cell = heat_cell(seen.shape, canvas, event);
    if (cell) show_cell(seen, canvas, cell[0], cell[1]); else document.getElementById("tip").hidden = true;
  });
  canvas.addEventListener("click", event => {
    const cell = heat_cell(seen.shape, canvas, event);
    if (cell) choose_layer(part("telemetry-" + run).layers[cell[0]]);
  });
  for (const leaving of ["mouseleave", "blur"]) canvas.addEventListener(leaving, () => { document.getElementById("tip").hidden = true; });
  canvas.addEventListener("keydown", event => heat_keys(event, seen, canvas));
  seen.section = element("div", {}, element("h3", {}, swatch(run), " " + run_name(run)), canvas);
  return seen;
}

function draw_telemetry() {
  const names = figure_names(telemetry_runs()), holder = document.getElementById("telemetry");
  heat.figure = names.includes(heat.wanted) ? heat.wanted : names.find(name => name.includes("cosine")) || names[0] || null;
  const runs = telemetry_runs().filter(run => find_figure(run, heat.figure));
  const without = shown_runs().filter(run => !runs.includes(run)).map(run_name);
  const shape = JSON.stringify([runs, names]);
  if (heat.shape !== shape) {
    heat.shape = shape;
    heat.views = runs.map(heat_view);
    const maps = element("div", {id: "heatmaps"}, ...heat.views.map(seen => seen.section));
    const old = charts.find(each => each.id === "curve");
    if (old) { old.plot.destroy(); charts.splice(charts.indexOf(old), 1); }
    holder.replaceChildren();
    if (runs.length) {
      holder.append(element("label", {text: "figure "}, heat_controls(names)), element("div", {class: "scale", id: "heat-scale"}),
        element("p", {class: "note", text: "The colours stand for these values in every run and on every page. Click a layer, or press Enter on it, for its curve."}),
        element("div", {id: "heat-curve", class: "curve"}), maps);
    }
    holder.append(element("p", {id: "heat-without"}));
  }
  document.getElementById("heat-without").textContent = without.length ? (heat.figure ? "Without this figure: " : "No telemetry: ") + without.join(", ") +
    ". A run that quantises nothing has no such figures, and telemetry.every: 0 turns them off." : "";
  if (!runs.length) return;
  const figure = runs.map(run => find_figure(run, heat.figure)).find(each => each);
  draw_scale(document.getElementById("heat-scale"), figure_scales[figure.key]);
  for (const seen of heat.views) {
    seen.shape = draw_heatmap(seen.canvas, seen.run);
    seen.canvas.setAttribute("aria-label", run_name(seen.run) + ", " + heat.figure + ": " + seen.shape.rows + " layers. Arrow keys read cells, Enter draws the layer's curve");
  }
  draw_curve(document.getElementById("heat-curve"), runs);
}
