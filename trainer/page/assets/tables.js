// The tables: runs (which is also the legend), events, gaps and configurations.
function last_value(values) {
  for (let i = values.length; i-- > 0;) if (values[i] !== null) return values[i];
  return null;
}
function median(values) {
  const sorted = values.filter(value => value !== null).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
}
function fixed(value, digits) { return value === null || value === undefined ? "-" : value.toFixed(digits); }

function run_status(run) {
  if (run.message) return run.message;
  if (!run.step) return "no step yet";
  if (run.steps && run.step >= run.steps) return "done";
  if (!page_is_live) return "stopped at step " + thousands(run.step);
  const quiet = live.now - run.last_time;
  return quiet < 120 ? "training" : "quiet for " + duration(quiet);
}

function run_row(index) {
  const run = part("run-" + index), columns = columns_of(index), sets = run.validations;
  const box = element("input", {type: "checkbox", checked: !state.hidden.has(index), "aria-label": "Show " + run.name});
  box.addEventListener("change", () => {
    if (box.checked) state.hidden.delete(index); else state.hidden.add(index);
    redraw();
  });
  const loss = last_value(smooth(columns.loss, columns.count, smoothing_span()));
  const cells = [run.recipe || "-", run.seed === undefined ? "-" : run.seed, thousands(run.step) + (run.steps ? " / " + thousands(run.steps) : ""), short_count(run.tokens), fixed(loss, 4),
    fixed(sets.length ? last_value(sets[0].loss) : null, 4), fixed(sets.length ? last_value(sets[0].bits_per_byte) : null, 4),
    thousands(median(columns.tokens_per_second)), fixed(median(columns.mfu.map(mfu => mfu === null ? null : 100 * mfu)), 1),
    run.skipped, duration(run.seconds), run.parameters ? short_count(run.parameters) : "-"];
  const row = element("tr", {"data-run": run.name, "data-step": run.step, class: state.hidden.has(index) ? "off" : null},
    element("td", {}, element("label", {title: run.directory}, box, swatch(index), run.name)),
    ...cells.map(text => element("td", {text: String(text)})));
  row.append(element("td", {class: "text" + (run.message ? " message" : ""), text: run_status(run)}));
  return row;
}

const run_headings = ["run", "recipe", "seed", "step", "tokens", "loss", "validation", "bits/byte", "tokens/s", "MFU, %", "skipped", "time", "parameters", "state"];
function draw_runs() {
  const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
  const rows = part("page").runs.map((name, index) => run_row(index));
  document.getElementById("runs").replaceChildren(element("thead", {}, element("tr", {}, ...run_headings.map(text => element("th", {text, class: text === "state" ? "text" : null})))),
    element("tbody", {}, ...rows));
  if (focused && focused.startsWith("Show ")) {
    const again = Array.from(document.querySelectorAll("#runs input")).find(box => box.getAttribute("aria-label") === focused);
    if (again) again.focus();
  }
}

function table(headings, rows) {
  const cell = value => typeof value === "object" && value ? element("td", {class: value.class, text: value.text}) : element("td", {text: value});
  return element("div", {class: "wide"}, element("table", {}, element("thead", {}, element("tr", {}, ...headings.map(text => element("th", {text})))),
    element("tbody", {}, ...rows.map(row => element("tr", {}, ...row.map(cell))))));
}

function draw_events() {
  const most = 60, events = [], counts = [];
  for (const index of shown_runs()) {
    const run = part("run-" + index);
    if (run.skipped || run.retried) counts.push(run.name + ": " + thousands(run.skipped) + " steps skipped, " + thousands(run.retried) + " computed twice.");
    for (const event of run.events) events.push([run.name, thousands(event.step), event.kind.replaceAll("_", " "), {class: "text", text: event.text}]);
  }
  const holder = document.getElementById("events");
  if (!events.length && !counts.length) {
    holder.replaceChildren(element("p", {text: "No step was skipped or computed twice, and no run was resumed."}));
    return;
  }
  holder.replaceChildren(element("p", {text: counts.join(" ") || "No step was skipped."}));
  if (events.length > most) holder.append(element("p", {text: "The last " + most + " of " + events.length + " events:"}));
  if (events.length) holder.append(table(["run", "step", "event", ""], events.slice(-most)));
}

function draw_comparison() {
  const comparison = part("comparison"), section = document.getElementById("comparison-section");
  section.hidden = !comparison || (!comparison.rows.length && !comparison.sentences.length);
  if (section.hidden) return;
  const many = part("page").pairs.length > 4;  // then only the end of each run
  const kept = comparison.rows.filter((row, i) => !many || row.at !== "training" || !comparison.rows[i + 1] || comparison.rows[i + 1].at !== "training" || comparison.rows[i + 1].run !== row.run);
  const rows = kept.map(row => [row.run, row.at, thousands(row.tokens), fixed(row.base_loss, 4), fixed(row.run_loss, 4), signed(row.absolute, 4),
    signed(row.relative === null ? null : 100 * row.relative, 2)]);
  document.getElementById("comparison").replaceChildren();
  if (rows.length) {
    document.getElementById("comparison").append(table(["run", "loss", "tokens", "baseline", "run's", "gap, nats", "gap, %"], rows),
      element("p", {text: "Training losses are means over the last 5 % of the common steps before each point."}));
  }
  for (const text of comparison.sentences) document.getElementById("comparison").append(element("p", {text}));
}

function draw_configuration() {
  const {rows, different} = part("configuration"), holder = document.getElementById("configuration"), names = part("page").runs;
  const text = value => ({class: "text", text: value});
  if (!different) {
    holder.replaceChildren(element("p", {text: "The keys that are not the default:"}), table(["key", "value"], rows.map(row => [row.key, text(row.values[0])])));
  } else if (!rows.length) {
    holder.replaceChildren(element("p", {text: "The configurations are equal but for run.dir."}));
  } else if (names.length > rows.length && names.length > 4) {
    holder.replaceChildren(element("p", {text: "Keys that differ:"}), table(["run", ...rows.map(row => row.key)], names.map((name, i) => [name, ...rows.map(row => text(row.values[i]))])));
  } else {
    holder.replaceChildren(element("p", {text: "Keys that differ:"}), table(["key", ...names], rows.map(row => [row.key, ...row.values.map(text)])));
  }
}
