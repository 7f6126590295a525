"""Errors a caller of hwnas or of the worker may catch, each with its exit code (docs/formats.md,
"Exit codes").

Every message says what was given, what is allowed and what to do next, in one line.
"""

from __future__ import annotations

from typing import Tuple

MOST = 1000  # characters of a message; a damaged file may hold any text


def clean(text: str) -> str:
    """Text as one line in which nothing is left that a terminal would obey."""
    line = " ".join(text.splitlines())
    if line.isprintable():
        return line
    shown = (c if c.isprintable() else " " if c.isspace() else "?" for c in line)
    return "".join(shown)


def printable(text: str, most: int = 160) -> str:
    """Clean text with single spaces, cut to a length."""
    shown = " ".join(clean(text).split())
    return shown if len(shown) <= most else shown[: most - 1] + "…"


class HwnasError(Exception):
    """Base of every expected error: shown as one line on stderr, ends with `exit_code`."""

    exit_code = 1

    def __str__(self) -> str:
        """The message as one clean line of bounded length."""
        text = clean(super().__str__())
        return text if len(text) <= MOST else f"{text[: MOST // 2]} ... {text[-MOST // 2 :]}"


class ConfigError(HwnasError, ValueError):
    """A setting, an argument or a file given by the user is wrong, missing, truncated or of another
    kind.
    """

    exit_code = 2


class FileFormatError(ConfigError):
    """A file is truncated, edited or of another kind."""


class ModelError(ConfigError):
    """The engine can never load or run this model: it is not tried again."""


class MissingKernelError(ModelError):
    """The engine lacks an op of a model, in its types; another engine or precision may have it."""

    exit_code = 4


class InfeasibleError(HwnasError):
    """A budget or a floor cannot be met; the message holds the smallest reachable value."""

    exit_code = 3


class MissedBudgetError(InfeasibleError):
    """A package was measured past its budget by more than the noise."""


class ExhaustedError(InfeasibleError):
    """Every network that a budget allows was measured over it.

    Attributes:
        networks: target and id of each.
    """

    def __init__(self, text: str, networks: Tuple[Tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.networks = networks


class DeviceError(HwnasError):
    """The device cannot be reached, the worker ended, or measuring failed."""

    exit_code = 4


class LostDeviceError(DeviceError):
    """The line to the device was cut or never stood, or the worker there ended; trying again may
    help.
    """


class MemoryShortError(DeviceError):
    """Memory was short, of the machine or of its GPU: with fewer models open, or later, the same
    may go well.
    """


class DeviceFaultError(LostDeviceError):
    """The device failed and works again in a new process only; that may help."""


class DeviceBusyError(DeviceError):
    """Another campaign holds the device; the message says which."""


class RuntimeMissingError(DeviceError):
    """The inference engine of a target is not installed there."""


class EngineCrashError(DeviceError):
    """The engine ended the worker's process, or lost the device, while it was busy with one model.

    Attributes:
        item: the model; empty where it is not known.
        profiling: whether its node times were being taken, not itself opened.
        code: this class, or DeviceFaultError: then the model need not be the reason.
    """

    def __init__(self, text: str, item: str = "", profiling: bool = False, code: str = "") -> None:
        super().__init__(text)
        self.item, self.profiling = item, profiling
        self.code = code or type(self).__name__


class MeterError(DeviceError):
    """The meter of a target cannot be read, or reads nonsense: energy is unknown."""


class UnstableMeasurementError(DeviceError):
    """The budget was spent before enough undisturbed rounds were seen; no table can be made."""


class DiskFullError(DeviceError):
    """A file could not be written because the disk is full."""


class TableError(HwnasError):
    """A table is unreliable, stale, or was made for something else."""

    exit_code = 5


class MissingOpError(TableError):
    """A table lacks an op of the space."""


class TableFormatError(FileFormatError):
    """A table file is truncated, edited or of another kind."""


class VerificationError(HwnasError):
    """An exported package differs from its network: what it computes, or a hash."""

    exit_code = 6
