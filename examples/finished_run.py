"""Another budget for a finished run, without its settings: python finished_run.py RUN TARGET."""

import json
import sys
from pathlib import Path

import hwnas

run, target = Path(sys.argv[1]), sys.argv[2]
try:
    table = hwnas.load_table(run / "tables" / f"{target}.json")
    data = json.loads((run / "data.json").read_text())
    shape = {"channels": data["channels"], "classes": len(data["classes"])}
    space = hwnas.load_space(table.space, resolutions=table.resolutions, **shape)
    error = hwnas.load_predictor(run / "predictor.npz", space)
    budget = hwnas.network_latency(table, space.largest) / 2
    front = hwnas.search_front(space, table, error, budgets={"latency_ms": budget}, generations=30)
except (OSError, hwnas.HwnasError) as problem:
    sys.exit(f"{run}: {problem}")
best = hwnas.pick(front, rule="best")[0]
print(f"within {budget:.4f} ms: {best.id}, {1 - best.predicted['error']:.1%} expected")
