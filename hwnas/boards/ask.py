"""Ask a machine what it is and has, here or over SSH, without writing anything there.

First the shell (it answers where Python is missing or too old), then the board's Python, then each
engine in a process of its own, because importing one may end it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwnas.boards import catalog, replies, script
from hwnas.boards.catalog import Family
from hwnas.measuring import openssh, transport
from hwnas.measuring.openssh import Ssh
from profilers.errors import DeviceError, printable

LOCAL = "local"
LOOK_S, SURVEY_S, ENGINE_S = 30.0, 90.0, 180.0  # an emulated or loaded board is slow
Tell = Callable[[str, float], None]
SIGNALS = 128  # a shell adds this to the signal that ended a command


@dataclass(frozen=True)
class Board:
    """What a machine answered.

    Attributes:
        way: how it is reached; None: it is this machine.
        family: as recognised.
        survey: what `profilers.survey.survey` says, checked.
        engines: of each engine that is installed, what `profilers.survey.engine` says, checked.
        chatter: what its login shell prints before anything that was asked; empty if nothing.
    """

    way: Ssh | None
    family: Family
    survey: dict[str, Any]
    engines: dict[str, dict[str, Any]]
    chatter: str

    @property
    def address(self) -> str:
        """As the user gives it."""
        return self.way.address if self.way else LOCAL


def ask(way: Ssh | None, tell: Tell = lambda text, share: None) -> Board:
    """Ask a machine.

    Args:
        way: how it is reached; None: this machine.
        tell: called with what is asked now and about what share of it all is done, 0 to 1.

    Raises:
        ConfigError: the way is not allowed.
        DeviceError: it cannot be reached, is no Linux, its Python is missing or too old, or what it
            answers is not an answer.
    """
    tell("its shell", 0.0)
    seen, chatter = _look(way)
    family = catalog.recognise(seen["model"], seen["machine"])
    _check_system(seen, family, _where(way))
    _check_python(seen, family, way)
    tell("its Python", 0.2)
    modules = list(catalog.modules())
    words = ["survey", way.cache if way else "", *modules]
    survey = replies.survey(_python(way, words, SURVEY_S), _where(way))
    engines = {}
    for name in modules:
        if survey["modules"].get(name, False):
            tell(name, 0.5)
            engines[name] = _engine(way, name)
    family = catalog.recognise(survey["board"], survey["machine"])  # as its Python sees it
    return Board(way, family, survey, engines, chatter)


def _where(way: Ssh | None) -> str:
    return way.address if way else "this machine"


def _command(way: Ssh | None) -> str:
    return way.python if way else sys.executable


def run_words(
    way: Ssh | None, words: list[str], given: bytes, wait_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a command here or on a board; its result, whatever its exit status."""
    if way is not None:
        return openssh.run_remote(way.address, words, way.config, given, wait_s)
    try:
        return subprocess.run(words, input=given, capture_output=True, timeout=wait_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"this machine: {words[0]} cannot be asked: {error}") from None


# ---- the shell ---------------------------------------------------------------------------------


def _look(way: Ssh | None) -> tuple[dict[str, str], str]:
    """What the shell says, by name, and what else was printed before it."""
    done = run_words(way, ["sh", "-s", "--", _command(way)], script.SHELL, LOOK_S)
    text = done.stdout.decode("utf-8", errors="replace")
    seen = dict.fromkeys(("system", "machine", "model", "l4t", "python", "other"), "")
    for name, value in re.findall(r"^hwnas:(\w+)=(.*)$", text, re.MULTILINE):
        if name in seen:
            seen[name] = printable(value)
    if not seen["system"]:
        said = printable((done.stderr or done.stdout).decode("utf-8", errors="replace"), 80)
        raise DeviceError(
            f"{_where(way)} has no POSIX shell that answers ({said!r}); boards need Linux with sh"
        )
    return seen, printable(text.partition("hwnas:")[0].strip(), 80)


def _check_system(seen: dict[str, str], family: Family, where: str) -> None:
    if seen["system"] != "Linux":
        raise DeviceError(f"{where} runs {seen['system']}; only Linux is supported as a target")
    if seen["machine"] not in catalog.WHEEL_MACHINES:
        raise DeviceError(
            f"{where} ({family.title}) runs a system for {seen['machine']}; inference engines come "
            f"for {' and '.join(catalog.WHEEL_MACHINES)} only: install a 64-bit system if the "
            "processor has 64 bits (Raspberry Pi 3 and newer)"
        )


def _check_python(seen: dict[str, str], family: Family, way: Ssh | None) -> None:
    """Refuse a Python that is missing or too old, with what to do."""
    where, command, found = _where(way), _command(way), catalog.version_of(seen["python"])
    other = ""
    if seen["other"] and seen["other"] != command:
        other = f"{seen['other']} is there: add --python {seen['other']}"
    if not re.fullmatch(r"\d+\.\d+\.\d+", seen["python"]):
        fix = other or "sudo apt-get install python3 python3-venv"
        raise DeviceError(f"{where} has no {command} that runs ({seen['python']}); {fix}")
    if found >= catalog.PYTHON_FLOOR:
        return
    old = f"{where} ({family.title}): Python {seen['python']} is too old, 3.8 or newer is needed"
    if catalog.jetpack(seen["l4t"]) == "4":
        if family.first_jetpack_only:
            advice = "there is no newer JetPack than 4 for this board, so it cannot be a target"
        else:
            advice = "install JetPack 5 or newer, which has Python 3.8 and TensorRT 8.5"
        raise DeviceError(f"{old}: {advice}{'; ' + other if other else ''}")
    raise DeviceError(f"{old}; {other or 'install a newer one and name it with --python'}")


# ---- its Python --------------------------------------------------------------------------------


def _python(way: Ssh | None, words: list[str], wait_s: float) -> bytes:
    """What the survey prints.

    Raises:
        DeviceError: it ended with an error, whose last line is in the message.
    """
    done = run_words(way, [_command(way), "-u", "-", *words], script.program(), wait_s)
    if done.returncode:
        raise DeviceError(f"{_where(way)}: {_ending(done)}")
    return done.stdout


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    """How a Python ended that should not have, in one line."""
    number = -done.returncode if done.returncode < 0 else done.returncode - SIGNALS
    if number in {each.value for each in signal.Signals}:
        return f"Python was ended {transport.by_signal(number)}"
    lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
    return f"Python ended with status {done.returncode}: {printable(lines[-1] if lines else '')}"


def _engine(way: Ssh | None, name: str) -> dict[str, Any]:
    """What an engine says of itself, or why it does not."""
    try:
        found = replies.engine(_python(way, ["engine", name], ENGINE_S), _where(way))
    except DeviceError as error:
        return {"name": name, "version": None, "providers": [], "problem": str(error)}
    return found
