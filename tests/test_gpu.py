"""ort-cuda and tensorrt on a real GPU; skipped, with what is missing, where there is none."""

import json

import numpy as np
import onnxruntime
import pytest
from worker_kits import connect, files_of, real_kit

from hwnas.measuring import parity
from profilers import open_models, runtimes
from profilers.errors import RuntimeMissingError
from profilers.schema import Target
from profilers.weights import generate

TARGETS = [
    Target("host", "ort-cuda"),
    Target("host", "tensorrt"),
    Target("host", "tensorrt", precision="fp16"),
]


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    content = real_kit(folder)
    generate(folder / "weights.bin", content["weights"], content["seed"])
    return folder


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request):
    try:
        runtimes.load(request.param.runtime).version()
    except RuntimeMissingError as missing:
        pytest.skip(str(missing))
    return request.param


def opened(kit, target, number):
    return runtimes.load(target.runtime).load(kit / f"model-{number:03d}.onnx", target)


def test_outputs_on_the_gpu_are_those_of_the_cpu(kit, target):
    images = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    path = kit / "model-001.onnx"
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"image": images})[0]
    session = opened(kit, target, 1)
    session.time(3)
    gap = parity.difference(expected, session.run(images))
    session.close()
    assert gap < parity.tolerance_of(target.precision)


def test_times_are_positive_and_profiles_belong_to_ops(kit, target):
    items = json.loads((kit / "kit.json").read_text())["items"]
    session = opened(kit, target, 1)
    assert session.time(10) > 0
    nodes = session.profile(5)
    session.close()
    if nodes is None:
        assert target.runtime == "ort-cuda"  # only a build with CUDA profiling tells kernels
        return
    slots = {op["slot"] for op in items[1]["ops"]}
    found = open_models.attribute(nodes, slots)
    nowhere = sum(ms for slot, ms in found if not slot)
    assert nowhere <= 0.05 * sum(ms for _, ms in found)


def test_sessions_open_together_and_close(kit, target):
    sessions = [opened(kit, target, number) for number in (1, 2, 3)]
    assert all(session.time(2) > 0 for session in sessions * 2)
    for session in sessions:
        session.close()


def test_the_worker_measures_a_kit_on_the_gpu(kit, target):
    content = json.loads((kit / "kit.json").read_text())
    names = [item["name"] for item in content["items"]]
    with connect(target) as worker:
        worker.send_kit(content, files_of(content, kit))
        found = worker.measure("a", names, {}, profile=names[1:2])
    assert found.failed == {}
    assert {record["item"] for record in found.records} == set(names)
