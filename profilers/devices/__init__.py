"""Devices by name: one file each, which defines `DEVICE`. A name is its file's name with `_`
written `-`; a name with a colon, `module:NAME`, is a Device of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List

from profilers.errors import ConfigError
from profilers.plugins import load_part, names_in


@dataclass(frozen=True)
class Device:
    """Hardware and its probes. A probe reports what it cannot know as None, never as a guess.

    Attributes:
        name: as in a target's name.
        summary: what it is, for people.
        hardware: what does not change between campaigns (`board`, `cpu`, `cpu_id`, `cpu_features`,
            `cores` and `cpus` that may be used, `cpu_quota`, `memory_bytes`, `machine`, `virtual`,
            `gpu`, `gpu_driver`); most of it enters the environment's fingerprint.
        state: what does change (`governor`, `clock_mhz`, `temperature_c`, `throttled`,
            `load_average`, `memory_free_bytes`, `power_mode`, `clocks_locked`, `gpu_clock_mhz`);
            cheap, read before and after every round.
        modelled: there is no hardware that others could disturb.
    """

    name: str
    summary: str
    hardware: Callable[[], Dict[str, Any]]
    state: Callable[[], Dict[str, Any]]
    modelled: bool = False


def names() -> List[str]:
    """The devices that come with hwnas."""
    return names_in(__path__)


def load(name: str) -> Device:
    """The device of a name, or of the user's own `module:NAME`.

    Raises:
        ConfigError: no such device (the message holds the nearest name), or it is no Device.
    """
    part = load_part(name, __name__, __path__, "device")
    device = part if ":" in name else part.DEVICE
    if not isinstance(device, Device):
        raise ConfigError(f"device {name!r} is no profilers.devices.Device")
    return device
