"""Names of file formats: one version of each before a first release, every one documented."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from hwnas.measuring.records import read_log
from hwnas.predictors.arrays import read_arrays, write_arrays
from hwnas.settings.errors import FileFormatError, TableFormatError
from hwnas.supernet.files import read_about
from hwnas.tables.table import load_table
from profilers.schema import read_json

ROOT = Path(__file__).parent.parent
SOURCES = [path for room in ("hwnas", "profilers") for path in (ROOT / room).rglob("*.py")]


def test_every_format_has_one_version_and_is_documented():
    names = {n for p in SOURCES for n in re.findall(r'"(hwnas-[a-z]+-\d+)"', p.read_text())}
    assert len(names) > 10
    assert {name for name in names if not name.endswith("-1")} == set()
    text = (ROOT / "docs" / "formats.md").read_text()
    assert {name for name in names if name not in text} == set()


def _log(path):
    about = {"format": "hwnas-other-1", "target": {}, "environment": {}, "kit": ""}
    path.write_text(json.dumps(about) + "\n")


def _json(path):
    path.write_text('{"format":"hwnas-other-1"}')


def _tensors(path):
    about = {"hwnas": '{"format":"hwnas-other-1"}'}
    safetensors.numpy.save_file({"x": np.zeros(1)}, path, about)


def _arrays(path):
    write_arrays(path, {"format": np.array("hwnas-other-1")})


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (_json, lambda path: read_json(path, "hwnas-kit-1")),
        (_json, load_table),
        (_log, read_log),
        (_tensors, read_about),
        (_arrays, read_arrays),
    ],
    ids=["json", "table", "measurements", "supernet", "predictor"],
)
def test_another_format_is_refused_in_one_line_with_what_to_do(tmp_path, write, read):
    path = tmp_path / "file"
    write(path)
    with pytest.raises((FileFormatError, TableFormatError)) as refused:
        read(path)
    told = str(refused.value)
    assert f"{path} has format 'hwnas-other-1', expected 'hwnas-" in told
    assert "make it again" in told
    assert "\n" not in told
