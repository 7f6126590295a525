"""Small files of the system as text and numbers; None where there is none or none may be
read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Iterable, List, Optional


def text(path: Path) -> Optional[str]:
    """Content of a small file, without the space and the NUL at its end; None if it is empty."""
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    return content.strip().rstrip("\0") or None


def number(path: Path) -> Optional[int]:
    """The whole number that a file holds."""
    content = text(path)
    return int(content) if content is not None and re.fullmatch(r"-?\d+", content) else None


def numbers(paths: Iterable[Path]) -> List[int]:
    """The whole numbers of those files that hold one."""
    found = [number(path) for path in paths]
    return [n for n in found if n is not None]


def system_release(path: Path = Path("/etc/os-release")) -> Optional[str]:
    """Name and version of the operating system, as it calls itself."""
    lines = (text(path) or "").splitlines()
    fields = dict(line.partition("=")[::2] for line in lines)
    name = fields.get("PRETTY_NAME", "").strip().strip("\"'")
    return name or None


def is_emulated(program: Path = Path("/proc/thread-self/exe")) -> bool:
    """Whether an emulator (qemu's user mode) runs this process: its times are nobody's. Unlike
    /proc/self/exe, this link is not one of those that the emulator pretends.
    """
    try:
        return os.readlink(program).rpartition("/")[2].startswith("qemu-")
    except OSError:
        return False
