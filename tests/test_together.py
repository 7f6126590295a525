"""Imported latencies and our own campaign of one target, fitted to one table."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from campaigns import World, simulate

from hwnas import cli
from hwnas.fakes.runtimes import fake
from hwnas.measuring import kit as kits
from hwnas.networks import spaces
from hwnas.run.folder import RunFolder
from hwnas.settings.config import ProfileConfig
from hwnas.tables import table
from hwnas.tables.fit import Campaign, fit_campaigns
from hwnas.tables.table import network_latency
from hwnas.tables.together import fit_together, words
from hwnas.tables.whole_networks import Sources, Timed, fit_networks
from profilers.errors import ConfigError
from profilers.schema import append_lines, target_from_name

NAME = "phone.ort-cpu.fp32.b1.t1"
ON = target_from_name(NAME)
SPACE = spaces.load("tiny").restricted([16])
FIXED_MS = 0.02


OWN = np.random.default_rng(7).lognormal(0, 0.15, 1000)


def op_ms(key) -> float:
    """What an op costs on this device: no rule of MACs and bytes knows it exactly."""
    return fake.op_ms(key) * float(OWN[sum(map(ord, key)) % len(OWN)])


def true_ms(arch) -> float:
    return FIXED_MS + sum(op_ms(placed.op.key) for placed in arch.ops)


def networks(n, seed):
    drawn = SPACE.architectures(SPACE.sample(3 * n, np.random.default_rng(seed)))
    return list(dict.fromkeys(drawn))[:n]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose target was profiled, on a modelled device."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    kit = kits.make_kit(SPACE, folder.kit(1), 1, ProfileConfig(heldout=20)).kit
    keys = {op["key"] for item in kit["items"] for op in item["ops"]}

    def whole(ms, item):
        ops = sum(op_ms(op["key"]) for op in item["ops"])
        return ms if item["role"] == "micro" else FIXED_MS + ops

    world = World(costs={key: op_ms(key) for key in keys}, whole=whole, rounds=8, burst=0.002)
    header, records = simulate(kit, world)
    header = {**header, "target": ON.to_json()}
    append_lines(folder.measurements(NAME), [header, *records])
    return folder, Campaign(kit, header, records)


def imported(archs, change=lambda ms: ms, noise=0.004):
    """What somebody else measured of networks of the same target."""
    rng = np.random.default_rng(1)
    return [Timed(a, (change(true_ms(a)) * (1 + noise * rng.normal()),)) for a in archs]


GIVEN = networks(30, seed=1)


def off(found, archs):
    return float(np.mean([abs(network_latency(found, a) / true_ms(a) - 1) for a in archs]))


def test_both_together_predict_no_worse_than_either_alone(run):
    given, unseen = imported(GIVEN), networks(60, seed=2)
    found = fit_together(SPACE, given, run[1], {"r.csv": "0" * 64})
    alone = fit_networks(SPACE, ON, given, Sources({"r.csv": "0" * 64}))
    assert off(found, unseen) <= min(off(alone, unseen), 0.01)
    ours = fit_campaigns(SPACE, [run[1]], seed=0)
    assert off(found, unseen) <= 1.1 * off(ours, unseen)
    assert found.marks == ("measured", "imported")
    told = found.calibration["imported"]
    assert (told["scale"], told["apart"]) == (1, False)
    assert set(told["errors"]) == {"measured", "imported"}
    heldout = {i["name"] for i in run[1].kit["items"] if i["role"] == "heldout"}
    assert found.validation["n"] == len(heldout) + 6
    assert found.verdict == "usable"  # nobody measured the imported networks twice


@pytest.mark.parametrize(
    ("change", "scale", "apart", "said"),
    [
        (lambda ms: 1000 * ms, 1000, False, " times the measured ones"),
        (lambda ms: ms + 0.1, 1, True, "another fixed cost"),
    ],
)
def test_latencies_of_another_unit_or_way_of_measuring_are_noticed_and_said(
    run, change, scale, apart, said
):
    found = fit_together(SPACE, imported(GIVEN, change, noise=0.001), run[1], {})
    told = found.calibration["imported"]
    assert told["scale"] == pytest.approx(scale, rel=0.03)
    assert told["apart"] is apart
    assert any(said in line for line in words(found))
    assert off(found, networks(60, seed=2)) < 0.01
    assert max(told["errors"].values()) < 0.02


def test_latencies_that_measured_networks_do_not_explain_make_the_table_unreliable(run):
    rng = np.random.default_rng(3)
    strange = [Timed(a, (true_ms(a) * float(rng.lognormal(0, 0.2)),)) for a in GIVEN]
    found = fit_together(SPACE, strange, run[1], {})
    assert found.verdict == "unreliable"
    assert found.validation["reason"].startswith(("imported networks: ", "predictions are off"))


@pytest.mark.parametrize("roles", [("covering", "calibration"), ("heldout",)])
def test_networks_that_the_campaign_measured_too_are_no_other_evidence(run, roles):
    """They cannot say how good the table is for imported ones, or cannot be fitted."""
    items = [i for i in run[1].kit["items"] if i["role"] in roles]
    same = imported(dict.fromkeys(SPACE.from_json(item["arch"]) for item in items))
    with pytest.raises(
        ConfigError, match=r"the campaign measured the same networks; import others"
    ):
        fit_together(SPACE, same, run[1], {})


# ---- the command --------------------------------------------------------------------------------


def write(path, archs=GIVEN):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "latency_ms"])
        writer.writerows([json.dumps(a.to_json()), true_ms(a)] for a in archs)
    return path


def ran(*given) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["import", "latencies", *map(str, given)])
    return int(ended.value.code or 0)


def test_the_command_fits_what_a_run_folder_measured_and_says_how_good_both_are(
    run, tmp_path, capsys
):
    known = [i for i in run[1].kit["items"] if i["role"] in ("covering", "calibration")]
    same = [SPACE.from_json(item["arch"]) for item in known]
    path, out = write(tmp_path / "r.csv", [*same, *GIVEN]), tmp_path / "t.json"
    given = ["--space", "tiny", "--target", NAME, "--out", out]
    assert ran(path, *given, "--with", run[0].root) == 0
    said = capsys.readouterr().out
    assert re.search(r"held-out networks: measured ones 0\.\d+%, imported ones 0\.\d+%", said)
    found = table.load_table(out)
    assert found.environment["cpu"] == "simulated"
    held = [point[0] for point in found.validation["points"]]
    assert not {arch.id for arch in same} & set(held)  # the campaign fits them
    (warning,) = (w for w in table.check_serves(found, SPACE) if "imported" in w)
    assert "fitted to imported latencies too" in warning


@pytest.mark.parametrize(
    "other",
    [
        NAME.replace("phone", "tablet"),
        NAME.replace("ort-cpu", "openvino"),
        NAME.replace("fp32", "int8"),
        NAME.replace("b1", "b8"),
    ],
)
def test_measurements_of_another_target_are_refused(run, tmp_path, capsys, other):
    given = ["--space", "tiny", "--target", other, "--out", tmp_path / "t.json"]
    assert ran(write(tmp_path / "r.csv"), *given, "--with", run[0].root) == 5
    said = capsys.readouterr().err
    assert f"holds no measurements of {other}, only of {NAME}" in said
    assert not (tmp_path / "t.json").exists()


def test_measurements_of_another_space_or_under_a_wrong_name_are_refused(run, tmp_path, capsys):
    path, out = write(tmp_path / "r.csv"), tmp_path / "t.json"
    given = ["--target", NAME, "--out", out, "--with"]
    assert ran(path, "--space", "mbv3-28", *given, run[0].root) == 5
    assert "measurements of space tiny, --space is mbv3-28" in capsys.readouterr().err
    renamed = RunFolder(tmp_path / "renamed")
    kits.make_kit(SPACE, renamed.kit(1), 1, ProfileConfig(heldout=20))
    header = {**run[1].header, "target": replace(ON, threads=4).to_json()}
    append_lines(renamed.measurements(NAME), [header, *run[1].records])
    assert ran(path, "--space", "tiny", *given, renamed.root) == 5
    assert "b1.t4, --target is" in capsys.readouterr().err
