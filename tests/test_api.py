"""The Python interface: a front from files and from objects, light to import."""

from __future__ import annotations

import ast
import csv
import io
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from search_cases import DEPTHS, enumerate_space, random_terms
from test_shipped_tables import prepare

import hwnas
from hwnas import api
from hwnas.settings import shipped
from profilers.errors import ConfigError

ERROR = random_terms(DEPTHS, np.random.default_rng(0))
LIGHT = """
import sys, hwnas
before = set(sys.modules)
assert not {"numpy", "hwnas.api"} & before, "importing hwnas must stay quick"
hwnas.search_front, hwnas.load_table
heavy = {"torch", "sklearn", "onnx", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""


def test_every_name_is_there_and_documented():
    assert hwnas.__all__ == api.__all__
    for name in hwnas.__all__:
        found = getattr(hwnas, name)
        assert found is getattr(api, name)
        assert found.__doc__
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = hwnas.serach


def test_importing_hwnas_loads_nothing_and_using_it_nothing_heavy():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_a_front_of_counts_and_the_users_own_error():
    class OneMinusMacs:
        def evaluate(self, genome):
            return 1 - ERROR.evaluate(genome)

    found = hwnas.search_front(
        DEPTHS, error=OneMinusMacs(), objectives=["error", "macs"], generations=20, population=20
    )
    every = enumerate_space(DEPTHS)
    macs = api.problem.metrics_of(DEPTHS)["macs"].evaluate(every)
    error = 1 - ERROR.evaluate(every)
    best = hwnas.pick(found, rule="best")[0]
    assert best.predicted["error"] == pytest.approx(error.min())
    budget = float(np.median(macs))
    within = hwnas.pick(found, budget={"macs": budget})[0]
    assert within.predicted["error"] == pytest.approx(error[macs <= budget].min())


def test_csv_holds_a_line_for_each_network_with_every_choice():
    found = hwnas.search_front(DEPTHS, error=ERROR, objectives=["error", "macs"], algorithm="dp")
    rows = list(csv.DictReader(io.StringIO(hwnas.to_csv([found]))))
    assert [row["id"] for row in rows] == [point.id for point in found.points]
    for row, point in zip(rows, found.points, strict=True):
        assert float(row["predicted_error"]) == point.predicted["error"]
        values = [int(row[choice.name]) for choice in DEPTHS.choices]
        assert tuple(values) == point.arch.values


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ["error", "latency_ms"]}, "latency_ms is not known here"),
        ({"generatoins": 3}, "unknown key 'generatoins'; did you mean 'generations'"),
        ({"population": 0}, "search: population: must be greater than or equal to 4"),
    ],
)
def test_wrong_settings_are_one_line(settings, message):
    with pytest.raises(ConfigError, match=message):
        hwnas.search_front(DEPTHS, error=ERROR, **settings)


def test_a_space_of_the_data_has_its_channels_and_classes():
    space = hwnas.load_space("tiny", resolutions=[8], channels=3, classes=2)
    assert (space.in_channels, space.n_classes, space.resolutions) == (3, 2, (8,))


def test_a_table_is_a_file_or_one_that_ships(tmp_path, monkeypatch):
    name = "tiny/host.ort-cpu.fp32.b1.t1"
    assert hwnas.load_table(name).space == "tiny"
    with pytest.raises(hwnas.HwnasError, match="does not exist"):
        hwnas.load_table(f"{name}.json.gz")


EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_takes_from_hwnas_what_is_public(path, tmp_path, capsys, monkeypatch):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    names = {n.attr for n in attributes if ast.unparse(n.value) == "hwnas"}
    assert names
    assert names <= set(hwnas.__all__)
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported <= {"hwnas", "numpy", "json", "sys"}
    target = "host.ort-cpu.fp32.b1.t1"
    prepare(tmp_path, target)
    (tmp_path / "run" / "tables").mkdir()
    table = shipped.folder("latency_tables") / "tiny" / f"{target}.json"
    shutil.copy(table, tmp_path / "run" / "tables")
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path / "run"), target])
    runpy.run_path(str(path))
    assert len(capsys.readouterr().out.splitlines()) >= 1
