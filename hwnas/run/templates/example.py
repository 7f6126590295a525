"""Classify with this package: `python example.py FILE [FILE ...]` (numpy and its engine).

Files become inputs as in the evaluation that manifest.json reports.
"""

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


def main(paths):
    """Print the class of each file and its probability."""
    model = Deployed(str(FOLDER / MANIFEST["model"]), MANIFEST["target"]["threads"])
    batch = model.batch
    inputs = np.stack([prepare(path) for path in paths])
    for start in range(0, len(inputs), batch):
        part = inputs[start : start + batch]
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.float32)])
        logits = model.run(padded)[: len(part)]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        for n, row in enumerate(odds):
            print(f"{paths[start + n]}: {MANIFEST['classes'][row.argmax()]} ({row.max():.1%})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"{__doc__}\n{read.__doc__}")
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
