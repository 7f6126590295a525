"""The data in a few lines, before training: classes, sizes, splits, what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.images.listing import HIDDEN
from hwnas.run import accuracy

CLASSES = 12  # classes named with their counts; of more, only the least and the most
SIZES = 3  # that are named
FEW = 20  # training images of a class below which a warning says so
WIDE = 0.05  # difference of accuracies: a test set that cannot show it gives a warning


def lines(data: Mapping[str, Any]) -> list[str]:
    """What data.json says of the data, in words."""
    by_class, kind, n = data["images_by_class"], _kind(data), data["images"]
    counts = [sum(split) for split in zip(*by_class.values(), strict=True)]
    splits = ", ".join(
        f"{n[name]} {words}"
        for name, words in (("train", "to train on"), ("val", "for search"), ("test", "to test"))
    )
    found = [
        f"data: {sum(n.values()):,} {kind} in {classes(data['classes'], counts)}",
        f"data: {splits}",
    ]
    if "sizes" in data:
        found.append(f"data: {sizes(data['sizes'], data['size'], data['grey'])}")
    left = data.get("left_out") or {"n": 0}
    if left["n"]:
        found.append(f"data: left out {left_out(left)}")
    return found


def warnings(data: Mapping[str, Any]) -> list[str]:
    """What may be wrong with the data: skipped files, few images of a class, few test images, files
    that are left out by mistake.
    """
    found, kind = [], _kind(data)
    if skipped := data.get("skipped"):
        told = ", ".join(list(skipped)[:SIZES]) + (", ..." if len(skipped) > SIZES else "")
        found.append(f"{len(skipped)} file(s) cannot be read and are skipped: {told}")
    left = data.get("left_out") or {"n": 0}
    if meant := left["n"] - left.get("why", {}).get(HIDDEN, 0):
        told = ", ".join(left["examples"][: min(meant, SIZES)])
        found.append(
            f"{meant} file(s) are left out, not {kind} or in no folder of a class, for example "
            f"{told}; put what belongs to a class into its folder"
        )
    train = data["images_by_class"]["train"]
    small = [name for name, n in zip(data["classes"], train, strict=True) if n < FEW]
    if small:
        told = ", ".join(small[:SIZES]) + (", ..." if len(small) > SIZES else "")
        found.append(
            f"{len(small)} class(es) have fewer than {FEW} {kind} to train on ({told}): too few "
            "to learn from; add some"
        )
    n = data["images"]["test"]
    if (least := accuracy.least_difference(n)) > WIDE:
        found.append(
            f"with {n} test {kind}, two accuracies near {accuracy.USUAL:.0%} must differ by about "
            f"{100 * least:.0f} points to be told apart (95 %); a larger data.test shows smaller "
            "differences"
        )
    return found


def _kind(data: Mapping[str, Any]) -> str:
    return "series" if data.get("preparation") == "series" else "images"


def classes(names: Sequence[str], counts: Sequence[int]) -> str:
    """Classes with how many images each has."""
    if len(names) > CLASSES:
        return f"{len(names)} classes of {min(counts):,} to {max(counts):,}"
    told = ", ".join(f"{name} {n:,}" for name, n in zip(names, counts, strict=True))
    return f"{len(names)} classes: {told}"


def sizes(found: Sequence[Sequence[int]], size: int, grey: int) -> str:
    """Sizes of images, and how many are grey.

    Args:
        found: (width, height, how many), px.
        size: that they are cut to, px.
        grey: how many are grey.
    """
    total = sum(n for _, _, n in found)
    if len(found) > SIZES:
        sides = [sorted(each[axis] for each in found) for axis in (0, 1)]
        told = " x ".join(f"{side[0]} to {side[-1]}" for side in sides)
        told += f" px, of {len(found)} sizes"
    else:
        often = sorted(found, key=lambda each: -each[2])
        told = ", ".join(f"{w} x {h} px ({n:,})" for w, h, n in often)
    cut = "" if [tuple(each[:2]) for each in found] == [(size, size)] else f", cut to {size} px"
    mixed = f"{grey:,} grey, {total - grey:,} in colour, all read as colour"
    colours = "grey" if grey == total else "in colour" if not grey else mixed
    return f"{told}{cut}; {colours}"


def left_out(left: Mapping[str, Any]) -> str:
    """How many files are left out, and why."""
    why = ", ".join(f"{n} {reason}" for reason, n in left["why"].items())
    return f"{left['n']:,} files: {why}"
