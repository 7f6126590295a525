"""Requests to a device wherever it is: through a worker that is driven from here, or as its
connection does them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.measuring import connections, here
from hwnas.measuring.campaign import CampaignResult
from hwnas.measuring.rounds import Say
from hwnas.networks.space import PlacedOp
from hwnas.settings.config import ProfileConfig
from profilers.schema import Target


def _place(target: Target) -> Any:
    return here if connections.drives(target) else connections.of(target)


def probe(target: Target, settings: ProfileConfig | None = None) -> dict[str, Any]:
    """As `here.probe`, wherever the device is."""
    found: dict[str, Any] = _place(target).probe(target, settings)
    return found


def run_campaign(
    target: Target, kit_dir: Path, out: Path, settings: ProfileConfig, say: Say
) -> CampaignResult:
    """As `campaign.run_campaign`, wherever the device is."""
    found: CampaignResult = _place(target).run_campaign(target, kit_dir, out, settings, say)
    return found


def measure_models(
    target: Target,
    paths: Sequence[Path],
    settings: ProfileConfig,
    say: Say = lambda text, share: None,
    ops: Sequence[Sequence[PlacedOp]] = (),
) -> list[dict[str, Any]]:
    """As `here.measure_models`, wherever the device is."""
    found: list[dict[str, Any]] = _place(target).measure_models(target, paths, settings, say, ops)
    return found


def run_model(target: Target, path: Path, inputs: np.ndarray) -> np.ndarray:
    """As `here.run_model`, wherever the device is."""
    return np.asarray(_place(target).run_model(target, path, inputs))


def built_files(
    target: Target, paths: Sequence[Path], ops: Sequence[Sequence[PlacedOp]] = ()
) -> list[list[bytes]]:
    """As `here.built_files`, wherever the device is."""
    found: list[list[bytes]] = _place(target).built_files(target, paths, ops)
    return found
