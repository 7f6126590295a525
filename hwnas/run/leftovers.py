"""What a run folder keeps although the settings no longer ask for it, until `hwnas gc`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from hwnas.run.context import Context
from profilers.errors import ConfigError


@dataclass(frozen=True)
class Leftover:
    """A package, or a file of weights that another one replaced."""

    path: Path
    size_bytes: int


def leftovers(context: Context) -> list[Leftover]:
    """Packages that are set aside or of targets that the settings lack, supernets and checkpoints
    that others replaced. Tables and measurements are none: they are dear.
    """
    root, wanted = context.run.root, set(context.config.targets)
    found = [*root.glob("aside/*/*/"), *root.glob("*.old.safetensors")]
    found += [path for path in root.glob("packages/*/*/") if path.parent.name not in wanted]
    return [Leftover(path, _size_bytes(path)) for path in sorted(found)]


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def remove(found: Leftover) -> None:
    """Remove one.

    Raises:
        ConfigError: that cannot be done.
    """
    try:
        if found.path.is_dir():
            shutil.rmtree(found.path)
        else:
            found.path.unlink()
    except OSError as error:
        raise ConfigError(f"{found.path} cannot be removed: {error.strerror}") from error


def in_words(found: list[Leftover]) -> str:
    """How much there is, in one line."""
    size_mb = sum(each.size_bytes for each in found) / 1e6
    return f"{len(found)} packages and files that nothing asks for any more, {size_mb:.1f} MB"
