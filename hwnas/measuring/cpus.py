"""CPUs that a worker may use, and targets that ask for more threads than these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profilers.errors import ConfigError
from profilers.schema import Target


def usable(facts: Mapping[str, Any]) -> int:
    """CPUs that threads can use at the same time, by affinity and quota; at least 1.

    Args:
        facts: environment or survey of a device.
    """
    cores, quota = int(facts["cores"]), facts["cpu_quota"]
    return max(1, cores if quota is None else min(cores, int(quota + 0.01)))


def in_words(facts: Mapping[str, Any]) -> str:
    """The CPUs that may be used, as `2 (CPUs 0-1)`, with the quota where there is one."""
    quota = facts["cpu_quota"]
    limit = "" if quota is None else f", a control group's quota of {quota:g}"
    return f"{usable(facts)} (CPUs {facts['cpus']}{limit})"


def check_threads(target: Target, facts: Mapping[str, Any]) -> None:
    """Refuse a target whose threads would take turns: what they take is no property of the device.

    Raises:
        ConfigError: it asks for more threads than CPUs; the message names those.
    """
    most = usable(facts)
    if target.threads > most:
        raise ConfigError(
            f"target {target.name} has {target.threads} threads, the worker there may use "
            f"{in_words(facts)}; name a target with t{most}{' or less' if most > 1 else ''}, or "
            "allow it more"
        )
