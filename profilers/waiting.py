"""How long this process was ready to run and had no processor, as Linux counts it."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

TASKS = Path("/proc/self/task")


def waited_ms(tasks: Path = TASKS) -> Optional[float]:
    """ms that the threads of this process have waited for a processor, all together; None where the
    system does not count it.

    Source: /proc/PID/schedstat, https://docs.kernel.org/scheduler/sched-stats.html (second field).
    """
    total_ns, counted = 0, False
    for path in tasks.glob("*/schedstat"):
        try:
            total_ns += int(path.read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):  # the thread ended, or nothing is counted
            continue
        counted = True
    return total_ns / 1e6 if counted else None
