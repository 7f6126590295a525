"""A torch model of a user's own: loaded, analysed, made elastic, trained on, exported."""

from __future__ import annotations

import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from hwnas.settings.config import SpaceConfig
from hwnas.traced import model
from profilers.errors import ConfigError, FileFormatError, RuntimeMissingError

MINE = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv1 = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n)
        self.conv2 = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.down = nn.Sequential(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.down(self.blocks(self.stem(x))).mean((2, 3)))


def build():
    return Net()


def sized(n):
    return Net()


def broken():
    return Net().stem(torch.zeros(1, 3, 8, 8))


def weights():
    return Net().state_dict()


NET = Net()
"""
SETTINGS = {"model": "mine:build", "input": (1, 8, 8)}


@pytest.fixture
def mine(tmp_path):
    """A folder with a module of the user's, which is forgotten afterwards."""
    (tmp_path / "mine.py").write_text(MINE)
    yield tmp_path
    sys.modules.pop("mine", None)


def load(folder, **settings) -> nn.Module:
    return model.load(SpaceConfig(**{**SETTINGS, **settings}), folder)


# ---- the function and its weights ----------------------------------------------------------------


def test_a_model_is_what_the_function_beside_the_settings_returns_in_evaluation_mode(mine):
    path = list(sys.path)
    net = load(mine)
    assert type(net).__name__ == "Net"
    assert not any(module.training for module in net.modules())
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mine:built", "cannot be loaded: module 'mine' has no attribute 'built'"),
        ("yours:build", "cannot be loaded: No module named 'yours'"),
        ("mine:sized", "missing a required argument: 'n'; expected a function without arguments"),
        ("mine:NET", "is a Net, expected a function without arguments that returns your model"),
        ("mine:weights", "returned a OrderedDict, expected a torch nn.Module"),
        ("mine:broken", "failed with RuntimeError: .*called without arguments"),
        ("slip:build", "cannot be imported: SyntaxError: .*line 1"),
    ],
)
def test_what_returns_no_model_is_refused_in_one_line_that_names_it(mine, name, reason):
    (mine / "slip.py").write_text("def build(:")
    with pytest.raises(ConfigError, match=rf"space\.model '?{name}'? ?.*{reason}") as refused:
        load(mine, model=name)
    assert "\n" not in str(refused.value)


def test_timm_is_asked_for_where_it_is_missing(mine, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RuntimeMissingError, match=r"timm:resnet18 needs timm.*pip install timm"):
        load(mine, model="timm:resnet18")


def _saved(folder, change=lambda tensors: tensors, name="w.pt") -> dict[str, torch.Tensor]:
    """A file of weights that are not those of the function, as `change` makes it of them."""
    torch.manual_seed(7)
    tensors = {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in load(folder).state_dict().items()
    }
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(change(tensors), folder / name)
    else:
        torch.save(change(tensors), folder / name)
    return tensors


def _without_counters(tensors):
    return {key: value for key, value in tensors.items() if "num_batches" not in key}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("w.safetensors", _without_counters),
        ("w.pt", dict),
        ("w.pth", lambda tensors: {"state_dict": tensors, "epoch": 3}),
        ("w.pt", lambda tensors: {"model": {f"module.{k}": v for k, v in tensors.items()}}),
        ("w.pt", lambda tensors: {k: v.double() for k, v in tensors.items()}),
    ],
    ids=["safetensors", "torch.save", "a checkpoint", "of several processes", "float64"],
)
def test_weights_are_read_as_trainings_write_them(mine, name, change):
    expected = _saved(mine, change, name)
    found = load(mine, weights=name).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: {k: v for k, v in t.items() if not k.startswith("stem")},
            r"it lacks 5 tensors \(stem\.0\.weight, stem\.1\.weight, stem\.1\.bias, and 2 more\)$",
        ),
        (lambda t: {**t, "extra": torch.ones(1)}, r"the model lacks 1 tensor \(extra\)$"),
        (
            lambda t: {**t, "head.bias": torch.ones(7), "fc.bias": torch.ones(7)},
            r"the model lacks 1 tensor \(fc\.bias\); other shapes have 1 tensor \(head\.bias is 7, "
            r"the model's 10\)$",
        ),
    ],
    ids=["missing", "unexpected", "other shapes"],
)
def test_weights_that_do_not_fit_are_refused_with_the_first_names_and_how_many(
    mine, change, reason
):
    _saved(mine, change)
    with pytest.raises(FileFormatError, match=rf"w\.pt does not fit mine:build: {reason}"):
        load(mine, weights="w.pt")


def test_weights_that_are_no_numbers_are_refused(mine):
    _saved(mine, lambda t: {**t, "head.bias": torch.full((10,), torch.nan)})
    with pytest.raises(FileFormatError, match=r"hold NaN or infinity \(head\.bias\)"):
        load(mine, weights="w.pt")


def test_a_model_that_was_saved_whole_is_refused_with_the_line_that_converts_it(mine):
    torch.save(load(mine), mine / "whole.pt")
    with pytest.raises(FileFormatError, match=r"wants to run mine\.Net; it was not run") as refused:
        load(mine, weights="whole.pt")
    line = (
        "python -c \"import torch; torch.save(torch.load('whole.pt', weights_only=False)"
        ".state_dict(), 'whole.state.pt')\""
    )
    assert str(refused.value).endswith(line)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_weights_that_are_gone_or_cut_short_are_refused(mine, name):
    with pytest.raises(FileFormatError, match="does not exist"):
        load(mine, weights=name)
    _saved(mine, name=name)
    whole = (mine / name).read_bytes()
    (mine / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="cut short"):
        load(mine, weights=name)
