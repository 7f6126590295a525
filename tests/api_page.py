"""docs/api.md: the names of `hwnas.__all__`, as their signatures and docstrings tell them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import hwnas

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
INTRODUCTION = """\
# Python interface

`from hwnas import ...` gives these names; others may change between versions. Everything works on
files that commands made, on objects made of them, or on numbers of your own
([imports.md](imports.md)); nothing here loads torch. Runnable: `examples/network_latency.py`,
`examples/own_error.py`, `examples/finished_run.py`.
Made of the docstrings by `python tests/test_readme.py`.
"""


def page() -> str:
    """The whole page: functions first, then classes, then errors."""
    found = [(name, getattr(hwnas, name)) for name in hwnas.__all__]
    functions = [_function(name, f) for name, f in found if not isinstance(f, type)]
    classes = [(name, c) for name, c in found if isinstance(c, type)]
    plain = [_class(name, c) for name, c in classes if not issubclass(c, Exception)]
    errors = [f"- `{n}`: {_first(c)}" for n, c in classes if issubclass(c, Exception)]
    parts = ["## Functions", *functions, "## Classes", *plain, "## Errors", "\n".join(errors)]
    return "\n".join([INTRODUCTION, "\n\n".join(parts)]) + "\n"


def _function(name: str, function: object) -> str:
    return f"### `{name}{_signature(function)}`\n\n{_text(function)}"


def _class(name: str, found: type) -> str:
    """A class: what it is, its attributes, a line for each method."""
    lines = [f"### `{name}`", "", _text(found), ""]
    for each, member in vars(found).items():
        inner = getattr(member, "func", None) or getattr(member, "fget", None) or member
        if each.startswith("_") or not (inspect.isfunction(inner) and inner.__doc__):
            continue
        call = _signature(inner, own=True) if member is inner else ""
        lines.append(f"- `{each}{call}`: {_first(inner)}")
    return "\n".join(lines).rstrip()


def _signature(function: object, own: bool = False) -> str:
    parameters = list(inspect.signature(function).parameters.values())
    names = [re.sub(r": [^=]*?(?= =|$)", "", str(each), count=1) for each in parameters[own:]]
    star = [n for n, each in enumerate(parameters[own:]) if each.kind is each.KEYWORD_ONLY]
    if star:
        names.insert(star[0], "*")
    return f"({', '.join(names)})"


def _first(found: object) -> str:
    return " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())


def _text(found: object) -> str:
    """A docstring as Markdown: the entries of its sections become lists."""
    out = []
    for line in (inspect.getdoc(found) or "").splitlines():
        entry = re.match(r" {4}(\w[\w, ]*(?:\.\w+)?): (.*)", line)
        if re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            out += [f"**{line[:-1]}**", ""]
        elif entry:
            out.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            out.append(f"  {line.strip()}" if line.startswith("    ") else line)
    return "\n".join(out)
