"""Processes that measure subnets: the same file as from one, whoever is killed meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.networks.space import Architecture
from hwnas.settings.config import AccuracyConfig, DataConfig
from hwnas.supernet.evaluation import Evaluator, Measurer, Tally, measure_all, to_measure
from hwnas.supernet.network import Supernet
from hwnas.supernet.workers import processes
from profilers.errors import DeviceError

SPACE = spaces.load("tiny").restricted([8, 12])
FOLDER = "HWNAS_TEST_DEADLY"  # of files named after networks whose workers are to die


def deadly(subnet):
    """The subnet itself, unless it is to kill its process: `<id>.once` or `<id>.always`."""
    place = Path(os.environ[FOLDER])
    for when in ("once", "always"):
        mark = place / f"{subnet.arch.id}.{when}"
        if mark.exists():
            if when == "once":
                mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return subnet


def evaluator(**others) -> Evaluator:
    torch.manual_seed(0)
    digits = tensors.load(DataConfig(kind="digits"))
    config = AccuracyConfig(bn_images=32, images=100)
    return Evaluator(Supernet(SPACE).eval(), digits, config, "ab" * 32, **others)


def test_a_killed_worker_costs_one_measurement_and_a_deadly_network_ends_with_its_name(
    tmp_path, monkeypatch
):
    archs = to_measure(SPACE, 12, np.random.default_rng(0))
    one, path = tmp_path / "one.jsonl", tmp_path / "accuracy.jsonl"
    torch.set_num_threads(1)
    expected = dict(measure_all(archs, evaluator(), one))
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (tmp_path / f"{archs[2].id}.once").touch()
    (tmp_path / f"{archs[6].id}.always").touch()
    with processes(evaluator(made=deadly), 2, 1) as farm:
        known = Measurer(evaluator(), path, farm)
        with pytest.raises(
            DeviceError, match=rf"{archs[6].id} .* 2 processes .*signal 9 .*workers"
        ):
            list(known.measure(archs))
    assert not multiprocessing.active_children()
    assert not (tmp_path / f"{archs[2].id}.once").exists()
    assert one.read_bytes().startswith(path.read_bytes())
    kept = [line for file in tmp_path.glob("accuracy.*") for line in file.read_text().splitlines()]
    asked: list[Architecture] = []

    def measured(given: Evaluator, arch: Architecture, tally: Tally) -> float:
        asked.append(arch)
        return expected[arch]

    monkeypatch.setattr(Evaluator, "measure", measured)
    assert dict(measure_all(archs, evaluator(), path)) == expected
    assert archs[6] in asked
    assert len(asked) == len(archs) - len(kept)
    assert path.read_bytes() == one.read_bytes()
    assert not list(tmp_path.glob("accuracy.jsonl.*"))
