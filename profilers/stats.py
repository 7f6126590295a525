"""Statistics of timed samples: what a latency is, and which rounds do not count.

Shared by the worker, the campaign driver and the fit, so that all three mean the same by
`latency_ms` and by "disturbed". Protocol: docs/formats.md, "Measurements".
"""

from __future__ import annotations

from typing import (
    Any,
    Collection,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

import numpy as np

LOW_QUANTILE = 10  # percent: the undisturbed latency, the statistic of tables and budgets
DISTURBED_SHARE = 0.10  # an anchor this share over its low quantile marks its round ...
DISTURBED_SPREADS = 5.0  # ... and so does one this many robust spreads over it,
DISTURBED_FLOOR = 0.03  # but never less than this share: a low quantile hardly feels such a round
SLOW_WINDOW = 0.25  # a window whose anchor is this share over the undisturbed one is disturbed

WAITED_SHARE = 0.02  # of a sample's time, that its process had to wait for a processor

RoundName = Tuple[str, int]  # session, number


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


def waited(record: Mapping[str, Any]) -> Optional[bool]:
    """Whether a sample's process had to wait for a processor; None where that was not counted.

    With four busy processes for each core 6 samples of 10 wait, for half of their time and more;
    the others take what they take on a quiet machine, to 1 % (tiny, x86-64).
    """
    wait_ms = record.get("wait_ms")
    if wait_ms is None:
        return None
    runs = record["loops"] + record.get("warm", 0)
    return bool(wait_ms > WAITED_SHARE * record["ms"] * runs)


def disturbed_rounds(records: Iterable[Mapping[str, Any]]) -> Set[RoundName]:
    """(session, round) of every round whose anchor was slowed down by something else.

    A round is disturbed when the median of its anchor samples is more than 10 %, or more than 5
    robust spreads (at least 3 %), over the low quantile of its window's rounds; when it is more
    than 25 % over the undisturbed level of its session, the low quantile of those of its windows;
    and when something held its clocks down, as long as that is so in fewer than half of the
    session's rounds. (Where it is the rule, it is the state of the device, and the table says so.)

    Args:
        records: measurement records of any role; those without a time are passed over.
    """
    records, disturbed = list(records), set()
    held = throttled_rounds(records)
    for session, found in _windows(records).items():
        mine = {name for name in held if name[0] == session}
        n_rounds = sum(len(window) for window in found)
        disturbed |= mine if 2 * len(mine) < n_rounds else set()
        # not their median: of two windows, one that is 60 % slower would be within 25 % of it
        level = low_quantile([low_quantile(list(window.values())) for window in found])
        for window in found:
            limit = min(_limit(list(window.values())), (1 + SLOW_WINDOW) * level)
            disturbed |= {(session, number) for number, ms in window.items() if ms > limit}
    return disturbed


def window_levels(
    records: Iterable[Mapping[str, Any]], disturbed: Collection[RoundName] = ()
) -> Dict[str, List[float]]:
    """Level of the anchor (low quantile, ms) in each window of each session, disturbed rounds left
    out; a window of disturbed rounds alone is left out as a whole.

    Args:
        records: measurement records of any role.
        disturbed: rounds that do not count.
    """
    return {
        session: [
            low_quantile(times)
            for window in found
            for times in [[ms for n, ms in window.items() if (session, n) not in disturbed]]
            if times
        ]
        for session, found in _windows(records).items()
    }


def _limit(anchor_ms: Sequence[float]) -> float:
    """ms that the anchor may take in a round of a window, by all rounds of it."""
    low = low_quantile(anchor_ms)
    spreads = max(DISTURBED_SPREADS * robust_spread(anchor_ms), DISTURBED_FLOOR * low)
    return low + min(DISTURBED_SHARE * low, spreads)


def throttled_rounds(records: Iterable[Mapping[str, Any]]) -> Dict[RoundName, Set[str]]:
    """Every (session, round) in which something held clocks down, and the words for it.

    That is so where a probe before or after it sees it at work, where a flag that stays until the
    device starts again (`since_boot`) came up meanwhile, or where a count of such events rose.

    Args:
        records: measurement records; those without a probe are passed over.
    """
    probes: Dict[RoundName, List[Mapping[str, Any]]] = {}
    for record in records:
        found = record.get("probe")
        flags = found.get("throttled") if isinstance(found, dict) else None
        if isinstance(flags, dict):
            probes.setdefault((record["id"][1], record["id"][2]), []).append(flags)
    held = {}
    for name, found in probes.items():
        words = _texts(word for each in found for word in _listed(each, "now"))
        up = risen(found[0], found[-1])
        if up or any(each.get("now") for each in found):
            held[name] = words | up
    return held


def risen(before: Mapping[str, Any], after: Mapping[str, Any]) -> Set[str]:
    """What came up between two probes: flags that stay, counts of events."""
    stay = _texts(_listed(after, "since_boot")) - _texts(_listed(before, "since_boot"))
    told = [each.get("events") for each in (before, after)]
    counts = [
        {word: n for word, n in found.items() if isinstance(n, int)}
        for found in (each if isinstance(each, dict) else {} for each in told)
    ]
    # an event that no probe saw before has no count to rise from
    return stay | {word for word, n in counts[1].items() if n > counts[0].get(word, n)}


def _listed(flags: Mapping[str, Any], name: str) -> List[Any]:
    value = flags.get(name)
    return value if isinstance(value, list) else []


def _texts(values: Iterable[Any]) -> Set[str]:
    return {value for value in values if isinstance(value, str)}


def _windows(records: Iterable[Mapping[str, Any]]) -> Dict[str, List[Dict[int, float]]]:
    """Median anchor time in ms by round, in the windows of each session.

    A window is consecutive rounds of a session, each of which has an item besides the anchor in
    common with the one before: the same models were open. Where all fit in memory, a session is one
    window.
    """
    anchors: Dict[str, Dict[int, List[float]]] = {}
    items: Dict[RoundName, Set[str]] = {}
    for record in records:
        if record.get("ms") is None:
            continue
        _, session, number, item = record["id"]
        if record["role"] == "anchor":
            anchors.setdefault(session, {}).setdefault(number, []).append(record["ms"])
        else:
            items.setdefault((session, number), set()).add(item)
    out: Dict[str, List[Dict[int, float]]] = {}
    for session, rounds in anchors.items():
        windows: List[Dict[int, float]] = [{}]
        before: Set[str] = set()
        for number in sorted(rounds):
            mine = items.get((session, number), set())
            if before and mine and not before & mine:
                windows.append({})
            windows[-1][number] = median(rounds[number])
            before = mine or before
        out[session] = windows
    return out


def mean_of_faster_half(times: np.ndarray) -> np.ndarray:
    """(nodes,) mean time of each node over the faster half of (runs, nodes) of a profile.

    Node times are coarse, so a quantile would be, and a mean of all holds every interruption.
    """
    faster = np.argsort(times.sum(axis=1), kind="stable")[: (len(times) + 1) // 2]
    means: np.ndarray = times[faster].mean(axis=0)
    return means
