"""Load a part by name: a file of this project, or the user's own `module:NAME`.

An unknown name fails with the closest one that exists.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import pkgutil
import sysconfig
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
    if not module_name:
        raise _not_there(path, what, "it names no module")
    with code_of_others(path, what):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise  # a module that this one wants
            raise _not_there(path, what, str(error)) from error
        if not hasattr(module, attribute):
            raise _not_there(path, what, f"module {module_name!r} has no attribute {attribute!r}")
        return getattr(module, attribute)


def _not_there(path: str, what: str, why: str) -> ConfigError:
    return ConfigError(
        f"{what} {path!r} cannot be loaded: {why}; expected package.module:NAME on the Python path"
    )


@contextlib.contextmanager
def code_of_others(path: str, what: str) -> Iterator[None]:
    """While code of the user's own runs: what it raises is no error of ours.

    Raises:
        ConfigError: it raised something, or ended the process; names the error, its file and line.
    """
    try:
        yield
    except HwnasError:
        raise
    except (Exception, SystemExit) as error:  # it may raise anything
        where = "" if isinstance(error, SyntaxError) else place(error)
        raise ConfigError(
            f"{what} {path!r} cannot be used: {type(error).__name__}: {one_line(error)}{where}; "
            "mend it there"
        ) from error


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks, cut where it is long."""
    return " ".join(str(error).split())[:300]


def place(error: BaseException) -> str:
    """Where an error came from, ` (FILE, line N)`: the innermost frame that is neither in a library
    nor ours; empty where there is none.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_of_others(frame.filename)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _is_of_others(file: str) -> bool:
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = [os.path.join(ours, name, "") for name in ("hwnas", "profilers")]
    libraries = ["site-packages", "dist-packages", sysconfig.get_paths()["stdlib"]]
    return file.startswith("<") or any(name in file for name in folders + libraries)
