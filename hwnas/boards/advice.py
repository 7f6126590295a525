"""What a board has and lacks for measuring, each with the command that fixes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hwnas.boards import catalog
from hwnas.boards.ask import Board
from hwnas.boards.doctor import Finding
from hwnas.measuring import cpus
from hwnas.measuring.connections.ssh import CLOCK_FROM
from hwnas.settings.targets import REFERENCE
from profilers.runtimes import Engine

MEMORY_BYTES, DISK_BYTES = 512 << 20, 1 << 30  # of a campaign: models in memory; kit and weights
HOT_C = 75.0  # a Raspberry Pi starts to lower its clock at 80, a Jetson between 80 and 99
ENVIRONMENT = "hwnas-env"  # virtual environment on the board, below the home folder
METER_FIXES = {
    ("rapl", "no permission"): "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj "
    "(until the next boot; it lets every user watch the processor's power)",
    ("pi5-pmic", "no permission"): 'sudo usermod -aG video "$USER", then log in again',
    ("pi5-pmic", "no vcgencmd"): "sudo apt-get install raspi-utils",
    ("nvml", "no permission"): 'sudo usermod -aG video "$USER", then log in again',
    ("hwmon", "no permission"): "sudo chmod a+r /sys/class/hwmon/hwmon*/*_input (until next boot)",
}


def findings(board: Board) -> list[Finding]:
    """Everything that was looked at; `needed` where no target works without it."""
    return [
        *_system(board),
        *_engines(board),
        *_room(board),
        *_clocks(board),
        *_heat(board),
        *_meters(board),
    ]


def _system(board: Board) -> Iterator[Finding]:
    survey = board.survey
    l4t, pack = survey["l4t"], catalog.jetpack(survey["l4t"])
    release = f", Jetson Linux {l4t}" + (f" (JetPack {pack})" if pack else "") if l4t else ""
    model = survey["board"] or survey["cpu"] or survey["machine"]
    yield Finding("board", True, f"{model}, {survey['os'] or survey['kernel']}{release}")
    bits = survey["bits"] == 64
    fix = "install the 64-bit system: engines come for 64 bits only"
    yield Finding("python", bits, f"{survey['python']}, {survey['bits']} bits", "" if bits else fix)
    if survey["emulated"]:
        fix = "tables of an emulated processor are used only with --accept emulated"
        yield Finding("processor", False, "emulated: its times mean nothing", fix, needed=False)
    if survey["time_s"] < CLOCK_FROM.timestamp():
        fix = "set it there: sudo timedatectl set-ntp true"
        yield Finding("clock", False, f"is before {CLOCK_FROM:%Y-%m-%d}", fix)
    if board.chatter:
        fix = "keep its login shell silent where it is not interactive (see ~/.bashrc there)"
        yield Finding("login shell", False, f"prints {board.chatter!r}", fix)


def _engines(board: Board) -> Iterator[Finding]:
    has_numpy = board.survey["modules"].get("numpy", False)
    install = _pip(board, catalog.engines()[REFERENCE])
    yield Finding("numpy", has_numpy, _there(has_numpy), "" if has_numpy else install)
    modules = catalog.modules()
    for name, engine in modules.items():
        others = [other for other in modules.values() if other is not engine]
        first = name == catalog.engines()[REFERENCE].module
        needed = first and not any(usable(board, other) for other in others)
        if name in board.engines or needed or ((first or engine.gpu) and _has_gpu(board)):
            yield _engine(board, engine, needed)
    for engine in catalog.engines().values():
        if engine.provider and _has_gpu(board) and usable(board, engine):
            there = has_provider(board, engine)
            fix = "" if there else _install(board, engine)
            yield Finding(f"{engine.module} on the GPU", there, _there(there), fix, False)


def _engine(board: Board, engine: Engine, needed: bool) -> Finding:
    name, found, install = engine.module, board.engines.get(engine.module), _install(board, engine)
    if found is None:
        return Finding(name, False, "not installed", install, needed)
    if found["problem"]:
        fix = f"install it again: {install}"
        return Finding(name, False, f"cannot be imported: {found['problem']}", fix, needed)
    if catalog.version_of(found["version"]) < engine.floor:
        state = f"{found['version']}, {'.'.join(map(str, engine.floor))} or newer is needed"
        return Finding(name, False, state, install, needed)
    providers = [each.removesuffix("ExecutionProvider") for each in found["providers"]]
    return Finding(name, True, ", ".join([found["version"], *providers]), needed=needed)


def usable(board: Board, engine: Engine) -> bool:
    """Whether an engine can be imported and is new enough."""
    found = board.engines.get(engine.module)
    if found is None or found["problem"]:
        return False
    return catalog.version_of(found["version"]) >= engine.floor


def has_provider(board: Board, engine: Engine) -> bool:
    """Whether an engine that can be imported was built with what a runtime needs."""
    return not engine.provider or engine.provider in board.engines[engine.module]["providers"]


def _pip(board: Board, engine: Engine) -> str:
    """The command that installs the newest version that the board's Python supports."""
    survey = board.survey
    python = catalog.version_of(survey["python"])
    wanted = f"numpy {catalog.requirement(engine, python)}"
    command = board.way.python if board.way else "python3"
    if not survey["pip"]:
        return (
            f"sudo apt-get install python3-pip python3-venv, then {command} -m pip install {wanted}"
        )
    if survey["managed"] and not survey["environment"]:  # Debian 12 and newer refuse pip there
        again = f"hwnas devices add {board.address} --python {ENVIRONMENT}/bin/python"
        make = f"{command} -m venv --system-site-packages {ENVIRONMENT}"
        return f"on it: {make} && {ENVIRONMENT}/bin/pip install {wanted}; here: {again}"
    upgrade = ""
    if python < (3, 10):  # the pip that came with it does not know the wheels' platform tags
        upgrade = f"{command} -m pip install --upgrade pip && "
    return f"on it: {upgrade}{command} -m pip install {wanted}"


def _has_gpu(board: Board) -> bool:
    cards = any(meter["name"] == "nvml" for meter in board.survey["meters"])
    return cards or board.survey["hardware"] == "jetson"


def _install(board: Board, engine: Engine) -> str:
    """The command that installs an engine."""
    if not engine.gpu:
        return _pip(board, engine)
    if board.survey["hardware"] != "jetson" or not engine.jetson:
        command = board.way.python if board.way else "python3"
        return f"on it: {command} -m pip install {engine.pip} (NVIDIA GPU and driver needed)"
    if board.survey["environment"] and engine.of_system:
        return (
            f"make the virtual environment with --system-site-packages: {engine.title} is the "
            "system's"
        )
    return f"on it: {engine.jetson}"


def _there(found: bool) -> str:
    return "installed" if found else "not installed"


def _room(board: Board) -> Iterator[Finding]:
    survey = board.survey
    if survey["cpu_quota"] is not None:
        fix = "targets with threads for these only; a container's limit of CPU time sets the quota"
        yield Finding("cpus", True, cpus.in_words(survey), fix, needed=False)
    free, total = survey["memory_free_bytes"], survey["memory_bytes"]
    if free is not None:
        enough = free >= MEMORY_BYTES
        state = f"{_size(free)} of {_size(total)} free"
        fix = "" if enough else "stop other programs, or boot without the desktop"
        yield Finding("memory", enough, state, fix, needed=False)
    if survey["disk_problem"]:
        where = board.way.kept if board.way else "~/.cache/hwnas-worker"
        fix = "name a folder that may be written: --cache /tmp/hwnas"
        yield Finding("cache folder", False, f"{where} {survey['disk_problem']}", fix)
        return
    enough = survey["disk_free_bytes"] >= DISK_BYTES
    fix = f"free {_size(DISK_BYTES)}, or name a folder on another disk: --cache FOLDER"
    yield Finding("disk", enough, f"{_size(survey['disk_free_bytes'])} free", "" if enough else fix)


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / (1 << 30):.1f} GiB"


def _clocks(board: Board) -> Iterator[Finding]:
    survey = board.survey
    jetson = survey["hardware"] == "jetson"
    if survey["governor"]:
        steady = bool(survey["governor"] == "performance" or survey["clocks_locked"])
        clock = f", {survey['clock_mhz']:.0f} MHz" if survey["clock_mhz"] else ""
        locked = ", clocks locked" if survey["clocks_locked"] else ""
        fix = (
            "on it, until the next boot: sudo jetson_clocks"
            if jetson
            else "on it, until the next boot: echo performance | sudo tee "
            "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
        state = f"governor {survey['governor']}{clock}{locked}"
        yield Finding("clocks", steady, state, "" if steady else fix, needed=False)
    if jetson:
        known = survey["power_mode"] is not None
        state = survey["power_mode"] or "unknown"
        fix = "on it: sudo nvpmodel -q names it, sudo nvpmodel -m NUMBER sets it (part of a table)"
        yield Finding("power mode", known, state, "" if known else fix, needed=False)


def _heat(board: Board) -> Iterator[Finding]:
    celsius, held = board.survey["temperature_c"], board.survey["throttled"]
    if celsius is not None:
        cool = celsius < HOT_C
        fix = "" if cool else "cool it: a fan or a heat sink; let it rest before measuring"
        yield Finding("temperature", cool, f"{celsius:.0f} °C", fix, needed=False)
    if held is not None:
        yield _throttling(held)


def _throttling(held: dict[str, Any]) -> Finding:
    now, before = held["now"], held["since_boot"]
    events = [f"{count} × {word}" for word, count in sorted(held["events"].items()) if count]
    parts = [", ".join(now) + " now"] if now else ["nothing slows it down now"]
    past = [*before, *events]
    if past:
        parts.append(f"since boot: {', '.join(past)}")
    fix = ""
    if {"under-voltage", "average-over-current"} & {*now, *before}:
        fix = "use the board's own power supply and a short cable"
    elif now:
        fix = "cool it, and wait until nothing slows it down"
    return Finding("throttling", not now, "; ".join(parts), fix, needed=False)


def _meters(board: Board) -> Iterator[Finding]:
    found = board.survey["meters"]
    for meter in found:
        state = f"{meter['problem'] or 'would work'} ({meter['detail']})"
        fix = METER_FIXES.get((meter["name"], meter["problem"]), "")
        yield Finding(f"meter {meter['name']}", not meter["problem"], state, fix, needed=False)
    if not found:
        fix = "an external meter: meter csv or command in the target file"
        yield Finding("meters", False, "none on it: energy stays unknown", fix, needed=False)
