"""The report page in a real browser."""

import json
import os
from pathlib import Path

import pytest
import yaml
from browser import Browser
from report_data import hostile_data, report_data

from hwnas.networks import spaces
from hwnas.networks.narrowing import narrowed
from hwnas.report.render import render
from hwnas.settings.config import Config

ACCESSIBLE = (Path(__file__).parent / "accessible.js").read_text()
_SEEN = """[...document.querySelectorAll(".panel")].map((panel) => {
  document.querySelector(`.tab[data-panel=${panel.dataset.panel}]`).click();
  const count = (selector) => panel.querySelectorAll(`.chart ${selector}`).length;
  const slider = panel.querySelector("input[type=range]");
  const one = { key: panel.dataset.panel, points: count(".point"), packages: count(".package"),
    picks: [] };
  for (const share of slider ? [0, 0.2, 0.4, 0.6, 0.8, 1] : []) {
    slider.value = Number(slider.min) + share * (slider.max - slider.min);
    slider.dispatchEvent(new Event("input"));
    const values = [...panel.querySelectorAll(".pick dl dd")].map((dd) => dd.textContent);
    one.picks.push([Number(slider.value), values, panel.querySelector(".pick").textContent,
      count(".point.chosen")]);
  }
  return one;
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A Chromium of this file's tests."""
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def browse(browser, tmp_path):
    """Opens a page from a file; returns the browser."""

    def open_page(data, panel="", **window):
        path = tmp_path / "report.html"
        path.write_text(render(data), encoding="utf-8")
        browser.open(path.as_uri(), **window)
        browser.wait("document.documentElement.dataset.ready == 'yes'")
        if panel:
            browser.run(f"document.querySelector('.tab[data-panel={panel}]').click()")
        return browser

    return open_page


def _is_quiet(browser):
    """Nothing was said in the console, nothing asked for but the page."""
    assert browser.problems() == []
    assert len(browser.requests()) == 1
    return True


def _best_within(points, budget):
    """Oracle: the least predicted error among the points predicted within the budget."""
    within = [p for p in points if p["predicted"]["latency_ms"] <= budget]
    return min(within, key=lambda p: p["predicted"]["error"])["id"] if within else None


def test_the_browser_draws_every_point_and_the_slider_picks_the_best_within_the_budget(browse):
    data = report_data()
    page = browse(data)
    found = {each["key"]: each for each in page.run(_SEEN)}
    for n, target in enumerate(data["targets"]):
        seen, points = found[f"t{n}"], target["front"]["points"] if target["front"] else []
        assert seen["points"] == len(points)
        assert seen["packages"] == len(target["packages"])
        for budget, values, text, chosen in seen["picks"]:
            network = _best_within(points, budget)
            assert network in (values or [None])
            assert chosen == (0 if network is None else 1)
            assert ("No network of this front is within the budget" in text) == (network is None)
    for part in ("heldout", "energy"):
        for n, target in enumerate(data["targets"]):
            rows = (target["table"] if part == "heldout" else target["energy"]) or {}
            drawn = page.run(f"document.querySelectorAll('#{part}-{n} .heldout').length")
            assert drawn == len(rows.get("heldout", []))
    made = data["targets"][0]["packages"][0]
    picks = found["t0"]["picks"]
    assert [made["file"] in text for _, ids, text, _ in picks if made["id"] in ids] == [True]
    assert _is_quiet(page)


def test_a_network_that_was_measured_over_the_budget_is_not_chosen(browse):
    data = report_data()
    point = data["targets"][0]["front"]["points"][12]
    point["measured"] = {"latency_ms": 2.0, "test_error": 0.06}
    page = browse(data, panel="t0")
    cost = point["predicted"]["latency_ms"]
    page.run(
        "(() => { const s = document.querySelector('.panel[data-panel=t0] input[type=range]');"
        f"s.value = {cost + 1e-4}; s.dispatchEvent(new Event('input')); }})()"
    )
    text = page.run("document.querySelector('.panel[data-panel=t0] .pick').textContent")
    assert point["id"] not in text
    assert data["targets"][0]["front"]["points"][11]["id"] in text


def test_the_front_of_a_device_says_whose_the_best_network_within_the_budget_is(browse):
    data = report_data()
    page = browse(data)
    (device,) = data["devices"]
    (seen,) = (each for each in page.run(_SEEN) if each["key"] == "d0")
    assert seen["points"] == len(device["front"]["points"])
    known = [[p["target"], p["id"]] for p in device["front"]["points"]]
    assert [values[:2] in known for _, values, _, _ in seen["picks"] if values] == [True] * 5


def test_the_slider_of_a_device_begins_at_the_package_to_ship_on_the_target_that_it_is_of(browse):
    data = report_data()
    first, way = data["targets"][0], data["targets"][3]
    point = way["front"]["points"][5]
    same = next(p for p in first["front"]["points"] if p["id"] == point["id"])
    point["predicted"]["latency_ms"] = same["predicted"]["latency_ms"] + 0.02
    way["packages"] = [{**first["packages"][0], "id": point["id"], "href": "x", "alike": []}]
    first["packages"] = []
    (device,) = data["devices"]
    device["front"]["points"] = [{**p, "target": t["name"]} for t in (first, way)
                                 for p in t["front"]["points"]]  # fmt: skip
    page = browse(data)
    slider = "document.querySelector('.panel[data-panel=d0] input[type=range]').value"
    begun = page.run(f"Number({slider})")
    assert begun == pytest.approx(point["predicted"]["latency_ms"], abs=0.005)


def test_what_was_chosen_stays_with_its_device_when_the_page_draws_itself_anew(browser, tmp_path):
    data, path = report_data(), tmp_path / "report.html"
    path.write_text(render(data, "one"), encoding="utf-8")
    browser.open(path.as_uri())
    browser.wait("document.documentElement.dataset.ready == 'yes'")
    slider = "document.querySelector('.panel[data-panel={}] input[type=range]')"
    browser.run(
        f"(() => {{ const s = {slider.format('d0')}; s.value = s.max;"
        " s.dispatchEvent(new Event('input')); })()"
    )
    another = {**data["devices"][0], "name": "another.b1"}
    after = {**data, "devices": [another, *data["devices"]]}
    browser.run(
        "window.fetch = async (what) => what === 'state'"
        " ? { ok: true, json: async () => ({ state: 'two', words: 'changed' }) }"
        f" : {{ text: async () => {json.dumps(render(after, 'two'))} }}"
    )
    browser.wait("document.querySelector('.state').dataset.state == 'two'")
    shown = "document.querySelector('.panel:not(.off)').dataset.panel"
    assert browser.run(shown) == "d1"  # the same device
    far = "(() => {{ const s = {}; return (s.value - s.min) / (s.max - s.min) }})()"
    browser.run("document.querySelector('.tab[data-panel=d0]').click()")
    assert browser.run(far.format(slider.format("d1"))) > 0.9
    assert browser.run(far.format(slider.format("d0"))) < 0.9


def test_one_panel_is_shown_and_a_name_on_the_first_screen_shows_another(browse):
    page = browse(report_data())
    shown = (
        "[...document.querySelectorAll('.panel')].filter(p => p.offsetHeight)"
        ".map(p => p.dataset.panel)"
    )
    assert page.run(shown) == ["d0"]
    page.run("document.querySelector('.tab[data-panel=t1]').click()")
    assert page.run(shown) == ["t1"]
    assert page.run("document.querySelectorAll('.tab[aria-pressed=true]').length") == 1
    assert page.run("document.querySelector('.panel[data-panel=t1] svg').clientWidth") > 600


def test_the_keyboard_walks_through_the_points_and_chooses_one(browse):
    data = report_data()
    page = browse(data, panel="t0")
    cheapest = data["targets"][0]["front"]["points"][0]["id"]
    first = page.run(
        "(() => { const p = document.querySelector('.panel[data-panel=t0]');"
        "for (const key of ['ArrowRight', 'Enter'])"
        " p.querySelector('svg').dispatchEvent(new KeyboardEvent('keydown', { key }));"
        "return p.querySelector('.pick dl dd').textContent; })()"
    )
    assert first == cheapest
    assert f"network {cheapest}" in page.run("document.getElementById('tip').textContent")


def test_hostile_names_run_nothing_in_the_browser(browse):
    page = browse(hostile_data())
    assert page.run("document.querySelectorAll('img, iframe, script[src]').length") == 0
    assert _is_quiet(page)


def test_options_that_are_locked_give_settings_that_hold_the_front_to_them(browse):
    data = report_data()
    page = browse(data, panel="t0")
    page.run(
        "(() => { const panel = document.querySelector('.panel[data-panel=t0]');"
        "const untick = (name, option) => { const s = panel.querySelector('.steer select');"
        " s.value = name; s.dispatchEvent(new Event('change'));"
        " panel.querySelector(`.steer input[value='${option}']`).click(); };"
        "untick('*.kernel_size', 5); untick('resolution', 8); untick('resolution', 16); })()"
    )
    steer = page.run("document.querySelector('.panel[data-panel=t0] .steer').textContent")
    text = page.run("document.querySelector('.panel[data-panel=t0] .steer pre').textContent")
    wanted = {"*.kernel_size": [3], "resolution": [16]}
    assert yaml.safe_load(text) == {"search": {"only": wanted}}  # the last option stays
    config = Config.model_validate(yaml.safe_load(text))
    assert narrowed(spaces.load("tiny"), config.search.only).size < spaces.load("tiny").size
    kept = [
        point["options"]
        for point in data["targets"][0]["front"]["points"]
        if point["options"]["resolution"] == 16
        and {v for k, v in point["options"].items() if k.endswith("kernel_size")} == {3}
    ]
    assert 0 < len(kept) < 10
    assert f"{len(kept)} of 20 networks of this front keep to it" in steer
    drawn = page.run(
        "document.querySelectorAll('.panel[data-panel=t0] .chart .point:not(.out)').length"
    )
    assert drawn == len(kept)


@pytest.mark.parametrize(
    ("width", "scheme", "media"),
    [(1280, "light", "screen"), (1280, "dark", "screen"), (390, "dark", "screen"),
     (720, "dark", "print")],
)  # fmt: skip
def test_every_text_has_contrast_and_every_control_a_name(browse, width, scheme, media):
    page = browse(report_data(), width=width, scheme=scheme, media=media)
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.run(ACCESSIBLE) == []
    assert page.run("document.documentElement.scrollWidth") <= width
    if axe := os.environ.get("AXE_CORE"):
        page.run(Path(axe).read_text() + ";1")
        told = page.run("axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes[0].html]))")
        assert told == []


def test_the_check_of_contrast_and_names_finds_what_is_wrong(browse):
    page = browse(report_data())
    page.run(
        "(() => { document.querySelector('h1').style.color = '#bbb';"
        "document.querySelector('select').parentElement.replaceWith("
        " document.createElement('select'));"
        "document.querySelector('input[type=range]').removeAttribute('aria-label');"
        "document.querySelectorAll('details').forEach((d) => { d.open = true; }); })()"
    )
    told = "\n".join(page.run(ACCESSIBLE))
    assert 'H1 "runs/digits" has contrast' in told
    assert "<select></select> has no name" in told
    assert "range" in told


def test_two_targets_are_at_most_six_screens_of_a_phone(browse):
    data = report_data()
    first, second = data["targets"][:2]
    second["packages"] = [{**package} for package in first["packages"] for _ in range(4)]
    first["packages"] = second["packages"]
    first["baselines"], first["energy"] = [], None
    second["energy"] = None
    page = browse({**data, "targets": [first, second], "devices": []}, width=390, height=844)
    assert page.run("document.documentElement.scrollHeight") <= 6 * 844
    assert page.run("document.documentElement.scrollWidth") == 390
    answer, plot = (
        page.run(f"document.querySelector('{part}').getBoundingClientRect().top")
        for part in (".answers p", ".panel:not(.off) svg")
    )
    assert answer < 200 < plot < 844  # what to ship and where the front begins: the first screen


def test_print_holds_the_front_of_every_target_and_all_warnings(browse):
    page = browse(report_data(), width=720, media="print")
    page.run("dispatchEvent(new Event('beforeprint'))")
    heights = page.run("[...document.querySelectorAll('.panel')].map((p) => p.offsetHeight)")
    assert len(heights) == 5
    assert min(heights) > 20
    assert page.run("document.querySelector('.warn ul').offsetHeight") > 0
    assert page.run("document.querySelectorAll('input[type=range]')[0].offsetHeight") == 0
    assert json.dumps(page.problems()) == "[]"
