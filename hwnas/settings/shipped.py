"""What ships with hwnas beside its package: the worker, latency tables, examples.

They are folders at the top of the repository. An installed package holds them in `_top`, because
`profilers` or `examples` in everybody's site-packages would meet others of that name; setup.py says
which folder goes where.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def folder(name: str) -> Path:
    """A folder of the repository's top, wherever hwnas was installed to."""
    installed = _PACKAGE / "_top" / name
    return installed if installed.is_dir() else _PACKAGE.with_name(name)


def provide_profilers() -> None:
    """Make `import profilers` give the worker's package that ships with hwnas.

    Raises:
        ImportError: it is missing, or another package of that name was imported before.
    """
    place = folder("profilers")
    known = sys.modules.get("profilers")
    if known is None:
        init = place / "__init__.py"
        spec = importlib.util.spec_from_file_location("profilers", init)
        if spec is None or spec.loader is None or not init.is_file():
            raise ImportError(f"hwnas is incomplete: {place} is missing; install it again")
        known = importlib.util.module_from_spec(spec)
        sys.modules["profilers"] = known
        spec.loader.exec_module(known)
    if not any(os.path.samefile(path, place) for path in known.__path__ if os.path.exists(path)):
        raise ImportError(
            f"another package `profilers` ({next(iter(known.__path__))}) was imported before "
            "hwnas, which brings its own; import hwnas first"
        )
