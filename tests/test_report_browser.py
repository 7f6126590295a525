"""The report page in a real browser."""

import json
import os
import re
import shutil
import subprocess

import pytest
from report_data import Page, hostile_data, report_data

from hwnas.report.render import render

_WATCH = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("securitypolicyviolation", (event) => problems.push(event.violatedDirective));
</script>"""

_PROBE = """<script>
const found = { ready: document.documentElement.dataset.ready, problems, targets: [] };
found.strange = document.querySelectorAll("img, iframe, script[src]").length;
document.querySelectorAll("article[data-target]").forEach((article, n) => {
  const count = (selector) => article.querySelectorAll(`.chart ${selector}`).length;
  const slider = article.querySelector("input[type=range]");
  const one = { points: count(".point"), packages: count(".package"), picks: [] };
  one.heldout = document.querySelectorAll(`#heldout-${n} .heldout`).length;
  one.energy = document.querySelectorAll(`#energy-${n} .heldout`).length;
  found.targets.push(one);
  if (!slider) return;
  for (const share of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
    slider.value = Number(slider.min) + share * (slider.max - slider.min);
    slider.dispatchEvent(new Event("input"));
    const network = article.querySelector(".pick dl dd");
    const text = article.querySelector(".pick").textContent;
    one.picks.push([Number(slider.value), network && network.textContent, text,
      count(".point.chosen")]);
  }
  const svg = article.querySelector(".chart svg");
  for (const key of ["ArrowRight", "Enter"]) {
    svg.dispatchEvent(new KeyboardEvent("keydown", { key }));
  }
  one.tip = document.getElementById("tip").textContent;
  one.first = article.querySelector(".pick dl dd").textContent;
});
found.devices = [...document.querySelectorAll("article[data-device]")].map((article) => ({
  points: article.querySelectorAll(".chart .point").length,
  picks: [...article.querySelectorAll(".pick dl dd")].slice(0, 2).map((dd) => dd.textContent),
}));
const result = document.createElement("pre");
result.id = "probe";
result.textContent = JSON.stringify(found);
document.body.append(result);
</script>"""


@pytest.fixture
def browse(tmp_path):
    """Opens a page in Chromium, from a file, without network; returns what the probe found."""
    chromium = shutil.which("chromium")
    if chromium is None and os.environ.get("CI") != "true":
        pytest.skip("chromium is not installed: apt-get install chromium")
    assert chromium, "CI installs chromium; this test may not be skipped there"

    def open_page(text):
        path = tmp_path / "report.html"
        text = text.replace("<head>", f"<head>{_WATCH}").replace("</body>", f"{_PROBE}</body>")
        path.write_text(text, encoding="utf-8")
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync --dump-dom"
        )
        command = [chromium, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [*command, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
        )
        page = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
        assert page, done.stdout[-2000:] + done.stderr[-2000:]
        return json.loads(Page(page.group(0)).text)

    return open_page


def _best_within(points, budget):
    """Oracle: the least error among the points within the budget."""
    costs = [(p["measured"] or p["predicted"])["latency_ms"] for p in points]
    within = [p for p, cost in zip(points, costs, strict=True) if cost <= budget]
    return min(within, key=lambda p: p["predicted"]["error"])["id"] if within else None


def test_the_browser_draws_every_point_and_the_slider_picks_the_best_within_the_budget(browse):
    data = report_data()
    found = browse(render(data))
    assert (found["ready"], found["problems"], found["strange"]) == ("yes", [], 0)
    for target, seen in zip(data["targets"], found["targets"], strict=True):
        points = target["front"]["points"] if target["front"] else []
        assert seen["points"] == len(points)
        assert seen["packages"] == len(target["packages"])
        assert seen["heldout"] == (len(target["table"]["heldout"]) if target["table"] else 0)
        assert seen["energy"] == (len(target["energy"]["heldout"]) if target["energy"] else 0)
        for budget, network, text, chosen in seen["picks"]:
            assert network == _best_within(points, budget)
            assert chosen == (0 if network is None else 1)
            assert ("No network of this front is within the budget" in text) == (network is None)
    first = data["targets"][0]
    made = first["packages"][0]
    texts = {pick[1]: pick[2] for pick in found["targets"][0]["picks"]}
    assert None in texts
    assert len(texts) == 6
    assert [made["file"] in text for n, text in texts.items() if n == made["id"]] == [True]


def test_the_front_of_a_device_says_whose_the_best_network_within_the_budget_is(browse):
    data = report_data()
    (seen,), (device,) = browse(render(data))["devices"], data["devices"]
    assert seen["points"] == len(device["front"]["points"])
    assert seen["picks"] in [[p["target"], p["id"]] for p in device["front"]["points"]]


def test_the_keyboard_walks_through_the_points_and_chooses_one(browse):
    data = report_data()
    found = browse(render(data))["targets"][0]
    cheapest = data["targets"][0]["front"]["points"][0]
    assert found["first"] == cheapest["id"]
    assert f"network {cheapest['id']}" in found["tip"]


def test_hostile_names_run_nothing_in_the_browser(browse):
    found = browse(render(hostile_data()))
    assert (found["ready"], found["problems"], found["strange"]) == ("yes", [], 0)
