"""What can be asked of a real device in minutes: each check answers rows of docs/unverified.md.

A check says whether something holds, or that it cannot be told here and why. Facts are chosen one
by one: no address, name of a person or machine, or serial number is among them.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwnas.boards.ask import Board, run_words
from hwnas.boards.target_files import CPU_METERS, GPU_METERS
from hwnas.measuring import campaign, client, here, kit, parity, sustained
from hwnas.measuring.client import RemoteWorker
from hwnas.networks import onnx_graph, ranges, spaces
from hwnas.networks.space import Architecture
from hwnas.settings.config import ProfileConfig
from hwnas.settings.targets import REFERENCE
from hwnas.tables import conditions, fit
from profilers import precisions, runtimes, stats
from profilers.errors import DeviceError, LostDeviceError
from profilers.schema import Target, read_lines

RECONNECT_S = 30.0  # that a board may be out of reach before a check goes on to the next
IMAGES = 1000  # that real outputs are compared on
CALIBRATED = 16  # of them, whose activations an int8 file has the ranges of
SLOWER = 0.05  # share by which a device must get slower in heat before flags are looked for
APART_C = 8.0  # two readings of one temperature, taken seconds apart
MOST_UNITS = 3  # that opening a kit once may take, where the engine builds what it opens
CUT_AT = 2  # round of a campaign, in which its line is cut


class Answer(NamedTuple):
    """Whether something holds (None: it cannot be decided here), why not, and what was seen."""

    holds: bool | None
    reason: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Visit:
    """A device while it is checked.

    Attributes:
        board: as it answered.
        folder: for files that are gone afterwards.
        unit_s: what a check may take, about, in seconds; some take one and a half.
    """

    board: Board
    folder: Path
    unit_s: float

    def settings(self, units: float = 1.0, **others: Any) -> ProfileConfig:
        """Settings of a measurement that takes this many units of time."""
        seconds = max(2.0, units * self.unit_s)
        limits = {"budget_s": seconds, "energy_budget_s": seconds, "reconnect_s": RECONNECT_S}
        return ProfileConfig(**{**limits, "rounds": 10, "heldout": 8, **others})

    def model(self, arch: Architecture, batch: int) -> Path:
        """A network with weights inside, such that its outputs are of order one."""
        path = self.folder / f"{arch.space.name}-{arch.id}-b{batch}.onnx"
        if not path.exists():
            rng = np.random.default_rng(0)
            values = {
                w.name: rng.normal(0, (2 / w.fan_in) ** 0.5 if w.fan_in else 0.1, w.shape)
                for w in onnx_graph.weights_of(arch.ops)
            }
            weights = {name: value.astype(np.float32) for name, value in values.items()}
            path.write_bytes(onnx_graph.to_bytes(onnx_graph.build(arch.ops, weights, batch)))
        return path


# ---- the device itself -------------------------------------------------------------------------


def identity(visit: Visit, target: Target) -> Answer:
    """Is it recognised: its model, family and system?"""
    survey = visit.board.survey
    known = bool(survey["board"] or survey["cpu"])
    return Answer(known, "" if known else "it names neither a board nor a processor", {})


def probes(visit: Visit, target: Target) -> Answer:
    """Do its Python and its worker see the same machine, and its clock, heat and memory?"""
    survey, found = visit.board.survey, here.probe(target, visit.settings())
    differ = [n for n in ("board", "cpu", "cpu_id", "machine") if survey[n] != found[n]]
    names = ("temperature_c", "clock_mhz", "governor", "memory_free_bytes", "gpu_clock_mhz")
    facts = {name: found[name] for name in (*names, "clocks_locked", "power_mode")}
    unknown = [name for name in ("temperature_c", "clock_mhz") if facts[name] is None]
    reason = f"worker and survey differ in {', '.join(differ)}" if differ else ""
    if not differ and unknown:
        reason = f"it does not report {' and '.join(unknown)}"
    # An Arm processor does not say whether it is a guest's; a device tree is a board's.
    bare = survey["board"] if survey["virtual"] is None else not survey["virtual"]
    excused = not bare or survey["emulated"]  # guests show no clock and no heat
    holds = None if unknown and excused and not differ else not (differ or unknown)
    return Answer(holds, reason, facts)


def flags(visit: Visit, target: Target) -> Answer:
    """Do throttle flags, power mode and heat agree with the vendor's own tool?"""
    survey = visit.board.survey
    facts: dict[str, Any] = {"throttled": survey["throttled"], "power_mode": survey["power_mode"]}
    agree: dict[str, bool] = {}
    for name, (words, compare) in TOOLS.get(survey["hardware"], {}).items():
        with contextlib.suppress(DeviceError):
            done = run_words(visit.board.way, list(words), b"", 20.0)
            text = done.stdout.decode("ascii", errors="replace")[:500]
            if done.returncode == 0:
                facts[name], agree[name] = text.strip(), compare(text, survey)
    wrong = [name for name, same in agree.items() if not same]
    if wrong:
        return Answer(False, f"{', '.join(wrong)} reports something else", facts)
    if not agree:
        return Answer(None, "no tool of its vendor answers here", facts)
    return Answer(True, "", facts)


def _same_flags(text: str, survey: Mapping[str, Any]) -> bool:
    """Raspberry Pi: bits 0-3 are now, 16-19 since boot; a cap of the kernel may be one more."""
    match, held = re.search(r"0x([0-9a-fA-F]+)", text), survey["throttled"]
    if match is None or held is None:
        return False
    bits = int(match[1], 16)
    now, before = (bin(bits >> shift & 0xF).count("1") for shift in (0, 16))
    return len(held["now"]) - now in (0, 1) and len(held["since_boot"]) >= before


def _near_heat(text: str, survey: Mapping[str, Any]) -> bool:
    match, ours = re.search(r"(\d+(?:\.\d+)?)", text), survey["temperature_c"]
    return match is not None and ours is not None and abs(float(match[1]) - ours) <= APART_C


def _same_mode(text: str, survey: Mapping[str, Any]) -> bool:
    """`nvpmodel -q` prints the mode's name, and its number on the last line."""
    number = (text.split() or [""])[-1]
    return survey["power_mode"] is not None and survey["power_mode"].split()[0] == number


TOOLS: dict[str, dict[str, tuple[tuple[str, ...], Callable[[str, Mapping[str, Any]], bool]]]] = {
    "raspberry-pi": {
        "get_throttled": (("vcgencmd", "get_throttled"), _same_flags),
        "measure_temp": (("vcgencmd", "measure_temp"), _near_heat),
    },
    "jetson": {"nvpmodel": (("nvpmodel", "-q"), _same_mode)},
    "nvidia": {
        "nvidia-smi": (
            ("nvidia-smi", "--query-gpu=temperature.gpu", "--format=csv,noheader"),
            _near_heat,
        )
    },
}


# ---- a target of it ----------------------------------------------------------------------------


def engine(visit: Visit, target: Target) -> Answer:
    """Does the engine start in the worker?"""
    found = here.probe(target, visit.settings())
    names = ("engine_version", "tf32", "numpy")
    return Answer(True, "", {name: found[name] for name in names})


def outputs(visit: Visit, target: Target) -> Answer:
    """Does it compute what ONNX Runtime computes here, on networks with weights, and how fast?"""
    if runtimes.engine(target.runtime).modelled:
        return Answer(None, "a modelled engine computes nothing", {})
    facts = {}
    for space, images in (("tiny", IMAGES), ("mbv3-28", 16)):
        arch = spaces.load(space).largest
        shape = (images, *arch.space.input_shape(arch.resolution))
        given = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        begin_s = time.monotonic()
        model = _written(visit, target, visit.model(arch, target.batch), given)
        found = parity.compare_outputs(target, model, given)
        facts[space] = {**found, "duration_s": round(time.monotonic() - begin_s, 1)}
    return Answer(True, "", facts)


def _written(visit: Visit, target: Target, model: Path, given: np.ndarray) -> Path:
    """The file in the target's precision, where that needs ranges: those on some of the inputs."""
    part = precisions.load(target.precision)
    if not part.PRECISION.calibrated:
        return model
    own = runtimes.engine(target.runtime).recipe
    recipe = precisions.recipe(target.precision, here.probe(target, visit.settings()), own)
    data, path = model.read_bytes(), model.with_name(f"{target.precision}-{model.name}")
    watched = ranges.watched(data, part.ranged(data))
    path.write_bytes(watched.model)
    session = runtimes.load(REFERENCE).load(path, Target("host", REFERENCE))
    images = np.resize(given, (-(-CALIBRATED // target.batch) * target.batch, *given.shape[1:]))
    batches = np.split(images, len(images) // target.batch)
    known = ranges.ranges(session.run, lambda: batches, watched.sizes, "min-max", 100.0)
    session.close()
    path.write_bytes(part.calibrated(data, recipe, known))
    return path


def latency(visit: Visit, target: Target) -> Answer:
    """Are the smallest and the largest network timed without disturbance at rest?"""
    space = spaces.load("tiny")
    archs = (space.smallest, space.largest)
    paths = [visit.model(arch, target.batch) for arch in archs]
    found = here.measure_models(
        target, paths, visit.settings(0.5), ops=[arch.ops for arch in archs]
    )
    names = ("latency_ms", "median_ms", "spread", "rounds", "disturbed", "verdict")
    facts = {f"network {n}": {k: each[k] for k in names} for n, each in enumerate(found)}
    disturbed = [each for each in found if each["verdict"] == "disturbed"]
    return Answer(not disturbed, disturbed[0]["reason"] if disturbed else "", facts)


def resume(visit: Visit, target: Target) -> Answer:
    """Is a campaign whose line is cut in the middle finished, with nothing measured twice?"""
    space, settings = spaces.load("tiny").restricted((8,)), visit.settings(1.5)
    info = kit.make_kit(space, visit.folder / f"kit-b{target.batch}", target.batch, settings)
    cold = here.cold_start(target, visit.model(space.largest, target.batch))
    opening_s = len(info.kit["items"]) * cold["load_ms"] / 1000
    if opening_s > MOST_UNITS * visit.unit_s:
        reason = f"opening a whole kit would take about {opening_s:.0f} s; profile this target"
        return Answer(None, reason, {})
    path, cuts = _log(visit, target), [CUT_AT]
    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def connect(target: Target, purpose: str) -> Iterator[RemoteWorker]:
        with client.connect(target, purpose) as worker:
            yield _Cut(worker, cuts)  # type: ignore[misc]

    def measure() -> campaign.CampaignResult:
        say: Callable[[str, float], None] = lambda text, share: None  # noqa: E731
        return campaign.run_campaign(target, info.folder, path, settings, say, connect)

    try:
        result = measure()
    except LostDeviceError:
        if cuts[0] > 0:  # it was lost before we cut it
            raise
        result = measure()  # as `run the same command again` says
    names = [(*r["id"], r["order"], "ms" in r) for r in read_lines(path)[0][1:]]
    facts = {"records": len(names), "stable": result.stable, "rounds": dict(result.good)}
    if cuts[0] > 0:
        return Answer(None, "it ended before its line was cut", facts)
    twice = len(names) - len(set(names))
    return Answer(not twice, f"{twice} records appear twice" if twice else "", facts)


class _Cut:
    """A worker whose connection is killed once, after some rounds."""

    def __init__(self, worker: RemoteWorker, left: list[int]) -> None:
        self._worker, self._left = worker, left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def measure(self, *given: Any, **named: Any) -> client.Round:
        """A round, or the cut."""
        self._left[0] -= 1
        if self._left[0] == 0:
            raise LostDeviceError("its line was cut for the check")
        return self._worker.measure(*given, **named)


def table(visit: Visit, target: Target) -> Answer:
    """Is the table of that campaign as good as its noise: error over noise?"""
    path = _log(visit, target)
    if not path.exists():
        return Answer(None, "no campaign was measured", {})
    header, *records = read_lines(path)[0]
    info = kit.load_kit(visit.folder / f"kit-b{target.batch}")
    space, settings = spaces.load("tiny").restricted((8,)), visit.settings()
    unstable = campaign.unsettled(info.kit, records, settings.rounds)
    found = fit.fit_table(space, info.kit, header, records, settings.seed, unstable)
    told = found.validation
    shares = {name: told[name] and told[name]["value"] for name in ("error", "noise")}
    facts = {
        **shares,
        "ratio": told.get("ratio"),
        "verdict": found.verdict,
        "estimator": found.calibration["estimator"],
        "conditions": conditions.conditions(records),
    }
    good = found.verdict in ("good", "usable")
    return Answer(good, "" if good else str(told["reason"]), facts)


def heat(visit: Visit, target: Target) -> Answer:
    """When it gets slower under load, does it say that it is held back?"""
    path = visit.model(spaces.load("mbv3-28").largest, target.batch)
    before = here.probe(target, visit.settings())["throttled"]
    found = sustained.sustained(target, path, visit.unit_s, lambda text, share: None)
    names = ("first_ms", "last_ms", "slowdown", "temperature_c")
    facts = {name: found[name] for name in names}
    held = here.probe(target, visit.settings())["throttled"]
    facts["throttled"] = held
    if found["slowdown"] < SLOWER:
        return Answer(None, f"it did not get slower in {visit.unit_s:.0f} s", facts)
    if held is None or before is None:
        return Answer(None, "it got slower, and it tells nothing of throttling", facts)
    if held["now"] or stats.risen(before, held):
        return Answer(True, "", facts)
    if before["since_boot"]:  # they stay up, so that they cannot come up again
        reason = f"it got slower, and said {', '.join(before['since_boot'])} before; start it anew"
        return Answer(None, reason, facts)
    return Answer(False, "it got slower and no flag says why", facts)


def energy(visit: Visit, target: Target) -> Answer:
    """Does its meter give more power under load than at rest, and more energy to more work?"""
    if target.meter == "none":
        return Answer(None, "it has no meter that works", {})
    space = spaces.load("mbv3-28")
    archs = (space.smallest, space.largest)
    paths = [visit.model(arch, target.batch) for arch in archs]
    settings = visit.settings(1.5, energy_window_s=min(2.0, max(0.1, visit.unit_s / 6)))
    small, large = here.measure_energies(target, paths, settings, [arch.ops for arch in archs])
    names = ("energy_mj", "energy_spread", "power_w", "idle_w", "windows", "window_s", "period_s")
    facts = {n: {k: each[k] for k in names} for n, each in (("small", small), ("large", large))}
    facts["rails"] = {"names": sorted(large["rails"])}
    wrong, idle_w = "", large["idle_w"]
    if idle_w is not None and large["power_w"] <= idle_w:
        wrong = "it takes no more power under load than at rest"
    elif small["energy_mj"] >= large["energy_mj"]:
        wrong = "the smallest network takes no less energy than the largest"
    return Answer(not wrong, wrong, facts)


def meters(visit: Visit, target: Target) -> Answer:
    """Do its meters agree on how much more the device takes under load than at rest?"""
    kind = GPU_METERS if runtimes.engine(target.runtime).gpu else CPU_METERS  # of the same watts
    works = {m["name"] for m in visit.board.survey["meters"] if not m["problem"]}
    names = {target.meter: None} if target.meter != "none" else {}
    names |= dict.fromkeys(name for name in kind if name in works)
    if len(names) < 2:
        return Answer(None, "it has fewer than two meters that work", {})
    path, facts = visit.model(spaces.load("mbv3-28").largest, target.batch), {}
    for name in names:
        own = target.meter_options if name == target.meter else {}
        metered = replace(target, meter=name, meter_options=own)
        (found,) = here.measure_energies(metered, [path], visit.settings(0.5))
        facts[name] = {key: found[key] for key in ("power_w", "idle_w", "period_s")}
    rises = [each["power_w"] - (each["idle_w"] or 0.0) for each in facts.values()]
    agree = min(rises) > 0.5 * max(rises) > 0
    return Answer(agree, "" if agree else "they differ by more than a factor of two", facts)


def _log(visit: Visit, target: Target) -> Path:
    return visit.folder / f"{target.name}.jsonl"


Check = Callable[[Visit, Target], Answer]
OF_DEVICE: tuple[Check, ...] = (identity, probes, flags)
OF_TARGET: tuple[Check, ...] = (engine, outputs, latency, resume, table, energy, meters, heat)
