"""What `--accept` overrides by name: refusals of tables, and gates of a run.

A word of TABLES opens tables and mutes no gate; every gate has a word of its own. What was accepted
is written into fronts and packages; a gate that is muted says so each time.
"""

from __future__ import annotations

from collections.abc import Mapping

TABLES = ("unreliable", "emulated", "estimated")
GATES: Mapping[str, str] = {
    "gap": "latency further from its prediction than check.max_gap",
    "budget": "a budget that is missed when measured, after the next networks were tried",
    "limit": "a limit of check.limits that a package exceeds",
    "regression": "a package that is worse than hwnas.lock by more than the noise",
    "untimed": "packages on a machine too disturbed to time them",
}
WORDS = (*TABLES, *GATES)
