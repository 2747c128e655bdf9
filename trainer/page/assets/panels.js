// Which panels there are and what they draw.
const state = {raw: true, validation: true, log_y: false, smoothing: 64, hidden: new Set()};

function shown_runs() { return part("page").runs.map((name, index) => index).filter(index => !state.hidden.has(index)); }
function run_name(index) { return part("page").runs[index]; }

// The span of the smoothing in steps: from one step to 30 % of the longest run.
function smoothing_span() {
  const longest = Math.max(1, ...shown_runs().map(index => part("run-" + index).step));
  return state.smoothing === 0 ? 1 : Math.max(1, longest * 0.0005 * Math.pow(600, state.smoothing / 100));
}

function across(columns) {
  const values = columns[view.axis] || [];
  return view.axis === "seconds" ? values.map(seconds => seconds / view.unit.size) : values;
}
// On a logarithmic axis there is no place for zero.
function drawable(series) {
  if (!view.log_x) return series;
  return series.map(each => {
    const kept = each.x.map((x, i) => i).filter(i => each.x[i] > 0);
    return {...each, x: kept.map(i => each.x[i]), y: kept.map(i => each.y[i])};
  });
}

function choose_unit(runs) {
  const longest = Math.max(0, ...runs.map(index => part("run-" + index).seconds || 0));
  view.unit = longest < 600 ? {size: 1, name: "seconds"} : longest < 7200 ? {size: 60, name: "minutes"}
    : longest < 259200 ? {size: 3600, name: "hours"} : {size: 86400, name: "days"};
}
function choose_range(all_columns) {
  let low = Infinity, high = 0;
  for (const columns of all_columns) for (const x of across(columns)) {
    if (x > 0) low = Math.min(low, x);
    high = Math.max(high, x);
  }
  if (!(high > 0)) { low = 1; high = 10; }
  if (!(high > low)) high = low * 1.5 + 1e-9;
  view.full = view.log_x ? [low, high] : [0, high];
}

function loss_panel(runs, columns) {
  const series = [], marks = [];
  for (const run of runs) {
    const own = columns[run], x = across(own), thinned = part("run-" + run).stride > 1;
    if (state.raw) {
      series.push({run, x, y: own.loss_high, kind: "faint", label: run_name(run) + " every step", band: thinned});
      if (thinned) series.push({run, x, y: own.loss_low, kind: "faint", label: run_name(run) + " every step"});
    }
  }
  for (const run of runs) {
    const own = columns[run];
    series.push({run, x: across(own), y: smooth(own.loss, own.count, smoothing_span()), kind: "line", label: run_name(run)});
    if (state.validation) series.push(...validation_series(run));
    for (const event of part("run-" + run).events) {
      const at = view.axis === "seconds" ? event.seconds / view.unit.size : event[view.axis];
      if (event.kind !== "checkpoint") marks.push({run, x: at});
    }
  }
  const note = "Thick: the smoothed training loss. Faint: every step" + (runs.some(run => part("run-" + run).stride > 1) ?
    "; of a long run the smallest and the largest loss of the steps that share a point" : "") +
    ". Dots: validation. A triangle below marks a step that was skipped or computed twice, or a resume.";
  return {id: "loss", title: "Loss", label: "loss, nats", note, log: state.log_y, height: 400, broad: true, series, marks, format: value => value.toFixed(4)};
}

// The validations of the run's first set.
function validation_series(run) {
  return part("run-" + run).validations.slice(0, 1).map(own => ({run, x: across(own), y: own.loss, kind: "points", label: run_name(run) + " validation" + (own.set ? " " + own.set : "")}));
}
function sets_of(runs) { return [...new Set(runs.flatMap(run => part("run-" + run).validations.map(own => own.set)))]; }

function validation_panels(runs) {
  const sets = sets_of(runs), panels = [];
  const panel = (figure, set, title, label) => {
    const series = runs.flatMap(run => {
      const own = part("run-" + run).validations.find(each => each.set === set);
      return own && own[figure].some(value => value !== null) ? [{run, x: across(own), y: own[figure], kind: "thin", label: run_name(run)}] : [];
    });
    if (series.length) panels.push({id: figure + "-" + set, title, label, height: 230, series, log: state.log_y, format: value => value.toFixed(4)});
  };
  for (const set of sets) panel("loss", set, "Validation loss" + (set ? ": " + set : ""), "loss, nats");
  for (const set of sets) panel("bits_per_byte", set, "Validation, bits a byte" + (set ? ": " + set : ""), "bits a byte");
  return panels;
}

function gap_panel(runs) {
  const series = [], notes = [], pairs = part("page").pairs;
  pairs.forEach(([base, run], index) => {
    const gap = part("gap-" + index), own = gap.columns, x = across(own);
    if (!runs.includes(run)) return;
    const average = weighted_mean(own.gap, own.count, smoothing_span(), own.variance);
    const independent = (1 - gap.correlation) / (1 + gap.correlation);
    const half = average.mean.map((mean, i) => {
      const values = average.effective[i] * independent;
      return mean === null || values <= 1.5 ? null : 2 * Math.sqrt(average.variance[i] / (values - 1));
    });
    const edge = sign => average.mean.map((mean, i) => half[i] === null ? null : mean + sign * half[i]);
    series.push({run, x, y: edge(1), kind: "edge", band: true, label: run_name(run)}, {run, x, y: edge(-1), kind: "edge", label: run_name(run)});
    series.push({run, x, y: average.mean, kind: "line", label: run_name(run)});
    if (state.validation) {
      const columns = {step: [], tokens: [], seconds: []}, y = [];
      for (const each of gap.validations) { for (const key of Object.keys(columns)) columns[key].push(each[key]); y.push(each.gap); }
      series.push({run, x: across(columns), y, kind: "points", label: run_name(run) + " validation"});
    }
    if (gap.obstacles.length) notes.push(run_name(run) + " did not see the same training as " + run_name(base) + ": " + gap.obstacles.join("; ") + ".");
  });
  if (!pairs.length) return null;
  const bases = [...new Set(pairs.map(pair => run_name(pair[0])))].join(", ");
  const note = "The loss less that of " + bases + " after the same number of tokens, smoothed. Dots: validation, on the same text. " +
    "The band is two standard errors of the smoothed gap, from the scatter of the steps around it and their correlation: it holds the " +
    "noise of the batches, not the spread between seeds, which only runs of several seeds show. " + notes.slice(0, 2).join(" ") +
    (notes.length > 2 ? " The same holds for " + (notes.length - 2) + " more." : "");
  return {id: "gap", title: "Gap", label: "gap, nats", note, height: 280, broad: true, zero: true, series, format: value => signed(value, 4) + " nats"};
}

function simple_panel(runs, columns, key, title, label, options) {
  const series = [];
  for (const run of runs) {
    const own = columns[run], y = own[key].map(value => value === null ? null : value * (options.factor || 1));
    if (options.high && part("run-" + run).stride > 1) series.push({run, x: across(own), y: own[options.high], kind: "faint", label: run_name(run) + " highest"});
    if (options.smooth && state.raw) series.push({run, x: across(own), y, kind: "faint", label: run_name(run) + " every step"});
    series.push({run, x: across(own), y: options.smooth ? smooth(y, own.count.map(count => Math.max(1, count)), smoothing_span()) : y, kind: "line", label: run_name(run)});
  }
  return {id: key, title, label, height: 230, series, format: options.format || figure_text, tick: options.tick, note: options.note};
}

function panel_list() {
  const runs = shown_runs(), columns = {};
  for (const run of runs) columns[run] = columns_of(run);
  choose_unit(runs);
  choose_range(runs.map(run => columns[run]));
  const panels = [loss_panel(runs, columns), gap_panel(runs), ...validation_panels(runs),
    simple_panel(runs, columns, "lr", "Learning rate", "learning rate", {}),
    simple_panel(runs, columns, "grad_norm", "Gradient norm", "norm", {smooth: true, high: "grad_norm_high"}),
    simple_panel(runs, columns, "tokens_per_second", "Tokens a second", "tokens/s", {smooth: true, tick: short_count, format: thousands}),
    simple_panel(runs, columns, "mfu", "Utilisation (MFU)", "% of the peak", {smooth: true, factor: 100, format: value => value.toFixed(1) + " %",
      note: "The model's FLOP/s as a share of the measured peak of all ranks."})];
  for (const panel of panels) if (panel) panel.series = drawable(panel.series);
  return panels.filter(panel => panel);
}

// Draws all panels; those that are as before take new data, and a panel that has come or gone takes its place in order.
function draw_panels() {
  const holder = document.getElementById("panels"), wanted = panel_list();
  for (let i = charts.length; i-- > 0;) {
    if (charts[i].id.startsWith("curve") || wanted.some(panel => panel.id === charts[i].id)) continue;
    charts[i].plot.destroy();
    charts[i].section.remove();
    charts.splice(i, 1);
  }
  for (const spec of wanted) {
    let chart = charts.find(each => each.id === spec.id);
    if (!chart) {
      const section = element("section", {class: "panel" + (spec.broad ? " broad" : ""), "data-panel": spec.id}, element("h2", {text: spec.title}), element("p", {class: "note"}));
      const next = wanted.slice(wanted.indexOf(spec) + 1).map(later => charts.find(each => each.id === later.id)).find(each => each);
      holder.insertBefore(section, next ? next.section : null);
      chart = make_chart(spec, section);
      chart.section = section;
    } else {
      update_chart(chart, spec);
    }
    chart.section.querySelector(".note").textContent = spec.note || "";
  }
}
