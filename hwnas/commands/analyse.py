"""`hwnas space analyse`: which parts of a torch model can be cut, with a proof."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.commands.options import AsJson, ConfigPath, Overrides


def analyse(
    config: ConfigPath = Path("hwnas.yaml"), overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Make a search space of the torch model in the settings; this runs your code.

    Channel groups and residual branches are found in the exported graph. Networks cut out of it
    are compared with the model itself: nothing is written that does not pass.
    """
    from hwnas.commands import console
    from hwnas.networks import spaces
    from hwnas.run.context import Context
    from hwnas.run.folder import locked
    from hwnas.run.space import make_space
    from hwnas.settings.config_file import load_config
    from profilers.errors import ConfigError
    from profilers.schema import read_json

    settings, base = load_config(config, list(overrides or ())), config.resolve().parent
    if not settings.space.model:
        raise ConfigError(
            f"{config} names no model of yours; set space.model, for example mine:build, and "
            "space.input, for example [3, 224, 224]"
        )
    with locked(base / settings.run) as folder, console.reporter(as_json) as report:
        make_space(Context(settings, base, folder, report))
        found = read_json(folder.space, spaces.FORMAT)
    if as_json:
        print(json.dumps({k: v for k, v in found.items() if k != "family"}, indent=2))
    else:
        _show(found)
        print(f"\nwrote {folder.space}; next: hwnas run {config}")


def _show(found: Mapping[str, Any]) -> None:
    """Print groups, branches, what stays whole, and the proof."""
    from hwnas.commands.console import print_table

    sizes = ", ".join(map(str, found["resolutions"]))
    print(
        f"{found['name']}: {found['origin']['model']}, in evaluation mode, as "
        f"{found['networks']:.4g} networks, inputs of {sizes}\n"
    )
    lines = [
        (g["name"], str(g["units"]), f"{g['macs_share']:.1%}", ", ".join(map(str, g["widths"])))
        for g in found["groups"]
    ]
    print_table("groups", ("channels of", "units", "of all MACs", "widths"), lines)
    skips = [(branch["name"], f"{branch['macs_share']:.1%}") for branch in found["branches"]]
    if skips:
        print()
        print_table("skips", ("branch left out", "of all MACs"), skips)
    if found["whole"]:
        print()
        print_table("whole", ("stays whole", "why"), list(found["whole"].items()))
    proof = found["proof"]
    print(
        f"\nproof: {proof['trials']} random networks of random weights equal the model with the "
        f"same units masked within {proof['worst']:.1e} (float64); the largest network equals the "
        f"model within {proof['largest']:.1e} (float32), smaller ones the model without the "
        f"units that they lack within {proof['networks']:.1e}"
    )
