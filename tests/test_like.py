"""Few whole networks and known tables of other targets, fitted to one table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from search_cases import TINY

import hwnas
from hwnas import cli
from hwnas.networks.slots import distinct_ops
from hwnas.tables import about, table
from hwnas.tables.table import network_latency
from hwnas.tables.whole_networks import Sources, Timed, fit_networks
from profilers.errors import HwnasError
from profilers.schema import target_from_name

NAME = "phone.tflite.fp32.b1.t1"
ON = target_from_name(NAME)
SPACE = TINY.restricted([8, 12])
FILES = {"r.csv": "0" * 64}
RNG = np.random.default_rng(3)
KEYS = sorted(distinct_ops(SPACE))
KNOWN_MS = dict(zip(KEYS, RNG.lognormal(-5, 0.7, len(KEYS)).tolist(), strict=True))  # by no rule
OWN = dict(zip(KEYS, RNG.lognormal(0, 0.03, len(KEYS)).tolist(), strict=True))


def true_ms(arch) -> float:
    """Of a device that is 2.5 times as slow as the known one, and has costs of its own."""
    keys = [placed.op.key for placed in arch.ops]
    return 0.02 + sum(2.5 * KNOWN_MS[key] * OWN[key] for key in keys)


def networks(n, seed):
    drawn = SPACE.architectures(SPACE.sample(2 * n, np.random.default_rng(seed)))
    return list(dict.fromkeys(drawn))[:n]


def timed(n):
    return [Timed(arch, (true_ms(arch),)) for arch in networks(n, seed=0)]


def known(space=SPACE, target="board.ort-cpu.fp32.b1.t2", costs=KNOWN_MS):
    return hwnas.make_table(space, target, costs)


def off(found) -> float:
    """Mean error for networks that nobody measured."""
    unseen = networks(40, seed=1)
    return float(np.mean([abs(network_latency(found, a) / true_ms(a) - 1) for a in unseen]))


@pytest.fixture(scope="module")
def fitted():
    return fit_networks(SPACE, ON, timed(15), Sources(FILES, [known()]))


def test_ten_networks_and_a_known_table_say_more_than_twenty_networks(fitted, tmp_path):
    alone = fit_networks(SPACE, ON, timed(25), Sources(FILES))
    assert off(fitted) < 0.03
    assert off(fitted) < off(alone) / 2
    table.save(fitted, tmp_path / "t.json")
    assert table.load_table(tmp_path / "t.json") == fitted


def test_a_table_names_those_that_it_was_fitted_from_by_hash(fitted):
    told = [{"target": "board.ort-cpu.fp32.b1.t2", "sha256": known().sha256}]
    assert fitted.protocol["like"] == told
    assert (fitted.marks, fitted.verdict) == (("imported",), "usable")
    (first, *_) = table.check_serves(fitted, SPACE)
    assert "imported and fitted from tables of board.ort-cpu.fp32.b1.t2" in first
    (line,) = about.describe(fitted)["fitted_from"]
    assert line == f"board.ort-cpu.fp32.b1.t2 {known().sha256[:12]}"


def test_held_out_networks_judge_a_known_table_that_explains_nothing():
    shuffled = dict(zip(KEYS, reversed(list(KNOWN_MS.values())), strict=True))
    found = fit_networks(SPACE, ON, timed(15), Sources(FILES, [known(costs=shuffled)]))
    assert found.validation["n"] == 5
    assert found.verdict == "unreliable"


MORE = [known(target=f"board{n}.ort-cpu.fp32.b1.t1") for n in range(10)]


@pytest.mark.parametrize(
    ("n", "like", "reason"),
    [
        (14, [known()], "14 different networks, 15 at least"),
        (15, [known(), known()], "named twice"),
        (15, [known(target="board.ort-cpu.fp32.b8.t1")], "for batches of 8, .* with 1;"),
        (15, [known(TINY.restricted([12]))], "was not measured at 8 px"),
        (15, [replace(known(), geometry="0" * 64)], "with geometry 000000000000, wanted: tiny"),
        (15, MORE, "10 known tables and a fixed cost are 11 unknowns, 10 networks"),
    ],
)
def test_known_tables_that_cannot_help_are_refused(n, like, reason):
    with pytest.raises(HwnasError, match=reason):
        fit_networks(SPACE, ON, timed(n), Sources(FILES, like))


def ran(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["import", "latencies", *map(str, words)])
    return int(ended.value.code or 0)


def test_the_command_takes_channels_and_classes_from_the_known_tables(tmp_path, capsys):
    own = SPACE.for_data(SPACE.in_channels, 7)
    costs = {key: 1e-6 * (op.op.macs + 1000) for key, op in distinct_ops(own).items()}
    table.save(known(own, costs=costs), tmp_path / "known.json")
    genome = own.sample(40, np.random.default_rng(0))
    path, out = tmp_path / "r.csv", tmp_path / "t.json"
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["arch", "latency_ms"])
        for arch in list(dict.fromkeys(own.architectures(genome)))[:15]:
            ms = 0.1 + 3 * sum(costs[placed.op.key] for placed in arch.ops)
            lines.writerow([json.dumps(arch.to_json()), ms])
    words = (path, "--space", "tiny", "--target", NAME, "--out", out)
    assert ran(*words, "--like", tmp_path / "known.json") == 0
    assert "fitted from" in capsys.readouterr().out
    assert table.load_table(out).geometry == own.geometry
    assert ran(*words, "--like", tmp_path / "known.json", "--with", tmp_path) == 2
    assert "leave --like out" in capsys.readouterr().err
