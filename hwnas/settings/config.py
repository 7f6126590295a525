"""All settings of hwnas.yaml, each declared once with default, bounds and help; others are refused.

A config object travels whole and is written into every file of a stage. See docs/configuration.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from hwnas.settings import parts
from hwnas.settings.data_config import DataConfig as DataConfig
from hwnas.settings.data_config import Settings
from hwnas.settings.int8_config import Int8Config
from hwnas.settings.pick_config import Budgets, Limited, Objective, Share
from hwnas.settings.pick_config import PickConfig as PickConfig
from hwnas.settings.space_config import SpaceConfig as SpaceConfig
from hwnas.settings.train_config import FinetuneConfig as FinetuneConfig
from hwnas.settings.train_config import TrainConfig as TrainConfig
from profilers.plugins import select

if TYPE_CHECKING:
    Searcher = str
    PredictorKind = str
    TaskName = str
else:  # what pydantic offers and checks
    Searcher = Literal[parts.names("search/searchers")]
    PredictorKind = Literal[parts.names("predictors/kinds", "ridge", "auto")]
    TaskName = Literal[parts.names("tasks")]


class TaskConfig(Settings):
    """What networks learn to say of an image, and what their error is."""

    name: TaskName = Field(
        "classification",
        description="classification: its class, error is 1 - top-1; segmentation: the class of "
        "each pixel, error is 1 - mean IoU, for models of yours and data with masks",
    )
    metric: str = Field(
        "",
        pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$",
        description="module:function of yours, (answers, labels) to the error from 0 to 1, in "
        "place of the task's; answers are logits (images, classes), or classes of pixels",
    )


def _address(value: str) -> str:
    if value and not re.fullmatch(r"(tcp|tls)://[A-Za-z0-9._\[\]:-]+", value):
        raise ValueError(f"{value!r} is not an address of a scheduler; give tcp://host:8786")
    return value


Scheduler = Annotated[str, AfterValidator(_address)]


class AccuracyConfig(Settings):
    """How many subnets are measured, and on what, to fit the accuracy predictor."""

    measure: int = Field(150, ge=8, le=100_000, description="subnets measured on validation images")
    images: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description="validation images of one measurement"
    )
    bn_images: int = Field(1024, ge=32, description="training images of BatchNorm calibration")
    predictor: PredictorKind = Field(
        "ridge",
        description="kind that predicts error; ridge is a sum, which dp needs; auto: the best in "
        "cross-validation",
    )
    training_free: int = Field(
        64,
        ge=0,
        le=10_000,
        description="untrained networks scored for a prior of the ridge, where fewer than 50 "
        "subnets are measured; 0: none",
    )
    results: str = Field(
        "", description="CSV of measured subnets to fit instead of measuring; empty: measure"
    )
    workers: int = Field(
        1, ge=1, le=1024, description="processes that measure subnets at the same time"
    )
    cluster: Scheduler = Field(
        "",
        description="Dask scheduler whose workers measure subnets instead, tcp://host:8786; empty: "
        "this machine does",
    )
    seed: int = Field(0, ge=0, description="of the subnets measured")

    @model_validator(mode="after")
    def _measured_in_one_place(self) -> AccuracyConfig:
        if self.cluster and self.workers > 1:
            raise ValueError(
                f"workers {self.workers} are processes of this machine, cluster names others; give "
                "one of the two"
            )
        return self


class RefineConfig(Settings):
    """The measure-refit loop: which subnets are measured after the first ones."""

    in_run: bool = Field(
        False, description="whether `hwnas run` refines; `hwnas refine` always does"
    )
    first: int = Field(
        50,
        ge=8,
        le=100_000,
        description="subnets measured before the first fit of a run that refines (refine.in_run), "
        "in place of accuracy.measure",
    )
    budget: int = Field(
        100, ge=1, le=100_000, description="subnets measured at most, besides the first ones"
    )
    batch: int = Field(10, ge=1, le=10_000, description="subnets measured between two fits")
    pending: int = Field(
        0,
        ge=0,
        le=10_000,
        description="last subnets of a batch that the next one is chosen without: they count as "
        "predicted, so that no worker waits for them; 0: every batch is waited for",
    )
    inner: Literal["dp", "nsga2"] = Field(
        "dp", description="finds what to measure on the fit: exact fronts, or NSGA-II"
    )
    seed: int = Field(0, ge=0, description="of the subnets chosen")


class ProfileConfig(Settings):
    """What one profiling campaign may cost."""

    budget_s: float = Field(
        60, gt=1, le=86_400, description="device time of a campaign, seconds for each resolution"
    )
    heldout: int = Field(
        30, ge=5, le=1000, description="whole networks left out of the fit, to test the table"
    )
    rounds: int = Field(
        40,
        ge=5,
        le=1000,
        description="undisturbed rounds wanted; at least 8 where the budget ends first",
    )
    memory_mb: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="memory for models that are open at the same time, MB, at most half of what is "
        "free; models are measured in groups that fit; 0: half of what is free",
    )
    energy_budget_s: float = Field(
        240,
        ge=0,
        le=86_400,
        description="device time of the energy windows, where the target has a meter, seconds; "
        "0: no energy",
    )
    energy_window_s: float = Field(
        2,
        ge=0.05,
        le=600,
        description="shortest energy window, seconds; 50 periods of the sensor, if that is longer",
    )
    reconnect_s: float = Field(
        120,
        ge=0,
        le=86_400,
        description="how long each outage of a board may last before its campaign ends, seconds; "
        "the board may be rebooting",
    )
    wait_s: float = Field(
        0,
        ge=0,
        le=604_800,
        description="how long to wait for a device that another campaign holds, seconds; 0: say "
        "who holds it and end",
    )
    seed: int = Field(0, ge=0, description="of the kit and the order of measuring")


class SearchConfig(Settings):
    """How the front of each target is searched."""

    algorithm: Searcher = Field(
        "nsga2", description="searcher; docs/searchers.md says what each is for"
    )
    objectives: tuple[Objective, ...] = Field(
        ("error", "latency_ms"), min_length=2, max_length=4, description="all minimised"
    )
    budgets: Budgets = Field(
        default_factory=dict,
        description="largest value of a metric, absolute or as share of the max network (60%)",
    )
    only: dict[str, Annotated[tuple[int, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="options that networks may have, by choice or pattern of choices: "
        '{"*.kernel_size": [3, 5], resolution: [160]}; shares of budgets stay those of the whole '
        "space's max network",
    )
    population: int = Field(100, ge=4, le=100_000, description="candidates of one generation")
    generations: int = Field(
        100, ge=1, le=100_000, description="rounds; at most population x generations are evaluated"
    )
    local_search: bool = Field(
        True, description="nsga2 spends a share of each round on one-choice neighbours of the front"
    )
    start_from_dp: bool = Field(
        True,
        description="nsga2 and smsemoa start from the exact front of the additive objectives",
    )
    winner: Literal["ratio", "acc"] = Field(
        "ratio",
        description="mcd continues from the sample with the least error gained per cost saved, or "
        "with the least error",
    )
    reward: Literal["hinge", "power"] = Field(
        "hinge", description="of policy-gradient beyond its budget: linear, or MnasNet's power"
    )
    sweep: int = Field(
        8, ge=1, le=100, description="budgets that evolution and policy-gradient search one by one"
    )
    seed: int = Field(0, ge=0, description="of the search")


class ExportConfig(Settings):
    """What is written of a picked network."""

    per: Literal["target", "device"] = Field(
        "target",
        description="pick packages from the front of each target, or of each device (and "
        "batch): the best of all its targets, one package for each rule",
    )
    statistics: Literal["calibrated", "imported"] = Field(
        "calibrated",
        description="of BatchNorm: calibrated on training images for each network, or those of an "
        "imported supernet as they are",
    )


class CheckConfig(Settings):
    """What must hold for `hwnas run` to end with 0."""

    max_gap: Share = Field(
        "10%", description="largest gap of measured to predicted latency, share of predicted"
    )
    min_accuracy: float = Field(
        0.0,
        ge=0,
        le=1,
        description="test accuracy that the most accurate package of a target must reach",
    )
    limits: dict[Limited, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="largest measured value of every package: latency_ms, energy_mj, memory_bytes "
        "(of the process that runs it), size_bytes (of the model), sustained_ms",
    )
    sustained_s: float = Field(
        60,
        gt=0,
        le=3600,
        description="how long a package runs without rest before its sustained_ms is taken, "
        "seconds",
    )


class Config(Settings):
    """hwnas.yaml."""

    run: str = Field("runs/digits", min_length=1, description="folder that holds everything made")
    data: DataConfig = Field(default_factory=DataConfig)
    task: TaskConfig = Field(default_factory=TaskConfig)
    space: SpaceConfig = Field(default_factory=SpaceConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    accuracy: AccuracyConfig = Field(default_factory=AccuracyConfig)
    refine: RefineConfig = Field(default_factory=RefineConfig)
    targets: tuple[str, ...] = Field(
        ("host.ort-cpu.fp32.b1.t1",), min_length=1, description="files in targets/, or names"
    )
    profile: ProfileConfig = Field(default_factory=ProfileConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    pick: tuple[PickConfig, ...] = Field(
        (PickConfig(rule="best"), PickConfig(rule="knee")), min_length=1
    )
    export: ExportConfig = Field(default_factory=ExportConfig)
    int8: Int8Config = Field(default_factory=Int8Config)
    check: CheckConfig = Field(default_factory=CheckConfig)
    cluster: Scheduler = Field(
        "",
        description="Dask scheduler whose workers drive the devices, tcp://host:8786; empty: "
        "this process does",
    )

    @field_validator("targets")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name in value if value.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice; name each target once")
        return value

    @field_validator("search")
    @classmethod
    def _searchable(cls, value: SearchConfig) -> SearchConfig:
        if twice := [name for name in value.objectives if value.objectives.count(name) > 1]:
            raise ValueError(f"objectives hold {twice[0]} twice; name each metric once")
        return value

    @model_validator(mode="after")
    def _trained_one_way(self) -> Config:
        if self.space.model and self.train != TrainConfig():
            raise ValueError(
                "train applies to named spaces only; for a model of yours write these settings "
                "under finetune"
            )
        return self

    @model_validator(mode="after")
    def _one_package_of_each_name(self) -> Config:
        for n, rule in enumerate(self.pick):
            if rule.target:
                select(rule.target, self.targets, f"pick.{n}.target")
        for target in self.targets:
            rules = [rule for rule in self.pick if rule.target in ("", target)]
            names = [name for rule in rules for name in rule.packages()]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(
                    f"pick: two picks make the package {twice[0]!r} for {target}; give one another "
                    "name"
                )
        return self
