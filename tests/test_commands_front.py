"""Commands over finished searches: front, fleet, space profile, search that goes on."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.predictors import predictor
from hwnas.predictors.fit import fit_predictor
from hwnas.search import front
from profilers.schema import canonical_json

SETTINGS = """
run: run
data: {kind: digits}
space: {name: tiny, resolutions: [8]}
train: {epochs: 1}
targets: [fake.fake.fp32.b1.t1, fake.fake.fp32.b4.t1]
profile: {budget_s: 5, heldout: 10, rounds: 10}
search: {population: 20, generations: 10}
pick:
  - {rule: fleet, k: 1, budget: {latency_ms: 50%}}
"""
TARGETS = ["fake.fake.fp32.b1.t1", "fake.fake.fp32.b4.t1"]


def hwnas(*arguments: str | Path) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    """Settings whose tables, predictor (of a made-up accuracy) and fronts are there."""
    folder = tmp_path_factory.mktemp("searched")
    path = folder / "hwnas.yaml"
    path.write_text(SETTINGS)
    assert hwnas("profile", path) == 0
    space = spaces.load("tiny").for_data(1, 10).restricted((8,))
    archs = space.architectures(space.sample(60, np.random.default_rng(0)))
    rows = [(arch, 0.5 + 0.4 * exact_costs(arch)["macs"] / 5e5) for arch in archs]
    predictor.save(fit_predictor(space, rows, 0, "0" * 64), folder / "run" / "predictor.npz")
    assert hwnas("search", path, "--accept", "emulated") == 0
    return path


def test_a_front_is_shown_and_written_as_csv(settings, tmp_path, capsys):
    assert hwnas("front", settings, "--target", TARGETS[0]) == 0
    assert "hypervolume" in capsys.readouterr().out
    capsys.readouterr()
    assert hwnas("front", settings, "--target", TARGETS[0].partition(".")[0]) == 0  # its device
    assert hwnas("front", settings, "--csv", tmp_path / "front.csv") == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "front.csv").read_text())))
    assert {row["target"] for row in rows} == set(TARGETS)
    space = spaces.load("tiny").for_data(1, 10)
    for target in TARGETS:
        found = front.load(settings.parent / "run" / "fronts" / f"{target}.json", space)
        ids = [row["id"] for row in rows if row["target"] == target]
        assert ids == [point.id for point in found.points]


@pytest.mark.parametrize("mode", ["worst", "mean"])
def test_one_front_for_several_targets(settings, capsys, mode):
    capsys.readouterr()
    arguments = ("--together", mode, "--accept", "emulated", "--json")
    assert hwnas("front", settings, *arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [o["name"] for o in found["objectives"]] == ["error", "latency_share"]
    for point in found["points"]:
        shares = [
            point["predicted"][f"latency_ms@{t}"] / found["max_network"][f"latency_ms@{t}"]
            for t in TARGETS
        ]
        expected = max(shares) if mode == "worst" else sum(shares) / 2
        assert point["predicted"]["latency_share"] == pytest.approx(expected, rel=1e-6)


LOCKED = ("--set", 'search.only={"*.expand_ratio": [2], "stage2.block2.expand_ratio": [0, 2]}')


@pytest.mark.parametrize("mode", ["worst", "mean"])
def test_shares_are_of_the_max_network_of_the_whole_space_where_options_are_forbidden(
    settings, capsys, mode
):
    arguments = ("--together", mode, "--accept", "emulated", "--json")
    limit = ("--set", "search.budgets={latency_ms: 95%}")
    found = {}
    for which in ((), LOCKED):
        capsys.readouterr()
        assert hwnas("front", settings, *arguments, *which, *limit) == 0
        (found[which],) = json.loads(capsys.readouterr().out)
    whole, locked = found[()], found[LOCKED]
    assert locked["max_network"] == whole["max_network"]
    for target in TARGETS:
        most = whole["max_network"][f"latency_ms@{target}"]
        for point in locked["points"]:
            assert point["predicted"][f"latency_ms@{target}"] <= 0.95 * most
    best = locked["points"][-1]["predicted"]
    shares = [best[f"latency_ms@{t}"] / whole["max_network"][f"latency_ms@{t}"] for t in TARGETS]
    expected = max(shares) if mode == "worst" else sum(shares) / 2
    assert best["latency_share"] == pytest.approx(expected, rel=1e-6)


def test_budgets_of_a_space_profile_are_those_of_the_search(settings, capsys):
    arguments = ("--accept", "emulated", "--json", "--budget", "latency_ms=40%")
    arguments += ("--budget", "macs=40%")
    told = []
    for which in ((), LOCKED):
        capsys.readouterr()
        hwnas("space", "profile", settings, *arguments, *which)
        found = json.loads(capsys.readouterr().out)[TARGETS[0]]
        told.append({row["name"]: row["budget"] for row in found if row["budget"]})
    assert set(told[0]) == {"latency_ms", "macs"}
    assert told[0] == told[1]


def test_a_fleet_keeps_every_budget_and_says_what_sharing_costs(settings, capsys):
    capsys.readouterr()
    arguments = ("--budget", "latency_ms=50%", "--accept", "emulated", "--json")
    served = {}
    for models in (1, 2):
        assert hwnas("fleet", settings, "--models", models, *arguments) == 0
        served[models] = json.loads(capsys.readouterr().out)
    assert len({s["id"] for s in served[1]}) == 1
    for rows in served.values():
        assert [s["target"] for s in rows] == TARGETS
        for s in rows:
            assert s["predicted"]["latency_ms"] <= s["budgets"]["latency_ms"]
            assert s["loss"] >= 0
    assert all(s["loss"] == 0 for s in served[2])


def test_pick_makes_the_fleet_a_package_of_each_target(settings, capsys):
    capsys.readouterr()
    assert hwnas("pick", settings, "--accept", "emulated", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["target"], row["package"]) for row in rows] == [(t, "fleet-1") for t in TARGETS]
    assert len({row["id"] for row in rows}) == 1


def test_a_search_that_goes_on_is_no_worse(settings, capsys):
    path = settings.parent / "run" / "fronts" / f"{TARGETS[0]}.json"
    before = json.loads(path.read_text())
    arguments = ("--target", TARGETS[0], "--accept", "emulated")
    assert hwnas("search", settings, "--resume", *arguments) == 0
    after = json.loads(path.read_text())
    assert after["hypervolume"] >= before["hypervolume"]
    capsys.readouterr()
    assert hwnas("search", settings, *arguments) == 0
    assert "up to date" in capsys.readouterr().err
    assert json.loads(path.read_text()) == after


def test_the_space_of_a_run_is_profiled_with_its_tables(settings, capsys):
    capsys.readouterr()
    arguments = ("--accept", "emulated", "--json")
    assert hwnas("space", "profile", settings, "--budget", "latency_ms=50%", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == TARGETS
    rows = {row["name"]: row for row in found[TARGETS[0]]}
    assert rows["latency_ms"]["least"] <= rows["latency_ms"]["median"] <= rows["latency_ms"]["most"]
    assert rows["latency_ms"]["reachable"]
    assert hwnas("space", "profile", settings, "--budget", "latency_ms=1e-9", *arguments) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("fleet",), 2, "a fleet needs a budget, for example"),
        (("fleet", "--budget", "latency_ms"), 2, "give METRIC=NUMBER or METRIC=SHARE%"),
        (("fleet", "--budget", "macs=9%", "--budget", "macs=8%"), 2, "macs appears twice; keep"),
        (("fleet", "--budget", "speed=3"), 2, "budget speed is not known on fake"),
        (("fleet", "--budget", "latency_ms=1e-9"), 3, "2 of 2 devices fit no network"),
        (("front", "--together", "best"), 2, "--together"),
        (("front", "--together", "mean", "--weight", "x=1"), 2, "x: no such target"),
        (("front", "--weight", "x=1"), 2, "--weight goes with --together mean"),
        (("front", "--json", "--csv", "-"), 2, "two forms of one answer"),
        (("front", "--together", "mean", "--weight", "x"), 2, "give NAME=NUMBER"),
        (
            ("front", "--together", "mean", "--weight", "a=1", "--weight", "a=2"),
            2,
            "a appears twice; keep one",
        ),
        (("front", "--target", "a", "--target", "a"), 2, "--target a appears twice; name each"),
        (("front", "--together", "worst", "--target", TARGETS[0]), 2, "at least 2 targets"),
    ],
)
def test_wrong_wishes_are_one_line(settings, capsys, arguments, code, message):
    capsys.readouterr()
    assert hwnas(arguments[0], settings, *arguments[1:], "--accept", "emulated") == code
    assert message in capsys.readouterr().err


def test_a_fleet_in_the_settings_needs_a_budget_and_no_target(tmp_path, capsys):
    path = tmp_path / "hwnas.yaml"
    for pick in ({"rule": "fleet"}, {"rule": "fleet", "budget": {"macs": 1}, "target": TARGETS[0]}):
        path.write_text(canonical_json({"data": {"kind": "digits"}, "pick": [pick]}))
        assert hwnas("pick", path) == 2
        assert "a fleet needs a budget and is over all targets" in capsys.readouterr().err
