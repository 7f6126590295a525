"""The tutorial and docs/own-model.md: every command runs as it stands, with settings made small."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from ssh_server import need_sshd, server

DOCS = Path(__file__).parent.parent / "docs"
MYNET = """
from torch import nn


class MyNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 4), nn.BatchNorm2d(32), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(
            nn.Conv2d(32, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU()
        )
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.down(x + self.branch(x)).mean((2, 3)))


"""
SMALL = {
    "accuracy": {"measure": 8, "training_free": 0, "bn_images": 32},
    "profile": {"budget_s": 30, "heldout": 5, "rounds": 6},
    "search": {"population": 8, "generations": 3},
    "pick": [{"rule": "best"}],
}
ONCE = {"epochs": 1, "threads": 1}
TINY = {"space": {"name": "tiny", "resolutions": [8]}, "train": ONCE}
ACCEPT = "unreliable,gap,budget,untimed"  # what a busy machine must not decide here


def fenced(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(page):
    """(prompt, command) in the order of a page: `$` is typed here, `pi$` on the board."""
    return [
        found.groups()
        for block in fenced(page, "console")
        for found in re.finditer(r"^(pi)?\$ (.*)$", block, re.MULTILINE)
    ]


def section(number):
    parts = re.split(r"^## ", (DOCS / "tutorial.md").read_text(encoding="utf-8"), flags=re.M)
    return next(part for part in parts if part.startswith(f"{number}. "))


def photos(root, classes, each=14, colour="RGB"):
    digits = load_digits()
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for n, k in enumerate((digits.target == label).nonzero()[0][:each]):
            image = Image.fromarray((digits.images[k] * 15.9).astype("uint8")).convert(colour)
            image.resize((16, 16)).save(root / name / f"{n:04}.jpg")


class Shell:
    """A shell in a folder, with `hwnas` on its path, that makes all settings there small."""

    def __init__(self, folder, **changes):
        self.folder, self.tools = folder, folder / "tools"
        self.changes = {**SMALL, **changes}
        self.tools.mkdir()
        self.tool("python", f'exec {sys.executable} "$@"')
        hwnas = f"exec {sys.executable} -m hwnas"
        noisy = f'case "$1" in run|profile) {hwnas} "$@" --accept {ACCEPT};; esac'
        self.tool("hwnas", f'{noisy}\n{hwnas} "$@"')
        root = str(DOCS.parent)
        self.environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        self.environment["PIP_NO_INDEX"] = "1"
        self.environment["PATH"] = f"{self.tools}:{os.environ['PATH']}"
        self.small = set()

    def tool(self, name, script):
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def __call__(self, command, **how):
        ended = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False,
            **{"cwd": self.folder, "env": self.environment, **how},
        )  # fmt: skip
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        self.shrink()
        return ended.stdout

    def shrink(self):
        for path in set(self.folder.glob("*.yaml")) - self.small:
            self.small.add(path)
            settings = yaml.safe_load(path.read_text())
            for part, change in self.changes.items():
                known = settings.get(part, {})
                settings[part] = {**known, **change} if isinstance(change, dict) else change
            path.write_text(yaml.safe_dump(settings))


@contextlib.contextmanager
def board(folder, shell):
    """`pi@raspberrypi.local` for a shell: a real SSH server with a home folder of its own."""
    home = folder / "home"
    home.mkdir()
    packages = Path(onnxruntime.__file__).parents[1]  # stand in for the index that pip would ask
    shell.tool(
        "python3",
        f'{sys.executable} "$@" || exit\n[ "$2" = venv ] || exit 0\n'
        f'echo {packages} > "$(echo hwnas-env/lib/python3*/site-packages)/index.pth"',
    )
    with server(folder / "ssh", home=home) as config:
        text = config.read_text().replace("Host board-*", "Host raspberrypi.local")
        config.write_text(text)
        user = re.search(r"User (\S+)", text)[1]
        shell.tool("ssh", f'exec {shutil.which("ssh")} -F {config} -l {user} "$@"')
        yield home


@pytest.mark.slow
def test_photos_become_packages_and_a_pipeline_keeps_their_numbers(tmp_path):
    photos(tmp_path / "photos", ("bags", "boots", "shirts"))
    shell = Shell(tmp_path, **TINY)
    for number in (1, 4):
        for _, command in commands(section(number)):
            shell(command)


@pytest.mark.slow
def test_a_torch_model_becomes_packages(tmp_path):
    page = (DOCS / "own-model.md").read_text(encoding="utf-8")
    for part in ("train", "val"):
        photos(tmp_path / "photos" / part, "0123456789", each=8)
    (tmp_path / "model.py").write_text(MYNET + fenced(page, "python")[0])
    shell = Shell(tmp_path, space={"input": [3, 32, 32], "resolutions": [32]}, finetune=ONCE)
    shell("python -c 'import torch, model; torch.save(model.build().state_dict(), \"best.pt\")'")
    (tmp_path / "hwnas.yaml").write_text(fenced(page, "yaml")[0])
    shell.shrink()
    for _, command in commands(page):
        shell(command)


@pytest.mark.slow
def test_a_board_out_of_the_box_gets_its_table(tmp_path):
    need_sshd()
    shell = Shell(tmp_path, **TINY)
    with board(tmp_path, shell) as home:
        for place, command in commands(section(2)):
            shell(command, cwd=home if place else tmp_path)
