"""ONNX Runtime's CUDA provider, modelled (no GPU here) on the API of the installed onnxruntime; and
refused, for real, by the onnxruntime that has none.
"""

import inspect

import fake_ort_cuda
import numpy as np
import onnxruntime
import pytest
from worker_kits import networks

from hwnas.measuring import parity
from hwnas.networks import onnx_graph
from profilers.engines import cudart, ort
from profilers.errors import ConfigError, DeviceError, RuntimeMissingError
from profilers.runtimes import ort_cuda
from profilers.schema import Target

TARGET = Target("host", "ort-cuda")


@pytest.fixture
def model(tmp_path):
    ops = networks(1)[0]
    rng = np.random.default_rng(0)
    values = {w.name: rng.normal(0, 0.2, w.shape) for w in onnx_graph.weights_of(ops)}
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(ops, values)))
    return path


@pytest.fixture
def cuda(monkeypatch):
    """`cuda(...)` puts a modelled onnxruntime in place of the installed one."""

    def install(**options):
        module = fake_ort_cuda.module(**options)
        monkeypatch.setattr(ort, "engine", lambda: module)
        return module

    return install


def test_runs_are_timed_between_synchronisations_with_tensors_on_the_gpu(model, cuda):
    module = cuda()
    session = ort_cuda.load(model, TARGET)
    assert session.time(3) > 0
    assert module.sessions[0].bindings[0].calls == ["inputs", "run", "run", "run", "outputs"]
    assert session.info()["providers"] == [fake_ort_cuda.CUDA, fake_ort_cuda.CPU]
    images = np.ones((1, 1, 8, 8), np.float32)
    expected = onnxruntime.InferenceSession(str(model)).run(None, {"image": images})[0]
    np.testing.assert_allclose(session.run(images), expected, atol=1e-5)
    session.close()


@pytest.mark.parametrize("version", ["1.17.3", "1.18.0", onnxruntime.__version__])
def test_fp32_is_not_tf32_in_any_version(model, cuda, monkeypatch, version):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")  # of the user's own; the provider's default
    images = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(model)).run(None, {"image": images})[0]
    cuda(version=version)
    found = ort_cuda.load(model, TARGET).run(images)
    assert parity.difference(expected, found) < 1e-5


def test_the_provider_is_asked_for_alone_and_may_leave_nothing_to_the_cpu(model, cuda):
    module = cuda()
    ort_cuda.load(model, TARGET)
    made = module.sessions[0]
    assert made.asked == [(fake_ort_cuda.CUDA, {**ort_cuda.OPTIONS, "use_tf32": "0"})]
    assert made.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert module.preloaded == 1


def test_a_provider_that_fell_back_to_the_cpu_is_refused(model, cuda):
    cuda(starts=False)
    with pytest.raises(DeviceError, match=r"fell back to CPUExecutionProvider; install the CUDA"):
        ort_cuda.load(model, TARGET)


def test_an_onnxruntime_without_cuda_is_refused_for_real(model):
    if fake_ort_cuda.CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(
        RuntimeMissingError, match=r"has no CUDAExecutionProvider .*onnxruntime-gpu"
    ):
        ort_cuda.load(model, TARGET)
    with pytest.raises(RuntimeMissingError, match="onnxruntime-gpu"):
        ort_cuda.version()


def test_the_version_names_cuda_and_the_gpu(cuda, monkeypatch):
    cuda()
    facts = {"cuda": "12.6", "driver": "12.8", "gpu": "A GPU", "capability": "9.0"}
    monkeypatch.setattr(cudart, "probe_facts", lambda: facts)
    expected = f"{onnxruntime.__version__}, CUDA 12.6, A GPU (compute capability 9.0)"
    assert ort_cuda.version() == expected


def test_node_times_are_those_of_kernels_not_of_launches(model, cuda):
    cuda(kernels=True)
    nodes = ort_cuda.load(model, TARGET).profile(3)
    assert {node.ms for node in nodes} == {2 * fake_ort_cuda.KERNEL_US / 1000}
    assert any(node.node_name.startswith("stem/conv") for node in nodes)


def test_without_kernels_in_the_profile_there_are_no_node_times(model, cuda):
    cuda(kernels=False)
    assert ort_cuda.load(model, TARGET).profile(3) is None


def test_profiles_whose_runs_differ_are_refused():
    node = {"cat": "Node", "name": "a_kernel_time", "dur": 1}
    kernel = {"cat": "Kernel", "name": "k", "dur": 5}
    other = {"cat": "Node", "name": "b_kernel_time", "dur": 1}
    with pytest.raises(DeviceError, match="same nodes"):
        ort_cuda.node_times([node, kernel, other, kernel, node], 3)


def test_a_file_that_cannot_be_loaded_is_refused(tmp_path, cuda):
    cuda()
    with pytest.raises(ConfigError, match=r"missing\.onnx"):
        ort_cuda.load(tmp_path / "missing.onnx", TARGET)


# ---- the fake against the real API -------------------------------------------------------------


def parameters(function):
    """Names of the parameters that can be given one by one."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.kind not in several and p.name != "self"]


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (fake_ort_cuda.IOBinding, onnxruntime.IOBinding),
        (fake_ort_cuda.InferenceSession, onnxruntime.InferenceSession),
        (fake_ort_cuda.OrtValue, onnxruntime.OrtValue),
    ],
)
def test_the_modelled_classes_have_the_members_of_the_installed_ones(fake, real):
    names = [name for name in vars(fake) if not name.startswith("_")]
    assert names
    for name in names:
        known = parameters(getattr(real, name))
        assert parameters(getattr(fake, name)) == known[: len(parameters(getattr(fake, name)))]


def test_the_modelled_functions_have_the_parameters_of_the_installed_ones():
    module = fake_ort_cuda.module()
    assert parameters(module.preload_dlls) == parameters(onnxruntime.preload_dlls)
    given = parameters(module.InferenceSession)
    assert given == parameters(onnxruntime.InferenceSession.__init__)[: len(given)]
    assert callable(onnxruntime.get_available_providers)
    options = onnxruntime.SessionOptions()
    assert all(hasattr(options, name) for name in ("enable_profiling", "add_session_config_entry"))
