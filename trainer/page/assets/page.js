// Reads the data, connects the controls, and, on a live page, asks the server for what is new.
const live = {now: 0, failures: 0};
const poll_milliseconds = 1000;

function draw_controls() {
  const span = Math.round(smoothing_span());
  document.getElementById("smoothing-text").textContent = span <= 1 ? "none" : thousands(span) + " steps";
  document.getElementById("theme").textContent = is_dark() ? "light" : "dark";
}

function redraw() {
  draw_controls();
  draw_runs();
  draw_panels();
  draw_events();
  draw_comparison();
  draw_telemetry();
  draw_configuration();
}

function remake() {
  document.getElementById("tip").hidden = true;
  for (const chart of charts) chart.shape = null;
  heat.shape = null;
  redraw();
}

function connect_controls() {
  const on = (id, event, action) => document.getElementById(id).addEventListener(event, action);
  for (const radio of document.querySelectorAll("input[name=axis]")) {
    if (radio.checked) view.axis = radio.value;
    radio.addEventListener("change", () => { view.axis = radio.value; view.range = null; redraw(); });
  }
  const flag = (id, set) => { set(document.getElementById(id).checked); on(id, "change", event => { set(event.target.checked); redraw(); }); };
  flag("log-x", checked => { view.log_x = checked; view.range = null; });
  flag("log-y", checked => { state.log_y = checked; for (const chart of charts) chart.y_range = null; });
  flag("raw", checked => { state.raw = checked; });
  flag("validation", checked => { state.validation = checked; });
  state.smoothing = +document.getElementById("smoothing").value;
  on("smoothing", "input", event => { state.smoothing = +event.target.value; redraw(); });
  on("zoom-in", "click", () => zoom(0.6));
  on("zoom-out", "click", () => zoom(1 / 0.6));
  on("zoom-reset", "click", reset_zoom);
  on("theme", "click", () => { document.documentElement.dataset.theme = is_dark() ? "light" : "dark"; remake(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", remake);
  let width = document.documentElement.clientWidth;
  new ResizeObserver(() => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    remake();
  }).observe(document.documentElement);
}

function show_state() {
  const line = document.getElementById("state");
  line.classList.toggle("alarm", live.failures > 0);
  if (!page_is_live) line.textContent = "";
  else if (live.failures > 0) line.textContent = "The server does not answer: " + live.reason + ". These are the last figures that it sent.";
  else line.textContent = "live";
}

async function poll() {
  try {
    const query = new URLSearchParams({have: Object.values(parts).map(each => each.tag).join(",")}), token = new URLSearchParams(location.search).get("token");
    if (token) query.set("token", token);
    const answer = await fetch("data.json?" + query, {cache: "no-store"});
    if (!answer.ok) throw new Error("it answered " + answer.status);
    const arrived = await answer.json();
    live.now = arrived.now;
    live.failures = 0;
    take_parts(arrived.parts);
    if (Object.keys(arrived.parts).length) redraw(); else draw_runs();
  } catch (error) {
    live.failures += 1;
    live.reason = error.message;
  }
  show_state();
  setTimeout(poll, poll_milliseconds);
}

take_parts(JSON.parse(document.getElementById("data").textContent));
document.getElementById("title").textContent = part("page").title;
connect_controls();
redraw();
show_state();
if (page_is_live) poll();
