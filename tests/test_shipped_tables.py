"""Every table under latency_tables/: whole, valid by its own rules, and of nobody's machine."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.predictors import predictor
from hwnas.predictors.fit import fit_predictor
from hwnas.run.search import usable_table
from hwnas.search import front
from hwnas.settings import shipped
from hwnas.tables import about, table
from profilers.errors import TableError
from profilers.schema import sha256_file

FOLDER = shipped.folder("latency_tables")
TABLES = sorted(FOLDER.glob("*/*.json"))
PRIVATE = re.compile(r"host_?name|user_?name|serial|mac_address|/home/|[0-9]+(\.[0-9]+){3}")


@pytest.fixture(params=TABLES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def path(request):
    return request.param


def test_a_shipped_table_serves_its_space_and_is_valid_by_its_own_rules(path):
    found = table.load_table(path)
    space = spaces.load(found.space).restricted(found.resolutions)
    assert (path.parent.name, path.stem) == (found.space, found.target["name"])
    table.check_serves(found, space)
    assert found.verdict in ("good", "usable")
    assert found.marks == ("measured",)
    assert found.validation["n"] >= 30
    for arch in (space.smallest, space.largest):
        assert table.network_latency(found, arch) > 0


def test_no_op_of_a_shipped_table_costs_nothing(path):
    found = table.load_table(path)
    assert table.costless(found) == []
    rows = about.op_rows(found)
    assert all(row["macs"] > 0 for row in rows if not row["key"].startswith("pool"))


def test_the_error_of_a_shipped_table_follows_from_the_points_it_carries(path):
    checked = table.load_table(path).validation
    errors = [abs(p / ((a + b) / 2) - 1) for _, p, a, b in checked["points"]]
    noises = [abs(a - b) / ((a + b) / 2) for _, _, a, b in checked["points"]]
    assert checked["error"]["value"] == pytest.approx(sum(errors) / len(errors))
    assert checked["noise"]["value"] == pytest.approx(sum(noises) / len(noises))
    assert checked["worst"] == pytest.approx(max(errors))


def test_a_shipped_table_holds_no_name_address_or_serial_number(path):
    found = table.load_table(path)
    assert found.target["connection"] == {"kind": "local"}
    about = json.dumps([found.target, found.environment, found.protocol])
    versions = {k: v for k, v in found.environment.items() if "version" in k or k == "engine"}
    for version in map(str, versions.values()):
        about = about.replace(version, "")
    assert not PRIVATE.search(about)


def test_every_folder_of_tables_is_one_of_a_space():
    folders = [path.name for path in FOLDER.iterdir() if path.is_dir()]
    assert set(folders) <= set(spaces.names())
    assert (FOLDER / "README.md").is_file()


SETTINGS = """
run: run
data: {kind: digits}
space: {name: tiny, resolutions: [8]}
targets: [TARGET]
search: {population: 20, generations: 10}
"""


def hwnas(*words):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, words)))
    return ended.value.code


def prepare(folder, target, n_classes=10):
    """A run folder without tables that can be searched, and its settings."""
    (folder / "hwnas.yaml").write_text(SETTINGS.replace("TARGET", target))
    about = {"format": "hwnas-data-1", "channels": 1, "size": 8, "mean": [0.0], "std": [1.0]}
    about |= {"classes": list(map(str, range(n_classes))), "fingerprint": ""}
    (folder / "run").mkdir()
    (folder / "run" / "data.json").write_text(json.dumps(about))
    space = spaces.load("tiny").for_data(1, n_classes).restricted((8, 12, 16))
    archs = space.architectures(space.sample(60, np.random.default_rng(0)))
    rows = [(arch, 0.5 + 0.4 * exact_costs(arch)["macs"] / 5e5) for arch in archs]
    predictor.save(fit_predictor(space, rows, 0, "0" * 64), folder / "run" / "predictor.npz")


def searched(folder, capsys):
    """Exit code of a search, and what it said."""
    return hwnas("search", folder / "hwnas.yaml"), " ".join(capsys.readouterr().err.split())


def test_a_shipped_table_serves_a_search_for_its_space_and_target(tmp_path, capsys):
    target = "host.ort-cpu.fp32.b1.t1"
    prepare(tmp_path, target)
    code, said = searched(tmp_path, capsys)
    assert code == 0, said
    assert "ships with hwnas, measured on Intel(R) Xeon(R) Processor; `hwnas profile`" in said
    space = spaces.load("tiny").for_data(1, 10)
    found = front.load(tmp_path / "run" / "fronts" / f"{target}.json", space)
    assert found.hashes["table"] == sha256_file(FOLDER / "tiny" / f"{target}.json")
    assert not (tmp_path / "run" / "tables").exists()


@pytest.mark.parametrize(
    ("target", "n_classes"), [("host.ort-cpu.fp32.b8.t1", 10), ("host.ort-cpu.fp32.b1.t1", 7)]
)
def test_a_shipped_table_of_another_target_or_geometry_serves_nothing(
    tmp_path, capsys, target, n_classes
):
    prepare(tmp_path, target, n_classes)
    code, said = searched(tmp_path, capsys)
    assert code == 2
    assert f"{target}.json does not exist; run `hwnas profile --target {target}` first" in said


def test_the_tables_that_ship_are_listed(capsys):
    assert hwnas("table", "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["file"]) for row in rows] == TABLES
    assert {row["verdict"] for row in rows} <= {"good", "usable"}


def test_a_table_of_another_engine_or_precision_serves_no_target_whatever_its_name():
    """A file that was copied to another target's name."""
    path = TABLES[0]
    made_for = table.load_table(path).target["name"]
    other = made_for.replace(".fp32.", ".int8.")
    context = SimpleNamespace(table=lambda name: path)
    with pytest.raises(TableError, match=rf"holds costs of {made_for}, not of {other}") as refused:
        usable_table(context, other)
    assert refused.value.exit_code == 5
