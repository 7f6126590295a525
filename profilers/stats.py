"""Statistics of timed samples: what a latency is, and which rounds do not count.

Shared by the worker, the campaign driver and the fit, so that all three mean the same by
`latency_ms` and by "disturbed". Protocol: docs/formats.md, "Measurements".
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

import numpy as np

LOW_QUANTILE = 10  # percent: the undisturbed latency, the statistic of tables and budgets
DISTURBED_SHARE = 0.10  # an anchor this share over its low quantile marks its round ...
DISTURBED_SPREADS = 5.0  # ... and so does one this many robust spreads over it,
DISTURBED_FLOOR = 0.03  # but never less than this share: a low quantile hardly feels such a round


def low_quantile(values: Sequence[float]) -> float:
    """10th percentile (linear interpolation), in the unit of the values."""
    return float(np.percentile(values, LOW_QUANTILE))


def median(values: Sequence[float]) -> float:
    """Median, in the unit of the values."""
    return float(np.median(values))


def p95(values: Sequence[float]) -> float:
    """95th percentile (linear interpolation), in the unit of the values."""
    return float(np.percentile(values, 95))


def robust_spread(values: Sequence[float]) -> float:
    """Standard deviation as the median absolute deviation tells it (x 1.4826), in the unit of the
    values.
    """
    given = np.asarray(values, dtype=float)
    return float(1.4826 * np.median(np.abs(given - np.median(given))))


def summarise(samples: Sequence[float]) -> Dict[str, float]:
    """Statistics of one item's per-loop times, one sample a round.

    Args:
        samples: ms, at least one.

    Returns:
        latency_ms (10th percentile), median_ms, p95_ms, spread (robust spread as a share of the
        median), rounds (how many samples).

    Raises:
        ValueError: there is no sample.
    """
    if not len(samples):
        raise ValueError("no sample was given; at least one round is needed")
    middle = median(samples)
    return {
        "latency_ms": low_quantile(samples),
        "median_ms": middle,
        "p95_ms": p95(samples),
        "spread": robust_spread(samples) / middle if middle > 0 else 0.0,
        "rounds": len(samples),
    }


def disturbed_rounds(records: Iterable[Mapping[str, Any]]) -> Set[Tuple[str, int]]:
    """(session, round) of every round whose anchor was slowed down by something else.

    A round is disturbed when the median of its anchor samples is more than 10 %, or more than 5
    robust spreads (at least 1 %), over the low quantile of its session's rounds; and when something
    held its clocks down, as long as that is so in fewer than half of the session's rounds. (Where
    it is the rule, it is the state of the device, and the table says so.)

    Args:
        records: measurement records of any role; those without a time are passed over.
    """
    records, disturbed = list(records), set()
    held = throttled_rounds(records)
    for session, rounds in _anchor_rounds(records).items():
        mine = {name for name in held if name[0] == session}
        disturbed |= mine if 2 * len(mine) < len(rounds) else set()
        values = list(rounds.values())
        low = low_quantile(values)
        spreads = max(DISTURBED_SPREADS * robust_spread(values), DISTURBED_FLOOR * low)
        limit = low + min(DISTURBED_SHARE * low, spreads)
        disturbed |= {(session, number) for number, value in rounds.items() if value > limit}
    return disturbed


def throttled_rounds(records: Iterable[Mapping[str, Any]]) -> Set[Tuple[str, int]]:
    """(session, round) of every round before or after which a probe saw clocks held down, or during
    which a count of such events rose.

    Args:
        records: measurement records; those without a probe are passed over.
    """
    probes: Dict[Tuple[str, int], List[Mapping[str, Any]]] = {}
    for record in records:
        found = record.get("probe")
        flags = found.get("throttled") if isinstance(found, dict) else None
        if isinstance(flags, dict):
            probes.setdefault((record["id"][1], record["id"][2]), []).append(flags)
    return {name for name, found in probes.items() if _held_back(found)}


def _held_back(flags: Sequence[Mapping[str, Any]]) -> bool:
    """Whether throttle flags of one round's probes, in order, show any throttling in it."""
    if any(each.get("now") for each in flags):
        return True
    events = [each.get("events") for each in flags]
    counts = [
        sum(n for n in found.values() if isinstance(n, int))
        for found in events
        if isinstance(found, dict)
    ]
    return len(counts) > 1 and counts[-1] > counts[0]


def _anchor_rounds(records: Iterable[Mapping[str, Any]]) -> Dict[str, Dict[int, float]]:
    """Median anchor time in ms of each round of each session."""
    samples: Dict[str, Dict[int, List[float]]] = {}
    for record in records:
        if record["role"] == "anchor" and record.get("ms") is not None:
            _, session, number, _ = record["id"]
            samples.setdefault(session, {}).setdefault(number, []).append(record["ms"])
    return {
        session: {number: median(values) for number, values in rounds.items()}
        for session, rounds in samples.items()
    }
