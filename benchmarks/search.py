"""Search speed and quality on the once-for-all MobileNetV3 space (46 choices), against pymoo.

Questions, one part each: `speed` (additive model: architectures a second, exact front), `mlp` (a
multi-layer accuracy predictor, 100 x 1,000 generations), `quality` (hypervolume at equal
evaluations, default search in a quarter of pymoo's time), `exact` (equal to enumeration?),
`searchers` (every searcher at one budget), `smsemoa` (SMS-EMOA by NSGA-II's time and hypervolume,
two and three objectives).

    python benchmarks/search.py                     all parts, about 12 minutes
    python benchmarks/search.py --parts speed exact
    python benchmarks/search.py --quick             all parts, small, seconds

One process, one thread; times are CPU time, which other work on the machine inflates less. Every
round runs every contestant once, in random order, with a new seed; the tables show the median over
rounds and the range. Latency is modelled (MACs times a seeded factor for each op), error is a
seeded sum of choices through a monotone link, or a predictor of once-for-all's size taught by it:
shapes and sizes are those of a real search, values are not measured anywhere. Reference point:
error of guessing, 1.1 x latency of the max network.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy and torch are loaded

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from searching import parts  # noqa: E402

PARTS = {
    "speed": parts.speed,
    "mlp": parts.mlp,
    "quality": parts.quality,
    "exact": parts.exact,
    "searchers": parts.every_searcher,
    "smsemoa": parts.smsemoa,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="search speed and quality against pymoo")
    parser.add_argument("--quick", action="store_true", help="few short rounds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    found = {name: PARTS[name](arguments.quick) for name in arguments.parts}
    bars = [bar for part in found.values() for bar in part.bars]
    print()
    for bar in bars:
        print(
            f"{'holds' if bar['holds'] else 'MISSED':<8}{bar['name']} {bar['value']} {bar['limit']}"
        )
    document = {
        "setting": {"space": "ofa-mbv3-w10", "parts": arguments.parts, "threads": 1},
        "n": {name: part.n for name, part in found.items()},
        "spread": {name: part.spread for name, part in found.items()},
        "bars": bars,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
