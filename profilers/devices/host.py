"""The machine the worker runs on, as Linux describes it under /proc and /sys.

Reads no host name, address, user or serial number. Every function takes the root of the file
system, so that recorded trees can stand in for it.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

from profilers import throttling
from profilers.cpus import affinity, cpu_quota
from profilers.devices import Device
from profilers.sysfs import number, text

ROOT = Path("/")
# Instruction sets that inference engines choose kernels by; everything else is left out.
FEATURES = (
    *("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
# Arm's part numbers of /proc/cpuinfo, from the Technical Reference Manuals (MIDR_EL1, PartNum).
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
CPU_ZONES = re.compile(r"cpu|soc|pkg|^tj", re.IGNORECASE)
FREQUENCY = "sys/devices/system/cpu/cpu0/cpufreq"


def hardware(root: Path = ROOT) -> Dict[str, Any]:
    """What the machine is made of: names, counts, memory in bytes (the container's, if less)."""
    cpu = _cpuinfo(root)
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())  # x86, Arm
    total = _meminfo(root, "MemTotal")
    limit = number(root / "sys/fs/cgroup/memory.max")
    return {
        "board": text(root / "proc/device-tree/model"),
        "cpu": cpu.get("model name") or ARM_PARTS.get(cpu.get("CPU part", "")),
        "cpu_id": _cpu_id(cpu),
        "cpu_features": [name for name in FEATURES if name in flags],
        "cores": len(affinity()),
        "cpus": ranges(affinity()),
        "cpu_quota": cpu_quota(root),
        "memory_bytes": min((n for n in (total, limit) if n is not None), default=None),
        "machine": platform.machine(),
        "virtual": "hypervisor" in flags if "flags" in cpu else None,  # Arm's do not tell
        "gpu": _counted(gpus(root)) or None,
        "gpu_driver": text(root / "sys/module/nvidia/version"),
    }


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as `0-3,8`."""
    out: List[List[int]] = []
    for each in sorted(numbers):
        if out and each == out[-1][-1] + 1:
            out[-1] = [out[-1][0], each]
        else:
            out.append([each])
    return ",".join("-".join(map(str, ends)) for ends in out)


def gpus(root: Path = ROOT) -> List[str]:
    """Models of the NVIDIA cards, by the driver's files: no card is woken for it."""
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    return re.findall(r"^Model:\s*(.+?)\s*$", "\n".join(text(path) or "" for path in files), re.M)


def _counted(names: List[str]) -> str:
    """Each name once, with how many there are of it."""
    counts = Counter(names).items()
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in counts)


def state(root: Path = ROOT) -> Dict[str, Any]:
    """What changes: governor, clock in MHz, hottest CPU zone in °C, throttling, free bytes."""
    khz = number(root / FREQUENCY / "scaling_cur_freq")
    mhz = _cpuinfo(root).get("cpu MHz")
    load = text(root / "proc/loadavg")
    return {
        "governor": text(root / FREQUENCY / "scaling_governor"),
        "clock_mhz": khz / 1000 if khz is not None else float(mhz) if mhz else None,
        "temperature_c": _temperature(root),
        "throttled": throttling.read(root),
        "load_average": [float(word) for word in load.split()[:3]] if load else None,
        "memory_free_bytes": _free(root),
        "power_mode": None,
        "clocks_locked": _clocks_locked(root),
        "gpu_clock_mhz": None,
    }


def _cpuinfo(root: Path) -> Dict[str, str]:
    """Fields of the first processor."""
    processors = (text(root / "proc/cpuinfo") or "").split("\n\n")
    pairs = (line.partition(":") for line in processors[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_id(cpu: Dict[str, str]) -> Optional[str]:
    """Vendor, family, model and stepping: virtual machines hide the rest of the name."""
    x86 = ("vendor_id", "cpu family", "model", "stepping")
    arm = ("CPU implementer", "CPU variant", "CPU part", "CPU revision")
    for keys in (x86, arm):
        if keys[0] in cpu:
            return "-".join(cpu.get(key, "?") for key in keys)
    return None


def _meminfo(root: Path, key: str) -> Optional[int]:
    match = re.search(rf"^{key}:\s+(\d+) kB", text(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _free(root: Path) -> Optional[int]:
    """Bytes that may still be used, here or within the container's limit."""
    free = [_meminfo(root, "MemAvailable")]
    limit = number(root / "sys/fs/cgroup/memory.max")
    used = number(root / "sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        free.append(max(limit - used, 0))
    return min((n for n in free if n is not None), default=None)


def _temperature(root: Path) -> Optional[float]:
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    named = [zone for zone in zones if CPU_ZONES.search(text(zone / "type") or "")]
    found = [number(zone / "temp") for zone in named or zones]
    return max((n / 1000 for n in found if n is not None), default=None)


def _clocks_locked(root: Path) -> Optional[bool]:
    """Whether every core has one clock only: its lowest and highest allowed ones are equal."""
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    ends = [
        (number(path / "scaling_min_freq"), number(path / "scaling_max_freq")) for path in policies
    ]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    return all(low == high for low, high in known) if known else None


DEVICE = Device("host", "the machine the worker runs on", hardware, state)
