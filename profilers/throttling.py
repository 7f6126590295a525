"""What held a machine's clocks down: firmware flags, thermal caps and event counts, in words.

Reads files below a root only, so that recorded trees can stand in for a machine. Sources:
raspberrypi.com, "vcgencmd get_throttled" (bits); Linux `soctherm-oc-event` of Tegra234 (Jetson
Orin, OC1 to OC3); Linux thermal sysfs (cooling devices); Linux x86 `thermal_throttle` counters.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from profilers import sysfs

# Bits of the Raspberry Pi firmware's flags; the same bit 16 places higher means "since boot".
FIRMWARE_BITS = {
    0: "under-voltage",
    1: "frequency-capped",
    2: "throttled",
    3: "soft-temperature-limit",
}
SINCE_BOOT = 16
# `soc:firmware` up to the Raspberry Pi 4, `soc@107c000000:firmware` on the 5
FIRMWARE_FILE = "sys/devices/platform/soc*/*:firmware/get_throttled"
OVER_CURRENT = {  # counters of the hwmon device `soctherm_oc`
    "oc1_event_cnt": "under-voltage",
    "oc2_event_cnt": "average-over-current",
    "oc3_event_cnt": "instantaneous-over-current",
}
CAPPING = re.compile(r"cpufreq|devfreq|throttle|^Processor$")  # cooling by lower clocks, no fan
THERMAL_CAP = "thermal-cap"


def read(root: Path) -> Optional[Dict[str, Any]]:
    """Throttling of the machine below a root; None where it has nothing to tell it by.

    Returns:
        `now`: what holds clocks down at this moment, in words; `since_boot`: what did at some time;
        `events`: counters by word, where there are any.
    """
    flags = firmware_flags(root)
    caps = _cooling(root)
    events = {**_over_current(root), **_x86(root)}
    if flags is None and caps is None and not events:
        return None
    found = decode(flags or 0)
    if caps:
        found["now"].append(THERMAL_CAP)
    return {**found, "events": events}


def decode(flags: int) -> Dict[str, List[str]]:
    """The Raspberry Pi firmware's flags in words: `now` and `since_boot`."""
    return {
        "now": [word for bit, word in FIRMWARE_BITS.items() if flags >> bit & 1],
        "since_boot": [
            word for bit, word in FIRMWARE_BITS.items() if flags >> (bit + SINCE_BOOT) & 1
        ],
    }


def parse_flags(text: str) -> Optional[int]:
    """Flags of `throttled=0x50005` (vcgencmd) or `50005` (sysfs, hexadecimal as well)."""
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", text.strip())
    return int(match.group(1), 16) if match else None


def firmware_flags(root: Path) -> Optional[int]:
    """The Raspberry Pi firmware's flags as the kernel shows them; None where it does not."""
    for path in sorted(root.glob(FIRMWARE_FILE)):
        text = sysfs.text(path)
        if text is not None:
            return parse_flags(text)
    return None


def _cooling(root: Path) -> Optional[bool]:
    """Whether a cooling device lowers clocks now; None where there is none of that kind."""
    devices = sorted((root / "sys/class/thermal").glob("cooling_device*"))
    capping = [path for path in devices if CAPPING.search(sysfs.text(path / "type") or "")]
    states = sysfs.numbers(path / "cur_state" for path in capping)
    return any(state > 0 for state in states) if states else None


def _over_current(root: Path) -> Dict[str, int]:
    """Over-current events of a Jetson since boot, by word."""
    events: Dict[str, int] = {}
    for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")):
        count = sysfs.number(path)
        if path.name in OVER_CURRENT and count is not None:
            events[OVER_CURRENT[path.name]] = count
    return events


def _x86(root: Path) -> Dict[str, int]:
    """Thermal events of x86 cores and packages since boot."""
    pattern = "cpu[0-9]*/thermal_throttle/*_throttle_count"
    counts = sysfs.numbers((root / "sys/devices/system/cpu").glob(pattern))
    return {"thermal": sum(counts)} if counts else {}
