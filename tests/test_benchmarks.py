"""Every benchmark has a quick version that ends with one JSON document of bars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from mutation import areas, drawing

ROOT = Path(__file__).parent.parent
EVERY = sorted((ROOT / "benchmarks").glob("*.py"))
# One has a test of its own (tests/test_gpu_check.py), one draws a run that is finished.
SCRIPTS = [path for path in EVERY if path.name not in ("gpu_check.py", "front_picture.py")]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_quick_version_runs_and_ends_with_its_bars(script):
    command = [sys.executable, str(script), "--quick"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    document = json.loads(result.stdout.splitlines()[-1])
    assert {"setting", "n", "spread", "bars"} <= set(document)
    for bar in document["bars"]:
        assert {"name", "value", "limit", "holds"} <= set(bar)
        assert isinstance(bar["holds"], bool)
    assert len(result.stdout.splitlines()) > 3  # a table for people too


def test_every_benchmark_is_in_the_documentation():
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [path.name for path in EVERY if path.name not in text] == []


def test_every_module_to_mutate_has_its_tests():
    for modules in areas.AREAS.values():
        for file in modules:
            areas.tests_of(ROOT, file)


def test_every_justified_mutant_can_still_be_drawn():
    text = (ROOT / "benchmarks" / "mutation" / "justified.json").read_text(encoding="utf-8")
    for entry in json.loads(text):
        wanted = (entry["function"], entry["before"], entry["after"])
        drawn = {(m.function, m.before, m.after) for m in drawing.mutants(ROOT, entry["file"])}
        assert wanted in drawn, entry
