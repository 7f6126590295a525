"""Boards as recorded files: `tests/boards/NAME.txt` becomes a tree that stands in for `/`.

A line `=== PATH` begins a file, the lines up to the next one are its content.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "boards"


def names():
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def files(name):
    parts = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").split("=== ")[1:]
    pairs = [part.split("\n", 1) for part in parts]
    return {path.strip(): content for path, content in pairs}


def grow(root, name):
    """The tree of a board below root."""
    for path, content in files(name).items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")
    return root
