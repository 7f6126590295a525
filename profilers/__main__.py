"""`python -m profilers probe` prints the environment; `python worker.pyz serve` is the worker."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import List, Optional

from profilers.errors import HwnasError
from profilers.schema import HEARTBEAT_S, target_from_name


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a command; its exit status."""
    options = _parser().parse_args(arguments)
    for folder in getattr(options, "packages", []):
        sys.path.append(folder)
    # numpy's linear algebra would start threads of its own beside the engine's
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return _serve(options) if options.command == "serve" else _probe(options)
    except HwnasError as error:
        print(f"profilers: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="profilers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    probe = commands.add_parser("probe", help="print what this machine is, as JSON")
    probe.add_argument("--target", default="host.ort-cpu.fp32.b1.t1", help="name of the target")
    serve = commands.add_parser("serve", help="serve one host over stdin and stdout")
    serve.add_argument(
        "--cache", type=Path, default=_cache_folder(), help="folder that ours lies in"
    )
    serve.add_argument("--heartbeat", type=float, default=HEARTBEAT_S, help="seconds")
    serve.add_argument("--packages", action="append", default=[], help="folder to import from")
    return parser


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _probe(options: argparse.Namespace) -> int:
    from profilers import environment

    facts = environment.describe(target_from_name(options.target))
    print(json.dumps(facts, indent=2))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from profilers import channel, serving

    return serving.serve(channel.take_over_stdio(options.heartbeat), options.cache)


if __name__ == "__main__":
    sys.exit(main())
