"""A torch model of a user's own: loaded, analysed, made elastic, trained on, exported."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from argparse import Namespace

import pytest
import safetensors.torch
import torch
from test_commands_measure import hwnas
from torch import nn

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.run.context import Context, Reporter
from hwnas.run.folder import RunFolder
from hwnas.run.train import train_supernet
from hwnas.settings.config import DataConfig, SpaceConfig
from hwnas.settings.config_file import load_config
from hwnas.traced import model
from profilers.errors import ConfigError, FileFormatError, RuntimeMissingError
from profilers.schema import sha256_file

MINE = """
import warnings

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


def lazy():
    return nn.Sequential(nn.LazyConv2d(8, 3), Net())


class Stuck(Net):
    def train(self, mode=True):
        return super().train()


def stuck():
    return Stuck()


def scripted():
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(Net().eval(), torch.zeros(1, 1, 8, 8))


def loud():
    print("made")
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    net = Net()
    net.stem.register_forward_hook(lambda *given: print("ran"))
    return net


NET = Net()
"""
SETTINGS = {"model": "mine:build", "input": (1, 8, 8)}


@pytest.fixture(autouse=True)
def _forgotten():
    """Each test is a process of its own to the user's module."""
    sys.modules.pop("mine", None)


@pytest.fixture
def mine(tmp_path):
    """A folder with a module of the user's."""
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def load(folder, note=lambda text: None, **settings) -> nn.Module:
    return model.load(SpaceConfig(**{**SETTINGS, **settings}), folder, note)


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
        ("mine:broken", r"cannot be used: RuntimeError: .*mine\.py, line 4\d\); mend it there"),
        ("mine:stuck", r"stays in training mode after eval\(\) \(itself\); let its train\(\) take"),
        ("mine:scripted", "returned a TopLevelTracedModule, expected .* not scripted or traced"),
        ("mine:lazy", "returned a model whose 0.weight has no values; run it once"),
        ("slip:build", "cannot be used: SyntaxError: .*line 1"),
        ("ends:build", r"cannot be used: SystemExit: 3 \(.*ends\.py, line 2\)"),
        ("wants:build", r"cannot be used: ModuleNotFoundError: .*'absent' \(.*wants\.py, line 1\)"),
    ],
)
def test_what_returns_no_model_is_refused_in_one_line_that_names_it(mine, name, reason):
    (mine / "slip.py").write_text("def build(:")
    (mine / "ends.py").write_text("import sys\nsys.exit(3)")
    (mine / "wants.py").write_text("import absent")
    with pytest.raises(ConfigError, match=rf"{name}'? ?.*{reason}") as refused:
        load(mine, model=name)
    assert "\n" not in str(refused.value)


def test_what_the_function_sets_for_all_of_torch_is_set_back(mine):
    net = load(mine, model="mine:loud")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


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
        ("w.pt", lambda tensors: {"epoch": 3, "model_state_dict": tensors, "optimizer": {"lr": 1}}),
        ("w.ckpt", lambda tensors: {"state_dict": {f"net.{k}": v for k, v in tensors.items()}}),
        ("w.pt", lambda tensors: {"own": {f"_orig_mod.module.{k}": v for k, v in tensors.items()}}),
    ],
    ids=["safetensors", "torch.save", "a checkpoint", "of several processes", "float64",
         "of the tutorial", "of Lightning", "under a name of one's own"],
)  # fmt: skip
def test_weights_are_read_as_trainings_write_them(mine, name, change):
    expected = _saved(mine, change, name)
    found = load(mine, weights=name).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_of_several_sets_of_weights_it_is_said_which_is_read(mine):
    said = []
    ema = {k: v + 1 for k, v in load(mine).state_dict().items()}
    expected = _saved(mine, lambda tensors: {"state_dict_ema": ema, "state_dict": tensors})
    found = load(mine, said.append, weights="w.pt").state_dict()
    assert torch.equal(found["head.weight"], expected["head.weight"])
    assert said == ["space: w.pt holds state_dict_ema, state_dict; state_dict is read"]


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
        (
            lambda t: {**t, "head.bias": torch.ones(10, dtype=torch.int8)},
            r"other kinds of numbers have 1 tensor \(head\.bias is int8, the model's float32\)$",
        ),
    ],
    ids=["missing", "unexpected", "other shapes", "quantised"],
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


def test_what_was_saved_whole_is_refused_with_the_line_that_converts_it(mine, monkeypatch):
    torch.save(load(mine), mine / "whole.pt")
    with pytest.raises(FileFormatError, match=r"wants to run mine\.Net; it was not run") as refused:
        load(mine, weights="whole.pt")
    line = str(refused.value).partition("by: python -c ")[2]
    assert line.startswith('"') and line.endswith('"')  # noqa: PT018
    monkeypatch.chdir(mine)
    for given in (load(mine), {"state_dict": load(mine).state_dict(), "args": Namespace(lr=1)}):
        torch.save(given, mine / "whole.pt")
        monkeypatch.syspath_prepend(mine)
        exec(line[1:-1])
        load(mine, weights="whole.state.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_weights_that_are_gone_or_cut_short_are_refused(mine, name):
    with pytest.raises(FileFormatError, match="does not exist"):
        load(mine, weights=name)
    _saved(mine, name=name)
    whole = (mine / name).read_bytes()
    (mine / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="cut short"):
        load(mine, weights=name)


# ---- a whole run ---------------------------------------------------------------------------------

YAML = """
run: run
data: {kind: digits}
space: {model: "mine:build", weights: best.safetensors, input: [1, 8, 8]}
finetune: {epochs: 2, threads: 1, learning_rate: 0.005}
accuracy: {measure: 12, bn_images: 128, training_free: 0}
targets: [fake.fake.fp32.b1.t1]
profile: {budget_s: 3, heldout: 5, rounds: 6}
search: {population: 8, generations: 3}
pick: [{rule: best}]
"""
ACCEPT = ("--accept", "unreliable,emulated,gap,budget,untimed")


def _trained(folder) -> None:
    """The user's own training: a few passes over the digits, normalised as hwnas does."""
    digits = tensors.load(DataConfig(kind="digits"))
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the same bits, whatever ran before in this process
    net = load(folder).requires_grad_(True).train()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(4):
        for images, labels in tensors.batches(digits.train, 8, 64):
            loss = nn.functional.cross_entropy(net(tensors.prepare(images, 8, digits)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    safetensors.torch.save_file(net.state_dict(), folder / "best.safetensors")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder in which `hwnas run` went through once."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(MINE)
    (folder / "mine.yaml").write_text(YAML)
    _trained(folder)
    sys.modules.pop("mine")
    assert hwnas("run", folder / "mine.yaml", *ACCEPT) == 0
    return folder


def _space(folder):
    return json.loads((folder / "run" / "space.json").read_text())


def test_what_is_made_of_a_model_is_told_with_the_proof(job, capsys):
    assert hwnas("space", "analyse", job / "mine.yaml") == 0
    shown = capsys.readouterr().out
    about = _space(job)
    groups = {group["name"]: group for group in about["groups"]}
    assert groups["down.0"] == {
        "name": "down.0",
        "units": 24,
        "widths": [8, 16, 24],
        "macs_share": pytest.approx((16 * 24 * 9 * 16 + 240) / _macs(job)),
    }
    assert [branch["name"] for branch in about["branches"]] == ["blocks.0", "blocks.1"]
    assert about["branches"][0]["macs_share"] == pytest.approx(2 * 16 * 16 * 9 * 64 / _macs(job))
    assert list(about["whole"]) == ["head"]
    assert about["proof"]["worst"] <= 1e-9
    assert about["proof"]["largest"] <= 1e-5
    assert about["sources"] == ["mine.py"]
    for words in (about["name"], "down.0", "8, 16, 24", "blocks.1", "head", "proof: 10 random"):
        assert words in shown


def _macs(job) -> int:
    return exact_costs(spaces.load(str(job / "run" / "space.json")).largest)["macs"]


def test_weights_survive_the_whole_way(job):
    """Two epochs at this rate could not teach the digits; which network is best is chance."""
    paths = list(job.glob("run/packages/*/*/manifest.json"))
    found = json.loads(paths[0].read_text())
    assert len(paths) == 1
    assert found["measured"]["test_accuracy"] > 0.75
    assert found["parity"]["max_relative_difference"] < 1e-4
    assert found["origin"] == {
        "model": "mine:build",
        "weights_sha256": sha256_file(job / "best.safetensors"),
        "program_sha256": _space(job)["origin"]["program_sha256"],
    }
    report = (job / "run" / "report.html").read_text()
    weights = found["origin"]["weights_sha256"][:12]
    assert f"the model mine:build with weights of sha256 {weights}" in report
    card = next(job.glob("run/packages/*/*/MODEL_CARD.md")).read_text()
    for text in (json.dumps(found), report, card):
        assert str(job) not in text
        assert "best.safetensors" not in text


def test_a_training_that_was_cut_ends_with_the_same_bits(job, tmp_path):
    shutil.copytree(job, tmp_path, dirs_exist_ok=True)
    trained = tmp_path / "run" / "supernet.safetensors"
    expected = trained.read_bytes()
    trained.unlink()

    def cut(share: float, text: str) -> None:
        if share > 0.5:
            raise RuntimeError("cut")

    def context(say) -> Context:
        config = load_config(tmp_path / "mine.yaml", ["finetune.checkpoint_s=1e-6"])
        report = Reporter(lambda name: say, lambda text: None, lambda text: None)
        return Context(config, tmp_path, RunFolder(tmp_path / "run"), report)

    with pytest.raises(RuntimeError, match="cut"):
        train_supernet(context(cut))
    assert (tmp_path / "run" / "train.checkpoint.safetensors").exists()
    assert train_supernet(context(lambda share, text: None))
    assert trained.read_bytes() == expected


def test_without_images_networks_of_a_model_are_searched_by_accuracies_from_elsewhere(
    job, tmp_path, capsys
):
    shutil.copytree(job, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "run"
    for made in (run / "supernet.safetensors", run / "predictor.npz"):
        made.unlink()
    given = (tmp_path / "mine.yaml", "--set", "data.kind=none", *ACCEPT)
    assert hwnas("run", *given) == 2
    assert "networks cannot be measured; name images, or a CSV" in capsys.readouterr().err
    assert hwnas("train", *given[:3]) == 2
    assert "nothing to train on; name images in hwnas.yaml\n" in capsys.readouterr().err
    known = map(json.loads, (run / "accuracy.jsonl").read_text().splitlines())
    with open(tmp_path / "r.csv", "w", newline="") as handle:
        csv.writer(handle).writerow(["arch", "top1"])
        csv.writer(handle).writerows([json.dumps(row["arch"]), row["accuracy"]] for row in known)
    assert hwnas("run", *given, "--set", "accuracy.results=r.csv") == 2
    assert "run `hwnas train` first (it needs images)\n" in capsys.readouterr().err
    assert hwnas("front", *given[:3], "--json") == 0


def test_a_second_run_has_nothing_to_do_and_runs_none_of_the_users_code(job, capsys):
    assert hwnas("run", job / "mine.yaml", "--json", *ACCEPT) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == []
    assert found["up_to_date"][0] == "space"
    assert "mine" not in sys.modules


def test_the_space_is_found_by_its_file_and_beside_what_is_made_of_it(job, capsys):
    path = job / "run" / "space.json"
    assert hwnas("space", "show", path, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["space"] == _space(job)["name"]
    assert about["geometry"] == _space(job)["geometry"]
    assert hwnas("space", "show", about["space"]) == 2
    assert "RUN/space.json" in capsys.readouterr().err
    table = next(job.glob("run/tables/*.json"))
    assert hwnas("table", "check", table, "--budget", 3) == 0
    assert hwnas("space", "profile", job / "mine.yaml", *ACCEPT) == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: (f / "mine.py").write_text(f"{MINE}\n# more"), "sources.mine.py changed"),
        (lambda f: _saved(f, name="best.safetensors"), "weights changed"),
        (lambda f: (f / "mine.yaml").write_text(YAML.replace("weights:", "widths: 2, weights:")),
         "space.widths changed"),
    ],
    ids=["code", "weights", "settings"],
)  # fmt: skip
def test_a_space_that_is_no_longer_that_of_the_model_is_refused_until_it_is_made_again(
    job, tmp_path, capsys, change, why
):
    shutil.copytree(job, tmp_path, dirs_exist_ok=True)
    change(tmp_path)
    assert hwnas("search", tmp_path / "mine.yaml", *ACCEPT) == 2
    assert f"{why}; run `hwnas space analyse` first" in capsys.readouterr().err
    assert hwnas("status", tmp_path / "mine.yaml", "--json", *ACCEPT) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert (stages[0]["name"], stages[0]["current"], stages[0]["why"]) == ("space", False, why)
    assert "after space" in next(s["why"] for s in stages if s["name"] == "train")


def test_a_space_that_was_edited_is_refused(job, tmp_path, capsys):
    shutil.copytree(job / "run", tmp_path / "run")
    shutil.copy(job / "mine.yaml", tmp_path)
    path = tmp_path / "run" / "space.json"
    about = _space(job)
    about["family"]["groups"][0][1] = [8, 17]
    path.write_text(json.dumps(about))
    assert hwnas("space", "show", path) == 2
    assert "was edited: its geometry is another one" in capsys.readouterr().err


def _analyse(folder, source: str, **settings) -> int:
    """The exit code of an analysis of another model."""
    (folder / "mine.py").write_text(f"{MINE}\n{source}")
    given = {"model": "mine:other", "input": [1, 8, 8], **settings}
    whole = {"run": "run", "data": {"kind": "digits"}, "space": given}
    (folder / "mine.yaml").write_text(json.dumps(whole))
    return hwnas("space", "analyse", folder / "mine.yaml")


FLAT = """
def other():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 10),
    )
"""
NARROW = """
def other():
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 1, 1), nn.Flatten())
"""
NAN = (
    f"{FLAT}\nFLAT = other\ndef other(): return nn.Sequential(FLAT(), Log())"
    + """
class Log(nn.Module):
    def forward(self, x):
        return torch.log(-torch.relu(x) - 1)
"""
)
SMALL = "def other():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))"


@pytest.mark.parametrize(
    ("source", "settings", "reason"),
    [
        (
            FLAT,
            {"resolutions": [8, 12]},
            "mine:other does not run on inputs of 1x12x12: ",
        ),
        (SMALL, {}, "all stays whole .1: it makes the model's output.: shorten space.keep"),
        (FLAT, {"round_to": 64}, "nothing of mine:other can be .*lower space.round_to"),
        (FLAT, {"widths": 1}, "nothing of mine:other can be .*raise space.widths"),
        (NARROW, {"resolutions": [8, 12]}, r"gives \(100,\) outputs at 12 and \(36,\) at 8; leave"),
        (NAN, {}, "mine:other gives NaN or infinity on random inputs of 8"),
    ],
)
def test_what_cannot_be_a_space_is_refused_and_leaves_no_file(
    tmp_path, capsys, source, settings, reason
):
    assert _analyse(tmp_path, source, **settings) == 2
    assert re.search(reason, capsys.readouterr().err)
    assert not (tmp_path / "run" / "space.json").exists()


def test_what_the_users_code_prints_is_no_result(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(
        "space: {model: 'mine:loud', input: [1, 8, 8]}\ndata: {kind: none}"
    )
    assert hwnas("space", "analyse", tmp_path / "mine.yaml", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["origin"]["model"] == "mine:loud"
    assert "made" in err
    assert "ran" in err


def test_data_of_other_classes_are_refused_with_what_to_do(tmp_path, capsys):
    source = "def other():\n    net = Net()\n    net.head = nn.Linear(24, 7)\n    return net"
    assert _analyse(tmp_path, source) == 0
    assert hwnas("train", tmp_path / "mine.yaml") == 2
    told = capsys.readouterr().err
    assert "mine:other takes 1 channels and gives 7 classes, the data have 1 and 10; let it" in told


def test_without_a_model_there_is_nothing_to_analyse(tmp_path, capsys):
    (tmp_path / "hwnas.yaml").write_text("data: {kind: digits}")
    assert hwnas("space", "analyse", tmp_path / "hwnas.yaml") == 2
    assert "set space.model" in capsys.readouterr().err
    text = "data: {kind: digits}\nspace: {model: 'mine:build', input: [1, 8, 8]}"
    (tmp_path / "hwnas.yaml").write_text(text)
    assert hwnas("search", tmp_path / "hwnas.yaml") == 2
    assert "does not exist; run `hwnas" in capsys.readouterr().err
