"""CPUs that this process may use: those it is bound to, and the time that control groups allow."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import List, Optional, Set

from profilers.sysfs import text

ROOT = Path("/")


def usable_cpus(root: Path = ROOT) -> int:
    """How many threads of this process may run at the same time, over a while."""
    quota = cpu_quota(root)
    bound = len(affinity())
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def affinity() -> Set[int]:
    """CPUs that this process is bound to; all of them where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cpu_quota(root: Path = ROOT) -> Optional[float]:
    """CPUs' worth of time that control groups allow, the least of all levels; None: no limit.

    Sources: Linux, "Control Group v2" (cpu.max) and "CFS Bandwidth Control" (cpu.cfs_quota_us). A
    container sees its own group as the root, with or without the path that it has outside.
    """
    found: List[float] = []
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        folders = ("cpu", controllers) if controllers else ("", "unified")
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for folder in folders:
            for depth in range(len(parts) + 1):
                found += _quota(root.joinpath("sys/fs/cgroup", folder, *parts[:depth]))
    return min(found, default=None)


def _quota(group: Path) -> List[float]:
    """The quota of one group, if it has one."""
    quota, period = (text(group / "cpu.max") or "max 0").split()[:2]
    if quota == "max":
        quota = text(group / "cpu.cfs_quota_us") or "-1"
        period = text(group / "cpu.cfs_period_us") or "0"
    known = quota.isdigit() and period.isdigit() and int(period) > 0
    return [int(quota) / int(period)] if known else []
