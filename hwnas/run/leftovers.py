"""What a run folder keeps although the settings no longer ask for it, until `hwnas gc`."""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from hwnas.run import package
from hwnas.run.context import Context
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import read_json

_REPLACED = re.compile(r"(?:supernet|train\.checkpoint)\.\d+\.old\.safetensors")


@dataclass(frozen=True)
class Leftover:
    """A package, or a file of weights that another one replaced."""

    path: Path
    size_bytes: int


def leftovers(context: Context) -> list[Leftover]:
    """Packages that were set aside, or whose targets are no longer in the settings; replaced
    supernets and checkpoints. Never tables and measurements, because they cost device time.
    """
    root, wanted = context.run.root, set(context.config.targets)
    found = [path for path in root.glob("*.old.safetensors") if _REPLACED.fullmatch(path.name)]
    others = [path for path in root.glob("packages/*/*/") if path.parent.name not in wanted]
    found += filter(is_package, (*root.glob("aside/*/*/"), *others))
    return [Leftover(path, _size_bytes(path)) for path in sorted(found)]


def is_package(folder: Path) -> bool:
    """Whether a folder holds a package, whole or not, of this version or an older one."""
    with contextlib.suppress(FileFormatError):
        told = read_json(folder / package.MANIFEST)
        return isinstance(told, dict) and str(told.get("format")).startswith("hwnas-package-")
    return False


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
