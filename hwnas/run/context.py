"""What every stage is given: settings, run folder, accepted words, where to report."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwnas.measuring import remote
from hwnas.measuring.cpus import check_threads
from hwnas.networks.narrowing import narrowed
from hwnas.networks.space import SearchSpace
from hwnas.run import imported, own
from hwnas.run.folder import RunFolder
from hwnas.run.own_metric import with_metric
from hwnas.settings import targets
from hwnas.settings.config import Config, DataConfig, SpaceConfig
from hwnas.tables import shipped
from hwnas.tables.table import load_table
from hwnas.tasks import Task
from hwnas.tasks import load as load_task
from profilers import precisions, runtimes
from profilers.errors import ConfigError, FileFormatError, HwnasError
from profilers.schema import Target, canonical_json, read_json

DATA_FORMAT = "hwnas-data-1"

Progress = Callable[[float, str], None]  # (share done, what is going on)


@dataclass(frozen=True)
class Reporter:
    """Where a stage says what it does.

    Attributes:
        progress: given the name of a piece of work, returns where its progress goes.
        note: one line worth keeping on the screen.
        warn: one line that must not be missed.
    """

    progress: Callable[[str], Progress]
    note: Callable[[str], None]
    warn: Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Context:
    """One run: settings, where hwnas.yaml lies, the run folder, what is accepted by name, and
    whether a search goes on from the front that is there.
    """

    config: Config
    base: Path
    run: RunFolder
    report: Reporter
    accept: frozenset[str] = frozenset()
    resume: bool = False

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """The data's description, as the stage `data` wrote it.

        Raises:
            ConfigError: that stage has not run.
        """
        if not imported.has_images(self.config):
            return imported.describe(self.config, self.run)
        if not self.run.data.exists():
            raise ConfigError(f"{self.run.data} does not exist; run `hwnas train` first")
        found = dict(read_json(self.run.data, DATA_FORMAT))
        missing = sorted({"channels", "size", "classes", "mean", "std", "fingerprint"} - set(found))
        if missing or not isinstance(found["channels"], int):
            raise FileFormatError(
                f"{self.run.data} lacks {missing or 'a number of channels'}; delete it and run "
                "`hwnas train` again"
            )
        return found

    @functools.cached_property
    def data_config(self) -> DataConfig:
        """The data's settings with their folder found from where hwnas.yaml lies."""
        settings = self.config.data
        if not settings.root or settings.kind == "factory":
            return settings
        return settings.model_copy(update={"root": str(self.base / settings.root)})

    @functools.cached_property
    def task(self) -> Task:
        """What networks learn to say."""
        task, metric = load_task(self.config.task.name), self.config.task.metric
        return with_metric(task, metric, self.base) if metric else task

    @functools.cached_property
    def space(self) -> SearchSpace:
        """The space for this data, restricted to the resolutions of the settings.

        Raises:
            ConfigError: as `space_for`; the space of a model of the user's is of other settings;
                its networks say something else than the task.
        """
        settings, data = self.config.space, self.data
        if settings.model:
            own.check_current(settings, self.base, self.run)
        serial = data.get("preparation") == "series"
        found = own.load_space(settings, self.run)
        space = space_for(settings, found, (data["channels"], len(data["classes"])), serial)
        if len(space.largest.ops[-1].op.shape) - 1 != self.task.label_axes:
            raise ConfigError(_other_task(self.config))
        return space

    @functools.cached_property
    def searched(self) -> SearchSpace:
        """The space with the options that `search.only` leaves.

        Raises:
            ConfigError: as `space`; it names a choice that is not there, or leaves none.
        """
        return narrowed(self.space, self.config.search.only)

    def table(self, target: str) -> Path:
        """The file of a target's table: the run's own or, where it has none, the shipped one."""
        own = self.run.table(target)
        return own if own.exists() else shipped.serving(self.space, target) or own

    @functools.cached_property
    def _targets(self) -> dict[str, Target]:
        return {}

    def target(self, name: str) -> Target:
        """The target of a name, as its file was when it was first asked for.

        Raises:
            ConfigError: there is none.
        """
        if name not in self._targets:
            self._targets[name] = self._target(name)
        return self._targets[name]

    def _target(self, name: str) -> Target:
        found = targets.load_target(name, self.base)
        if not self.config.cluster:
            return found
        return replace(found, connection={**found.connection, "cluster": self.config.cluster})

    @functools.cached_property
    def lost(self) -> dict[str, HwnasError]:
        """Targets that failed in this process before they had packages, and why: their results of
        earlier runs do not count in what is best on their devices.
        """
        return {}

    @functools.cached_property
    def environments(self) -> dict[str, dict[str, Any]]:
        """Environments of devices when they were asked last; to be cleared when time has passed."""
        return {}

    def environment(self, name: str, at_once: bool = False) -> dict[str, Any]:
        """The environment that numbers of a target would be taken on; a device is asked once for
        all targets that drive it in the same way but for batch and threads.

        Args:
            name: of the target.
            at_once: neither wait for a device that is busy nor for one that is off.

        Raises:
            ConfigError, DeviceError: as `remote.probe`.
        """
        target = self.target(name)
        key = canonical_json(replace(target, batch=1, threads=1).to_json())
        if key not in self.environments:
            settings = self.config.profile
            if at_once:
                settings = settings.model_copy(update={"reconnect_s": 0, "wait_s": 0})
            self.environments[key] = remote.probe(target, settings)
        check_threads(target, self.environments[key])
        return self.environments[key]

    def predictor(self, name: str) -> Path:
        """The predictor of a target's precision: the one of networks as they are written for it
        where such were measured, else that of fp32.
        """
        return predictor_file(self.run, self.target(name).precision, self.recipe(name))

    def recipe(self, name: str) -> str:
        """How the precision of a target is written for its device, by the environment of the
        target's table or, before there is one, by the device as it is now; empty if there is only
        one way.
        """
        target = self.target(name)
        if not is_calibrated(target.precision):
            return ""
        path = self.table(name)
        facts = load_table(path).environment if path.exists() else self.environment(name)
        return recipe_of(target, facts)


def is_calibrated(precision: str) -> bool:
    """Whether a precision is written as its device needs, with ranges from images."""
    return precisions.load(precision).PRECISION.calibrated


def recipe_of(target: Target, environment: Mapping[str, Any]) -> str:
    """How the precision of a target is written for a device; empty if there is only one way."""
    if not is_calibrated(target.precision):
        return ""
    own = runtimes.engine(target.runtime).recipe
    return precisions.recipe(target.precision, environment, own)


def predictor_file(run: RunFolder, precision: str, recipe: str) -> Path:
    """The predictor of networks as a recipe writes them, if some were measured; else of fp32."""
    own = run.predictor_in(f"{precision}-{recipe}")
    return own if recipe and own.exists() else run.predictor


def space_for(
    settings: SpaceConfig, found: SearchSpace, data: tuple[int, int], serial: bool
) -> SearchSpace:
    """The space of the settings for data, at the resolutions of the settings.

    Args:
        settings: of the space.
        found: the space that they name.
        data: channels and classes.
        serial: whether the data are time series, not images.

    Raises:
        ConfigError: a space of the other kind, or of a model that was built for other data; a
            resolution that it does not offer.
    """
    taken = (found.in_channels, found.n_classes)
    if settings.model and data != taken:
        raise ConfigError(
            f"{settings.model} takes {taken[0]} channels and gives {taken[1]} classes, the data "
            f"have {data[0]} and {data[1]}; let it build the model for these data"
        )
    space = found.for_data(*data)
    if serial != (len(space.input_shape(1)) == 2):
        kinds = ("images", "time series")
        raise ConfigError(
            f"space {space.name} takes {kinds[not serial]}, the data are {kinds[serial]}; choose "
            "another space.name (`hwnas space list`)"
        )
    return space.restricted(settings.resolutions or space.profiled)


def _other_task(config: Config) -> str:
    if config.task.name == "classification":
        return f"{config.space.model} gives maps of classes; set task: {{name: segmentation}}"
    given = config.space.model or f"space {config.space.name}"
    return (
        f"{given} gives one class for an image, task.name is {config.task.name}; name a model of "
        "yours that gives (images, classes, height, width) as space.model"
    )


def need(path: Path, command: str) -> Path:
    """path itself, if the stage that writes it has run.

    Raises:
        ConfigError: it has not.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; run `hwnas {command}` first")
    return path


def mutes(context: Context, gate: str, told: str) -> bool:
    """Whether a gate's refusal is overridden; if so, it warns and names the word.

    Args:
        context: with what is accepted.
        gate: of `hwnas.settings.accept.GATES`.
        told: the refusal.
    """
    if gate not in context.accept:
        return False
    context.report.warn(f"{told}; muted by --accept {gate}")
    return True
