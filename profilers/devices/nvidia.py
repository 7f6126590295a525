"""A machine with an NVIDIA card: probes of the host; clock, heat and throttling of the card.

Asks NVML (libnvidia-ml, part of the driver) about GPU 0. Source: NVML API Reference Guide,
"NvmlClocksEventReasons", "nvmlPerfPolicyType_t". A Jetson is not one of these: its module has
probes of its own.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, Dict, List, Optional

from profilers.devices import Device, host

LIBRARY = "libnvidia-ml.so.1"
CLOCK_SM, TEMPERATURE_GPU = 1, 0  # nvmlClockType_t, nvmlTemperatureSensors_t
REASONS = {  # bits; idle clocks (0x1) and clocks that the user set (0x2) hold nothing back
    0x4: "power-cap",
    0x8: "slowdown",
    0x20: "thermal-cap",
    0x40: "thermal-slowdown",
    0x80: "power-brake",
}
# nvmlPerfPolicyType_t: the time that the card was held below its clocks, since the driver came up
POLICIES = {0: "power-cap", 1: "thermal-cap"}
NS_PER_MS = 1_000_000
REASON_CALLS = (  # the first one since driver 535, the older name stays
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)


def state(root: Path = host.ROOT, library: Optional[Any] = None) -> Dict[str, Any]:
    """The host's state, with `gpu_clock_mhz`, `temperature_c` and `throttled` of the card.

    Args:
        root: of the file system.
        library: NVML, started; None: the driver's.
    """
    found = host.state(root)
    nvml = library if library is not None else start()
    if nvml is None:
        return found
    gpu = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(gpu)):
        return found
    celsius = _value(nvml, "nvmlDeviceGetTemperature", gpu, ctypes.c_uint(TEMPERATURE_GPU))
    mhz = _value(nvml, "nvmlDeviceGetClockInfo", gpu, ctypes.c_uint(CLOCK_SM))
    before = found["throttled"] or {"now": [], "since_boot": [], "events": {}}
    found["temperature_c"] = found["temperature_c"] if celsius is None else float(celsius)
    found["gpu_clock_mhz"] = None if mhz is None else float(mhz)
    found["throttled"] = {
        **before,
        "now": [*before["now"], *_reasons(nvml, gpu)],
        "events": {**before["events"], **_held_ms(nvml, gpu)},
    }
    return found


class Violation(ctypes.Structure):
    """nvmlViolationTime_t."""

    _fields_ = [("reference_us", ctypes.c_ulonglong), ("violation_ns", ctypes.c_ulonglong)]


@functools.lru_cache(maxsize=1)
def start() -> Optional[Any]:
    """The driver's NVML, started once for this process; None where there is none."""
    try:
        library = ctypes.CDLL(LIBRARY)
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None


def _reasons(nvml: Any, gpu: ctypes.c_void_p) -> List[str]:
    """What holds the card's clocks down now, in words."""
    for name in REASON_CALLS:
        value = ctypes.c_ulonglong()
        call = getattr(nvml, name, None)
        if call is not None and not call(gpu, ctypes.byref(value)):
            return [word for bit, word in REASONS.items() if value.value & bit]
    return []


def _held_ms(nvml: Any, gpu: ctypes.c_void_p) -> Dict[str, int]:
    """ms that the card was held back so far, by word; what it does not count is left out."""
    call = getattr(nvml, "nvmlDeviceGetViolationStatus", None)
    found = {}
    for policy, word in POLICIES.items():
        value = Violation()
        if call is not None and not call(gpu, ctypes.c_uint(policy), ctypes.byref(value)):
            found[word] = value.violation_ns // NS_PER_MS
    return found


def _value(nvml: Any, name: str, *arguments: Any) -> Optional[int]:
    """A number from NVML; None if this card does not report it."""
    value = ctypes.c_uint()
    return None if getattr(nvml, name)(*arguments, ctypes.byref(value)) else value.value


DEVICE = Device("nvidia", "a machine with an NVIDIA card", host.hardware, state)
