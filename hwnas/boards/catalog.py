"""Boards by what they call themselves, and what their software allows. Sources: docs/devices.md."""

from __future__ import annotations

import re
from typing import NamedTuple

from profilers import runtimes
from profilers.runtimes import Engine

PYTHON_FLOOR = (3, 8)
WHEEL_MACHINES = ("aarch64", "x86_64")
JETPACK = {32: "4", 34: "5", 35: "5", 36: "6", 38: "7", 39: "7"}  # by release of Jetson Linux


class Family(NamedTuple):
    """Boards that are handled alike.

    Attributes:
        name: of a device of this family, if the user gives no other.
        title: for people.
        sign: what its device-tree model holds.
        first_jetpack_only: its last JetPack is 4, whose Python and TensorRT are too old.
    """

    name: str
    title: str
    sign: str
    first_jetpack_only: bool = False


FAMILIES = (  # the first whose sign is found counts
    Family("pi5", "Raspberry Pi 5", r"Raspberry Pi (?:5|500|Compute Module 5)\b"),
    Family("pi4", "Raspberry Pi 4", r"Raspberry Pi (?:4|400|Compute Module 4)\b"),
    Family("pi3", "Raspberry Pi 3", r"Raspberry Pi (?:3|Zero 2|Compute Module 3)\b"),
    Family("pi", "Raspberry Pi older than 3", r"Raspberry Pi\b"),
    Family("agx-orin", "Jetson AGX Orin", r"Jetson AGX Orin\b"),
    Family("orin-nx", "Jetson Orin NX", r"Orin NX\b"),
    Family("orin-nano", "Jetson Orin Nano", r"Orin Nano\b"),
    Family("agx-xavier", "Jetson AGX Xavier", r"AGX Xavier\b|Jetson-AGX\b"),
    Family("xavier-nx", "Jetson Xavier NX", r"Xavier NX\b"),
    Family("thor", "Jetson Thor", r"\bThor\b"),
    Family("tx2", "Jetson TX2", r"\bTX2\b|quill", True),
    Family("jetson-nano", "Jetson Nano", r"Jetson Nano\b|\bTX1\b", True),
    Family("jetson", "Jetson", r"Jetson"),
)
OTHERS = {  # by machine
    "aarch64": Family("arm64", "aarch64 Linux", ""),
    "x86_64": Family("x86-64", "x86-64 Linux", ""),
}


def recognise(model: str | None, machine: str) -> Family:
    """The family of a board.

    Args:
        model: as the device tree calls it; None or empty where there is none.
        machine: of the processor, as `uname -m` says it.
    """
    for family in FAMILIES:
        if model and re.search(family.sign, model):
            return family
    plain = re.sub(r"[^A-Za-z0-9]+", "-", machine).strip("-") or "board"
    return OTHERS.get(machine, Family(plain, f"{machine} Linux", ""))


def jetpack(l4t: str | None) -> str | None:
    """JetPack of a release of Jetson Linux (`36.4.0`, `# R36 (release), …`), its first number; None
    where unknown.
    """
    match = re.search(r"\d+", l4t or "")
    return JETPACK.get(int(match.group()[:4])) if match else None


def version_of(text: str | None) -> tuple[int, ...]:
    """The first two parts of a version, as numbers; () if it has none."""
    match = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(match.group(1)), int(match.group(2))) if match else ()


def engines() -> dict[str, Engine]:
    """What is known of each runtime's engine that runs on a device, the CPU's first."""
    known = {name: runtimes.engine(name) for name in runtimes.names()}
    real = {name: engine for name, engine in known.items() if not engine.modelled}
    return dict(sorted(real.items(), key=lambda entry: entry[1].gpu))


def modules() -> dict[str, Engine]:
    """The same by what Python imports, once for runtimes of one engine."""
    found: dict[str, Engine] = {}
    for engine in engines().values():
        found.setdefault(engine.module, engine)
    return found


def requirement(engine: Engine, python: tuple[int, ...]) -> str:
    """What pip should install for a Python."""
    version = engine.newest.get((python[0], python[1])) if len(python) >= 2 else None
    return f"{engine.pip}=={version}" if version else engine.pip
