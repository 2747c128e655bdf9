// The data of the page: parts with names (trainer/page/page_parts.h), which a live page replaces one by one.
const parts = {};

function take_parts(arrived) {
  for (const [name, part] of Object.entries(arrived)) parts[name] = part;
}
function part(name) { return parts[name] ? parts[name].data : null; }
function run_count() { return part("page").runs.length; }

// Returns a run's columns of steps: the earlier ones and the last ones joined.
function columns_of(index) {
  const earlier = part("steps-" + index), recent = part("run-" + index).recent, joined = {};
  for (const key of Object.keys(recent)) joined[key] = earlier ? earlier[key].concat(recent[key]) : recent[key];
  return joined;
}

// Sums over all rows with weights that fall exponentially to both sides, for each row: of the weights and of the given
// products. A row weighs as many steps as it stands for, and `keep` is what a weight keeps over one step. Each sum is of
// w, w d, w d^2, w y, w d y, w y^2 and w^2 / count, where d is the distance in steps from the row. A missing value weighs nothing.
function weighted_sums(values, counts, keep, variances) {
  const size = values.length, sums = values.map(() => [0, 0, 0, 0, 0, 0, 0]);
  const pass = (first, direction) => {
    let s = [0, 0, 0, 0, 0, 0, 0];
    for (let n = 0, i = first; n < size; ++n, i += direction) {
      const d = n === 0 ? 0 : (counts[i] + counts[i - direction]) / 2, k = Math.pow(keep, d), away = -direction * d;
      s = [k * s[0], k * (s[1] + away * s[0]), k * (s[2] + 2 * away * s[1] + d * d * s[0]), k * s[3], k * (s[4] + away * s[3]), k * s[5], k * k * s[6]];
      for (let j = 0; j < 7; ++j) sums[i][j] += s[j];
      if (values[i] === null || !counts[i]) continue;
      const w = counts[i], y = values[i], own = [w, 0, 0, w * y, 0, w * (y * y + (variances ? variances[i] || 0 : 0)), w];
      for (let j = 0; j < 7; ++j) { s[j] += own[j]; if (direction > 0) sums[i][j] += own[j]; }
    }
  };
  pass(0, 1);
  pass(size - 1, -1);
  return sums;
}
function keep_of(span) { return (span - 1) / (span + 1); }

// Returns the smoothed values: at each row the straight line that fits the rows around it best, with weights that fall
// exponentially to both sides and amount to `span` steps. So the curve lags nowhere, also not at the ends.
function smooth(values, counts, span) {
  if (span <= 1) return values;
  return weighted_sums(values, counts, keep_of(span)).map(([s0, s1, s2, t0, t1]) => {
    const determinant = s0 * s2 - s1 * s1;
    if (s0 <= 0) return null;
    return determinant > 1e-9 * s0 * s0 ? (t0 * s2 - t1 * s1) / determinant : t0 / s0;
  });
}

// Returns for each row the mean with the same weights, the variance around it, and how many independent values as good
// as the weighted ones are.
function weighted_mean(values, counts, span, variances) {
  const sums = weighted_sums(values, counts, keep_of(Math.max(1, span)), variances);
  const mean = sums.map(s => s[0] > 0 ? s[3] / s[0] : null);
  return {mean, variance: sums.map((s, i) => s[0] > 0 ? Math.max(0, s[5] / s[0] - mean[i] * mean[i]) : null),
    effective: sums.map(s => s[6] > 0 ? s[0] * s[0] / s[6] : null)};
}

// Joins series with an axis each into uPlot's aligned data: the union of the axes, and each series' values there.
function align(series) {
  const axis = Array.from(new Set(series.flatMap(each => each.x))).sort((a, b) => a - b);
  const place = new Map(axis.map((value, index) => [value, index]));
  return [axis, ...series.map(each => {
    const column = new Array(axis.length).fill(null);
    for (let i = 0; i < each.x.length; ++i) if (each.y[i] !== null) column[place.get(each.x[i])] = each.y[i];
    return column;
  })];
}

const suffixes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
function short_count(value) {
  for (const [size, suffix] of suffixes) if (Math.abs(value) >= size) return +(value / size).toPrecision(4) + suffix;
  return String(+value.toPrecision(4));
}
function thousands(value) { return value === null || value === undefined ? "-" : Math.round(value).toLocaleString("en-US"); }
function duration(seconds) {
  if (seconds < 120) return +seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
  if (seconds < 7200) return +(seconds / 60).toFixed(1) + " min";
  return seconds < 172800 ? +(seconds / 3600).toFixed(1) + " h" : +(seconds / 86400).toFixed(1) + " days";
}
function figure_text(value) {
  if (value === null || value === undefined) return "-";
  if (value === 0) return "0";
  return Math.abs(value) < 1e-5 || Math.abs(value) >= 1e7 ? value.toExponential(2) : String(+value.toPrecision(4));
}
function signed(value, digits) { return value === null ? "-" : (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits); }
