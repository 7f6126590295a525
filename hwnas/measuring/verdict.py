"""How far to trust a measured number: `good`, `usable` or `disturbed`, and why.

Computed here alone, from raw records. Evidence, each with two limits: how many samples waited for a
processor (direct, where the system counts it), how many rounds were disturbed, how far apart the
latencies of two fresh workers are, how far apart the samples are. The worst one decides. What it
changes: a disturbed measurement is printed with a warning and excludes no network. Limits and
words: docs/formats.md, "Verdict of a measurement".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from profilers import stats

GOOD, USABLE, DISTURBED = "good", "usable", "disturbed"
VERDICTS = (GOOD, USABLE, DISTURBED)
APART = 0.05  # share that latencies of two fresh workers may differ by in what is not disturbed
LEAST = 8  # samples that did not wait, below which those that did count as well

Record = Mapping[str, Any]


class Evidence(NamedTuple):
    """One sign of a disturbance.

    Attributes:
        value: a share; None where it is not known, which says nothing.
        usable, disturbed: largest value of a good measurement, and of a usable one.
        words: what is said of it, with `{}` for the value.
    """

    value: float | None
    usable: float
    disturbed: float
    words: str


def judged(*found: Evidence) -> dict[str, str]:
    """`verdict`, the worst of all evidence, and `reason`, what there is against a better one."""
    levels = [_level(each) for each in found]
    worst = max(levels, default=0)
    against = [
        each.words.format(f"{each.value:.1%}")
        for each, n in zip(found, levels, strict=True)
        if worst and n == worst
    ]
    return {"verdict": VERDICTS[worst], "reason": "; ".join(against)}


def _level(evidence: Evidence) -> int:
    if evidence.value is None:
        return 0
    return (evidence.value > evidence.usable) + (evidence.value > evidence.disturbed)


def is_disturbed(found: Mapping[str, Any]) -> bool:
    """Whether a measured number is one that decides nothing."""
    return found.get("verdict") == DISTURBED


def worst(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The worst verdict of several, with its reason."""
    told = max(found, key=lambda each: VERDICTS.index(each["verdict"]))
    return {name: str(told[name]) for name in ("verdict", "reason")}


def doubts(model: Mapping[str, Any]) -> list[str]:
    """What is not good of a measured model, in words: its latency, and what stands beside it.

    Args:
        model: verdict and reason of the latency; cold_start, energy, sustained with theirs.
    """
    parts = {"latency": model}
    parts |= {name: model[name] for name in ("cold_start", "energy", "sustained") if name in model}
    return [
        f"{name.replace('_', ' ')} is {about['verdict']}: {about['reason']}"
        for name, about in parts.items()
        if about.get("verdict") in (USABLE, DISTURBED)
    ]


def warnings(model: Mapping[str, Any]) -> list[str]:
    """The disturbed ones of `doubts`, with what to do."""
    what = "stop other work on the device and measure again"
    return [f"{words}; {what}" for words in doubts(model) if f" is {DISTURBED}: " in words]


def latency(records: Sequence[Record], item: str) -> dict[str, Any]:
    """Latency of an item over its samples that nothing disturbed, and how far to trust it.

    Args:
        records: of all sessions, each in a fresh worker; the item has at least one undisturbed
            round.
        item: its name.

    Returns:
        of `stats.summarise`; disturbed: rounds left out; loops: runs of a sample; repeat: what two
        fresh workers differ by, a share, None for one; verdict, reason.
    """
    mine = [r for r in records if r["id"][3] == item and "ms" in r]
    used = _that_count(records, item)
    apart, slow = _workers(used)
    used = [r for r in used if r["id"][1] not in slow]
    summary = stats.summarise([r["ms"] for r in used])
    rounds = {_round(r) for r in records}
    bad = stats.disturbed_rounds(records) | {name for name in rounds if name[0] in slow}
    return {
        **summary,
        "disturbed": len(bad),
        "loops": mine[0]["loops"],
        "repeat": apart,
        **judged(
            waiting(mine),
            Evidence(len(bad) / len(rounds), 0.25, 0.6, "{} of the rounds were disturbed"),
            Evidence(apart, 0.03, APART, "two fresh workers differ by {} of the latency"),
            Evidence(
                summary["median_ms"] / summary["latency_ms"] - 1,
                0.1,
                0.25,
                "the median is {} over the latency",
            ),
        ),
    }


def is_confirmed(records: Sequence[Record], items: Sequence[str]) -> bool:
    """Whether another fresh worker found the latency of each item again."""
    found = (_workers(_that_count(records, item))[0] for item in items)
    return all(apart is not None and apart <= APART for apart in found)


def _that_count(records: Sequence[Record], item: str) -> list[Record]:
    """Samples of an item in undisturbed rounds: those that did not wait, where they are enough."""
    used = _undisturbed([_untimed(r) if stats.waited(r) else r for r in records], item)
    return used if len(used) >= LEAST else _undisturbed(records, item)


def _untimed(record: Record) -> Record:
    """A record without its time; what a probe saw then still counts."""
    return {name: value for name, value in record.items() if name != "ms"}


def _undisturbed(records: Sequence[Record], item: str) -> list[Record]:
    """Samples of an item in the rounds that these records do not show to be disturbed."""
    bad = stats.disturbed_rounds(records)
    return [r for r in records if r["id"][3] == item and "ms" in r and _round(r) not in bad]


def _round(record: Record) -> tuple[str, int]:
    return record["id"][1], record["id"][2]


def waiting(records: Sequence[Record]) -> Evidence:
    """How many samples waited for a processor, of those where it is known."""
    told = [found for found in map(stats.waited, records) if found is not None]
    share = sum(told) / len(told) if told else None
    return Evidence(share, 0.1, 0.3, "other programs held the processor in {} of the samples")


def _workers(records: Sequence[Record]) -> tuple[float | None, set[str]]:
    """How far apart the two lowest latencies of fresh workers are, a share (None: there is one
    worker), and the sessions of those that are further from them: what disturbs makes slower.
    """
    sessions: dict[str, list[float]] = {}
    for record in records:
        sessions.setdefault(record["id"][1], []).append(record["ms"])
    levels = sorted((stats.low_quantile(values), name) for name, values in sessions.items())
    if len(levels) < 2:
        return None, set()
    (a, _), (b, _), *others = levels
    apart = 2 * (b - a) / (a + b)
    return apart, {name for ms, name in others if apart <= APART and ms > (1 + APART) * b}


def cold_start(found: Mapping[str, Any]) -> dict[str, str]:
    """Verdict of one load and first run, of which only the waiting is known; `unknown` without."""
    if found.get("wait_ms") is None:
        return {"verdict": "unknown", "reason": "the device does not count how long programs wait"}
    share = found["wait_ms"] / max(found["load_ms"] + found["first_run_ms"], 1e-9)
    return judged(Evidence(share, 0.05, 0.2, "it waited for a processor for {} of its time"))


def sustained(records: Sequence[Record], parts: Sequence[Sequence[float]]) -> dict[str, str]:
    """Verdict of a run without rest, which may well become slower, but not by fits and starts.

    Args:
        records: its samples.
        parts: ms of the samples in each part of the time.
    """
    spread = stats.median([stats.median(ms) / stats.low_quantile(ms) - 1 for ms in parts])
    words = "in parts of the time the median is {} over the undisturbed latency"
    return judged(waiting(records), Evidence(spread, 0.1, 0.25, words))


def energy(found: Mapping[str, Any]) -> dict[str, str]:
    """Verdict of the energy of windows: their spread, where there are several."""
    return judged(
        Evidence(found["energy_spread"], 0.03, 0.1, "its windows differ by {}"),
        Evidence(float(found["windows"] < 2), 0.0, 1.0, "one window cannot show that it repeats"),
    )
