"""Is this checkout slower than another one? Every row of search.py and ofa.py that both can run.

    git worktree add ../before COMMIT     and a virtual environment in it: make -C ../before install
    python benchmarks/against.py ../before --rounds 20
    python benchmarks/against.py ../before --parts search --rows dp "price 100,000"
    python benchmarks/against.py --quick    this checkout against itself, few rows, seconds

Each checkout has a process, which runs its own code with the interpreter of its `.venv`. A round
visits every row once, one side right after the other, the first of them drawn; a round more goes
first and does not count. Compared is CPU time of one thread; short rows are repeated for 0.1 s.
The ratio of a row is the median over rounds of this checkout's time over the other's; its interval
are the order statistics that hold the median with 95 % confidence or a little more. A bar is missed
where the whole interval lies above the limit.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent.parent
LIMIT = 1.1  # of the other checkout's time
ORDINARY = 0.95  # confidence of the intervals


class Side(NamedTuple):
    """A process that runs rows with the code of one checkout."""

    child: subprocess.Popen[str]

    def ask(self, *question: Any) -> Any:
        """What the process answers to a request of rows.py."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(question) + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        if not answer:
            sys.exit(f"{' '.join(map(str, self.child.args))} ended with {self.child.wait()}")
        return json.loads(answer)


class Visit(NamedTuple):
    """One row in one round: CPU seconds here and there, and what the work gave."""

    here_s: float
    there_s: float
    here: float
    there: float


def main() -> None:
    parser = argparse.ArgumentParser(description="the time of this checkout over another's")
    parser.add_argument(
        "checkout", type=Path, nargs="?", default=HERE, help="of the other commit; default: this"
    )
    parser.add_argument("--parts", nargs="+", choices=("search", "ofa"), default=["search", "ofa"])
    parser.add_argument("--rows", nargs="+", help="only rows with one of these in their names")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one round of few rows")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.parts, arguments.rows, arguments.rounds = ["search"], ["exact front, "], 1
    found: dict[str, list[Visit]] = {}
    for part in arguments.parts:
        found |= compared(part, arguments)
    print(f"{'row':<56}{'here, s':>10}{'before, s':>11}{'ratio':>8}   interval        gave")
    bars = [shown(name, visits) for name, visits in found.items()]
    document = {
        "setting": {"commits": [commit(HERE), commit(arguments.checkout)], "threads": 1},
        "n": arguments.rounds,
        "spread": {bar["name"]: bar.pop("spread") for bar in bars},
        "bars": bars,
    }
    print(json.dumps(document))


def compared(part: str, arguments: argparse.Namespace) -> dict[str, list[Visit]]:
    """Visits of every row of a part."""
    sides = [started(HERE), started(arguments.checkout.resolve())]
    names, others = (side.ask(part) for side in sides)
    wanted = arguments.rows or [""]
    rows = [n for n in names if n in others and any(word in n for word in wanted)]
    rng = np.random.default_rng(0)
    found: dict[str, list[Visit]] = {name: [] for name in rows}
    for number in range(arguments.rounds + 1):
        for name in rng.permutation(rows).tolist():
            answers: list[Any] = [None, None]
            for side in rng.permutation(2).tolist():
                answers[side] = sides[side].ask(part, name, number)
            (here_s, here), (there_s, there) = answers
            if number:
                found[name].append(Visit(here_s, there_s, here, there))
    for side in sides:
        side.child.communicate()
    return found


def started(checkout: Path) -> Side:
    """The process of a checkout."""
    python = sys.executable if checkout == HERE else checkout / ".venv/bin/python"
    if not Path(python).exists():
        sys.exit(f"{checkout} has no .venv; make one in it (make install)")
    command = [str(python), str(HERE / "benchmarks/searching/rows.py"), str(checkout)]
    pipe = subprocess.PIPE
    return Side(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=None, text=True))


def shown(name: str, visits: list[Visit]) -> dict[str, Any]:
    """The bar of a row, with its interval; its line is printed."""
    ratios = sorted(v.here_s / v.there_s for v in visits)
    here, there = (statistics.median(column) for column in list(zip(*visits, strict=True))[:2])
    ratio, (low, high) = statistics.median(ratios), interval(ratios)
    gave = [statistics.median(column) for column in list(zip(*visits, strict=True))[2:]]
    text = f"{gave[0]:g}" if math.isclose(*gave, rel_tol=1e-6) else f"{gave[0]:g}, {gave[1]:g}"
    print(f"{name:<56}{here:>10.4f}{there:>11.4f}{ratio:>8.3f}   {low:.3f} to {high:.3f}  {text}")
    spread = {"ratio": [low, high], "here_s": here, "there_s": there}
    return {
        "name": name,
        "value": round(ratio, 4),
        "limit": f"<= {LIMIT:g}",
        "holds": low <= LIMIT,
        "spread": spread,
    }


def interval(ordered: list[float]) -> tuple[float, float]:
    """Order statistics that hold the median with at least 95 % confidence; of fewer than six the
    ends.
    """
    n = len(ordered)
    outside, rank = 0.5**n, 0  # how likely at most `rank` values lie below the median
    while rank + 1 < n / 2 and 2 * (outside + math.comb(n, rank + 1) * 0.5**n) <= 1 - ORDINARY:
        rank += 1
        outside += math.comb(n, rank) * 0.5**n
    return ordered[rank], ordered[n - 1 - rank]


def commit(checkout: Path) -> str:
    """The commit of a checkout, and whether it was changed."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
