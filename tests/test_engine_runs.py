"""Whole runs in int8: on the engines that are installed, and on a modelled TensorRT."""

from __future__ import annotations

import subprocess
import sys

import fake_tensorrt
import numpy as np
import pytest
from test_pipeline import hwnas
from test_runtimes import OPTIONAL

from hwnas.measuring.connections import local
from hwnas.run import package
from profilers import runtimes

SETTINGS = """
run: run
data: {{kind: digits}}
space: {{name: tiny, resolutions: [8]}}
train: {{epochs: 3, threads: 1}}
accuracy: {{measure: 16, bn_images: 256}}
int8: {{images: 64, measure: 8}}
targets: [{targets}]
profile: {{budget_s: 300, heldout: 6, rounds: 6}}
search: {{population: 20, generations: 5}}
pick: [{{rule: best}}, {{budget: {{latency_ms: 70%}}}}]
"""
ACCEPT = ("--accept", "unreliable,gap,untimed,budget")


def run(folder, names, *overrides):
    """Manifests of the packages of a run, by target and name."""
    path = folder / "hwnas.yaml"
    path.write_text(SETTINGS.format(targets=", ".join(names)))
    assert hwnas("run", path, *ACCEPT, *overrides) == 0
    found = sorted(folder.glob("run/packages/*/*/manifest.json"))
    return {(p.parts[-3], p.parts[-2]): package.read_manifest(p.parent) for p in found}


@pytest.mark.slow
def test_a_device_that_is_driven_by_three_engines_in_int8_ends_with_packages_that_run(tmp_path):
    for name in OPTIONAL:
        pytest.importorskip(runtimes.engine(name).module)
    targets = [f"host.{name}.int8.b1.t1" for name in ("ort-cpu", *OPTIONAL)]
    made = run(tmp_path, targets)
    assert {target for target, _ in made} == set(targets)
    np.save(tmp_path / "image.npy", np.zeros((8, 8), np.uint8))
    for (target, name), manifest in made.items():
        assert manifest["quantised"]["precision"] == "int8"
        assert manifest["measured"]["accuracy_on"] == "target"
        assert manifest["measured"].get("outputs", manifest["parity"])["images"] > 0
        example = tmp_path / "run" / "packages" / target / name / package.EXAMPLE
        command = [sys.executable, "-I", str(example), str(tmp_path / "image.npy")]
        assert "%" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fewer = run(tmp_path, targets, "--set", "export.per=device")
    assert {name for _, name in fewer} == {"best", "latency_ms-70pct"}
    assert len(fewer) == 2


@pytest.mark.slow
def test_packages_of_a_run_on_tensorrt_hold_the_plans_that_were_measured(tmp_path, monkeypatch):
    command = fake_tensorrt.worker("10.3.0")
    monkeypatch.setattr(local, "local_command", lambda target, folder: command)
    made = run(tmp_path, [f"host.tensorrt.{precision}.b1.t1" for precision in ("fp16", "int8")])
    assert len(made) == 4
    for manifest in made.values():
        assert manifest["built"]["files"] == ["model.plan", "model.timing"]
        assert manifest["measured"]["made_by"]["tensorrt"] == manifest["built"]["engine_version"]
