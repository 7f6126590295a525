"""Load a part by name: a file of this project, or the user's own `module:NAME`.

An unknown name fails with the closest one that exists.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import pkgutil
import traceback
from typing import Any, Iterable, Iterator, List

from profilers.errors import ConfigError, HwnasError


def select(name: str, names: Iterable[str], what: str) -> str:
    """name itself if it is one of names.

    Raises:
        ConfigError: it is not; the message holds the closest name and all of them.
    """
    known = sorted(names)
    if name in known:
        return name
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"unknown {what} {name!r}{hint} (known: {', '.join(known)})")


def names_in(folder: Iterable[str]) -> List[str]:
    """The parts that are files in a package's path; their names have `-` for `_`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(folder))


def load_part(name: str, package: str, folder: Iterable[str], what: str) -> Any:
    """The file of a package that a name means, as a module; or the user's own `module:NAME`.

    Args:
        name: of the part.
        package, folder: `__name__` and `__path__` of the package.
        what: kind of part, for the message.

    Raises:
        ConfigError: there is no such part; the message holds the nearest name.
    """
    if ":" in name:
        return import_object(name, what)
    module = select(name, names_in(folder), what).replace("-", "_")
    return importlib.import_module(f"{package}.{module}")


def import_object(path: str, what: str) -> Any:
    """The object of a dotted path `package.module:NAME`.

    Raises:
        ConfigError: the module cannot be imported or lacks the name.
    """
    module_name, _, attribute = path.partition(":")
    with code_of_others(path, what):
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"{what} {path!r} cannot be loaded: {error}; "
                "expected package.module:NAME on the Python path"
            ) from error


@contextlib.contextmanager
def code_of_others(path: str, what: str) -> Iterator[None]:
    """While code of the user's own runs: what it raises is no error of ours.

    Raises:
        ConfigError: it raised something; names the error, its file and line.
    """
    try:
        yield
    except HwnasError:
        raise
    except Exception as error:  # it may raise anything
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f" ({at.filename}, line {at.lineno})"
        raise ConfigError(
            f"{what} {path!r} cannot be used: {type(error).__name__}: {error}{where}; mend it there"
        ) from error
