"""Versions of the software that decides what a stage makes: packages, and our own code."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

from hwnas.settings import shipped
from profilers import __version__

_PARTS = {"hwnas": Path(__file__).parents[1], "profilers": shipped.folder("profilers")}
_NO_RESULT = ("_top", "report", "commands", "boards", "cli.py", "api.py")  # of hwnas/
_ALSO = {"onnxruntime": "onnxruntime-gpu"}  # the same module from another package


def of(*names: str) -> dict[str, str]:
    """Versions of our own code and of installed packages, by name."""
    return {"hwnas": code(), **{name: _installed(name) for name in names}}


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
    for known in (name, _ALSO.get(name)):
        try:
            return metadata.version(known) if known else "none"
        except metadata.PackageNotFoundError:
            continue
    return "none"
