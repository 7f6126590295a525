"""`hwnas report`: the page of a run folder, as a file or followed in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import AsJson, ConfigPath, Overrides

DEFAULT = Path("hwnas.yaml")


def report(
    config: ConfigPath = DEFAULT,
    overrides: Overrides = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="follow the run in a browser on this machine")
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="port for --serve; 0: any free one", min=0, max=65535)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html from what the run folder holds; or serve it, and follow a run."""
    from hwnas.commands import running
    from profilers.errors import ConfigError

    if not serve:
        if port is not None:
            raise ConfigError("--port goes with --serve; add --serve, or leave --port out")
        request = running.Request(config, overrides or (), (), "", as_json)
        raise typer.Exit(running.run(("report",), request))
    from hwnas.report.serve import PORT
    from hwnas.report.serve import serve as serve_report
    from hwnas.settings.config_file import load_config

    settings, base = load_config(config, list(overrides or ())), config.resolve().parent

    def say(address: str) -> None:
        words = f"report of {settings.run}: {address}  (Ctrl-C ends it)"
        told = json.dumps({"run": settings.run, "address": address})
        print(told if as_json else words, flush=True)

    serve_report(settings, base, PORT if port is None else port, say)
