"""Boards over SSH: how long a board takes to its table, what a cut line costs, what is sent.

Everything goes through a real OpenSSH server on this machine, with keys and a port of its own; the
boards are workers with a cache of their own. Times of the boards are modelled (runtime `fake`) but
for `overhead`, which times this machine's ONNX Runtime both ways, and `emulated`, an aarch64 board
under qemu, whose times are nobody's.

    python benchmarks/edge.py                      all parts, about 15 minutes
    python benchmarks/edge.py --parts cuts,many    some of them
    python benchmarks/edge.py --quick              small versions of cuts and bytes, seconds

Needs openssh-server; `emulated` needs what .ci/emulated-board sets up. A part that cannot run here
has no value, and its bar does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hwnas.measuring import campaign, client, device_queues, kit, remote
from hwnas.measuring.records import read_log
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.settings.errors import LostDeviceError
from hwnas.tables import fit
from profilers.schema import Target

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import emulated
import ssh_boards
import ssh_server

TINY = spaces.load("tiny").restricted([8])
CUTS, BOARDS, PAIRS = 50, 20, 4
EARLY = 0.15  # share of the cuts that come while the board is reached and gets its kit
ADD_S, SENT_MB, SLOWER, HOST_MB = 180.0, 10.0, 1.15, 1024.0  # the bars
BIG_SPACE, BIG_PX = "ofa-mbv3-w10", 224


class Bar(NamedTuple):
    """What one part found: its bar, how many times it was done, and what people see."""

    name: str
    value: float | None
    limit: float
    holds: bool
    n: int
    spread: str


class Bench(NamedTuple):
    """Where a part works, and how small it is."""

    folder: Path
    config: Path
    quick: bool
    rng: random.Random
    cuts: int
    boards: int


def main() -> None:
    arguments = parse()
    names = arguments.parts.split(",") if arguments.parts else list(PARTS)
    if arguments.quick and not arguments.parts:
        names = ["cuts", "bytes"]
    bars: list[Bar] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hwnas-bench-")))
        config = _server(stack, scratch)
        for name in names:
            folder = scratch / name
            folder.mkdir()
            bench = _bench(folder, config, arguments)
            bars.append(PARTS[name](bench) if config.exists() else _absent(name))
    show(arguments, bars)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="boards over SSH")
    parser.add_argument("--quick", action="store_true", help="small versions, seconds")
    parser.add_argument("--parts", default="", help=f"comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the cuts")
    parser.add_argument("--cuts", type=int, default=CUTS, help="campaigns whose line is cut")
    parser.add_argument("--boards", type=int, default=BOARDS, help="driven at once")
    return parser.parse_args()


def _bench(folder: Path, config: Path, arguments: argparse.Namespace) -> Bench:
    sizes = (1, 2) if arguments.quick else (arguments.cuts, arguments.boards)
    return Bench(folder, config, arguments.quick, random.Random(arguments.seed), *sizes)


def show(arguments: argparse.Namespace, bars: list[Bar]) -> None:
    print(f"{'bar':<58}{'value':>9}{'limit':>9}  {'n':>3}  holds  spread")
    for bar in bars:
        value = "-" if bar.value is None else f"{bar.value:.3g}"
        holds = "yes" if bar.holds else "NO"
        print(f"{bar.name:<58}{value:>9}{bar.limit:>9g}  {bar.n:>3}  {holds:<5}  {bar.spread}")
    document = {
        "setting": {"quick": arguments.quick, "seed": arguments.seed, "cores": os.cpu_count()},
        "n": {bar.name: bar.n for bar in bars},
        "spread": {bar.name: bar.spread for bar in bars},
        "bars": [
            {"name": bar.name, "value": bar.value, "limit": bar.limit, "holds": bar.holds}
            for bar in bars
        ],
    }
    print(json.dumps(document))


def _server(stack: contextlib.ExitStack, folder: Path) -> Path:
    """The ssh configuration of a running server; a path that does not exist without one."""
    if not os.access(ssh_server.SSHD, os.X_OK):
        return folder / "no-openssh-server"
    return stack.enter_context(ssh_server.server(folder / "sshd"))


def _absent(name: str) -> Bar:
    return Bar(name, None, 0.0, False, 0, "not run: no OpenSSH server here")


# ---- a board is added and gets its table -------------------------------------------------------

SETTINGS = """
run: run
data: {kind: digits}
space: {name: tiny, resolutions: [8]}
profile: {budget_s: 60, heldout: 5, rounds: 5}
targets: [TARGET]
"""


def add_to_table(bench: Bench) -> Bar:
    """Seconds from `devices add` of an emulated board to its table, at a test's budget."""
    name = "emulated board: devices add to its table, s"
    if not (emulated.FOLDER / "ready").is_file():
        return Bar(name, None, ADD_S, False, 0, "not run: bash .ci/emulated-board first")
    hwnas = [sys.executable, "-m", "hwnas"]
    way = ["--ssh-config", str(bench.config), "--python", str(emulated.FOLDER / "python")]
    way += ["--cache", str(bench.folder / "cache"), "--name", "pi", "--threads", "1"]
    begin_s = time.monotonic()
    run = functools.partial(subprocess.run, cwd=bench.folder, capture_output=True, text=True)
    run([*hwnas, "devices", "add", "board-pi", *way], check=False)
    (path,) = (bench.folder / "targets").glob("pi.ort-cpu.*.yaml")
    (bench.folder / "hwnas.yaml").write_text(SETTINGS.replace("TARGET", path.stem))
    accept = ["--accept", "unreliable,emulated"]
    done = run([*hwnas, "profile", *accept], check=False)
    took_s = time.monotonic() - begin_s
    if done.returncode:
        return Bar(name, took_s, ADD_S, False, 1, done.stderr.strip().splitlines()[-1])
    table = json.loads((bench.folder / "run" / "tables" / f"{path.stem}.json").read_text())
    held = table["marks"] == ["emulated"] and table["validation"]["n"] == 5
    words = f"verdict {table['validation']['verdict']}, marks {table['marks']}"
    return Bar(name, took_s, ADD_S, held and took_s <= ADD_S, 1, words)


# ---- the line is cut ---------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What came of a campaign whose line was cut: what is wrong, if anything."""

    cut: bool
    wrong: str


def cuts(bench: Bench) -> Bar:
    """Campaigns that are not whole after their line was cut at a random moment, of all.

    Every other one goes on by itself; the rest end, and the same command goes on.
    """
    settings = ProfileConfig(budget_s=600, heldout=5, rounds=5, reconnect_s=60, wait_s=60)
    info = kit.make_kit(TINY, bench.folder / "kit", 1, settings)
    whole = _table_keys(info, _measure(bench, info, settings, "whole"))
    count = bench.cuts
    outcomes: list[Outcome] = []
    while sum(outcome.cut for outcome in outcomes) < count and len(outcomes) < 2 * count:
        number = len(outcomes)
        patient = settings.model_copy(update={"reconnect_s": 60 if number % 2 == 0 else 0})
        moment = bench.rng.uniform(-EARLY, 0.95)
        outcomes.append(_cut_once(bench, info, patient, f"cut-{number}", moment, whole))
    wrong = [outcome.wrong for outcome in outcomes if outcome.wrong]
    hit = sum(outcome.cut for outcome in outcomes)
    words = f"{hit} cuts hit a line; {'; '.join(wrong[:2]) or 'none lost anything'}"
    return Bar("campaigns not whole after a cut", len(wrong), 0, not wrong, len(outcomes), words)


def _cut_once(
    bench: Bench,
    info: kit.KitInfo,
    settings: ProfileConfig,
    name: str,
    moment: float,
    whole: Any,
) -> Outcome:
    """Cut a line when a share of the campaign is done, or while it is being set up (below 0)."""
    killed: list[int] = []
    now, over = threading.Event(), threading.Event()
    delay_s = bench.rng.uniform(0, 0.5)

    def say(text: str, share: float) -> None:
        if share >= moment:
            now.set()

    def sabotage() -> None:
        while moment > 0 and not now.wait(0.02) and not over.is_set():
            pass
        over.wait(delay_s)
        while not killed and not over.wait(0.02):
            killed.extend(_kill_lines())

    thread = threading.Thread(target=sabotage)
    thread.start()
    out = bench.folder / f"{name}.jsonl"
    with contextlib.suppress(LostDeviceError):
        _measure(bench, info, settings, name, say)
    over.set()
    thread.join()
    before = out.read_bytes() if out.exists() else b""
    patient = settings.model_copy(update={"reconnect_s": 60})
    _measure(bench, info, patient, name)
    return Outcome(bool(killed), _what_is_wrong(info, out, before, whole))


def _measure(
    bench: Bench,
    info: kit.KitInfo,
    settings: ProfileConfig,
    name: str,
    say: Callable[[str, float], None] = lambda text, share: None,
) -> Path:
    target = ssh_boards.board(bench.folder, bench.config, "cut")
    out = bench.folder / f"{name}.jsonl"
    found = campaign.run_campaign(target, info.folder, out, settings, say)
    assert found.stable, found.reason
    return out


def _kill_lines() -> list[int]:
    """Kill every ssh that this process started."""
    killed = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, name, _, parent = path.read_text().split()[:4]
            if name == "(ssh)" and int(parent) == os.getpid():
                os.kill(int(number), signal.SIGKILL)
                killed.append(int(number))
    return killed


def _what_is_wrong(info: kit.KitInfo, out: Path, before: bytes, whole: Any) -> str:
    """Why a finished campaign is not as one that was never cut; empty if it is."""
    _, records, broken = read_log(out)
    names = [(*record["id"], record["order"]) for record in records]
    if broken or len(set(names)) < len(names):
        return "a record is broken or counted twice"
    if not out.read_bytes().startswith(before):
        return "a measurement was lost"
    return "" if _table_keys(info, out) == whole else "its table has other keys"


def _table_keys(info: kit.KitInfo, out: Path) -> Any:
    """What a table is about, without its numbers."""
    header, records, _ = read_log(out)
    table = fit.fit_table(TINY, info.kit, header, records, 0)
    rows = {key: row["seen"] for key, row in table.rows.items()}
    points = sorted(point[0] for point in table.validation["points"])
    return rows, points, table.resolutions, table.geometry, table.kit


# ---- what is sent ------------------------------------------------------------------------------


def sent(bench: Bench) -> Bar:
    """MB that a board is sent before it can measure a large space at one resolution."""
    space = TINY if bench.quick else spaces.load(BIG_SPACE).restricted([BIG_PX])
    info = kit.make_kit(space, bench.folder / "kit", 1, ProfileConfig())
    files = {item["sha256"]: info.folder / item["file"] for item in info.kit["items"]}
    target = ssh_boards.board(bench.folder, bench.config, "sent")
    with client.connect(target, "what is sent") as worker:
        worker.send_kit(info.kit, files)
        first = worker.sent_bytes / 1e6
    with client.connect(target, "what is sent again") as worker:
        worker.send_kit(info.kit, files)
        again = worker.sent_bytes / 1e6
    words = f"{len(files)} models; {again:.3f} MB the second time"
    name = f"sent to the board for {space.name} at {space.resolutions[0]} px, MB"
    return Bar(name, first, SENT_MB, first <= SENT_MB, 1, words)


# ---- what the transport costs ------------------------------------------------------------------


def overhead(bench: Bench) -> Bar:
    """How much longer a campaign takes over SSH to this machine than without, in turns."""
    settings = ProfileConfig(budget_s=60)
    info = kit.make_kit(spaces.load("tiny").restricted([16]), bench.folder / "kit", 1, settings)
    here = Target("host", "ort-cpu")
    there = ssh_boards.board(bench.folder, bench.config, "near", engine="ort-cpu")
    pairs = []
    for number in range(PAIRS):
        took_s = {}
        for which in (here, there) if number % 2 else (there, here):
            out = bench.folder / f"{number}-{which.device}.jsonl"
            begin_s = time.monotonic()
            remote.run_campaign(which, info.folder, out, settings, lambda text, share: None)
            took_s[which.device] = time.monotonic() - begin_s
        pairs.append((took_s[there.device], took_s[here.device]))
    value = statistics.median(over / local for over, local in pairs)
    words = ", ".join(f"{over:.1f} over {local:.1f} s" for over, local in pairs)
    name = "campaign over SSH to this machine, times the local one"
    return Bar(name, value, SLOWER, value <= SLOWER, PAIRS, words)


# ---- many boards -------------------------------------------------------------------------------


def many(bench: Bench) -> Bar:
    """Largest resident memory of this process while it drives many boards at once, MB."""
    settings = ProfileConfig(budget_s=600, heldout=5, rounds=5)
    info = kit.make_kit(TINY, bench.folder / "kit", 1, settings)
    count = bench.boards
    first_s: dict[str, float] = {}
    last_s: dict[str, float] = {}

    def piece(number: int) -> Callable[[], bool]:
        target = ssh_boards.board(bench.folder, bench.config, f"{number:02d}")

        def say(text: str, share: float) -> None:
            first_s.setdefault(target.device, time.monotonic())
            last_s[target.device] = time.monotonic()

        out = bench.folder / f"{number}.jsonl"
        return lambda: remote.run_campaign(target, info.folder, out, settings, say).stable

    work = {f"board-{number:02d}": piece(number) for number in range(count)}
    done = device_queues.drive(work, {name: name for name in work})
    whole = sum(future.result() for future in done.values())
    at_once = max(
        sum(first_s[other] <= moment_s <= last_s[other] for other in first_s)
        for moment_s in first_s.values()
    )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    words = f"{whole} of {count} queues finished, up to {at_once} measured at once"
    holds = whole == count and peak_mb < HOST_MB
    return Bar(
        f"host memory while {count} boards are driven, MB", peak_mb, HOST_MB, holds, 1, words
    )


PARTS: dict[str, Callable[[Bench], Bar]] = {
    "emulated": add_to_table,
    "cuts": cuts,
    "bytes": sent,
    "overhead": overhead,
    "many": many,
}


if __name__ == "__main__":
    main()
