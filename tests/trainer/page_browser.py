"""Opens a page of runs in headless Chromium and uses it as a reader does.
Usage: page_browser.py report URL | live URL RUN_DIRECTORY SERVER_PID"""

import json
import os
import pathlib
import signal
import sys
import time

from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select


STEPS = 400  # of the live run: a few seconds


def open_page(url):
    options = Options()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument("--" + argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # nothing but this machine
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = "/usr/bin/chromium"
    browser = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    resize(browser, 1280, 900)
    browser.get(url)
    return browser


def resize(browser, width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    time.sleep(0.4)


def check(condition, text):
    if not condition:
        sys.exit("FAILED: " + text)


def no_errors(browser):
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    check(not errors, f"the page reports {errors}")


def by_id(browser, name):
    return browser.find_element(By.ID, name)


# For each chart: finite points, points that are pixels, the range to the side and the range upright, number of series.
CHARTS = """
return Object.fromEntries(charts.map(chart => {
  const plot = chart.plot, canvas = plot.ctx.canvas, box = plot.bbox;
  const pixels = plot.ctx.getImageData(box.left, box.top, box.width, box.height).data;
  const colors = new Set();
  for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) colors.add((pixels[i] << 16) + (pixels[i + 1] << 8) + pixels[i + 2]);
  return [chart.id, {points: plot.data.slice(1).flat().filter(value => value !== null).length, colors: colors.size,
    x: [plot.scales.x.min, plot.scales.x.max], y: [plot.scales.y.min, plot.scales.y.max], series: plot.series.length,
    last: plot.data.slice(1).map(column => column[column.length - 1]), width: canvas.getBoundingClientRect().width}];
}))"""


def charts(browser):
    time.sleep(0.15)  # a chart is drawn in the browser's next turn
    return browser.execute_script(CHARTS)


def check_controls(browser):
    before = charts(browser)

    def click(name, changed, text):
        nonlocal before
        browser.execute_script("arguments[0].click()", by_id(browser, name))
        after = charts(browser)
        check(changed(before, after), text)
        before = after

    for axis in ("step", "seconds", "tokens"):
        browser.find_element(By.CSS_SELECTOR, f"input[value={axis}]").click()
        after = charts(browser)
        check(after["loss"]["x"] != before["loss"]["x"], f"the axis of {axis} is as before")
        before = after
    click("log-x", lambda a, b: a["loss"]["x"][0] == 0 and b["loss"]["x"][0] > 0, "the logarithmic axis begins at 0")
    click("log-x", lambda a, b: b["loss"]["x"][0] == 0, "the linear axis does not begin at 0")
    click("log-y", lambda a, b: a["loss"]["y"] != b["loss"]["y"], "a logarithmic loss is as before")
    click("log-y", lambda a, b: a["loss"]["y"] != b["loss"]["y"], "a linear loss is as before")
    click("raw", lambda a, b: b["loss"]["series"] < a["loss"]["series"], "every step is still drawn")
    click("raw", lambda a, b: b["loss"]["series"] > a["loss"]["series"], "every step does not come back")
    click("validation", lambda a, b: b["loss"]["series"] < a["loss"]["series"], "validations are still drawn")
    click("validation", lambda a, b: b["loss"]["series"] > a["loss"]["series"], "validations do not come back")
    by_id(browser, "smoothing").send_keys(Keys.END)
    smooth = charts(browser)
    check(smooth["loss"]["last"] != before["loss"]["last"], "more smoothing changes nothing")
    by_id(browser, "smoothing").send_keys(Keys.HOME)
    check(by_id(browser, "smoothing-text").text == "none", "the smallest smoothing is not none")
    before = charts(browser)
    click("zoom-in", lambda a, b: b["lr"]["x"][1] < a["lr"]["x"][1], "+ does not zoom")
    click("zoom-out", lambda a, b: b["lr"]["x"][1] > a["lr"]["x"][1], "- does not zoom")
    click("zoom-reset", lambda a, b: b["lr"]["x"][0] == 0, "all does not show everything")
    box = browser.find_element(By.CSS_SELECTOR, "#runs tbody tr:last-child input")
    box.click()
    after = charts(browser)
    check(after["loss"]["series"] < before["loss"]["series"] and "gap" in after, "a run that was hidden is drawn")
    browser.find_element(By.CSS_SELECTOR, "#runs tbody tr:last-child input").click()
    check(charts(browser)["loss"]["series"] == before["loss"]["series"], "the run does not come back")


def check_zoom(browser):
    over = browser.find_element(By.CSS_SELECTOR, "[data-panel=loss] .u-over")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", over)
    before = charts(browser)
    ActionChains(browser).move_to_element_with_offset(over, -200, -60).click_and_hold().move_by_offset(200, 100).release().perform()
    zoomed = charts(browser)
    check(zoomed["loss"]["x"][0] > 0 and zoomed["loss"]["x"][1] < before["loss"]["x"][1], "a drag does not zoom")
    check(zoomed["grad_norm"]["x"] == zoomed["loss"]["x"], "the panels do not keep one range")
    check(zoomed["loss"]["y"] != before["loss"]["y"], "a drag does not zoom upright")
    ActionChains(browser).double_click(over).perform()
    check(charts(browser)["loss"]["x"] == before["loss"]["x"], "a double click does not show everything")
    ActionChains(browser).move_to_element_with_offset(over, 0, -60).click_and_hold().move_by_offset(3, 90).release().perform()
    upright = charts(browser)
    check(upright["loss"]["x"] == before["loss"]["x"] and upright["loss"]["y"] != before["loss"]["y"], "no zoom upright alone")
    plot = browser.find_element(By.CSS_SELECTOR, "[data-panel=loss] .plot")
    plot.send_keys("0")
    check(charts(browser)["loss"]["y"] == before["loss"]["y"], "the key 0 does not show everything")
    plot.send_keys("+")
    check(charts(browser)["lr"]["x"][1] < before["lr"]["x"][1], "the key + does not zoom")
    plot.send_keys("0")
    ActionChains(browser).move_to_element_with_offset(over, 0, 0).perform()
    time.sleep(0.2)
    check("tokens" in by_id(browser, "tip").text, "the cursor shows no values")


def check_telemetry(browser):
    canvas = browser.find_element(By.CSS_SELECTOR, "canvas[data-heatmap]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    picture = canvas.screenshot_as_base64
    check("usual for four bits" in by_id(browser, "heat-scale").text, "the scale does not say what its colours mean")
    Select(by_id(browser, "heat-figure")).select_by_value("forward.x: relative error")
    check(canvas.screenshot_as_base64 != picture, "another figure looks the same")
    check("normally distributed" in by_id(browser, "heat-scale").text, "the scale is that of another figure")
    ActionChains(browser).move_to_element_with_offset(canvas, -200, 0).click().perform()
    first = charts(browser)
    check(first["curve"]["points"] > 0, "a click on a layer draws no curve")
    title = browser.find_element(By.CSS_SELECTOR, "[data-panel=curve] h3").text
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    check(browser.find_element(By.CSS_SELECTOR, "[data-panel=curve] h3").text != title, "Enter draws no other layer")


def check_widths_and_colours(browser):
    def paper():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = paper()
    by_id(browser, "theme").click()
    check(paper() != light, "the button does not make the page dark")
    check(all(chart["colors"] > 1 for chart in charts(browser).values()), "a panel of the dark page is empty")
    by_id(browser, "theme").click()
    check(paper() == light, "the button does not make the page light again")
    browser.execute_script("delete document.documentElement.dataset.theme")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    check(paper() != light, "the page does not follow the system's choice of dark")
    resize(browser, 390, 844)
    check(browser.execute_script("return document.documentElement.scrollWidth") <= 390, "a phone scrolls to the side")
    for name, chart in charts(browser).items():
        check(200 < chart["width"] <= 390, f"{name} is {chart['width']} wide on a phone")
        check(chart["colors"] > 1, f"{name} is empty on a phone")
    resize(browser, 1280, 900)
    check(charts(browser)["loss"]["width"] > 1000, "the loss does not become wide again")


def check_report(url):
    browser = open_page(url)
    rows = browser.find_elements(By.CSS_SELECTOR, "tr[data-run]")
    shown = {row.get_attribute("data-run"): row.get_attribute("data-step") for row in rows}
    check(shown == {"bf16": "24", "script><b>nvfp4": "24"}, f"the rows are {shown}")
    found = charts(browser)
    wanted = {"loss", "gap", "loss-", "lr", "grad_norm", "tokens_per_second", "mfu"}
    check(wanted <= set(found), f"panels are missing: {wanted - set(found)}")
    for name, chart in found.items():
        check(chart["points"] >= 6, f"{name} has {chart['points']} points")
        check(chart["colors"] > 1, f"{name} is an empty picture")
    check("recipe" in by_id(browser, "configuration").text, "the key that differs is not named")
    check("Without this figure: bf16" in by_id(browser, "telemetry").text, "a run without telemetry is not named")
    check("double" in by_id(browser, "help").text and "drag" in by_id(browser, "help").text, "how to zoom is not said")
    unnamed = browser.execute_script("""return Array.from(document.querySelectorAll("button, input, select, canvas[tabindex], .plot"))
      .filter(each => !(each.getAttribute("aria-label") || each.textContent.trim() || (each.labels && each.labels.length))).length""")
    check(unnamed == 0, f"{unnamed} controls have no name for a screen reader")
    check_controls(browser)
    check_zoom(browser)
    check_telemetry(browser)
    check_widths_and_colours(browser)
    no_errors(browser)
    browser.quit()


def step_of(browser):
    # In one call, because the page replaces its rows at any moment.
    return int(browser.execute_script("return document.querySelector('tr[data-run]').dataset.step"))


def text_of(browser, name):
    return browser.execute_script("return document.getElementById(arguments[0]).innerText", name)


def step_on_disk(run):
    try:
        lines = (pathlib.Path(run) / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    steps = [event["step"] for event in map(json.loads, lines) if event["event"] == "step"]
    return steps[-1] if steps else 0


def wait_for(condition, seconds, text):
    begin = time.monotonic()
    while not condition():
        check(time.monotonic() - begin < seconds, text)
        time.sleep(0.05)


def check_live(url, run):
    browser = open_page(url)
    check("waiting" in text_of(browser, "runs"), "a run that is not there yet is not called so")
    print("ready", flush=True)
    seen = set()
    last = 0
    while last < STEPS:
        wait_for(lambda: step_on_disk(run) > last, 60, "the run does not go on")
        last = step_on_disk(run)
        wait_for(lambda: step_of(browser) >= last, 3, f"step {last} is not shown after three seconds")
        seen.add(step_of(browser))
    check(len(seen) >= 3, f"the page was not live: it showed {seen}")
    check(charts(browser)["loss"]["points"] > 100, "the live curves are empty")
    browser.find_element(By.ID, "zoom-in").click()
    no_errors(browser)
    os.rename(run, run + ".away")
    wait_for(lambda: "no longer there" in text_of(browser, "runs"), 3, "a directory that is gone is not called so")
    check(step_of(browser) == last, "the last figures are gone with the directory")
    os.rename(run + ".away", run)
    wait_for(lambda: "no longer there" not in text_of(browser, "runs"), 3, "a directory that is back is not read")
    return browser


def check_end(browser, server):
    os.kill(server, signal.SIGINT)
    wait_for(lambda: "does not answer" in text_of(browser, "state"), 5, "the page does not say that its server is gone")
    check(step_of(browser) == STEPS, "the last figures are gone with the server")


if __name__ == "__main__":
    if sys.argv[1] == "report":
        check_report(sys.argv[2])
    else:
        window = check_live(sys.argv[2], sys.argv[3])
        check_end(window, int(sys.argv[4]))
        window.quit()
