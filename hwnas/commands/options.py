"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document for machines")]
Budget = Annotated[
    float,
    typer.Option("--budget", min=2, max=86_400, help="device time to spend, seconds"),
]
