"""Wrong settings and folders as people make them, and what must be said of each."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hwnas import cli

RIGHT = """run: run
data: {kind: image_folder, root: photos, image_size: 8}
space: {name: tiny, resolutions: [8]}
train: {epochs: 1}
accuracy: {measure: 8}
targets: [fake.fake.fp32.b1.t1]
pick: [{rule: best}]
"""


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        name: what is wrong.
        change: of the right settings: a text in them and its replacement; or the whole file.
        key: that must be named; empty where there is none.
        says: a pattern: the nearest name, or what to do.
        line: of the file, that must be named; 0: none.
        folder: makes the photos; None: right ones.
        words: of the command line behind the settings.
    """

    name: str
    change: tuple[str, str] | bytes = ("", "")
    key: str = ""
    says: str = ""
    line: int = 0
    folder: Callable[[Path], object] | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tried:
    """What came of a case: what was said, and what of it is not as it must be."""

    name: str
    said: str
    faults: tuple[str, ...]
    traceback: bool

    @property
    def good(self) -> bool:
        """Whether it was refused as it must be."""
        return not self.faults


def tried(folder: Path, step: int = 1) -> list[Tried]:
    """Every case, or each of so many, in folders of their own."""
    cases = [*SETTINGS, *FOLDERS, *LINES][::step]
    return [_try(case, folder / f"case-{n}") for n, case in enumerate(cases)]


def _try(case: Case, folder: Path) -> Tried:
    folder.mkdir()
    (case.folder or photos)(folder / "photos")
    config = folder / "hwnas.yaml"
    if isinstance(case.change, bytes):
        config.write_bytes(case.change)
    else:
        old, new = case.change
        assert old in RIGHT, f"{case.name}: {old!r} is not in the settings"
        config.write_text(RIGHT.replace(old, new) if old else RIGHT + new)
    out, err = io.StringIO(), io.StringIO()
    words = ["run", str(config), "--accept", "emulated", *case.words]
    raised, code = "", 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException as error:  # what a user would see as a traceback
            raised = repr(error)
    text = out.getvalue() + err.getvalue()
    said = [line for line in text.splitlines() if line.startswith("hwnas: ")]
    faults = _faults(case, said, code, folder)
    if re.search("started|trained", text.replace("profile", "")) and "train: started" in text:
        faults.append("training had started")
    traceback = bool(raised) or "Traceback" in text or "internal error" in text
    shown = (said or [raised or "nothing"])[0].replace(f"{folder}/", "")
    return Tried(case.name, shown, tuple(faults), traceback)


def _faults(case: Case, said: Sequence[str], code: int, folder: Path) -> list[str]:
    """What of a refusal is not as it must be."""
    line = said[0] if said else ""
    place = re.escape(f"{folder / 'hwnas.yaml'}, line {case.line}: ")
    wanted = {
        "one line": len(said) == 1,
        "exit code 2": code == 2,
        f"line {case.line}": not case.line or re.match(f"hwnas: (data: )?{place}", line),
        f"key {case.key}": case.key in line,
        f"says {case.says}": re.search(case.says, line),
        "nothing made": not list(folder.glob("run/*.json")) and not list(folder.glob("run/*.s*")),
    }
    return [name for name, holds in wanted.items() if not holds]


# ---- folders -------------------------------------------------------------------------------------


def photos(root: Path, classes: Sequence[str] = ("cat", "dog"), n: int = 6, **how: object) -> None:
    """Right ones: a folder of small images for each class."""
    for k, name in enumerate(classes):
        for number in range(n):
            image(root / name / f"{number}.jpg", k + number, **how)  # type: ignore[arg-type]


def image(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> None:
    """A small coloured image, whatever the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")


def _and(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(root: Path) -> None:
        for step in steps:
            step(root)

    return make


def _file(name: str, content: bytes = b"") -> Callable[[Path], object]:
    def make(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return make


def _deep(root: Path) -> None:
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(root / "cat" / "deep.png")


def _plain(root: Path) -> None:
    for path in root.rglob("*.jpg"):
        Image.new("RGB", (1, 1)).save(path)


def _cut(root: Path) -> None:
    (root / "cat" / "cut.jpg").write_bytes((root / "cat" / "0.jpg").read_bytes()[:300])


def _only(name: str) -> Callable[[Path], object]:
    return lambda root: photos(root / name)


ROOT, IN = "data.root", "did you mean "
FOLDERS = [
    Case("a folder that is not there", ("photos", "fotos"), ROOT, IN + "'photos'", 2),
    Case("a file in place of the folder", key=ROOT, says="expected a folder", line=2,
         folder=lambda root: root.write_bytes(b"")),
    Case("an empty folder", key=ROOT, says="one folder of images for each class", line=2,
         folder=lambda root: root.mkdir()),
    Case("images without class folders", key=ROOT, says="one folder of images for each class",
         line=2, folder=lambda root: image(root / "1.jpg")),
    Case("a single class", key=ROOT, says="expected at least 2 classes; add", line=2,
         folder=lambda root: photos(root, ("cat",))),
    Case("an image a class", key=ROOT, says="too few images .* add images", line=2,
         folder=lambda root: photos(root, n=1)),
    Case("two images of a class", key=ROOT, says="'dog' has too few images .* add images", line=2,
         folder=_and(photos, lambda r: [p.unlink() for p in sorted((r / "dog").iterdir())[2:]])),
    Case("a class of no images", key=ROOT, says="new holds no image; known: .*.jpg", line=2,
         folder=_and(photos, _file("new/a.heic"))),
    Case("a class folder in Latin-1", key=ROOT, says=r"caf\\xe9 is not UTF-8; rename it", line=2,
         folder=lambda root: photos(root, ("cat", "caf\udce9"))),
    Case("parts under other names", key=ROOT, says="called train, test, val.*rename", line=2,
         folder=_only("Training")),
    Case("test images of a class that training lacks", key=ROOT, line=2,
         says="class 'bird' has no training images; classes: cat, dog",
         folder=_and(_only("train"), lambda r: photos(r / "test", ("bird", "cat", "dog")))),
    Case("a test folder without classes", key=ROOT, line=2, says="one folder of images for each",
         folder=_and(_only("train"), lambda r: (r / "test").mkdir())),
    Case("an image that is cut off", key=ROOT, says="cut.jpg.*truncated.*replace or remove", line=2,
         folder=_and(photos, _cut)),
    Case("three files that are no images", key=ROOT, line=2,
         says="3 of 15 images cannot be read: cat/a.jpg, cat/b.jpg, dog/c.jpg.*skip_broken: true",
         folder=_and(photos, *(_file(f"{n}.jpg") for n in ("cat/a", "cat/b", "dog/c")))),
    Case("16 bits a channel", key=ROOT, says="save it with 8 bits", line=2,
         folder=_and(photos, _deep)),
    Case("class folders one folder deeper", key=ROOT, line=2,
         says="photos/photos are the classes, name that", folder=_only("photos")),
    Case("images of one colour", key=ROOT, says="one colour, so nothing can be learned", line=2,
         folder=_and(photos, _plain)),
    Case("a home folder", ("photos", "~/photos"), ROOT, "~ and .HOME are not expanded", 2),
    Case("images of several sizes", (", image_size: 8", ""), ROOT, "set data.image_size", 2,
         folder=_and(photos, lambda root: image(root / "cat" / "big.jpg", 0, (20, 20)))),
    Case("images that are not square", (", image_size: 8", ""), ROOT, "data.image_size", 2),
]  # fmt: skip

# ---- settings ------------------------------------------------------------------------------------

SETTINGS = [
    Case("a part misspelt", ("train:", "trian:"), "trian", IN + "'train'", 4),
    Case("a key misspelt", ("epochs", "epoch"), "train.epoch", IN + "'epochs'", 4),
    Case("a key of data misspelt", ("image_size", "imagesize"), "data.imagesize",
         IN + "'image_size'", 2),
    Case("a key of another part", ("measure: 8", "epochs: 8"), "accuracy.epochs",
         "known: .*measure", 5),
    Case("a kind of data misspelt", ("image_folder", "imagefolder"), "data.kind",
         IN + "'image_folder'", 2),
    Case("no data", ("data: {kind: image_folder, root: photos, image_size: 8}\n", ""), "data",
         "write `data: .kind: image_folder"),
    Case("no kind of data", ("kind: image_folder, ", ""), "data", "write `data: .kind: ima", 2),
    Case("a text in place of a number", ("epochs: 1", "epochs: many"), "train.epochs",
         "must be a whole number .given: 'many'", 4),
    Case("nothing in place of a number", ("epochs: 1", "epochs: "), "train.epochs",
         "must be a whole number .given: nothing", 4),
    Case("half an epoch", ("epochs: 1", "epochs: 1.5"), "train.epochs", "whole number", 4),
    Case("no epoch", ("epochs: 1", "epochs: 0"), "train.epochs", "greater than or equal to 1", 4),
    Case("yes in place of a number", ("epochs: 1", "epochs: yes"), "epochs", "must be a number", 4),
    Case("a batch of one", ("epochs: 1", "batch_size: 1"), "train.batch_size",
         "greater than or equal to 2", 4),
    Case("a negative rate", ("epochs: 1", "learning_rate: -1"), "learning_rate",
         "greater than 0", 4),
    Case("a space misspelt", ("tiny", "tinny"), "space.name", IN + "'tiny'", 3),
    Case("an underscore for a hyphen", ("tiny, resolutions: [8]", "mbv3_28"), "space.name",
         IN + "'mbv3-28'", 3),
    Case("a resolution that is not offered", ("[8]", "[9]"), "space.resolutions", "8, 10, 12", 3),
    Case("one resolution, no list", ("[8]", "8"), "space.resolutions", "must be a list", 3),
    Case("a text among numbers", ("[8]", "[8, big]"), "space.resolutions.1", "whole number", 3),
    Case("one target, no list", ("[fake.fake.fp32.b1.t1]", "fake.fake.fp32.b1.t1"), "targets",
         "must be a list", 6),
    Case("no target", ("[fake.fake.fp32.b1.t1]", "[]"), "targets", "list of 1 or more", 6),
    Case("an engine misspelt", ("fake.fake.fp32", "host.ort-cpv.fp32"), "targets.0",
         IN + "'ort-cpu'", 6),
    Case("a target twice", ("t1]", "t1, fake.fake.fp32.b1.t1]"), "targets", "name each target once",
         6),
    Case("a board without its file", ("fake.fake", "pi5.ort-cpu"), "targets.0",
         "`hwnas devices add` writes one", 6),
    Case("a precision that is not there", ("fake.fake.fp32", "host.ort-cpu.fp64"), "targets.0",
         "fp32", 6),
    Case("a batch of none", ("fp32.b1", "fp32.b0"), "targets.0", "b0|batch", 6),
    Case("a device alone", ("fake.fake.fp32.b1.t1", "host"), "targets.0",
         "like host|devices add", 6),
    Case("a searcher misspelt", ("", "search: {algorithm: nsga3}"), "search.algorithm",
         IN + "'nsga2'", 8),
    Case("a metric misspelt", ("", "search: {objectives: [error, latency]}"),
         "search.objectives.1", IN + "'latency_ms'", 8),
    Case("one objective", ("", "search: {objectives: [error]}"), "search.objectives",
         "list of 2 or more", 8),
    Case("more than all", ("", "search: {budgets: {latency_ms: 160%}}"), "search.budgets",
         "at most 100%", 8),
    Case("a budget in words", ("", "search:\n  budgets:\n    latency_ms: fast"), "latency_ms",
         "neither a number nor a share like 60%", 10),
    Case("a budget with its unit", ("", "search: {budgets: {latency_ms: 5 ms}}"), "search.budgets",
         "write the number alone, in the unit of its name", 8),
    Case("a budget with a comma", ("", "search: {budgets: {latency_ms: '4,5'}}"), "search.budgets",
         "write 4.5", 8),
    Case("a budget below zero", ("", "search: {budgets: {latency_ms: -5%}}"), "search.budgets",
         "not a positive number|neither a number", 8),
    Case("a budget of a metric misspelt", ("", "search: {budgets: {latency: 5}}"),
         "search.budgets", IN + "'latency_ms'", 8),
    Case("a rule misspelt", ("rule: best", "rule: bset"), "pick.0.rule", IN + "'best'", 7),
    Case("a pick of nothing", ("{rule: best}", "{}"), "pick.0", "either a budget or a rule", 7),
    Case("a pick of both", ("{rule: best", "{rule: best, budget: {macs: 60%}"), "pick.0",
         "either a budget or a rule", 7),
    Case("a pick, no list", ("[{rule: best}]", "{rule: best}"), "pick", "must be a list", 7),
    Case("two packages of a name", ("{rule: best}", "{rule: best}, {rule: knee, name: best}"),
         "pick", "give one another name", 7),
    Case("a pick for another target", ("rule: best", "rule: best, target: fake.fake.b1.t1"),
         "pick.0.target",
         IN + "'fake.fake.fp32.b1.t1'", 7),
    Case("energy without a meter", ("rule: best", "budget: {energy_mj: 5}"), "energy_mj",
         "name a meter in targets/"),
    Case("a gap of ten", ("", "check: {max_gap: 10}"), "check.max_gap", "in percent .10%.", 8),
    Case("an accuracy in percent", ("", "check: {min_accuracy: 95}"), "check.min_accuracy",
         "less than or equal to 1", 8),
    Case("no image to validate on", ("measure: 8", "images: 0"), "accuracy.images",
         "greater than or equal to 1", 5),
    Case("a predictor misspelt", ("measure: 8", "predictor: ridgee"), "accuracy.predictor",
         IN + "'ridge'", 5),
    Case("no validation", ("image_size: 8", "image_size: 8, validation: 0"), "data.validation",
         "greater than 0", 2),
    Case("an augmentation that is not there", ("image_size: 8", "augment: rotate"), "data.augment",
         "known: crop, flip, none, shift", 2),
    Case("digits with a folder", ("image_folder", "digits"), "data",
         "name the kind of 'photos'", 2),
    Case("streamed and cut", ("image_size: 8", "image_size: 8, stream: true"), "data",
         "leave image_size out", 2),
    Case("streamed and skipping", ("image_size: 8", "stream: true, skip_broken: true"), "data",
         "skip_broken needs an image_folder that is held", 2),
    Case("a file for the run folder", ("run: run", "run: hwnas.yaml"), "run",
         "hwnas.yaml is a file, expected a folder", 1),
    Case("a run among the images", ("run: run", "run: photos/run"), "run",
         "lies in data.root.*name another folder", 1),
    Case("no run folder", ("run: run", "run:"), "run", "text that is not empty", 1),
    Case("a scheduler by http", ("", "cluster: http://a:8786"), "cluster", "tcp", 8),
]  # fmt: skip

# ---- files and command lines ---------------------------------------------------------------------

LINES = [
    Case("a key twice", ("", "run: again"), "'run'", "lines 1 and 8; keep one"),
    Case("a tab", b"run: run\ndata:\n\tkind: digits\n", says="not YAML.*write `key: value`",
         line=3),
    Case("two documents", ("", "---\nrun: again"), says="more than one.*delete the line `---`",
         line=8),
    Case("a key twice in a line", ("epochs: 1", "epochs: 1, epochs: 2"), "'epochs'",
         "twice on line 4; keep one"),
    Case("a Windows path in quotes", ("photos", '"C:\\photos"'), says="in single quotes", line=2),
    Case("not a text", b"PK\x03\x04\x00\x00", says="not a text file"),
    Case("a bracket left open", b"run: run\ntargets: [a\npick: []\n", says="write `key: value`",
         line=2),
    Case("no colon", b"run: run\ntrain epochs 3\n", says="write `key: value`", line=2),
    Case("a list", b"- run\n- data\n", says="expected keys and values", line=1),
    Case("Latin-1", b"train: {}\nrun: caf\xe9\n", says="save the file as UTF-8", line=2),
    Case("an empty file", b"", "data", "write `data: .kind: image_folder"),
    Case("no equals sign", key="train.epochs", says="--set train.epochs: give key.sub=value",
         words=("--set", "train.epochs")),
    Case("a key of --set misspelt", key="train.epoch", says=IN + "'epochs'",
         words=("--set", "train.epoch=3")),
    Case("a value of --set out of bounds", key="train.epochs",
         says="--set train.epochs=0: .*equal to 1", words=("--set", "train.epochs=0")),
    Case("a word of --accept misspelt", key="--accept", says=IN + "'unreliable'",
         words=("--accept", "unreliabel")),
    Case("an option misspelt", key="--targets", says="--target", words=("--targets", "a")),
    Case("another target by name", key="--target", says="host.*fake|targets/",
         words=("--target", "nowhere")),
]  # fmt: skip
