"""Versions of the software that decides what a stage makes: packages, and our own code."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from importlib import metadata
from pathlib import Path

from hwnas.settings import shipped
from hwnas.settings.targets import REFERENCE
from profilers import __version__, runtimes
from profilers.runtimes import MODEL

_PARTS = {"hwnas": Path(__file__).parents[1], "profilers": shipped.folder("profilers")}
_NO_RESULT = ("_top", "report", "commands", "boards", "cli.py", "api.py")  # of hwnas/
ENGINE = runtimes.engine(REFERENCE).pip  # of the engine that outputs are compared with


def of(*names: str) -> dict[str, str]:
    """Versions of our own code and of installed packages, by name."""
    return {"hwnas": code(), **{name: _installed(name) for name in names}}


def of_models(runtime: str) -> dict[str, str]:
    """Versions of the software that decides the files of a runtime's packages."""
    engine = runtimes.engine(runtime)
    return of("torch", "onnx", *([engine.pip] if engine.file != MODEL else []))


@functools.lru_cache(maxsize=1)
def code() -> str:
    """Version of hwnas and a hash of its sources, but for those that only show results."""
    digest = hashlib.sha256()
    for part, folder in _PARTS.items():
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder)
            if part != "hwnas" or name.parts[0] not in _NO_RESULT:
                digest.update(f"{part}/{name.as_posix()}\0".encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def _installed(name: str) -> str:
    """Of a package, or of another one that brings the same engine: `onnxruntime-gpu`."""
    engines = [runtimes.engine(each) for each in runtimes.names()]
    modules = {engine.module for engine in engines if engine.pip == name}
    for known in (name, *(each.pip.split()[0] for each in engines if each.module in modules)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(known)
    return "none"
