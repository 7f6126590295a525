"""A worker on this machine: an isolated Python that imports numpy, the engine and nothing else."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hwnas.measuring import transport
from hwnas.measuring.connections import THIS_MACHINE
from hwnas.measuring.scratch import scratch
from hwnas.settings import fakes
from profilers import runtimes
from profilers.schema import Target

COMES_BACK = False  # a worker that ends here is no lost line
# The worker's program where a target names a fake: hwnas can be imported, nothing real is measured.
WITH_FAKES = """import os, sys
sys.path[:0] = {path!r}
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from hwnas.settings import fakes
from profilers.__main__ import main
fakes.provide()
sys.exit(main())"""


def queue(target: Target) -> str:
    """All local targets share one queue, whatever their names."""
    return THIS_MACHINE


def published(connection: Mapping[str, Any]) -> dict[str, Any]:
    """All of it: there is no address."""
    return {**connection, "kind": "local"}


def kept(target: Target) -> str:
    """Nothing: it is the user's own cache."""
    return ""


@contextlib.contextmanager
def open(target: Target) -> Iterator[transport.Connection]:
    """A connection to a worker that runs here."""
    with scratch("worker") as folder:
        yield transport.Connection(local_command(target, folder))


def _packages() -> Iterator[str]:
    """What engines need; a wheel's libraries may lie in a folder `<name>.libs` beside it."""
    yield "numpy"
    for name in runtimes.names():
        engine = runtimes.engine(name)
        yield from (engine.module, *engine.packages) if engine.module else ()


def local_command(target: Target, folder: Path) -> list[str]:
    """The command of a worker on this machine.

    It imports from a folder of links to the packages an engine needs, so that what is measured
    cannot depend on what else is installed, and the host's own packages cannot slip in.

    Args:
        target: whose plug-ins go along.
        folder: empty, kept until the worker ends.
    """
    packages = folder / "packages"
    packages.mkdir()
    for name in _packages():
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or []) if spec else []:
            for source in (Path(place), Path(place).with_name(f"{name}.libs")):
                if source.is_dir() and not (packages / source.name).exists():
                    (packages / source.name).symlink_to(source.resolve())
    archive = transport.pack_worker(folder / "worker.pyz", target.plugins)
    isolated = [sys.executable, "-I", "-S", "-B"]
    if fakes.named(target):
        path = [str(Path(__file__).parents[3]), str(archive), str(packages)]
        return [*isolated, "-c", WITH_FAKES.format(path=path), "serve"]
    return [*isolated, str(archive), "serve", "--packages", str(packages)]
