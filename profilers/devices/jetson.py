"""NVIDIA Jetson Xavier and Orin: the host's probes, the power mode and the GPU's clock.

Reads what `nvpmodel` and `jetson_clocks` set, not the tools themselves: they want root. Source:
Jetson Linux Developer Guide, "Platform Power and Performance".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Optional

from profilers.devices import Device, host
from profilers.sysfs import number, text

STATUS = "var/lib/nvpmodel/status"  # "pmode:0002 fmode:quiet", kept over a reboot
MODES = "etc/nvpmodel.conf"  # "< POWER_MODEL ID=0 NAME=MAXN >"
# 17000000.gv11b (Xavier), .ga10b (Orin, JetPack 5), .gpu (Orin, JetPack 6)
GPU = ("sys/class/devfreq/*.g*/cur_freq", "sys/devices/gpu.0/devfreq/*/cur_freq")


def state(root: Path = host.ROOT) -> Dict[str, Any]:
    """The host's state with `power_mode` (number and name) and `gpu_clock_mhz`."""
    found = {**host.state(root), "power_mode": power_mode(root), "gpu_clock_mhz": gpu_mhz(root)}
    if found["clocks_locked"]:
        found["clocks_locked"] = _gpu_locked(root) is not False
    return found


def power_mode(root: Path) -> Optional[str]:
    """Number and name of the power mode that nvpmodel set last, such as `2 15W`."""
    match = re.search(r"pmode:(\d+)", text(root / STATUS) or "")
    if match is None:
        return None
    mode = int(match.group(1))
    names = dict(
        re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text(root / MODES) or "")
    )
    return f"{mode} {names[str(mode)]}" if str(mode) in names else str(mode)


def gpu_mhz(root: Path) -> Optional[float]:
    """Clock of the GPU, MHz."""
    folder = _gpu(root)
    hertz = number(folder / "cur_freq") if folder else None
    return hertz / 1e6 if hertz is not None else None


def _gpu_locked(root: Path) -> Optional[bool]:
    folder = _gpu(root)
    low, high = (number(folder / f"{end}_freq") if folder else None for end in ("min", "max"))
    return None if low is None or high is None else low == high


def _gpu(root: Path) -> Optional[Path]:
    for pattern in GPU:
        for path in sorted(root.glob(pattern)):
            return path.parent
    return None


DEVICE = Device("jetson", "NVIDIA Jetson Xavier or Orin", host.hardware, state)
