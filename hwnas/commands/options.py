"""Options that several commands share."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from profilers.errors import HwnasError

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document for machines")]
Budget = Annotated[
    float,
    typer.Option("--budget", min=2, max=86_400, help="device time to spend, seconds"),
]


def end_with(error: HwnasError) -> NoReturn:
    """End with an error's line and exit code after the answer itself was printed."""
    print(f"hwnas: {error}", file=sys.stderr)
    raise typer.Exit(error.exit_code)
