"""The import rules of the layout: who may import what, and what a command loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from profilers import runtimes

ROOT = Path(__file__).parent.parent
FILES = sorted(
    p for p in ROOT.glob("*/**/*.py") if p.parts[len(ROOT.parts)] in ("hwnas", "profilers")
)
TORCH = {"images/tensors", "ofa/checkpoint"}
TORCH |= {
    "run/" + name for name in ("finetune", "model", "quantised", "rounded", "tested", "weights")
}
TORCH |= {"supernet/" + name for name in ("activation_score", "evaluation", "files", "network")}
TORCH |= {"tasks/" + p.stem for p in (ROOT / "hwnas" / "tasks").glob("[a-z_]*.py")}
TORCH |= {"supernet/" + name for name in ("cluster", "exported", "folded")}
TORCH |= {"supernet/" + name for name in ("forward", "pickles", "workers")}
TORCH |= {"traced/" + p.stem for p in (ROOT / "hwnas" / "traced").glob("[a-z]*.py")}
TORCH |= {
    "supernet/" + name
    for name in ("batches", "depthwise", "outset", "processes", "state", "step", "threads")
}
TORCH |= {"supernet/" + name for name in ("sorting", "training", "training_free", "watch")}
FROM_PROFILERS = {"schema", "plugins", "errors", "runtimes", "weights", "stats"}
FROM_PROFILERS |= {"json_text", "protocol", "shape", "cpus", "locking", "precisions", "qdq"}
DEVICE_STDLIB_EXTRA = {"numpy", "profilers"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports, anywhere or at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", [p for p in FILES if "profilers" in p.parts], ids=_name)
def test_the_worker_needs_the_standard_library_and_numpy_only(path):
    roots = _roots(_imports(path))
    engines = {runtimes.engine(name).module for name in runtimes.names()}
    allowed = engines if path.parent.name in ("engines", "runtimes") else set()
    strange = roots - set(sys.stdlib_module_names) - DEVICE_STDLIB_EXTRA - allowed
    assert not strange
    assert not engines & _roots(_imports(path, top_level_only=True))
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("path", [p for p in FILES if "hwnas" in p.parts], ids=_name)
def test_hwnas_takes_from_the_worker_only_what_is_shared(path):
    names = {n for n in _imports(path) if n.startswith("profilers.")}
    modules = {n.split(".")[1] for n in names}
    if "fakes" in path.parts:  # they take the place of parts that run on a device
        modules -= {"devices", "energy"}
    assert modules <= FROM_PROFILERS | {"__version__"}


@pytest.mark.parametrize("path", [p for p in FILES if "hwnas" in p.parts], ids=_name)
def test_torch_stays_in_its_files(path):
    if "torch" in _roots(_imports(path)):
        assert path.relative_to(ROOT / "hwnas").with_suffix("").as_posix() in TORCH


def _module(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _uses(path: Path, modules: set[str]) -> set[str]:
    """Which of some modules a file imports: at its top, in functions, and for type checking. Of
    `from package import name` it is the module of that name where there is one, or the package.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in inner}
    return found & modules


def _circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Sets of modules of which each needs every other one."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            left += (new := graph[left.pop()] - found)
            found |= new
        return found

    needs = {name: reached(name) for name in graph}
    return {
        frozenset(other for other in needs[name] if name in needs[other])
        for name in graph
        if name in needs[name]
    }


def _graph() -> dict[str, set[str]]:
    """What each module needs: what it imports, and the packages it is in, which Python runs first.
    `hwnas` itself is left out: it is the face of all.
    """
    modules = {_module(p): p for p in FILES}
    graph = {name: _uses(path, set(modules)) - {name} for name, path in modules.items()}
    for name, needs in graph.items():
        parts = name.split(".")
        needs |= {".".join(parts[:n]) for n in range(2, len(parts))} & set(modules)
    return graph


def test_no_import_cycle():
    assert not _circles(_graph())


# The rooms of hwnas, from the roof down: each imports from those below it only.
FLOORS = [
    "__main__ cli", "commands", "api", "report", "boards", "run", "ofa traced", "supernet",
    "search", "predictors", "tables", "pricing", "measuring", "fakes images tasks", "networks",
    "settings",
]  # fmt: skip


def _floor(module: str) -> int:
    room = module.split(".")[1]
    return next(n for n, rooms in enumerate(FLOORS) if room in rooms.split())


def test_every_import_between_rooms_runs_downwards():
    rooms = {p.relative_to(ROOT / "hwnas").parts[0].removesuffix(".py") for p in FILES
             if "hwnas" in p.relative_to(ROOT).parts}  # fmt: skip
    assert rooms - {"__init__"} == set(" ".join(FLOORS).split())
    up = {
        (user, used)
        for user, needs in _graph().items()
        for used in needs
        if user.startswith("hwnas.") and used.startswith("hwnas")
        if used == "hwnas" or _floor(used) < _floor(user)
    }
    assert not up


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path):
    texts = {
        "a": "import b",
        "b": "def f():\n    from c import x",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a",
        "d": "import a",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    graph = {name: _uses(tmp_path / name, set(texts)) for name in texts}
    assert _circles(graph) == {frozenset("abc")}


def _loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
        cwd=ROOT,
    )
    return set(result.stdout.splitlines()[-1].split())


HELP = """
import contextlib, io
from hwnas.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    try:
        main(["--help"])
    except SystemExit:
        pass
"""


@pytest.mark.parametrize("code", [HELP, "import hwnas.run.search"], ids=["help", "search"])
def test_help_and_search_load_neither_torch_nor_scikit_learn(code):
    assert not _loaded_by(code) & {"torch", "sklearn", "scipy", "onnx", "onnxruntime"}


def test_help_loads_little():
    assert not _loaded_by(HELP) & {"numpy", "moocore", "pydantic"} - {"pydantic"}
