"""hwnas: train one elastic network once, ship the best network for each device.

What can be imported from here is in `hwnas.api`; it is loaded when first used, so that the command
line starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwnas.settings.shipped import provide_profilers

if TYPE_CHECKING:
    from hwnas.api import (
        Architecture,
        CostTable,
        Front,
        HwnasError,
        InfeasibleError,
        Metric,
        Point,
        SearchSpace,
        TableError,
        device_front,
        fit_predictor,
        fit_table,
        load_front,
        load_predictor,
        load_space,
        load_table,
        make_table,
        measured_front,
        metrics_of,
        network_latency,
        pick,
        refine,
        save,
        search_front,
        to_csv,
    )

provide_profilers()  # before anything here imports it

from profilers import __version__ as __version__  # noqa: E402

__all__ = [
    "Architecture",
    "CostTable",
    "Front",
    "HwnasError",
    "InfeasibleError",
    "Metric",
    "Point",
    "SearchSpace",
    "TableError",
    "device_front",
    "fit_predictor",
    "fit_table",
    "load_front",
    "load_predictor",
    "load_space",
    "load_table",
    "make_table",
    "measured_front",
    "metrics_of",
    "network_latency",
    "pick",
    "refine",
    "save",
    "search_front",
    "to_csv",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hwnas import api

    return getattr(api, name)
