"""The Python interface: what `from hwnas import ...` gives, for notebooks and other programs.

Everything here works on files that commands made (tables, predictors, fronts), on objects made from
them, or on numbers of one's own, and loads no torch; what is fitted is fitted by scikit-learn.
Other names may change between versions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.networks import spaces
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.predictors import predictor
from hwnas.search import front as fronts
from hwnas.search import problem, searchers
from hwnas.search.front import Front, Point
from hwnas.search.front_csv import to_csv
from hwnas.search.priced import priced
from hwnas.search.problem import Metric
from hwnas.search.union import union
from hwnas.settings import shipped
from hwnas.settings.amounts import budgets
from hwnas.settings.config import PickConfig, RefineConfig, SearchConfig
from hwnas.settings.config_file import explained
from hwnas.tables import table
from hwnas.tables.table import CostTable, network_latency
from profilers.errors import ConfigError, HwnasError, InfeasibleError, TableError
from profilers.schema import target_from_name

if TYPE_CHECKING:
    from hwnas.predictors.nonlinear import NonlinearPredictor
    from hwnas.predictors.predictor import Predictor
    from hwnas.search.refine import Round

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

MOST_OBJECTIVES = 4


def load_space(
    name: str, resolutions: Sequence[int] = (), channels: int = 0, classes: int = 0
) -> SearchSpace:
    """A search space.

    Args:
        name: one of `hwnas space list`, module:NAME of your own, or a path of `space.json`.
        resolutions: px to keep; empty: all that the space offers.
        channels: of the images, 1 or 3; 0: as the space has it.
        classes: 0: as the space has it. Tables and predictors of a run fit only the channels and
            classes of its data.

    Raises:
        ConfigError: no such space, or a resolution that it does not offer.
    """
    space = spaces.load(name)
    space = space.for_data(channels or space.in_channels, classes or space.n_classes)
    return space.restricted(tuple(resolutions)) if resolutions else space


def load_table(path: str | Path) -> CostTable:
    """The table of a file, or one that ships with hwnas.

    Args:
        path: of the file; `<space>/<target>` of `hwnas table list` where there is no such file.

    Raises:
        TableFormatError: missing, truncated, edited or of another kind.
    """
    own, known = Path(path), shipped.folder("latency_tables") / f"{path}.json"
    return table.load_table(known if known.is_file() and not own.exists() else own)


def load_predictor(path: str | Path, space: SearchSpace) -> Metric:
    """The predicted error of a space's networks, from a predictor.npz.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
        TableError: it was fitted for another space.
    """
    return predictor.load(Path(path), space).metric(space)


def search_front(
    space: SearchSpace,
    costs: CostTable | None = None,
    error: Metric | None = None,
    *,
    metrics: Mapping[str, Metric] | None = None,
    accept: Sequence[str] = (),
    **settings: Any,
) -> Front:
    """The front of a space.

    Args:
        space: the search space.
        costs: a target's table; its resolutions are those searched. None: counts only.
        error: what prices the error: `load_predictor`, or anything with
            `evaluate(genome (n, n_choices)) -> (n,)`.
        metrics: others in place of, or besides, those of table and predictor, under names of your
            own; objectives and budgets may be of these.
        accept: refusals of tables to override: unreliable, emulated, estimated.
        settings: fields of `search` in hwnas.yaml: objectives, budgets, algorithm, population,
            generations, seed and so on.

    Raises:
        ConfigError: a setting is unknown, or an objective has no metric.
        TableError: the table does not serve the space, or is not accepted.
        InfeasibleError: a budget cannot be met; names the smallest reachable value.
    """
    config = _search_config(settings)
    known = {**metrics_of(space, costs, error, accept), **(metrics or {})}
    stated = problem.make_problem(space, config, known)
    found = searchers.search(stated, config)
    hashes = {"table": costs.sha256} if costs else {}
    target = str(costs.target["name"]) if costs else "no target"
    return fronts.make_front(target, stated, found, config, hashes, tuple(accept))


def metrics_of(
    space: SearchSpace,
    costs: CostTable | None = None,
    error: Metric | None = None,
    accept: Sequence[str] = (),
) -> dict[str, Metric]:
    """Every metric of a space's networks by name: exact counts, `latency_ms` and maybe `energy_mj`
    of a table, and the error.

    Args:
        space, costs, error, accept: as of `search_front`.

    Raises:
        TableError: the table does not serve the space, or is not accepted.
    """
    if costs is None:
        return problem.metrics_of(space, error=error)
    table.check_serves(costs, space, frozenset(accept))
    return priced(space, costs, error, accept)


def _search_config(settings: Mapping[str, Any]) -> SearchConfig:
    """The settings of a search, whose objectives and budgets may have names of the user's own."""
    given = dict(settings)
    names = tuple(given.pop("objectives", SearchConfig().objectives))
    limits = _budgets(given.pop("budgets", {}), "search")
    config = explained(SearchConfig, given, "search")
    if config.only:  # metrics of the user's own price genomes of the space that they were made for
        raise ConfigError("search: only is a setting of hwnas.yaml; here narrow the space itself")
    if not 2 <= len(names) <= MOST_OBJECTIVES:
        raise ConfigError(f"search: objectives {names}: name 2 to {MOST_OBJECTIVES} metrics")
    return config.model_copy(update={"objectives": names, "budgets": limits})


def _budgets(given: Mapping[str, Any], source: str) -> dict[str, float | str]:
    try:
        return dict(budgets(given))
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: budgets: {error}") from None


def load_front(path: str | Path, space: SearchSpace) -> Front:
    """The front of a file that `hwnas search` wrote.

    Raises:
        FileFormatError: missing, truncated, edited or of another kind.
        TableError: it was searched in another geometry.
    """
    return fronts.load(Path(path), space)


def device_front(name: str, found: Sequence[Front]) -> Front:
    """One front of several: the best over all targets of a device. Each point names its target;
    shares of budgets are of the max network where it costs least.

    Args:
        name: of the device, for messages.
        found: one front of each target, of one space and of the same objectives.

    Raises:
        ConfigError: they are of other spaces or objectives.
    """
    return union(name, found)


def pick(found: Front, **rule: Any) -> list[Point]:
    """The networks that a rule of `pick` in hwnas.yaml chooses: `budget={"latency_ms": 4.5}`,
    `rule="knee"`, `rule="spread", k=5`.

    Raises:
        ConfigError: an unknown rule or metric.
        InfeasibleError: no network is within the budget; names the smallest value.
    """
    limits = _budgets(rule.get("budget", {}), "pick")
    given = {**rule, "budget": {"macs": 1}} if limits else rule  # any name, to be checked as one is
    config = explained(PickConfig, dict(given), "pick").model_copy(update={"budget": limits})
    return [point for _, point in fronts.pick(found, config)]


# ---- numbers of one's own -----------------------------------------------------------------------


def make_table(
    space: SearchSpace,
    target: str,
    latency_ms: Mapping[str, float],
    network_ms: float = 0.0,
    energy_mj: Mapping[str, float] | None = None,
) -> CostTable:
    """A table of op costs that you know; it is marked as imported, and nothing validates it.

    Args:
        space: whose ops they are; the table has the resolutions whose every op is there.
        target: what they are of, as `phone.tflite.fp32.b1.t4`.
        latency_ms: by op key, `placed.op.key` for placed in `arch.ops`.
        network_ms: what every network costs beside its ops.
        energy_mj: by op key; None: not known.

    Raises:
        MissingOpError: ops are missing at every resolution.
        FileFormatError: latencies or energies that no device has.
    """
    from hwnas.ofa.op_costs import NETWORK, Cost, table_of_costs

    known = energy_mj or {}
    costs = {key: Cost(float(ms), known.get(key)) for key, ms in latency_ms.items()}
    costs[NETWORK] = Cost(network_ms, 0.0)
    return table_of_costs(space, target_from_name(target), costs, "the costs given", {})


def fit_table(
    space: SearchSpace,
    target: str,
    archs: Sequence[Architecture],
    latency_ms: np.ndarray,
    seed: int = 0,
) -> CostTable:
    """A table fitted to latencies of whole networks, as `hwnas import latencies` fits it.

    Args:
        space: whose networks they are.
        target: what they were measured on, as `phone.tflite.fp32.b1.t4`.
        archs: n different networks.
        latency_ms: (n,), or (n, repeats) where each was measured several times.
        seed: of the networks that are held out to say how good the table is.

    Raises:
        ConfigError: too few networks, or as many latencies as there are not networks.
    """
    from hwnas.tables.whole_networks import Sources, Timed, fit_networks

    times = np.asarray(latency_ms, dtype=np.float64)
    fits = times.ndim in (1, 2) and len(times) == len(archs) == len(set(archs)) > 0
    if not fits or not (np.isfinite(times) & (times > 0)).all():
        raise ConfigError(
            f"{len(archs)} networks, {len(set(archs))} of them different, and latencies of shape "
            f"{times.shape}; give a row of finite numbers above 0 for each different network"
        )
    rows = [tuple(row) for row in times.reshape(len(archs), -1).tolist()]
    networks = [Timed(arch, ms) for arch, ms in zip(archs, rows, strict=True)]
    return fit_networks(space, target_from_name(target), networks, Sources({}), seed)


def fit_predictor(
    space: SearchSpace, top1: Mapping[Architecture, float], kind: str = "ridge", seed: int = 0
) -> Predictor | NonlinearPredictor:
    """A predictor of error fitted to accuracies of networks: what `search_front` takes as `error`,
    after `.metric(space)`.

    Args:
        space: the search space.
        top1: a fraction, of each network that was measured.
        kind: as `accuracy.predictor` in hwnas.yaml.
        seed: of cross-validation.

    Raises:
        ConfigError: no such kind, too few networks, or an accuracy that is no fraction.
    """
    from hwnas.predictors import choice  # loads scikit-learn, where the kind needs it

    return choice.fit(space, top1.items(), seed, "", kind)


def save(made: CostTable | Predictor | NonlinearPredictor | Front, path: str | Path) -> None:
    """Write a table, predictor or front as the file that commands read: `tables/<target>.json`,
    `predictor.npz`, `fronts/<target>.json` of a run folder.
    """
    if isinstance(made, CostTable):
        table.save(made, Path(path))
    elif isinstance(made, Front):
        fronts.save(made, Path(path))
    else:
        predictor.save(made, Path(path))


def refine(
    space: SearchSpace,
    measure: Callable[[Sequence[Architecture]], Iterable[float]],
    costs: Mapping[str, Metric],
    known: Mapping[Architecture, float] | None = None,
    first: int = 50,
    **settings: Any,
) -> Iterator[Round]:
    """Measure the networks that promise most, fit, and go on: rounds until the budget is spent.

    `measured` of a round holds every accuracy, `stable` says when to stop; the answer is
    `measured_front(round.measured, cost)`.

    Args:
        space: the search space.
        measure: top-1, fractions, of some networks in their order. It may start all and be waited
            for one by one: `lambda archs: executor.map(my_top1, archs)`.
        costs: what the error is weighed against, by names of your own: of `metrics_of`, or anything
            with `evaluate(genome (n, n_choices)) -> (n,)`, above 0.
        known: top-1 of networks that were measured before.
        first: random networks that are measured before the first fit, those of `known` among them.
        settings: fields of `refine` in hwnas.yaml: budget, batch, pending, inner, seed.

    Raises:
        ConfigError: a setting is unknown, there is no cost, or an accuracy is no fraction.
    """
    from hwnas.search import refine as loops  # loads scikit-learn

    config = explained(RefineConfig, settings, "refine")
    if not costs:
        raise ConfigError("refine: costs are empty; name what the error is weighed against")
    goals = tuple(loops.goal_of(space, name, cost) for name, cost in costs.items())
    measured = dict(known or {})
    rng = np.random.default_rng([config.seed, 1])
    drawn = [a for a in space.architectures(space.sample(2 * first, rng)) if a not in measured]
    missing = list(itertools.islice(dict.fromkeys(drawn), max(first - len(measured), 0)))
    if missing:
        top1 = np.array(list(measure(missing)), dtype=np.float64)
        loops.check_accuracies(missing, top1)
        measured |= dict(zip(missing, top1.tolist(), strict=True))
    yield from loops.refine(loops.Loop(space, goals, config), measured, measure)


def measured_front(measured: Mapping[Architecture, float], cost: Metric) -> list[Architecture]:
    """The measured networks of which none has both less error and less of a cost, cheapest first.

    Args:
        measured: top-1 of networks, at least one.
        cost: anything with `evaluate(genome (n, n_choices)) -> (n,)`.
    """
    from hwnas.search import refine as loops  # loads scikit-learn

    return loops.measured_front(measured, cost)
