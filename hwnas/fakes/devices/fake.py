"""A device without hardware, so that all logic can be tested anywhere. Goes with runtime `fake`."""

from __future__ import annotations

from typing import Any

from profilers.devices import Device

MEMORY_BYTES = 1 << 30


def hardware() -> dict[str, Any]:
    """Constants."""
    return {
        "board": "modelled",
        "cpu": "modelled",
        "cpu_id": None,
        "cpu_features": [],
        "cores": 4096,  # threads change nothing here
        "cpus": "0-4095",
        "cpu_quota": None,
        "memory_bytes": MEMORY_BYTES,
        "machine": "modelled",
        "virtual": None,
        "gpu": None,
        "gpu_driver": None,
    }


def state() -> dict[str, Any]:
    """Constants; a modelled machine neither heats up nor has other work."""
    return {
        "governor": None,
        "clock_mhz": None,
        "temperature_c": None,
        "throttled": None,
        "load_average": None,
        "memory_free_bytes": MEMORY_BYTES,
        "power_mode": None,
        "clocks_locked": None,
        "gpu_clock_mhz": None,
    }


DEVICE = Device("fake", "modelled times, no hardware", hardware, state, modelled=True)
