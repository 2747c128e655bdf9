// Colours and dashes. Seven colours that colour-blind readers tell apart (those of Okabe and Ito, lighter on dark paper),
// times three kinds of line, are 21 looks; after these they come again.
const light_colors = ["#0072b2", "#d55e00", "#008a65", "#b8558f", "#b87900", "#3d9bd6", "#55606b"];
const dark_colors = ["#5aaef0", "#ff8a3d", "#2fcf9f", "#e79ac6", "#f0b429", "#9ad2ff", "#b9c2cb"];
const dashes = [[], [9, 5], [2, 4]];

function is_dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
}
function color_of(index) { return (is_dark() ? dark_colors : light_colors)[index % light_colors.length]; }
function dash_of(index) { return dashes[Math.floor(index / light_colors.length) % dashes.length]; }
function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "text") made.textContent = value;
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
// A piece of a run's line, for tables and tips.
function swatch(index) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), line = document.createElementNS(space, "line");
  for (const [key, value] of Object.entries({width: 30, height: 10, "aria-hidden": "true"})) svg.setAttribute(key, value);
  const drawn = {x1: 0, x2: 30, y1: 5, y2: 5, stroke: color_of(index), "stroke-width": 3, "stroke-dasharray": dash_of(index).join(" ")};
  for (const [key, value] of Object.entries(drawn)) line.setAttribute(key, value);
  svg.append(line);
  return svg;
}
