"""once-for-all's accuracy predictors: equal to its own code on random weights, and what is not."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import ofa_oracle
import pytest
import torch

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.counts import SUMS
from hwnas.ofa.dictionaries import to_dictionary
from hwnas.ofa.predictor import RESNET, import_predictor
from hwnas.predictors import predictor
from hwnas.search import problem, searchers
from hwnas.settings.config import SearchConfig
from profilers.errors import ConfigError, FileFormatError, TableError

W12 = spaces.load("ofa-mbv3-w12")
FEW = (128, 160, 192, 224)


def architectures(space, n=100):
    rng = np.random.default_rng(0)
    return [space.largest, space.smallest, *(space.random(rng) for _ in range(n))]


def library(name):
    """A module of once-for-all's package; tqdm, which some import and none of these calls, is not
    needed.
    """
    ofa_oracle.package()
    bars = types.ModuleType("tqdm")
    bars.tqdm = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tqdm", sys.modules.get("tqdm", bars))
        return importlib.import_module(f"ofa.{name}")


def tutorial_model():
    """The tutorial's predictor; its file is loaded alone, the package around it downloads."""
    path = Path(library("utils").__file__).parents[1] / "tutorial" / "accuracy_predictor.py"
    spec = importlib.util.spec_from_file_location("tutorial_accuracy_predictor", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    found = module.AccuracyPredictor(False, "cpu")
    found.model[6].bias.data[0] = 0.7
    return found


def library_model(space, resolutions):
    encoders = library("nas.accuracy_predictor.arch_encoder")
    if space.name == "ofa-resnet50d":
        encoder = encoders.ResNetArchEncoder(list(resolutions))
    else:
        encoder = encoders.MobileNetArchEncoder(list(resolutions))
        if space.name == "ofa-proxyless-w13":
            encoder.SPACE_TYPE = "mbv2"
            encoder.__init__(list(resolutions))
    torch.manual_seed(0)
    model = library("nas.accuracy_predictor.acc_predictor").AccuracyPredictor(encoder, device="cpu")
    model.base_acc.data[0] = 0.7
    return model


def saved(tmp_path, state, **how):
    torch.save(state, tmp_path / "acc_predictor.pth", **how)
    return tmp_path / "acc_predictor.pth"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older files"])
def test_the_tutorials_predictor_gives_what_once_for_all_gives(tmp_path, zipped):
    model = tutorial_model()
    path = saved(tmp_path, model.model.state_dict(), _use_new_zipfile_serialization=zipped)
    ours, archs = import_predictor(path, W12), architectures(W12)
    given = [{**to_dictionary(arch), "r": [arch.resolution]} for arch in archs]
    expected = model.predict_accuracy(given).detach().numpy()[:, 0]
    assert np.abs(1 - ours.predict(W12.genome(archs)) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "resolutions"),
    [
        ("ofa-mbv3-w10", FEW),
        ("ofa-mbv3-w10", (224,)),
        ("ofa-proxyless-w13", FEW),
        ("ofa-resnet50d", RESNET),
    ],
)
def test_the_librarys_predictors_give_what_once_for_all_gives(tmp_path, name, resolutions):
    space = spaces.load(name)
    space = space.restricted(size for size in space.resolutions if size in resolutions)
    model = library_model(space, resolutions)
    path = saved(tmp_path, {"state_dict": model.state_dict()})
    ours, archs = import_predictor(path, space, resolutions), architectures(space)
    expected = model.predict_acc([to_dictionary(arch) for arch in archs]).detach().numpy()
    assert np.abs(1 - ours.predict(space.genome(archs)) - expected).max() < 1e-5


@pytest.fixture
def imported(tmp_path):
    torch.manual_seed(0)
    sizes = (128, 400, 400, 400, 1)
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    state = {
        f"{2 * n}.{key}": value
        for n, layer in enumerate(layers)
        for key, value in layer.state_dict().items()
    }
    state["6.bias"][0] = 0.7
    return saved(tmp_path, state), state


def test_an_imported_predictor_reads_back_the_same_and_equal_ones_are_equal_bytes(
    imported, tmp_path
):
    made = import_predictor(imported[0], W12, supernet_sha256="ab" * 32)
    for name in ("a.npz", "b.npz"):
        predictor.save(made, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    few = W12.restricted([160, 224])
    found = predictor.load(tmp_path / "a.npz", few)
    archs = architectures(few)
    whole = [W12.architecture(arch.values) for arch in archs]
    assert np.array_equal(found.predict(few.genome(archs)), made.predict(W12.genome(whole)))
    assert found.supernet_sha256 == "ab" * 32


def test_an_imported_predictor_is_searched_by_nsga2_and_refused_by_dp(imported):
    few = W12.restricted([128])
    error = import_predictor(imported[0], few).metric(few)
    metrics = problem.metrics_of(few, SUMS["macs"], lambda size: 0.0, error)
    for algorithm in ("nsga2", "dp"):
        settings = SearchConfig(algorithm=algorithm, population=20, generations=3)
        stated = problem.make_problem(few, settings, metrics)
        if algorithm == "dp":
            with pytest.raises(ConfigError, match="error is neither a sum nor a maximum"):
                searchers.search(stated, settings)
        else:
            assert len(searchers.search(stated, settings).front.genome) > 1


def test_a_file_of_another_space_is_refused_with_both_sizes(imported, tmp_path):
    path, state = imported
    with pytest.raises(TableError, match="128 inputs, a predictor of ofa-proxyless-w13 has 134"):
        import_predictor(path, spaces.load("ofa-proxyless-w13"))
    with pytest.raises(ConfigError, match="tiny is not one of once-for-all's"):
        import_predictor(path, spaces.load("tiny"))
    other = {
        "layers.0.0.weight": state["0.weight"][:, :124],
        "layers.0.0.bias": state["0.bias"],
        "layers.1.0.weight": state["2.weight"],
        "layers.1.0.bias": state["2.bias"],
        "layers.2.0.weight": state["4.weight"],
        "layers.2.0.bias": state["4.bias"],
        "layers.3.weight": state["6.weight"],
        "base_acc": torch.tensor([0.7]),
    }
    path = saved(tmp_path, other)
    with pytest.raises(ConfigError, match=r"4 inputs for resolutions .* give them, as --resol"):
        import_predictor(path, W12)
    with pytest.raises(TableError, match="of another space than ofa-proxyless-w13"):
        import_predictor(path, spaces.load("ofa-proxyless-w13"))
    made = import_predictor(path, W12, FEW)
    with pytest.raises(TableError, match="fitted without resolution=144"):
        made.metric(W12)


def test_a_predictor_that_gives_no_different_fractions_is_refused(imported, tmp_path):
    path, state = imported
    last = {name: state[name] for name in ("6.weight", "6.bias")}
    for change in (
        {name: 100 * value for name, value in last.items()},  # percent
        {name: 0 * value for name, value in last.items()},
        {"6.bias": last["6.bias"] - 1},
        {"6.weight": 1e38 * last["6.weight"]},
    ):
        torch.save({**state, **change}, path)
        with pytest.raises(FileFormatError, match=r"predicts accuracies of .* for 100 random netw"):
            import_predictor(path, W12)
    made = import_predictor(saved(tmp_path, state), W12)
    percent = (*made.layers[:-1], tuple(100 * part for part in made.layers[-1]))
    predictor.save(replace(made, layers=percent), tmp_path / "percent.npz")
    with pytest.raises(FileFormatError, match="half of 100 random networks have errors of -"):
        predictor.load(tmp_path / "percent.npz", W12)


def test_a_resnet_predictor_works_for_the_sizes_it_was_fitted_to_and_says_which(tmp_path, capsys):
    space = spaces.load("ofa-resnet50d")
    model, out = library_model(space, RESNET), tmp_path / "p.npz"
    path = saved(tmp_path, {"state_dict": model.state_dict()})
    with pytest.raises(SystemExit):
        cli.main(["import", "predictor", str(path), "--space", space.name, "--out", str(out)])
    said = capsys.readouterr().out
    assert "at 128, 144, 160, 176, 192, 224, 240, 256 px" in said
    assert "it was not fitted at 208 px" in said
    fitted = space.restricted(RESNET)
    ours, archs = predictor.load(out, fitted), architectures(fitted)
    expected = model.predict_acc([to_dictionary(arch) for arch in archs]).detach().numpy()
    assert np.abs(1 - ours.predict(fitted.genome(archs)) - expected).max() < 1e-5
    with pytest.raises(TableError, match=r"without resolution=208 .* it knows 128, .* 256 px"):
        predictor.load(out, space)


def test_what_is_no_predictor_is_named(imported, tmp_path):
    path, state = imported
    with pytest.raises(FileFormatError, match="does not exist"):
        import_predictor(tmp_path / "none.pth", W12)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"acc_predictor\.pth"):
            import_predictor(path, W12)
    for change, reason in (
        ({"0.bias": None}, r"it lacks 0\.bias"),
        ({"8.weight": torch.zeros(1)}, r"also holds 8\.weight"),
        ({"2.bias": torch.zeros(3)}, "layer 1 has shape"),
        ({"2.bias": torch.full((400,), torch.nan)}, "not finite"),
    ):
        kept = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(FileFormatError, match=reason):
            import_predictor(saved(tmp_path, kept), W12)
    with pytest.raises(FileFormatError, match="must hold tensors by name"):
        import_predictor(saved(tmp_path, [1, 2]), W12)


class Runs:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older files"])
def test_a_pickle_that_wants_to_run_code_is_named_and_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, {"0.weight": Runs()}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileFormatError, match=r"wants to run posix\.mkdir; it was not run"):
        import_predictor(path, W12)
    assert not (tmp_path / "ran").exists()


def test_the_command_writes_the_predictor_and_says_where_it_is_from(imported, tmp_path, capsys):
    def ran(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["import", "predictor", *map(str, arguments)])
        return ended.value.code

    out = tmp_path / "predictor.npz"
    given = (imported[0], "--space", W12.name, "--out", out, "--json")
    assert ran(*given) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["source"].startswith("once-for-all's tutorial predictor, sha256 ")
    assert predictor.load(out, W12).source == said["source"]
    assert ran(*given, "--resolutions", "160,128") == 2
    assert ran(*given, "--supernet", tmp_path / "none") == 2
    assert ran(imported[0], "--space", "ofa-resnet50d", "--out", out) == 5
    assert "it is of another space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_layers": np.array(99.0)}, "has 99 layers"),
        ({"weight_1": None}, "lacks weight_1"),
        ({"weight_1": np.zeros((3, 400), np.float32)}, r"layer 1 has shape \(3, 400\)"),
        ({"bias_3": np.array([np.nan], np.float32)}, "bias_3 is not finite"),
        ({"features": np.array(["resolution=128"])}, r"layer 0 has shape .* behind 1 inputs"),
        ({"encoding": np.array("plain")}, "encoding is plain"),
        ({"model": np.array("magic")}, "kind 'magic', known: additive"),
        ({"weight_0": np.array([{}])}, "cannot be read"),  # pickled
    ],
)
def test_an_edited_predictor_file_is_refused_with_what_is_wrong(imported, tmp_path, change, reason):
    path = tmp_path / "p.npz"
    predictor.save(import_predictor(imported[0], W12), path)
    with np.load(path) as archive:
        arrays = {**dict(archive), **change}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(FileFormatError, match=reason):
        predictor.load(path, W12)
