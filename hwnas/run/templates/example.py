"""Run the network of this package on files. Needs numpy and its engine, for images Pillow.

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
from hwnas.tasks.classification import told
from profilers.runtimes.ort_cpu import Deployed

FOLDER = pathlib.Path(__file__).resolve().parent
MANIFEST: Any = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def prepare(path):
    """Network input of a file, float32."""
    given = MANIFEST["input"]
    return network_input(read(path, given), given["mean"], given["std"], given["size"])


def main(arguments):
    """Say what each file shows; the exit code is 1 if one cannot be read."""
    how = f"{read.__doc__} {told.__doc__}"
    parser = argparse.ArgumentParser(description=__doc__, epilog=how)
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
    size = MANIFEST["input"]["source_size"]
    for path, logits in zip(paths, outputs(inputs)):  # noqa: B905 -- Python 3.8 runs it too
        print(f"{path}: {told(path, logits, MANIFEST['classes'], size, given.top)}")
    return int(len(paths) < len(given.files))


def outputs(inputs):
    """Logits of each input, in order."""
    driven = {**MANIFEST["target"], "built": MANIFEST.get("built")}
    model = Deployed(str(FOLDER / MANIFEST["model"]), driven)
    batch = model.batch
    for start in range(0, len(inputs), batch):
        part = np.stack(inputs[start : start + batch])
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.float32)])
        yield from model.run(padded)[: len(part)]


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    sys.exit(main(sys.argv[1:]))
