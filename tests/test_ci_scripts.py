"""Workflows of docs/ci and the action: short, whole, and their scripts run from the built wheel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_staleness import SMALL, TARGET
from test_wheel import OTHERS, ROOT, site

WORKFLOWS = [ROOT / "docs" / "ci" / name for name in ("github.yml", "gitlab.yml")]
ACCEPT = "emulated,unreliable"

__all__ = ["site"]  # a fixture


def test_workflows_are_short():
    for path in WORKFLOWS:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 25, path
        assert yaml.safe_load(path.read_text(encoding="utf-8"))


def _steps(path: Path, job: str) -> list[str]:
    """What a job of GitHub's runs, its expressions left to be filled in."""
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = told["jobs"][job]["steps"] if job else told["runs"]["steps"]
    return [step["run"] for step in steps if "run" in step]


def _filled(script: str, **values: str) -> str:
    """A script with GitHub's expressions in place; one that is not known is an error."""
    return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda match: values[match[1].split(".")[-1]], script)


def _package() -> str:
    """What the workflows install: the name that the wheel has."""
    found = {
        yaml.safe_load(WORKFLOWS[0].read_text(encoding="utf-8"))["env"]["HWNAS"],
        yaml.safe_load(WORKFLOWS[1].read_text(encoding="utf-8"))["models"]["variables"]["HWNAS"],
    }
    (name,) = found
    return name


@pytest.mark.slow
def test_the_scripts_of_the_jobs_run_from_the_wheel_in_a_clean_folder(site, tmp_path):
    tools, folder = tmp_path / "bin", tmp_path / "project"
    tools.mkdir()
    folder.mkdir()
    (tools / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python3").chmod(0o755)
    (folder / "hwnas.yaml").write_text(SMALL)
    output = tmp_path / "output"
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(OTHERS),  # what the wheel needs; pip finds the wheel alone
        **{"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_FIND_LINKS": str(site.parent)},
        "PIP_IGNORE_INSTALLED": "1",  # that of the tests' own environment
        **{"GITHUB_OUTPUT": str(output), "RUNNER_TEMP": str(tmp_path)},
        **{"HWNAS": _package(), "HWNAS_ACCEPT": ACCEPT},
    }

    def run(script: str, code: int = 0, **more: str) -> None:
        command = ["bash", "-euo", "pipefail", "-c", script]
        told = subprocess.run(
            command, cwd=folder, env={**environment, **more}, capture_output=True, text=True
        )
        assert told.returncode == code, told.stderr

    install, matrix_of = _steps(WORKFLOWS[0], "targets")
    run(install)
    run("env/bin/python -c 'import hwnas, sys; assert hwnas.__file__.startswith(sys.prefix)'")
    run(matrix_of.replace("--matrix", "--matrix --set targets=[gone]"), code=2)
    assert not output.exists()
    run(matrix_of)
    name, _, matrix = output.read_text().strip().partition("=")
    assert name == "matrix"
    jobs = json.loads(matrix)["include"]
    assert [job["target"] for job in jobs] == [TARGET]
    for script in _steps(WORKFLOWS[0], "models"):
        run(_filled(script, target=TARGET, HWNAS_ACCEPT=ACCEPT))
    result = json.loads((folder / "out" / "result.json").read_text())
    assert result["exit_code"] == 0
    assert {package["target"] for package in result["packages"]} == {TARGET}
    for script in yaml.safe_load(WORKFLOWS[1].read_text())["models"]["script"]:
        run(script, TARGET=TARGET)
    for script in _steps(ROOT / "action.yml", ""):
        run(script, PACKAGE=_package(), CONFIG="hwnas.yaml", TARGET="", ACCEPT=ACCEPT)
    assert json.loads((folder / "out" / "result.json").read_text()) == result
