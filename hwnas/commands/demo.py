"""`hwnas demo`: the settings of the demo, in a folder of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import AsJson, Overrides
from hwnas.settings import shipped
from profilers.errors import ConfigError
from profilers.schema import write_atomic

ACCEPTED = (
    "unreliable,gap,budget,untimed"  # a busy machine shall not keep anybody from a first look
)


def demo(
    folder: Annotated[Path, typer.Argument(help="created if missing")] = Path("hwnas-demo"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The whole job on handwritten digits, on this CPU: about 2 minutes on 2 cores."""
    from hwnas.commands import running
    from hwnas.commands.pipeline import STAGES

    given = running.Request(settings_in(folder), overrides or (), (), ACCEPTED, as_json)
    raise typer.Exit(running.run(STAGES, given))


def settings_in(folder: Path) -> Path:
    """The demo's settings file in a folder; an existing one is used unchanged.

    Raises:
        ConfigError: the folder cannot be written, or hwnas was installed without its examples.
    """
    path, example = folder / "digits.yaml", shipped.folder("examples") / "digits.yaml"
    if not path.exists():
        try:
            content = example.read_bytes()
        except OSError:
            raise ConfigError(
                f"hwnas is incomplete: {example} is missing; install it again"
            ) from None
        write_atomic(path, content)
    return path
