"""Settings of picks from a front, and the metrics that settings may name."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hwnas.settings.amounts import budgets, share, short_amount
from hwnas.settings.data_config import Settings

Objective = Literal[
    "error", "latency_ms", "energy_mj", "macs", "params", "weight_bytes", "peak_activation_bytes"
]


Limited = Literal["latency_ms", "energy_mj", "memory_bytes", "size_bytes", "sustained_ms"]
Budgets = Annotated[dict[Objective, float | str], AfterValidator(budgets)]
Share = Annotated[float | str, AfterValidator(share)]


class PickConfig(Settings):
    """One package to make of each front: the best within a budget, or by a rule."""

    name: str = Field("", description="folder of the package; empty: made from the rule")
    budget: Budgets = Field(
        default_factory=dict, description="largest value, absolute or share of the max network"
    )
    rule: Literal["", "knee", "best", "cheapest", "spread", "fleet"] = Field(
        "",
        description="knee, best accuracy, cheapest within `within` of the best, spread of k, fleet "
        "(with a budget: at most k networks for all targets)",
    )
    within: float = Field(0.01, ge=0, le=1, description="error that `cheapest` may lose")
    k: int = Field(3, ge=1, le=100, description="packages of `spread`, networks of `fleet`")
    target: str = Field("", description="only for this target; empty: for all")

    @model_validator(mode="after")
    def _one_way_and_a_folder(self) -> PickConfig:
        if self.rule == "fleet":
            if not self.budget or self.target:
                raise ValueError("a fleet needs a budget and is over all targets: no target")
        elif bool(self.budget) == bool(self.rule):
            raise ValueError("give either a budget or a rule")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.package):
            raise ValueError(
                f"package name {self.package!r} cannot be a folder: use letters, digits, '.', '_' "
                "and '-'"
            )
        return self

    @property
    def package(self) -> str:
        """Its name, or one from the rule: `latency_ms-60pct`, `knee`, `cheapest-0.01`."""
        if self.name:
            return self.name
        if self.rule == "fleet":
            return f"fleet-{self.k}"
        if self.budget:
            return "-".join(
                f"{metric}-{short_amount(value)}" for metric, value in self.budget.items()
            )
        return f"cheapest-{self.within:g}" if self.rule == "cheapest" else self.rule

    def packages(self) -> list[str]:
        """Names of the packages that the rule may make."""
        numbered = [f"{self.package}-{n}" for n in range(1, self.k + 1)]
        return numbered if self.rule == "spread" else [self.package]
