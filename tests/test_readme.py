"""The file tree of docs/contributing.md is the one on disk, and the README's commands exist.

`python tests/test_readme.py` writes the tree anew from the first sentence of each module, and
docs/api.md from the docstrings of the Python interface.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import api_page

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "docs" / "contributing.md"
BEGIN, END = "<!-- tree: begin -->\n```\n", "```\n<!-- tree: end -->"
OTHER = {
    "benchmarks/": "every figure in the documentation comes from a script here",
    "docs/": "settings, file formats, benchmarks, contributing, what is not verified",
    "examples/": "settings of the demo and of Fashion-MNIST; the Python interface in three scripts",
    "latency_tables/": "measured tables as data, and how each was made",
    "tests/": "mirrors the modules; oracles before snapshots",
}


def purpose(path: Path) -> str:
    """First sentence of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[a-z`)])\. |: (?=`)", paragraph)[0].rstrip(".").rstrip(":")


def tree() -> str:
    """Every package and module with its purpose."""
    lines = []
    for package in ("profilers", "hwnas"):
        folders = sorted({path.parent for path in (ROOT / package).rglob("__init__.py")})
        for folder in folders:
            name = folder.relative_to(ROOT).as_posix() + "/"
            lines.append(f"{name:30}{purpose(folder / '__init__.py')}")
            for path in sorted(folder.glob("*.py")):
                if path.name != "__init__.py":
                    lines.append(f"  {path.name:28}{purpose(path)}")
    lines += [f"{name:30}{text}" for name, text in OTHER.items()]
    return "".join(f"{line}\n" for line in lines)


def test_the_file_tree_is_the_one_on_disk():
    text = CONTRIBUTING.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == tree()


def test_the_page_of_the_python_interface_is_that_of_its_docstrings():
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page()


def test_every_module_says_what_it_is():
    for package in ("profilers", "hwnas"):
        for path in (ROOT / package).rglob("*.py"):
            assert 15 <= len(purpose(path)) <= 125, f"{path}: {purpose(path)!r}"


def test_every_command_and_file_the_readme_names_exists():
    text = README.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test"} <= set(re.findall(r"^    make ([a-z-]+)\b", text, re.M)) <= targets
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / link).exists(), link


if __name__ == "__main__":
    old = CONTRIBUTING.read_text(encoding="utf-8")
    before, after = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
    CONTRIBUTING.write_text(before + tree() + after, encoding="utf-8")
    api_page.PAGE.write_text(api_page.page(), encoding="utf-8")
