"""Classify files with this package. Needs numpy and its engine, for images Pillow.

Files become inputs as in the evaluation that manifest.json reports.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np

from hwnas.images.network_input import network_input
from hwnas.run.templates.read_image import read
from profilers.runtimes.ort_cpu import Deployed

FOLDER = pathlib.Path(__file__).resolve().parent
MANIFEST: Any = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def prepare(path):
    """Network input of a file, float32."""
    given = MANIFEST["input"]
    return network_input(read(path, given), given["mean"], given["std"], given["size"])


def main(arguments):
    """Print the most likely classes of each file; the exit code is 1 if one cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=read.__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--top", type=int, default=1, metavar="N", help="how many classes to print")
    given = parser.parse_args(arguments)
    if given.top < 1:
        parser.error("--top must be at least 1")
    paths, inputs = [], []
    for path in given.files:
        try:
            inputs.append(prepare(path))
            paths.append(path)
        except ValueError as error:
            print(error, file=sys.stderr)
    for path, odds in zip(paths, probabilities(inputs)):  # noqa: B905 -- Python 3.8 runs it too
        best = np.argsort(-odds, kind="stable")[: given.top]
        print(f"{path}: " + ", ".join(f"{MANIFEST['classes'][k]} ({odds[k]:.1%})" for k in best))
    return int(len(paths) < len(given.files))


def probabilities(inputs):
    """Probabilities (classes,) of each input, in order."""
    driven = {**MANIFEST["target"], "built": MANIFEST.get("built")}
    model = Deployed(str(FOLDER / MANIFEST["model"]), driven)
    batch = model.batch
    for start in range(0, len(inputs), batch):
        part = np.stack(inputs[start : start + batch])
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.float32)])
        logits = model.run(padded)[: len(part)]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        yield from odds / odds.sum(1, keepdims=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    sys.exit(main(sys.argv[1:]))
