"""Readers and damaged files: every mutant is refused in one line, or read as what it was before.

Half of the mutants are accidents (bits, cuts, spans), half edits of JSON (values of other kinds,
huge numbers, NaN, deep nesting, fields that are gone, added or there twice). Files that carry their
own hash are also edited and signed again, as somebody might: then no field may lead to a traceback.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from campaigns import World, simulate
from mutants import damaged, edited, signed
from search_cases import problem
from test_package import MANIFEST
from test_predictor import measured
from test_table import SPACE, make
from worker_kits import fake_kit

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from faults import mutated

from hwnas.measuring import campaign as campaigns
from hwnas.measuring import kit as kits
from hwnas.measuring import records
from hwnas.networks import spaces
from hwnas.ofa import results
from hwnas.predictors import fit, predictor
from hwnas.report import baselines
from hwnas.run import package
from hwnas.search import front, searchers
from hwnas.settings import accept, config_file
from hwnas.settings.config import ProfileConfig, SearchConfig
from hwnas.settings.targets import load_target
from hwnas.supernet import header as supernet_file
from hwnas.tables import about, observations, table
from profilers import kitcache
from profilers.errors import FileFormatError, HwnasError
from profilers.schema import canonical_json, read_lines, write_json

N = 500
REFUSED = object()


def read(reader, *arguments):
    """What a reader makes of a file, or REFUSED; any other error fails the test."""
    try:
        found, said = reader(*arguments), ""
    except HwnasError as error:
        found, said = REFUSED, str(error)
    assert "\n" not in said
    assert len(said) < 1100
    return found


def mutants(data, value, n, seed=0):
    """n mutants of a JSON file, half by accident, half edited."""
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        yield damaged(data, rng) if number % 2 else edited(value, rng).encode("utf-8", "replace")


# ---- tables ------------------------------------------------------------------------------------


def test_a_damaged_table_is_refused_or_the_same_table(tmp_path):
    path = tmp_path / "t.json"
    table.save(make(), path)
    data = path.read_bytes()
    whole = table.load_table(path)
    refused = 0
    for mutant in mutants(data, json.loads(data), N):
        path.write_bytes(mutant)
        found = read(table.load_table, path)
        refused += found is REFUSED
        assert found is REFUSED or found == whole
    assert refused > 0.9 * N


def test_a_table_that_was_edited_and_signed_again_is_refused_or_can_be_used(tmp_path):
    path = tmp_path / "t.json"
    table.save(make(), path)
    value = json.loads(path.read_text())
    arch = SPACE.largest

    def use():
        found = table.load_table(path)
        assert json.loads(canonical_json(about.describe(found)))
        about.op_rows(found)
        table.check_serves(found, SPACE, accept.TABLES)
        assert 0 <= table.network_latency(found, arch) < math.inf

    for number in range(N):
        rng = np.random.default_rng([1, number])
        path.write_bytes(signed(edited(value, rng)).encode("utf-8", "replace"))
        read(use)


# ---- measurements ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A kit of `tiny`, and the lines of a campaign of it."""
    folder = tmp_path_factory.mktemp("kit")
    settings = ProfileConfig(heldout=30)
    content = kits.make_kit(spaces.load("tiny").restricted([8]), folder / "kit", 1, settings).kit
    header, found = simulate(content, World(rounds=6))
    return content, [header, *found]


def test_damaged_measurements_are_skipped_or_refused_and_nothing_strange_counts(campaign, tmp_path):
    kit, lines = campaign
    kit_hash = kits.kit_hash(kit)
    path = tmp_path / "m.jsonl"
    texts = [canonical_json(line) for line in lines]
    intact = set(texts)
    for number in range(N):
        rng = np.random.default_rng([2, number])
        at = int(rng.integers(len(lines))) if number % 5 else 0
        mutant = damaged(texts[at].encode() + b"\n", rng)
        if number % 2:
            mutant = edited(lines[at], rng).encode("utf-8", "replace") + b"\n"
        around = [texts[0], *texts[max(at - 2, 1) : at], None, *texts[at + 1 : at + 3]]
        around = around[1:] if at == 0 else around
        path.write_bytes(b"".join(mutant if t is None else t.encode() + b"\n" for t in around))
        found = read(records.read_log, path)
        if found is REFUSED:
            assert at == 0
            continue
        whole = [record for record in found[1] if records.is_record(record, kit_hash)]
        for record in whole:
            assert _is_sane(record)
        strange = [record for record in whole if canonical_json(record) not in intact]
        assert len(strange) <= 2


@pytest.mark.parametrize(
    "change", [{"kit": []}, {"kit": None}, {"target": {}}, {"target": {"name": "other"}}]
)
def test_a_header_that_is_not_whole_refuses_the_measurements(campaign, tmp_path, change):
    _, (header, *lines) = campaign
    path = tmp_path / "m.jsonl"
    texts = [canonical_json(line) for line in ({**header, **change}, *lines[:3])]
    path.write_text("".join(f"{text}\n" for text in texts))
    with pytest.raises(FileFormatError):
        records.read_log(path)


def _is_sane(record):
    ms = record.get("ms", 1.0)
    return 0 < ms < math.inf and record["loops"] >= 0 and isinstance(record["id"][2], int)


@pytest.mark.parametrize("seed", range(25))
def test_numbers_come_of_a_campaign_with_damaged_lines_or_a_reason(campaign, tmp_path, seed):
    """Twenty mutants in one file: what is left is finite, or too little and said so."""
    kit, lines = campaign
    rng = np.random.default_rng([3, seed])
    texts = [canonical_json(line).encode() + b"\n" for line in lines]
    for at in rng.choice(len(texts) - 1, size=20, replace=False) + 1:
        texts[at] = edited(lines[at], rng).encode("utf-8", "replace") + b"\n"
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"".join(texts))
    _, found, _ = records.read_log(path)
    seen = read(observations.observe, kit, found)
    if seen is REFUSED:
        return
    for values in (seen.fitted.latency_ms, seen.heldout.latency_ms, seen.again_ms, seen.alone_ms):
        assert np.isfinite(values).all()
        assert (values > 0).all()
    told = seen.in_place_ms[~np.isnan(seen.in_place_ms)]
    assert (told >= 0).all()


def test_lines_that_came_twice_count_once(campaign):
    kit, lines = campaign
    once = observations.observe(kit, lines[1:])
    twice = observations.observe(kit, [*lines[1:], *lines[1:]])
    np.testing.assert_array_equal(once.fitted.latency_ms, twice.fitted.latency_ms)
    assert twice.protocol["records_left_out"] == len(lines) - 1


# ---- kits, targets, packages, fronts, predictors -----------------------------------------------


def campaign_of(folder):
    return campaigns.session_plans(campaigns.read_kit(folder), seed=0)


def test_a_damaged_kit_is_refused_or_leads_nowhere_outside_its_folder(tmp_path):
    value = fake_kit(tmp_path / "kit")
    path = tmp_path / "kit" / "kit.json"
    data = path.read_bytes()
    for mutant in mutants(data, value, N):
        path.write_bytes(mutant)
        host, device = read(kits.load_kit, path.parent), read(kitcache.read_kit, path.parent)
        read(campaign_of, path.parent)
        if device is not REFUSED:
            files = [item["file"] for item in device["items"]]
            assert not any("/" in name or name.startswith(".") for name in files)
        if host is not REFUSED:
            read(kits.space_of, host.kit)
            assert host.hash == kits.kit_hash(host.kit)


def test_a_damaged_target_file_is_refused_or_describes_the_target_it_is_named_after(tmp_path):
    name = "board.ort-cpu.fp32.b1.t1"
    path = tmp_path / "targets" / f"{name}.yaml"
    path.parent.mkdir()
    value = {"device": "board", "runtime": "ort-cpu", "batch": 1, "threads": 1, "meter": "none"}
    value |= {"connection": {"ssh": "pi@board"}, "plugins": []}
    data = canonical_json(value).encode()
    path.write_bytes(data)
    assert read(load_target, name, tmp_path) is not REFUSED
    for mutant in mutants(data, value, 100):
        path.write_bytes(mutant)
        found = read(load_target, name, tmp_path)
        assert found is REFUSED or found.name == name


def test_a_damaged_package_is_refused_or_whole(tmp_path):
    (tmp_path / package.MODEL).write_bytes(b"onnx")
    package.write_manifest(tmp_path, MANIFEST)
    path = tmp_path / package.MANIFEST
    data = path.read_bytes()
    for mutant in mutants(data, json.loads(data), 200):
        path.write_bytes(mutant)
        found = read(package.read_manifest, tmp_path)
        if found is not REFUSED:
            assert found["files"] == json.loads(data)["files"]
            assert found["predicted"]["latency_ms"] > 0


def test_a_damaged_front_is_refused_or_the_same_front(tmp_path):
    case = problem()
    settings = SearchConfig(algorithm="dp", seed=7)
    result = searchers.search(case, settings)
    made = front.make_front("host.fake.fp32.b1.t1", case, result, settings, {"table": "aa"})
    path = tmp_path / "front.json"
    front.save(made, path)
    data = path.read_bytes()
    value = json.loads(data)
    for number, mutant in enumerate(mutants(data, value, 300)):
        path.write_bytes(mutant)
        found = read(front.load, path, case.space)
        assert found is REFUSED or front.to_json(found) == front.to_json(made), number
    for number in range(100):
        rng = np.random.default_rng([4, number])
        path.write_bytes(signed(edited(value, rng)).encode("utf-8", "replace"))
        read(front.load, path, case.space)


def test_a_damaged_predictor_is_refused_or_the_same_predictor(tmp_path):
    space = spaces.load("tiny")
    fitted = fit.fit_predictor(space, measured(space), 0, "ab" * 32)
    path = tmp_path / "predictor.npz"
    predictor.save(fitted, path)
    data = path.read_bytes()
    genome = space.genome([space.largest])
    for number in range(200):
        path.write_bytes(damaged(data, np.random.default_rng([5, number])))
        found = read(predictor.load, path, space)
        assert found is REFUSED or np.array_equal(found.predict(genome), fitted.predict(genome))


def test_any_json_lines_are_read_without_a_traceback(tmp_path):
    path = tmp_path / "x.jsonl"
    for number in range(100):
        path.write_bytes(np.random.default_rng([6, number]).bytes(200))
        found, broken = read_lines(path)
        assert all(isinstance(record, dict) for record in found)
        assert len(found) + len(broken) <= 201


def test_a_stamp_of_a_stage_that_is_damaged_means_that_the_stage_is_not_current(tmp_path):
    from hwnas.run import folder as run_folder

    path = tmp_path / "stamp.json"
    made = {"version": 1, "inputs": {"a": "b" * 64}, "versions": {"torch": "2.9"}}
    value = {"format": "hwnas-stamp-1", **made, "outputs": {"x": "b" * 64}}
    write_json(path, value)
    for mutant in mutants(path.read_bytes(), value, 100):
        path.write_bytes(mutant)
        found = read(run_folder._read_stamp, path)
        assert found == {} or isinstance(found["outputs"], dict)


# ---- all of them, as the benchmark does it -----------------------------------------------------


def test_no_mutant_of_any_document_ends_in_a_traceback_or_is_read_as_what_it_cannot_be(capsys):
    bars = mutated.bars(quick=True, count=300, seed=8)
    assert [bar["value"] for bar in bars] == [0, 0], capsys.readouterr().out
    assert bars[0]["n"] == 300


# ---- other files of the user's -----------------------------------------------------------------

TINY = spaces.load("tiny")
ARCHS = TINY.architectures(TINY.sample(5, np.random.default_rng(0)))


def header_of_a_supernet(folder):
    about = {"format": "hwnas-supernet-1", "space": "tiny", "classes": ["a", "b"]}
    text = canonical_json({"__metadata__": {"hwnas": canonical_json(about)}, "w": {"shape": [1]}})
    path = folder / "supernet.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(4))
    return path, supernet_file.read_header


def file_of_baselines(folder):
    model = {"file": "own.onnx", "size_bytes": 10, "resident_bytes": 20, "sustained": None}
    model |= dict.fromkeys(baselines.NUMBERS, 1.0)
    path = folder / "baselines" / "own.json"
    value = {"format": "hwnas-baselines-1", "target": {"name": "t"}, "models": [model]}
    write_json(path, value)
    return path, lambda path: baselines.read_baselines(path.parent, [])


def table_of_subnets(folder):
    path = folder / "results.csv"
    texts = [canonical_json(arch.to_json()).replace('"', '""') for arch in ARCHS]
    rows = [f'{0.8 + n / 100},"{text}"' for n, text in enumerate(texts)]
    path.write_text("\n".join(["top1,arch", *rows, ""]))
    return path, lambda path: results.read_results(path, TINY)


def settings_of_a_run(folder):
    path = folder / "hwnas.yaml"
    value = {"run": "runs/x", "data": {"kind": "digits"}, "space": {"name": "tiny"}}
    value |= {"targets": ["host.fake.fp32.b1.t1"], "pick": [{"rule": "best"}]}
    path.write_text(canonical_json(value))
    return path, config_file.load_config


@pytest.mark.parametrize(
    "make_file",
    [header_of_a_supernet, file_of_baselines, table_of_subnets, settings_of_a_run],
    ids=lambda function: function.__name__,
)
def test_a_damaged_file_of_the_users_is_refused_in_one_line_or_read(tmp_path, make_file):
    path, reader = make_file(tmp_path)
    data = path.read_bytes()
    assert read(reader, path) is not REFUSED
    refused = 0
    for number in range(100):
        rng = np.random.default_rng([7, number])
        mutant = damaged(data, rng)
        if number % 2 and path.suffix in (".json", ".yaml"):
            mutant = edited(json.loads(data), rng).encode("utf-8", "replace")
        path.write_bytes(mutant)
        refused += read(reader, path) is REFUSED
    assert refused or make_file is file_of_baselines
