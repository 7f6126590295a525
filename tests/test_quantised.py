"""Networks in int8: ranges of training images, what is measured of them, packages."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from test_first_stages import _context
from test_int8 import data_of, exact_ranges, images, run
from worker_kits import TINY, networks

from hwnas.commands import on_devices
from hwnas.images import tensors
from hwnas.measuring import parity
from hwnas.networks import onnx_graph, ranges
from hwnas.predictors import predictor
from hwnas.run import evaluate, export, model, package, quantised, results, rounded
from hwnas.run.data import checked_dataset, dataset, describe_data
from hwnas.run.joint import joint_front
from hwnas.run.train import train_supernet
from hwnas.run.weights import make_evaluator
from hwnas.settings.data_config import DataConfig
from hwnas.settings.int8_config import Int8Config
from hwnas.supernet.exported import Exported
from hwnas.supernet.folded import Folded, Rounding
from hwnas.supernet.network import Subnet, folded_weights
from profilers.errors import ConfigError, VerificationError
from profilers.precisions import int8
from profilers.schema import Target, sha256_file

INT8 = Target("host", "ort-cpu", precision="int8")
NAME = "host.ort-cpu.int8.b1.t1"
FEW = Int8Config(images=40, measure=8)


# ---- ranges --------------------------------------------------------------------------------------


def observed(values, method="min-max", percentile=100.0, sizes=None):
    """Ranges of tensors whose values (images, elements) are given."""
    sizes = sizes or {"a": values.shape[1]}
    rows = np.array_split(values, 3)
    return ranges.ranges(lambda batch: batch, lambda: iter(rows), sizes, method, percentile)


def test_min_max_takes_the_ends_of_each_tensor():
    values = np.array([[1.0, 2.0, -7.0], [0.5, 4.0, 3.0], [0.1, 0.2, 0.3]])
    assert observed(values, sizes={"a": 2, "b": 1}) == {"a": (0.1, 4.0), "b": (-7.0, 3.0)}


def test_a_percentile_leaves_the_rarest_magnitudes_out():
    values = np.linspace(0, 1, 10_000).reshape(10, 1000)
    values[0, 0] = 100.0
    (low, high), *_ = observed(values, "percentile", 99.9).values()
    assert low == pytest.approx(0.0, abs=1e-3)
    assert high == pytest.approx(1.0, abs=0.06)
    assert observed(values, "percentile", 100.0)["a"][1] == pytest.approx(100.0)


def test_entropy_cuts_off_an_outlier_and_keeps_what_is_dense():
    values = np.random.default_rng(0).normal(size=(20, 2000))
    values[0, 0] = 60.0
    low, high = observed(values, "entropy")["a"]
    assert 2.5 < high < 30
    assert -10 < low < -2.5
    uniform = np.random.default_rng(0).uniform(0, 1, size=(20, 2000))
    assert observed(uniform, "entropy")["a"][1] > 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_activation_that_is_no_number_is_refused_by_name(value):
    values = np.ones((4, 3))
    values[2, 1] = value
    with pytest.raises(VerificationError, match="tensor b is not a number"):
        observed(values, sizes={"a": 1, "b": 2})


def test_the_ranges_of_a_network_are_those_of_its_activations():
    ops = networks(1)[0]
    data, x = data_of(ops), images(ops)
    watched = ranges.watched(data, ["image", "stem/conv", "classifier/flat"])
    found = run(watched.model, x)
    assert found.shape == (1, sum(watched.sizes.values()))
    n = watched.sizes["image"]
    np.testing.assert_array_equal(found[0, :n], x.reshape(-1))


# ---- images --------------------------------------------------------------------------------------


def set_of(pixels):
    """A data set whose training images are given, the others different."""
    split = tensors.Split(pixels, torch.zeros(len(pixels), dtype=torch.int64))
    other = tensors.Split(255 - pixels[:8], split.labels[:8])
    return tensors.Dataset(split, other, other, ("a", "b"), (0.5,), (0.25,), "")


def pixels(n=64):
    return torch.randint(256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


def test_calibration_reads_the_training_images_that_it_tells_and_no_others():
    data = set_of(pixels())
    found = quantised.images_of(data, 8, FEW)
    index = torch.tensor(found.about["indices"])
    expected = tensors.prepare(data.train.images[index], 8, data).numpy()
    np.testing.assert_array_equal(found.inputs, expected)
    assert len(set(found.about["indices"])) == found.about["images"] == 40
    assert quantised.images_of(data, 8, FEW).about == found.about
    other = quantised.images_of(data, 8, FEW.model_copy(update={"seed": 1}))
    assert other.about["sha256"] != found.about["sha256"]


def test_too_few_and_constant_images_are_refused():
    with pytest.raises(VerificationError, match="there are 20, 32 are needed"):
        quantised.images_of(set_of(pixels(20)), 8, FEW)
    with pytest.raises(VerificationError, match="are all the same"):
        quantised.images_of(set_of(torch.full((64, 1, 8, 8), 7).byte()), 8, FEW)


def test_equal_images_give_equal_bytes_and_other_settings_others():
    data, given = data_of(networks(1)[0]), quantised.images_of(set_of(pixels()), 8, FEW)

    def made(**settings):
        config = FEW.model_copy(update=settings)
        return quantised.quantised(data, INT8, "u8s8", given, config)

    (first, about), (again, _) = made(), made()
    assert first == again
    assert about["recipe"] == "u8s8"
    assert about["in_float"].keys() <= {"HardSigmoid", "Conv"}
    assert made(calibration="percentile", percentile=90)[0] != first


# ---- stages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The context of a run with a supernet and an int8 target, evaluated; and its notes."""
    folder, notes = tmp_path_factory.mktemp("run"), []
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", train_images=arrays, train_labels=np.arange(120) % 3)
    dataset.cache_clear()
    context = _context(folder, notes)
    config = context.config.model_copy(update={"targets": (NAME,), "int8": FEW})
    context = replace(context, config=config, report=replace(context.report, note=notes.append))
    assert describe_data(context)
    assert train_supernet(context)
    assert evaluate.evaluate(context)
    return context, notes


def test_a_target_in_int8_has_a_predictor_of_networks_that_were_measured_so(trained):
    context, notes = trained
    written = f"int8-{context.recipe(NAME)}"
    assert context.predictor(NAME) == context.run.predictor_in(written)
    own = predictor.load(context.predictor(NAME), context.space)
    assert own.scores["n"] == 8
    assert sum("lose" in words and written in words for words in notes) == 1
    lines = context.run.accuracies_in(written).read_text().splitlines()
    assert len(lines) == 8
    assert not evaluate.evaluate(context)


def test_accuracy_in_int8_is_that_of_the_file_on_the_validation_images(trained):
    context, _ = trained
    evaluator, data = make_evaluator(context), checked_dataset(context)
    measured = quantised.measure_along(
        context, evaluator, context.target(NAME), "int8-test", {context.space.largest: 0.5}
    )
    subnet = evaluator.subnet(context.space.largest)
    recipe = context.recipe(NAME)
    given = quantised.images_of(data, 8, FEW)
    fp32 = onnx_graph.to_bytes(onnx_graph.build(subnet.arch.ops, folded_weights(subnet)))
    made, _ = quantised.quantised(fp32, INT8, recipe, given, FEW)
    net = Exported(subnet.arch, made, INT8)
    x = tensors.prepare(data.val.images, 8, data)
    expected = float((net(x).argmax(1) == data.val.labels).double().mean())
    assert measured == {context.space.largest: expected}


def test_a_package_holds_the_quantised_file_and_says_how_it_was_made(trained, tmp_path):
    context, _ = trained
    target, arch = context.target(NAME), context.space.largest
    about = model.write(context, make_evaluator(context), target, arch, tmp_path)
    ops = [n.op_type for n in onnx.load(tmp_path / package.MODEL).graph.node]
    assert ops.count("QuantizeLinear") > 10
    assert about["quantised"]["precision"] == "int8"
    assert about["quantised"]["images"] == 40
    assert 0 < about["parity"]["max_relative_difference"] <= about["parity"]["tolerance"]
    first = sha256_file(tmp_path / package.MODEL)
    model.write(context, make_evaluator(context), target, arch, tmp_path)
    assert sha256_file(tmp_path / package.MODEL) == first
    found = parity.package_outputs(target, tmp_path / package.MODEL, about["input"])
    assert found["max_relative_difference"] <= found["tolerance"] == 0.1
    assert 0.8 < found["rounding"] < 1.2


# ---- trained on, rounded -------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", sorted(int8.RECIPES))
@pytest.mark.parametrize("seed", range(2))
def test_a_network_is_rounded_in_torch_as_its_file_rounds_it(recipe, seed):
    arch = TINY.random(np.random.default_rng(seed))
    torch.manual_seed(seed)
    subnet = Subnet(arch).eval()
    weights = folded_weights(subnet)
    data = onnx_graph.to_bytes(onnx_graph.build(arch.ops, weights))
    x = torch.from_numpy(images(arch.ops))
    plain = Folded(arch, weights, None)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), subnet(x), rtol=1e-4, atol=1e-4)
    found = exact_ranges(data, x.numpy())
    rounded_net = Folded(arch, weights, Rounding(data, int8.RECIPES[recipe], found))
    expected = run(int8.calibrated(data, recipe, found), x.numpy(), plain=True)
    # where a value is half a step, both may round it to another side
    assert parity.difference(expected, rounded_net(x).detach().numpy()) < 0.1
    rounded_net(x).sum().backward()
    assert all(value.grad is not None for value in rounded_net.parameters())


def test_a_package_that_loses_more_than_it_may_is_trained_on(trained, tmp_path, monkeypatch):
    context, _ = trained
    monkeypatch.setattr(rounded, "STEPS", 20)
    own = FEW.model_copy(update={"tune_above": 5.0})
    config = context.config.model_copy(update={"int8": own})
    context = replace(context, config=config)
    lost = iter([0.9, 0.5, 0.8])
    monkeypatch.setattr(rounded, "metric_of", lambda *_: next(lost))
    target, arch = context.target(NAME), context.space.largest
    about = model.write(context, make_evaluator(context), target, arch, tmp_path)
    told = {"val_accuracy_fp32": 0.9, "val_accuracy_before": 0.5, "val_accuracy": 0.8, "steps": 20}
    assert about["quantised"]["tuned"] == told
    assert about["parity"]["max_relative_difference"] <= about["parity"]["tolerance"]
    for accuracies in ([0.9, 0.86], [0.9, 0.5, 0.5]):  # it may lose that; no help
        lost = iter(accuracies)
        about = model.write(context, make_evaluator(context), target, arch, tmp_path)
        assert about["quantised"]["tuned"] is None
        assert list(lost) == []


@pytest.mark.slow
def test_training_on_rounded_wins_back_what_ranges_that_were_cut_have_cost(tmp_path):
    """On digits, most of it."""
    context = _context(tmp_path, [], epochs=15)
    cut = Int8Config(images=64, calibration="percentile", percentile=97, tune_above=0.5)
    changed = {"data": DataConfig(kind="digits"), "targets": (NAME,), "int8": cut}
    context = replace(context, config=context.config.model_copy(update=changed))
    assert describe_data(context)
    assert train_supernet(context)
    evaluator = make_evaluator(context)
    subnet = evaluator.subnet(context.space.largest)
    given = quantised.images_of(evaluator.dataset, 8, cut)
    found = rounded.tuned(context, evaluator, context.target(NAME), subnet, given)
    told = found.about
    lost = told["val_accuracy_fp32"] - told["val_accuracy_before"]
    assert lost > 0.05
    assert told["val_accuracy"] - told["val_accuracy_before"] > 0.7 * lost


@pytest.mark.parametrize(
    ("recipe", "here", "expected"),
    [
        ("u8s8", "u8s7", "disable"),
        ("s8s8", "u8s7", "disable"),
        ("u8s7", "u8s7", "all"),
        ("u8s8", "u8s8", "all"),
        ("", "u8s7", "all"),
    ],
)
def test_a_host_whose_kernels_saturate_computes_exactly_for_a_device_that_does_not(
    recipe, here, expected, monkeypatch
):
    monkeypatch.setattr(quantised, "_here", lambda: here)
    assert quantised.level(INT8, recipe) == expected


def test_this_machine_knows_its_own_recipe():
    assert quantised._here() in ("u8s8", "u8s7", "s8s8")


def test_no_joint_front_over_precisions_whose_errors_differ(trained):
    context, _ = trained
    with pytest.raises(ConfigError, match=r"int8-\w+\.npz and predictor\.npz predict it"):
        joint_front(context, [NAME, "host.ort-cpu.fp32.b1.t1"], "worst", {})


# ---- one package on any target ------------------------------------------------------------------


def test_a_file_that_was_written_for_another_processor_is_said():
    how = {"precision": "int8", "recipe": "u8s7"}
    vnni = {"machine": "x86_64", "cpu_features": ["avx2", "avx512_vnni"]}
    told = on_devices._written(how, vnni, INT8)
    assert "written as u8s7" in told
    assert "would be u8s8" in told
    assert not on_devices._written(how, {"machine": "x86_64", "cpu_features": []}, INT8)
    assert not on_devices._written(None, vnni, INT8)


def test_a_package_in_fp32_is_not_verified_on_a_target_in_int8(monkeypatch, tmp_path):
    manifest = {"target": {"batch": 1}, "quantised": None}
    monkeypatch.setattr(package, "read_manifest", lambda folder: manifest)
    with pytest.raises(ConfigError, match=r"computes in fp32, target .* is for int8"):
        on_devices.verified(tmp_path, INT8, None)


@pytest.mark.parametrize(
    "changed",
    [{"tune_above": 0.5}, {"calibration": "entropy"}, {"images": 33}, {"seed": 7}],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_changes_a_model_in_int8_makes_its_packages_stale(trained, monkeypatch, changed):
    monkeypatch.setattr(export, "_hashes", lambda context, target: {})
    before = _per_device(trained[0], {})
    after = _per_device(trained[0], changed)
    arch = before.space.largest
    assert results.maker(before, NAME)(arch) != results.maker(after, NAME)(arch)
    assert export._work(before, NAME, []).inputs != export._work(after, NAME, []).inputs


def _per_device(context, changed):
    """The run with other settings of int8; a target of a device may be without packages."""
    config = context.config
    parts = {
        "int8": config.int8.model_copy(update=changed),
        "export": config.export.model_copy(update={"per": "device"}),
    }
    return replace(context, config=config.model_copy(update=parts))
