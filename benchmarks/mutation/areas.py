"""What decides numbers: its modules by area, and the test files that answer for each.

Test files go without `tests/test_` and `.py`, and run in this order: quick ones stand first.
"""

from __future__ import annotations

from pathlib import Path

AREAS: dict[str, dict[str, str]] = {
    "training step": {
        "hwnas/supernet/training.py": "step train threads",
        "hwnas/supernet/step.py": "step train",
        "hwnas/supernet/plan.py": "train step",
        "hwnas/supernet/state.py": "step train",
        "hwnas/supernet/depthwise.py": "depthwise",
        "hwnas/supernet/sorting.py": "sorting",
        "hwnas/supernet/outset.py": "train step threads",
    },
    "statistics": {
        "profilers/stats.py": "stats conditions campaign",
        "hwnas/measuring/rounds.py": "campaign crash",
    },
    "fit": {
        "hwnas/tables/fit.py": "bend fit check",
        "hwnas/tables/estimators.py": "estimators bend fit",
        "hwnas/tables/bend.py": "bend fit",
        "hwnas/tables/observations.py": "observations estimators fit",
    },
    "imports": {
        "hwnas/tables/whole_networks.py": "whole_networks together",
        "hwnas/tables/together.py": "together",
        "hwnas/tables/imported.py": "op_costs whole_networks lookup_tables",
        "hwnas/ofa/latencies.py": "whole_networks",
        "hwnas/ofa/measured.py": "results ofa_files",
        "hwnas/ofa/results.py": "results",
        "hwnas/ofa/op_costs.py": "op_costs",
        "hwnas/ofa/lookup_tables.py": "lookup_tables",
    },
    "narrowing": {
        "hwnas/networks/narrowing.py": "narrowing",
        "hwnas/search/space_profile.py": "several commands_front",
        "hwnas/search/priced.py": "api energy_search",
        "hwnas/search/joint.py": "several bend commands_front",
    },
    "report": {
        "hwnas/report/packages.py": "report",
        "hwnas/report/compact.py": "report report_browser",
        "hwnas/report/devices.py": "report",
        "hwnas/run/accuracy.py": "accuracy report",
    },
    "verdict": {"hwnas/tables/validation.py": "validation table fit"},
    "pareto": {"hwnas/pricing/pareto.py": "pareto elimination"},
    "exact front": {"hwnas/pricing/elimination.py": "elimination pricing"},
    "pricing": {
        "hwnas/pricing/terms.py": "pricing elimination predictor",
        "hwnas/pricing/places.py": "pricing elimination",
        "hwnas/pricing/links.py": "pricing elimination",
        "hwnas/pricing/exact_sums.py": "pricing elimination",
        "hwnas/networks/primitives.py": "ops space counts",
        "hwnas/networks/graph.py": "ops onnx_graph counts",
        "hwnas/networks/placed.py": "families counts pricing",
        "hwnas/networks/slots.py": "families pricing coverage",
    },
    "parity": {"hwnas/measuring/parity.py": "parity"},
    "engines": {
        "profilers/engines/litert_graph.py": "engines",
        "profilers/engines/litert_windows.py": "engines",
        "profilers/engines/litert_writer.py": "engines",
    },
    "budgets": {
        "hwnas/settings/amounts.py": "config",
        "hwnas/search/front.py": "front",
        "hwnas/search/union.py": "union",
        "hwnas/search/fleet.py": "several",
        "hwnas/run/picking.py": "front energy_search device_runs pipeline",
        "hwnas/search/problem.py": "problem energy_search",
    },
    "energy": {
        "profilers/energy/windows.py": "energy_windows energy",
        "profilers/energy/sampling.py": "meters",
        "hwnas/measuring/windows.py": "energy_windows energy",
        "hwnas/tables/energy.py": "energy energy_search",
    },
    "int8": {
        "profilers/qdq.py": "int8",
        "profilers/precisions/int8.py": "int8",
        "hwnas/networks/ranges.py": "quantised",
        "hwnas/run/quantised.py": "quantised",
    },
    "gates": {"hwnas/run/gates.py": "ci", "hwnas/run/compare.py": "ci"},
    "manifests": {"hwnas/run/package.py": "package series"},
}


def tests_of(root: Path, file: str) -> list[str]:
    """The test files that answer for a module, relative to the repository.

    Raises:
        FileNotFoundError: one is not there.
    """
    names = next(modules[file] for modules in AREAS.values() if file in modules)
    found = [f"tests/test_{name}.py" for name in names.split()]
    for path in (file, *found):
        if not (root / path).is_file():
            raise FileNotFoundError(
                f"benchmarks/mutation/areas.py names {path}, which is not there"
            )
    return found
