"""Fold files of `hwnas devices check` and `benchmarks/gpu_check.py` into docs/verified.md.

    python docs/verified.py FILE... [--into docs/verified.md]

A line for each device, day and version of hwnas: what held, what did not, what could not be told.
The same file twice is one line. Files come from strangers: what is not of the format is refused,
and no text of theirs becomes Markdown.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import hwnas  # noqa: F401 -- makes `import profilers` work
from profilers.errors import FileFormatError, HwnasError, printable
from profilers.schema import read_json, write_atomic

FORMAT = "hwnas-check-1"
INTO = Path(__file__).with_name("verified.md")
HEAD = """\
# Verified

What held on real devices, as `hwnas devices check NAME` and `benchmarks/gpu_check.py` found it. The
checks are described in docs/devices.md; what no device was at hand for is in docs/unverified.md.
`python docs/verified.py FILE...` adds a line.

| device | date | versions | held | did not hold | could not be told |
|---|---|---|---|---|---|
"""
MOST_CHARS = 80


def main(arguments: list[str] | None = None) -> int:
    """Fold files in; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, default=INTO)
    options = parser.parse_args(arguments)
    try:
        lines = [line(read(path)) for path in options.files]
        known = options.into.read_text(encoding="utf-8") if options.into.exists() else HEAD
        new = [each for each in dict.fromkeys(lines) if each not in known.splitlines()]
        write_atomic(options.into, (known + "".join(f"{each}\n" for each in new)).encode())
    except HwnasError as error:
        print(f"verified: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.into}: {len(new)} lines more")
    return 0


def read(path: Path) -> dict[str, Any]:
    """A document of checks.

    Raises:
        FileFormatError: it is none.
    """
    found = read_json(path, FORMAT)
    device, checks = found.get("device"), found.get("checks")
    rows = checks if isinstance(checks, list) else []
    whole = isinstance(device, dict) and bool(rows)
    whole = whole and all(isinstance(found.get(name), str) for name in ("date", "hwnas"))
    whole = whole and re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"]) is not None
    if not whole or not all(isinstance(row, dict) and _is_row(row) for row in rows):
        raise FileFormatError(f"{path} is not a whole document of checks; make it again")
    return dict(found)


def _is_row(row: dict[str, Any]) -> bool:
    texts = all(isinstance(row.get(name), str) for name in ("check", "target", "reason"))
    return texts and "holds" in row and row["holds"] in (True, False, None)


def line(found: dict[str, Any]) -> str:
    """The line of a document."""
    device = found["device"]
    names = [device.get("board") or device.get("family"), device.get("gpu") or device.get("cpu")]
    engines = device.get("engines") if isinstance(device.get("engines"), dict) else {}
    versions = [f"hwnas {found['hwnas']}", device.get("os"), f"Python {device.get('python')}"]
    versions += [f"{name} {version}" for name, version in sorted(engines.items())]
    cells = [", ".join(filter(None, names)), found["date"], ", ".join(filter(None, versions))]
    return "| " + " | ".join([*map(_plain, cells), *_told(found["checks"])]) + " |"


def _told(rows: list[dict[str, Any]]) -> list[str]:
    """Checks that hold, that do not and why, that could not be told and why."""
    cells = []
    for holds in (True, False, None):
        told = dict.fromkeys(
            _plain(" of ".join(filter(None, (row["check"], row["target"]))))
            + (f" ({_plain(row['reason'])})" if holds is False else "")
            for row in rows
            if row["holds"] is holds
        )
        cells.append(", ".join(told))
    return cells


def _plain(text: Any) -> str:
    """Text that Markdown takes as it is, of one line and not too long."""
    shown = printable(str(text), MOST_CHARS * 3)
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", shown)


if __name__ == "__main__":
    sys.exit(main())
