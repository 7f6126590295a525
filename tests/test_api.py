"""The Python interface: a front from files and from objects, light to import."""

from __future__ import annotations

import ast
import csv
import io
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from search_cases import DEPTHS, enumerate_space, error_terms, random_terms
from test_shipped_tables import prepare

import hwnas
from hwnas import api
from hwnas.networks.slots import distinct_ops
from hwnas.settings import shipped
from profilers.errors import ConfigError

ERROR = random_terms(DEPTHS, np.random.default_rng(0))
SHARE = error_terms(DEPTHS, np.random.default_rng(3))
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


def test_no_front_is_no_csv():
    with pytest.raises(ConfigError, match="to_csv was given no front"):
        hwnas.to_csv([])


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


# ---- numbers of one's own -----------------------------------------------------------------------


def test_the_example_of_the_page_on_imports_runs(capsys):
    page = Path(__file__).parent.parent / "docs" / "imports.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(page), "exec"), {})
    assert capsys.readouterr().out


def test_objectives_and_budgets_have_names_of_ones_own_in_files_too(tmp_path):
    macs = hwnas.metrics_of(DEPTHS)["macs"]
    given = {"objectives": ["error", "carbon"], "budgets": {"carbon": "60%"}, "algorithm": "dp"}
    found = hwnas.search_front(DEPTHS, error=SHARE, metrics={"carbon": macs}, **given)
    hwnas.save(found, tmp_path / "front.json")
    again = hwnas.load_front(tmp_path / "front.json", DEPTHS)
    assert again == found
    budget = found.max_network["carbon"] * 0.5
    (point,) = hwnas.pick(again, budget={"carbon": "50%"})
    assert point.predicted["carbon"] <= budget
    with pytest.raises(ConfigError, match=r"carbno is not known here: add it to macs, .*carbon"):
        hwnas.search_front(DEPTHS, metrics={"carbon": macs}, objectives=["macs", "carbno"])
    for names in (["error"], [*given["objectives"], "macs", "params", "weight_bytes"]):
        with pytest.raises(ConfigError, match="name 2 to 4 metrics"):
            hwnas.search_front(DEPTHS, error=ERROR, objectives=names)
    with pytest.raises(ConfigError, match="budgets: carbon '0%' is neither a number"):
        hwnas.pick(found, budget={"carbon": "0%"})


class Carbon:
    """A cost that is no sum: the square of MACs."""

    def evaluate(self, genome):
        return hwnas.metrics_of(DEPTHS)["macs"].evaluate(genome) ** 2.0


def test_the_loop_measures_with_any_function_against_any_cost():
    asked: list[int] = []

    def top1(archs):
        asked.append(len(archs))
        return 1 - SHARE.evaluate(DEPTHS.genome(archs))

    rounds = list(hwnas.refine(DEPTHS, top1, {"carbon": Carbon()}, first=20, budget=20, batch=10))
    assert asked == [20, 10, 10]
    assert [len(one.measured) for one in rounds] == [30, 40]
    found = hwnas.measured_front(rounds[-1].measured, Carbon())
    costs = Carbon().evaluate(DEPTHS.genome(found))
    errors = [1 - rounds[-1].measured[arch] for arch in found]
    assert list(costs) == sorted(costs)
    assert errors == sorted(errors, reverse=True)
    known = rounds[-1].measured
    (again,) = hwnas.refine(DEPTHS, top1, {"carbon": Carbon()}, known, budget=5, batch=5, first=20)
    assert asked[3:] == [5]
    assert set(known) < set(again.measured)
    with pytest.raises(ConfigError, match="costs are empty"):
        list(hwnas.refine(DEPTHS, top1, {}))
    with pytest.raises(ConfigError, match=r"is not in \[0, 1\]"):
        next(hwnas.refine(DEPTHS, lambda archs: [98.0] * len(archs), {"carbon": Carbon()}))


def test_a_predictor_and_tables_are_made_of_arrays_and_written_for_the_commands(tmp_path):
    archs = list(dict.fromkeys(DEPTHS.architectures(DEPTHS.sample(200, np.random.default_rng(0)))))
    top1 = 1 - SHARE.evaluate(DEPTHS.genome(archs))
    made = hwnas.fit_predictor(DEPTHS, dict(zip(archs, top1.tolist(), strict=True)))
    hwnas.save(made, tmp_path / "predictor.npz")
    assert hwnas.load_predictor(tmp_path / "predictor.npz", DEPTHS).evaluate(
        DEPTHS.genome(archs[:3])
    ) == pytest.approx(made.predict(DEPTHS.genome(archs[:3])))
    target, macs = "phone.tflite.fp32.b1.t1", hwnas.metrics_of(DEPTHS)["macs"]
    ms = 0.1 + macs.evaluate(DEPTHS.genome(archs)) / 1e6
    fitted = hwnas.fit_table(DEPTHS, target, archs, np.stack([ms, 1.001 * ms], axis=1))
    assert 0 < fitted.noise < 0.01
    assert hwnas.network_latency(fitted, archs[0]) == pytest.approx(ms[0], rel=0.02)
    for wrong in (ms[1:], 0 * ms, np.inf * ms, np.array(1.0)):
        with pytest.raises(ConfigError, match="above 0 for each different network"):
            hwnas.fit_table(DEPTHS, target, archs, wrong)
    with pytest.raises(ConfigError, match="above 0 for each different network"):
        hwnas.fit_table(DEPTHS, target, [], np.zeros(0))
    costs = {p.op.key: 0.01 + p.op.macs / 1e7 for p in distinct_ops(DEPTHS).values()}
    table = hwnas.make_table(DEPTHS, target, costs, 0.2, dict.fromkeys(costs, 0.05))
    hwnas.save(table, tmp_path / "table.json")
    assert hwnas.load_table(tmp_path / "table.json") == table
    metrics = hwnas.metrics_of(DEPTHS, table)
    assert {"latency_ms", "energy_mj"} <= set(metrics)
    rounded = hwnas.make_table(DEPTHS, target.replace("fp32", "int8"), costs)
    few, genome = hwnas.metrics_of(DEPTHS, rounded), DEPTHS.genome(archs[:5])
    whole = metrics["weight_bytes"].evaluate(genome)
    assert (few["weight_bytes"].evaluate(genome) < 0.5 * whole).all()  # as they are written there
