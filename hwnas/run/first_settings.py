"""Settings for a folder of images, with a comment on each: a start that fits what was seen."""

from __future__ import annotations

import json
from dataclasses import dataclass

import yaml

from hwnas.images.survey import Survey
from hwnas.networks import spaces
from hwnas.run import summary

PASSES = 60_000  # of images through training: some 4 minutes on 2 cores at 28 to 64 px
EPOCHS = (10, 200)  # least and most
BATCHES = (8, 64)  # likewise
STEPS = 10  # of an epoch, at least, while the batch is not the smallest
SPACES = ((18, "tiny"), (40, "mbv3-28"), (1 << 30, "mbv3-64"))  # up to which side, px
LARGE = 100  # px: photos of this side and more lose much at 64 px


@dataclass(frozen=True)
class First:
    """Settings that fit a folder.

    Attributes:
        space: its name.
        size: px that images are cut to.
        epochs: of training.
        batch: images of one step.
        augment: of `data.augment`.
    """

    space: str
    size: int
    epochs: int
    batch: int
    augment: str


def fitting(found: Survey) -> First:
    """The settings that fit a folder of images."""
    name = next(name for most, name in SPACES if found.side <= most)
    offered = spaces.load(name).profiled
    n = max(1, round(0.68 * found.n) if len(found.parts) == 1 else found.parts["train"])
    epochs = min(max(PASSES // n, EPOCHS[0]), EPOCHS[1])
    batch = BATCHES[1]
    while batch > BATCHES[0] and n < STEPS * batch:
        batch //= 2
    augment = "shift" if found.seen.grey == found.n else "flip"
    return First(name, max(offered), epochs, batch, augment)


def text(found: Survey, root: str, run: str) -> str:
    """hwnas.yaml for a folder of images.

    Args:
        found: what the folder holds.
        root: the folder, from where the settings file lies.
        run: the run folder, likewise.
    """
    chosen = fitting(found)
    counts = summary.classes(list(found.classes), list(found.classes.values()))
    sizes = [(w, h, n) for (w, h), n in found.seen.sizes.items()]
    head = [
        "# Settings of one run. Every field: docs/configuration.md; any of them can be set on the",
        "# command line too: --set train.epochs=20",
        f"# Seen: {found.n:,} images in {counts}",
        f"#       {summary.sizes(sizes, chosen.size, found.seen.grey)}",
    ]
    left = found.left_out
    if left.n:
        head.append(f"#       left out: {summary.left_out(left._asdict())}")
    rows = [(f"run: {as_yaml(run)}", "everything made goes here"), ("", "")]
    rows += [*_data(found, chosen, root), ("", ""), *_training(found, chosen), ("", ""), *_SHIPPED]
    lines = [*head, *map(_line, *zip(*rows, strict=True))]
    return "\n".join(" ".join(line.splitlines()) for line in lines) + "\n"


_SHIPPED = (
    ("targets:", "what you ship to: <device>.<runtime>.<precision>.b<batch>.t<threads>"),
    ("  - host.ort-cpu.fp32.b1.t1", "this machine, an image at a time, one thread"),
    ("search:", ""),
    ("  objectives: [error, latency_ms]", "the front: networks that no other beats in both"),
    ("pick:", "packages to make of each target's front"),
    ("  - {rule: best}", "the most accurate network"),
    ("  - {rule: knee}", "where more time buys little accuracy"),
    ("  - {budget: {latency_ms: 60%}}", "the best in 60 % of the largest network's time"),
    ("check: {max_gap: 10%}", "predicted and measured latency may differ by this much"),
)


def _data(found: Survey, chosen: First, root: str) -> list[tuple[str, str]]:
    """The part `data`: lines and their comments."""
    side, own = found.side, len(found.parts) > 1
    rows = [
        ("data:", ""),
        ("  kind: image_folder", "a folder of images for each class"),
        (f"  root: {as_yaml(root)}", "from where this file lies"),
        (
            f"  image_size: {chosen.size}",
            f"px; the largest that {chosen.space} takes; shorter sides are {side} px (median)",
        ),
        ("  validation: 0.15", "share of the training images that search may see"),
        ("  test: 0.2", "share for the test" + (", where there is no test folder" if own else "")),
        (
            f"  augment: {chosen.augment}",
            "random shift; grey images may be signs, which a mirror would change"
            if chosen.augment == "shift"
            else "random shift and mirror; shift alone if left and right differ",
        ),
    ]
    broken = found.seen.skipped
    if broken:
        told = ", ".join(list(broken)[:3]) + (", ..." if len(broken) > 3 else "")
        rows.append(("  skip_broken: true", f"{len(broken)} cannot be read: {told}"))
    return rows


def _training(found: Survey, chosen: First) -> list[tuple[str, str]]:
    """The parts `space`, `train` and `accuracy`: lines and their comments."""
    space = spaces.load(chosen.space).for_data(3, len(found.classes))
    sizes = space.restricted(space.profiled).size
    n = len(space.profiled)
    offered = f"{sizes:,} networks at {', '.join(map(str, space.profiled))} px"
    if found.side >= LARGE:
        offered += "; with a GPU ofa-mbv3-w10 (128 px and more)"
    return [
        (f"space: {{name: {chosen.space}}}", offered),
        ("train:", ""),
        (f"  epochs: {chosen.epochs}", f"about {PASSES:,} images; more is better, and longer")
        if EPOCHS[0] < chosen.epochs < EPOCHS[1]
        else (f"  epochs: {chosen.epochs}", "passes over the images; more is better, and longer"),
        (f"  batch_size: {chosen.batch}", "images of one step"),
        ("accuracy: {measure: 150}", "networks measured to predict the accuracy of all others"),
        ("profile: {budget_s: 30}", f"seconds of timing at each of {n} sizes; 60 is more reliable"),
    ]


def _line(setting: str, comment: str) -> str:
    if not comment:
        return setting
    return f"{setting:<36}# {comment}" if len(setting) < 36 else f"{setting}  # {comment}"


def as_yaml(value: str) -> str:
    """A text as YAML: plain where it is only letters and what paths are made of."""
    plain = value.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    is_text = plain.isalpha() and value.isascii() and yaml.safe_load(value) == value  # not `no`
    return value if is_text else json.dumps(value, ensure_ascii=False)
