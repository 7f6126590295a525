"""Outputs here and there: what differs by more than its tolerance is refused."""

import numpy as np
import pytest
from test_remote import model

from hwnas.measuring import parity, remote
from profilers.errors import VerificationError
from profilers.schema import PRECISIONS, Target

INPUT = {"size": 8, "channels": 1}


def test_every_precision_has_a_tolerance():
    assert set(parity.TOLERANCE) == set(PRECISIONS)


def test_this_machine_agrees_with_itself(tmp_path):
    model(tmp_path / "m.onnx")
    found = parity.package_outputs(Target("host", "ort-cpu"), tmp_path / "m.onnx", INPUT)
    assert found == {"max_difference": 0.0, "tolerance": 1e-4, "images": parity.IMAGES}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda outputs: outputs * 1.001, "differ from this machine's by 0.001 of the largest"),
        (lambda outputs: outputs[:, :-1], "outputs of shape"),
        (lambda outputs: outputs * np.nan, "some are no numbers"),
    ],
)
def test_outputs_that_differ_are_refused(tmp_path, monkeypatch, spoil, reason):
    expected = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    there = Target("board", "ort-cpu", hardware="host")
    monkeypatch.setattr(
        remote, "run_model", lambda target, *rest: spoil(expected) if target is there else expected
    )
    with pytest.raises(VerificationError, match=reason):
        parity.compare_outputs(there, tmp_path / "m.onnx", np.zeros((4, 1, 8, 8)))


def test_only_another_machine_that_computes_is_compared(tmp_path):
    for target in (Target("host", "ort-cpu"), Target("fake", "fake")):
        assert parity.told_outputs(target, tmp_path / "missing.onnx", INPUT) == {}
