"""Raspberry Pi 3, 4 and 5: the probes of the host, and the throttle flags of the firmware.

`vcgencmd` is asked where the kernel does not show them.

Source: raspberrypi.com documentation, "vcgencmd". Names no serial number.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from profilers import throttling
from profilers.devices import Device, host

VCGENCMD = ("vcgencmd", "get_throttled")
WAIT_S = 2.0


def state(
    root: Path = host.ROOT, ask: Optional[Callable[[], Optional[str]]] = None
) -> Dict[str, Any]:
    """The host's state; throttle flags from the firmware itself where the kernel hides them.

    Args:
        root: of the file system.
        ask: what `vcgencmd get_throttled` prints, or None where it cannot be asked.
    """
    found = host.state(root)
    if throttling.firmware_flags(root) is None:
        text = (ask or _ask)()
        flags = throttling.parse_flags(text) if text else None
        if flags is not None:
            found["throttled"] = {"events": {}, **throttling.decode(flags)}
    return found


def _ask() -> Optional[str]:
    """The firmware's answer; None where vcgencmd is missing, fails or may not be used."""
    try:
        done = subprocess.run(VCGENCMD, stdout=subprocess.PIPE, timeout=WAIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", errors="replace")


DEVICE = Device("raspberry-pi", "Raspberry Pi 3, 4 or 5", host.hardware, state)
