"use strict";
// What the figures of telemetry mean. A scale is a list of values from harmless to harmful, each with what it stands for.
// The colours of the heat map belong to these values, the same in every run and on every page.
const four_bits = "as NVFP4 rounds normally distributed numbers";
const zero_stops = [[0, "none"], [0.07, four_bits], [0.2, "twice to three times as many"], [0.5, "every other element"], [1, "all"]];
const figure_scales = {
  relative_error: {log: true, stops: [[0.0005, "as eight bits, or finer"], [0.009, four_bits + " to nearest"],
    [0.024, four_bits + " stochastically"], [0.1, "a tenth of the operand is lost"], [1, "all of it is lost"]]},
  underflow: {stops: zero_stops},
  zeros: {stops: zero_stops},
  clipped: {stops: [[0, "none"], [0.035, "the largest element of every other block: its scale was rounded down"],
    [0.0625, "the largest element of every block of 16"], [0.2, "scales are too small: an outlier was not foreseen"], [1, "all"]]},
  scales_extreme: {stops: [[0, "none"], [0.01, "one block in a hundred"], [0.03, "block scales begin to leave the range of the tensor's scale"],
    [0.1, "one block in ten"], [0.5, "every other block"]]},
  grad_cosine: {stops: [[1, "the gradient without quantisation"], [0.98, "usual for four bits"], [0.95, "noise of a third of the gradient"],
    [0.9, "noise of half the gradient"], [0.7, "as much noise as gradient"], [0, "no gradient left"]]},
  grad_relative_error: {stops: [[0, "none"], [0.04, "usual for four bits"], [0.1, "noise of a third of the gradient"],
    [0.25, "noise of half the gradient"], [1, "as much noise as gradient"], [2, "more noise than gradient"]]},
  grad_zero_share: {stops: [[0, "none"], [0.01, "one in a hundred"], [0.1, "one in ten"], [0.5, "every other element"], [1, "all"]]},
};
// Blue to red by way of yellow, which readers with any kind of colour blindness tell apart.
const scale_colors = [[49, 100, 178], [145, 191, 219], [255, 236, 160], [252, 141, 89], [190, 30, 45]];

// Returns where a value lies on its scale: 0 = the harmless end, 1 = the harmful one.
function scale_share(scale, value) {
  const stops = scale.stops, of = scale.log ? v => Math.log(Math.max(v, 1e-30)) : v => v;
  const down = stops[stops.length - 1][0] < stops[0][0];
  for (let i = 0; i + 1 < stops.length; ++i) {
    const low = of(stops[i][0]), high = of(stops[i + 1][0]), at = of(value);
    if (down ? at >= high : at <= high) {
      const share = (at - low) / (high - low);
      return (i + Math.min(1, Math.max(0, share))) / (stops.length - 1);
    }
  }
  return 1;
}

function share_color(share) {
  const at = share * (scale_colors.length - 1), low = Math.min(Math.floor(at), scale_colors.length - 2);
  return "rgb(" + scale_colors[low].map((c, i) => Math.round(c + (scale_colors[low + 1][i] - c) * (at - low))).join(",") + ")";
}
