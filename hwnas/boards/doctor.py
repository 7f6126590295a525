"""What can be trained, profiled and shipped here, and what is missing with the command that fixes
it.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from hwnas.boards import catalog
from hwnas.settings.targets import REFERENCE

DISTRIBUTION = "hwnas-optimizer"  # ours; the import name is `hwnas`
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class Finding(NamedTuple):
    """One thing that was looked at; fix is empty where nothing is to do."""

    what: str
    ok: bool
    state: str
    fix: str = ""
    needed: bool = True


def findings() -> list[Finding]:
    """Everything that was looked at, in the order a run needs it."""
    reference = catalog.engines()[REFERENCE].pip
    return [
        _python(),
        _owner(),
        *(_package(name) for name in ("torch", "onnx", reference, "scikit-learn", "moocore")),
        _data(),
        _boards(),
        *(_engine(name) for name in catalog.engines()),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "python",
        sys.version_info >= (3, 10),
        version,
        "" if sys.version_info >= (3, 10) else "use 3.10+",
    )


def _owner() -> Finding:
    """Another distribution may own the import name `hwnas` and shadow this one."""
    owners = importlib.metadata.packages_distributions().get("hwnas", [])
    strangers = sorted(set(owners) - {DISTRIBUTION})
    if strangers:
        fix = f"pip uninstall {' '.join(strangers)}, then install this project again"
        return Finding("import name hwnas", False, f"also owned by {', '.join(strangers)}", fix)
    return Finding("import name hwnas", True, "this project's")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install {name}")


def _data() -> Finding:
    if (FASHION_MNIST / "train-images-idx3-ubyte.gz").exists():
        return Finding("Fashion-MNIST", True, str(FASHION_MNIST), needed=False)
    fix = "sudo apt-get install dataset-fashion-mnist"
    return Finding("Fashion-MNIST", False, f"not in {FASHION_MNIST}", fix, needed=False)


def _boards() -> Finding:
    if shutil.which("ssh"):
        return Finding("ssh, for boards", True, "installed", needed=False)
    fix = "sudo apt-get install openssh-client"
    return Finding("ssh, for boards", False, "not installed", fix, needed=False)


def _engine(runtime: str) -> Finding:
    """Whether the worker starts here with an engine: its version, or what is missing."""
    from hwnas.measuring import cpus, remote
    from profilers.errors import HwnasError
    from profilers.schema import Target

    target, needed = Target("host", runtime), runtime == REFERENCE
    what = f"engine {runtime}"
    try:
        environment = remote.probe(target)
    except HwnasError as error:
        state, _, fix = str(error).partition("; ")
        return Finding(what, False, state, fix or "see the message", needed)
    room = f", threads for {cpus.in_words(environment)}" if needed else ""
    where = f" on {environment.get('cpu') or 'unknown CPU'}{room}" if needed else ""
    return Finding(what, True, f"{environment['engine_version']}{where}, {target.name}", "", needed)
