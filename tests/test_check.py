"""Checking and fitting tables again, on modelled machines."""

import json
from dataclasses import replace

import numpy as np
import pytest
from campaigns import World, simulate

from hwnas import cli
from hwnas.fakes.runtimes import fake
from hwnas.measuring import kit as kits
from hwnas.measuring import remote
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.settings.errors import ConfigError
from hwnas.tables import about, check, fit, table
from profilers import schema
from profilers.schema import Target

SPACE = spaces.load("tiny").restricted([16])
SETTINGS = ProfileConfig(heldout=30, budget_s=30, rounds=10)
FAST = Target("fake", "fake", connection={"kind": "local", "noise": "0.001"})


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "kits" / "b1"
    return kits.make_kit(SPACE, folder, 1, ProfileConfig(heldout=30))


def simulated_as_fake(kit):
    """Measurements of a kit on a device that is as fast as the runtime `fake` models it."""
    keys = {op["key"] for item in kit["items"] for op in item["ops"]}
    header, records = simulate(kit, World(costs={key: fake.op_ms(key) for key in keys}))
    made_of = {item["name"]: item["ops"] for item in kit["items"]}
    for record in records:
        ops = made_of[record["id"][3]]
        if "ms" in record and record["role"] != "micro":
            noise = 1 + 0.002 * ((record["id"][2] * 7 + len(ops)) % 5)
            record["ms"] = (fake.RUN_MS + sum(fake.op_ms(op["key"]) for op in ops)) * noise
    environment = {"cpu": "modelled", "os": "older", "fingerprint": "0" * 64}
    return {**header, "target": FAST.to_json(), "environment": environment}, records


@pytest.fixture(scope="module")
def campaign(info):
    return simulated_as_fake(info.kit)


@pytest.fixture(scope="module")
def fitted(info, campaign):
    return fit.fit_table(SPACE, info.kit, *campaign, seed=0)


def hwnas(*arguments):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def silent(text, share):
    pass


def environment_now(name):
    return remote.probe(FAST)[name]


# ---- check -------------------------------------------------------------------------------------


def test_a_device_that_did_not_change_holds_its_table(info, fitted):
    found = check.check_table(fitted, [info], FAST, SETTINGS, silent)
    assert found["holds"]
    assert found["gap"] < 0.01 < found["limit"]
    assert ["os", "older", environment_now("os")] in found["environment"]
    assert len(found["probes"]) == check.PROBES
    (anchor,) = found["anchors"]
    assert anchor["now_ms"] == pytest.approx(anchor["predicted_ms"], rel=0.02)


def test_a_device_that_became_slower_is_told_by_how_much(info, fitted):
    slower = Target(
        "fake", "fake", connection={"kind": "local", "noise": "0.001", "slow": "0-1e9x1.25"}
    )
    found = check.check_table(fitted, [info], slower, SETTINGS, silent)
    assert not found["holds"]
    assert found["shift"] == pytest.approx(0.25, abs=0.02)
    assert found["gap"] == pytest.approx(0.25, abs=0.02)


def test_probes_reach_from_the_fastest_to_the_slowest_held_out_network(info, fitted):
    found = check.probes(fitted, info, 5)
    known = [(a + b) / 2 for _, _, a, b in fitted.validation["points"]]
    times = [probe.then_ms for probe in found]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (min(known), max(known))
    archs = {i["name"]: SPACE.from_json(i["arch"]) for i in info.kit["items"] if i["arch"]}
    points = {name: (a + b) / 2 for name, _, a, b in fitted.validation["points"]}
    assert all(points[archs[probe.item].id] == probe.then_ms for probe in found)


def test_what_cannot_be_checked_is_refused(info, fitted):
    other = kits.KitInfo(info.folder, info.kit, "f" * 64)
    with pytest.raises(ConfigError, match=r"name its kit with --kit"):
        check.probes(fitted, other)
    empty = {**fitted.validation, "points": []}
    imported = replace(fitted, validation=empty, marks=("imported",))
    with pytest.raises(ConfigError, match=r"no measured networks .*imported"):
        check.probes(imported, info)
    with pytest.raises(ConfigError, match=r"table is of fake\.fake\.fp32\.b1\.t1, not of fake"):
        check.check_table(fitted, [info], Target("fake", "fake", batch=4), SETTINGS, silent)


@pytest.mark.parametrize(
    ("change", "noise", "holds"), [(0.015, 0.001, True), (0.03, 0.001, False), (0.03, 0.02, True)]
)
def test_the_limit_is_two_percent_or_twice_the_noise(change, noise, holds):
    then = np.array([1.0, 2.0, 4.0])
    assert check.compare(then, then * (1 + change), noise)["holds"] is holds
    assert check.compare(then, then * (1 - change), noise)["shift"] == pytest.approx(-change)


def test_the_command_says_the_environment_first_and_ends_with_5_when_stale(
    tmp_path, info, fitted, capsys
):
    path = tmp_path / "tables" / "t.json"
    table.save(fitted, path)
    kit = ("--kit", info.folder)
    assert hwnas("table", "check", path, *kit) == 0
    said = capsys.readouterr().out
    assert said.index("os: older then, ") < said.index("the table holds")
    faster = [[name, 0.9 * p, 0.9 * a, 0.9 * b] for name, p, a, b in fitted.validation["points"]]
    table.save(replace(fitted, validation={**fitted.validation, "points": faster}), path)
    assert hwnas("table", "check", path, "--json", *kit) == 5
    said = capsys.readouterr()
    assert json.loads(said.out)["shift"] == pytest.approx(1 / 0.9 - 1, abs=0.01)
    assert "is stale: networks differ by 11" in said.err


def test_a_table_of_a_board_is_never_checked_on_this_machine(
    tmp_path, monkeypatch, info, fitted, capsys
):
    monkeypatch.chdir(tmp_path)
    path, name = tmp_path / "t.json", "pi5.fake.fp32.b1.t1"
    board = Target("pi5", "fake", hardware="fake", connection=FAST.connection)
    table.save(replace(fitted, target={**board.to_json(), "connection": {"kind": "local"}}), path)
    assert hwnas("table", "check", path, "--kit", info.folder) == 2
    said = capsys.readouterr()
    assert "device 'pi5' is not this machine" in said.err
    assert "hwnas devices add" in said.err
    assert "holds" not in said.out
    schema.write_json(tmp_path / "targets" / f"{name}.yaml", board.to_json())
    assert hwnas("table", "check", path, "--kit", info.folder) == 0
    assert "the table holds" in capsys.readouterr().out


def test_a_table_of_another_device_of_the_same_name_is_refused(tmp_path, info, fitted, capsys):
    path = tmp_path / "t.json"
    table.save(replace(fitted, environment={**fitted.environment, "cpu": "another"}), path)
    assert hwnas("table", "check", path, "--kit", info.folder) == 5
    said = capsys.readouterr()
    assert "was made on another device (cpu: another then, modelled here)" in said.err
    assert "holds" not in said.out


def test_an_unreliable_table_does_not_hold_however_near_its_networks_are(
    tmp_path, info, fitted, capsys
):
    path = tmp_path / "t.json"
    doubted = {**fitted.validation, "verdict": "unreliable", "reason": "noise is 9.0 %"}
    table.save(replace(fitted, validation=doubted), path)
    assert hwnas("table", "check", path, "--json", "--kit", info.folder) == 5
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["holds"], found["gap"] < found["limit"]) == (False, True)
    assert "is unreliable (noise is 9.0 %)" in said.err
    assert hwnas("table", "check", path, "--kit", info.folder) == 5
    assert "holds" not in capsys.readouterr().out


def test_a_table_far_from_its_run_folder_is_checked_with_a_kit_made_again(tmp_path, fitted, capsys):
    path = tmp_path / "shipped.json"
    table.save(fitted, path)
    assert hwnas("table", "check", path) == 0
    assert "the table holds" in capsys.readouterr().out
    (recipe,) = fitted.protocol["kits"]
    other = {**fitted.protocol, "kits": [{**recipe, "hash": "f" * 64}]}
    table.save(replace(fitted, protocol=other), path)
    assert hwnas("table", "check", path) == 2
    assert "ffffffffffff cannot be made again" in capsys.readouterr().err
    table.save(replace(fitted, protocol={**fitted.protocol, "kits": []}), path)
    assert hwnas("table", "check", path) == 2
    assert "name the folder of its kit with --kit" in capsys.readouterr().err


def test_a_table_of_two_kits_is_checked_with_networks_of_both(tmp_path, info, campaign):
    other = kits.make_kit(SPACE, tmp_path / "kit", 1, ProfileConfig(heldout=30, seed=1))
    again = simulated_as_fake(other.kit)
    parts = [fit.Campaign(info.kit, *campaign), fit.Campaign(other.kit, *again)]
    found = fit.fit_campaigns(SPACE, parts, seed=0)
    result = check.check_table(found, [info, other], FAST, SETTINGS, silent)
    assert result["holds"]
    assert len(result["anchors"]) == 2
    assert len(result["probes"]) == check.PROBES


# ---- fit ---------------------------------------------------------------------------------------


def test_a_table_fitted_again_is_the_same_table(tmp_path, info, campaign, fitted, capsys):
    path, out = tmp_path / "m.jsonl", tmp_path / "t.json"
    header, records = campaign
    schema.append_lines(path, [header, *records])
    assert hwnas("table", "fit", path, "--kit", info.folder, "--out", out, "--json") == 0
    assert table.load_table(out) == fitted
    assert json.loads(capsys.readouterr().out) == about.describe(fitted)
    with open(path, "a") as handle:
        handle.write('{"half": ')
    assert hwnas("table", "fit", path, "--kit", info.folder, "--out", out) == 0
    assert "1 broken lines" in capsys.readouterr().err
    assert table.load_table(out) == fitted
    before = path.read_bytes()
    assert hwnas("table", "fit", path, "--kit", info.folder, "--out", path) == 2
    assert "is the file that is read" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_noisy_campaign_is_written_and_ends_with_5(tmp_path, info, capsys):
    path, out = tmp_path / "m.jsonl", tmp_path / "t.json"
    header, records = simulate(info.kit, World(noise=0.2))
    schema.append_lines(path, [header, *records])
    assert hwnas("table", "fit", path, "--kit", info.folder, "--out", out) == 5
    assert table.load_table(out).verdict == "unreliable"
    assert "is unreliable: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        ("", "does not begin with a header"),
        ('{"format": "hwnas-measurements-1"}\n', "does not begin with a header"),
        ("nonsense\n", "does not begin with a header"),
    ],
    ids=["missing", "empty", "bare header", "nonsense"],
)
def test_what_are_no_measurements_is_refused(tmp_path, info, capsys, content, reason):
    path = tmp_path / "m.jsonl"
    if content is not None:
        path.write_text(content)
    assert hwnas("table", "fit", path, "--kit", info.folder, "--out", tmp_path / "t.json") == 2
    assert reason in capsys.readouterr().err


def test_measurements_of_another_kit_are_refused(tmp_path, info, campaign, capsys):
    path = tmp_path / "m.jsonl"
    schema.append_lines(path, [{**campaign[0], "kit": "f" * 64}])
    assert hwnas("table", "fit", path, "--kit", info.folder, "--out", tmp_path / "t.json") == 5
    assert "measurements are of kit ffff" in capsys.readouterr().err


def test_two_files_of_one_target_become_one_table_and_of_two_environments_do_not(
    tmp_path, info, campaign, fitted, capsys
):
    header, records = campaign
    a, b, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "t.json"
    schema.append_lines(a, [header, *records])
    schema.append_lines(b, [{**header, "created": "later"}, *records])
    assert hwnas("table", "fit", a, b, "--kit", info.folder, "--out", out) == 0
    both = table.load_table(out)
    assert both.validation["n"] == 2 * fitted.validation["n"]
    assert both.rows.keys() == fitted.rows.keys()
    assert both.validation["error"]["value"] < 0.02
    b.unlink()
    environment = {**header["environment"], "cpu": "another", "fingerprint": "1" * 64}
    schema.append_lines(b, [{**header, "environment": environment}, *records])
    assert hwnas("table", "fit", a, b, "--kit", info.folder, "--out", tmp_path / "u.json") == 5
    assert "different environments (cpu: modelled and another)" in capsys.readouterr().err
    b.unlink()
    schema.append_lines(
        b,
        [
            {**header, "target": {**header["target"], "batch": 2, "name": "fake.fake.fp32.b2.t1"}},
            *records,
        ],
    )
    assert hwnas("table", "fit", a, b, "--kit", info.folder, "--out", tmp_path / "u.json") == 5
    assert "cannot be one table" in capsys.readouterr().err


def test_measurements_that_never_settled_make_a_table_that_says_so(
    tmp_path, info, campaign, capsys
):
    header, records = campaign
    path, out = tmp_path / "m.jsonl", tmp_path / "t.json"
    few = [record for record in records if record["id"][1:3] < ["b", 4]]
    schema.append_lines(path, [header, *few])
    assert hwnas("table", "fit", path, "--kit", info.folder, "--out", out) == 5
    assert "measurements are unstable: session a: 12 undisturbed" in capsys.readouterr().err
    assert table.load_table(out).verdict == "unreliable"


def test_the_space_of_a_kit_is_that_of_its_data_and_resolutions(tmp_path):
    space = spaces.load("tiny").for_data(3, 7).restricted([8])
    made = kits.make_kit(space, tmp_path / "kit", 1, ProfileConfig(heldout=5))
    found = kits.space_of(made.kit)
    assert (found.geometry, found.resolutions) == (space.geometry, (8,))
    assert kits.space_of(made.kit, "hwnas.networks.spaces.tiny:SPACE") == found


# ---- diff --------------------------------------------------------------------------------------


def test_diff_prints_what_differs(tmp_path, fitted, capsys):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    table.save(fitted, a)
    rows = {key: {**row, "latency_ms": 2 * row["latency_ms"]} for key, row in fitted.rows.items()}
    table.save(replace(fitted, rows=rows), b)
    assert hwnas("table", "diff", a, b) == 0
    assert "environment: equal" in capsys.readouterr().out
    assert hwnas("table", "diff", a, b, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"]["median_ratio"] == pytest.approx(2)
    assert hwnas("table", "diff", a, tmp_path / "none.json") == 2
