"""What a machine is and has, asked once before anything of ours is there: `hwnas devices add`.

Standard library only, numpy is not needed: `hwnas.boards.script` sends it, with the few modules it
imports, as one text to the board's Python. Answers are one line of JSON each; an engine is asked in
a process of its own, because importing one may end it. Names no host, user or serial number.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from profilers import sysfs
from profilers.devices import host, jetson, nvidia, raspberry_pi
from profilers.schema import ENGINE_FORMAT, SURVEY_FORMAT

STATES = {
    "host": host.state,
    "raspberry-pi": raspberry_pi.state,
    "jetson": jetson.state,
    "nvidia": nvidia.state,
}
PMIC = ("vcgencmd", "pmic_read_adc")
WAIT_S = 5.0


def main(words: List[str]) -> None:
    """Print the answer to `survey CACHE MODULE…` or `engine MODULE`; CACHE may be empty."""
    what, name, *modules = words
    answer = engine(name) if what == "engine" else survey(Path("/"), name, modules)
    print("\n" + json.dumps(answer), flush=True)


def survey(root: Path, cache: str, modules: List[str]) -> Dict[str, Any]:
    """What the machine is, what is installed, what it is doing now.

    Args:
        root: of the file system.
        cache: folder for worker and kits; empty: the default.
        modules: of engines that are asked for.
    """
    kind = hardware_kind(root)
    return {
        "format": SURVEY_FORMAT,
        "hardware": kind,
        "l4t": l4t(root),
        "system": platform.system(),
        "os": sysfs.system_release(root / "etc/os-release"),
        "kernel": platform.release(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "python": platform.python_version(),
        "environment": sys.prefix != sys.base_prefix,
        "managed": (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists(),
        "pip": importlib.util.find_spec("pip") is not None,
        "modules": {
            name: importlib.util.find_spec(name) is not None for name in ("numpy", *modules)
        },
        "big_cores": big_cores(root),
        "emulated": sysfs.is_emulated(),
        "time_s": time.time(),
        **disk(cache),
        **host.hardware(root),
        **STATES[kind](root),
        "meters": meters(root, kind),
    }


def hardware_kind(root: Path) -> str:
    """Which probes fit: `raspberry-pi`, `jetson`, `nvidia` or `host`."""
    model = sysfs.text(root / "proc/device-tree/model") or ""
    if model.startswith("Raspberry Pi"):
        return "raspberry-pi"
    tegra = "nvidia,tegra" in (sysfs.text(root / "proc/device-tree/compatible") or "")
    if "Jetson" in model or tegra or l4t(root) is not None:
        return "jetson"
    return "nvidia" if host.gpus(root) else "host"


def l4t(root: Path) -> Optional[str]:
    """Release of Jetson Linux, such as `36.4.0`."""
    text = sysfs.text(root / "etc/nv_tegra_release") or ""
    match = re.match(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text)
    return f"{match.group(1)}.{match.group(2)}" if match else None


def big_cores(root: Path) -> Optional[int]:
    """Physical cores of the fastest kind; None where the kernel does not tell."""
    found: Dict[Tuple[Optional[int], ...], int] = {}
    for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*")):
        # device trees number cores anew in each cluster, which is no package since Linux 6.0
        names = ("core_id", "cluster_id", "physical_package_id")
        place = tuple(sysfs.number(folder / "topology" / name) for name in names)
        if place[0] is not None:
            found[place] = sysfs.number(folder / "cpu_capacity") or 0
    fastest = max(found.values(), default=0)
    return sum(capacity == fastest for capacity in found.values()) or None


def disk(cache: str) -> Dict[str, Any]:
    """Free bytes where worker and kits will be kept, and why nothing can be written there."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(cache).expanduser() if cache else base
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    problem = None
    if not there.is_dir():
        problem = "is no folder"
    elif os.statvfs(str(there)).f_flag & os.ST_RDONLY:
        problem = "is on a read-only file system"
    elif not os.access(str(there), os.W_OK | os.X_OK):
        problem = "may not be written"
    return {"disk_free_bytes": shutil.disk_usage(str(there)).free, "disk_problem": problem}


# ---- meters ------------------------------------------------------------------------------------


def meters(root: Path, kind: str) -> List[Dict[str, Any]]:
    """The meters whose sensors are here: `name`, `problem` (None: it would work), `detail`."""
    found = [_rapl(root), _hwmon(root), _nvml(root, kind), _pmic(root)]
    return [meter for meter in found if meter is not None]


def _meter(name: str, problem: Optional[str], detail: str) -> Dict[str, Any]:
    return {"name": name, "problem": problem, "detail": detail}


def _rapl(root: Path) -> Optional[Dict[str, Any]]:
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if not zones:
        return None
    names = [sysfs.text(path.with_name("name")) or path.parent.name for path in zones]
    denied = sysfs.number(zones[0]) is None
    return _meter("rapl", "no permission" if denied else None, ", ".join(names[:6]))


def _hwmon(root: Path) -> Optional[Dict[str, Any]]:
    chips = sorted((root / "sys/class/hwmon").glob("hwmon*/name"))
    chips = [path for path in chips if (sysfs.text(path) or "").startswith("ina")]
    rails = [label for chip in chips for label in sorted(chip.parent.glob("in[0-9]_label"))]
    rails += sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*"))
    if not rails and not chips:
        return None
    names = [sysfs.text(path) for path in rails]
    sensors = [path for chip in chips for path in chip.parent.glob("*[0-9]_input")]
    denied = bool(sensors) and not any(sysfs.number(path) is not None for path in sensors)
    detail = ", ".join(name for name in names[:8] if name) or "no labels"
    return _meter("hwmon", "no permission" if denied else None, detail)


def _nvml(root: Path, kind: str) -> Optional[Dict[str, Any]]:
    """Discrete cards only: a Jetson's module is metered by its INA3221."""
    models = host.gpus(root)
    if kind == "jetson" or not models:
        return None
    readable = os.access(str(root / "dev/nvidiactl"), os.R_OK)
    return _meter("nvml", None if readable else "no permission", ", ".join(models[:4]))


def _pmic(root: Path) -> Optional[Dict[str, Any]]:
    """Raspberry Pi 5 and its modules; others have no such chip."""
    model = sysfs.text(root / "proc/device-tree/model") or ""
    if not re.match(r"Raspberry Pi (5|500|Compute Module 5)", model):
        return None
    try:
        done = subprocess.run(PMIC, stdout=subprocess.PIPE, timeout=WAIT_S, check=True)
    except FileNotFoundError:
        return _meter("pi5-pmic", "no vcgencmd", "")
    except (OSError, subprocess.SubprocessError):
        return _meter("pi5-pmic", "no permission", "")
    rails = re.findall(rb"(\w+)_A current", done.stdout)
    return _meter("pi5-pmic", None if rails else "no rails", f"{len(rails)} rails")


# ---- engines -----------------------------------------------------------------------------------


def engine(name: str) -> Dict[str, Any]:
    """Version and providers of an engine, or why it cannot be imported."""
    answer: Dict[str, Any] = {"format": ENGINE_FORMAT, "name": name, "version": None}
    answer.update(providers=[], problem=None)
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, AttributeError, TypeError, RuntimeError) as error:
        answer["problem"] = f"{type(error).__name__}: {error}"[:200]
        return answer
    answer["version"] = str(getattr(module, "__version__", "unknown"))
    providers = getattr(module, "get_available_providers", list)  # ONNX Runtime's
    answer["providers"] = list(providers())
    return answer
