"""The program that asks a machine what it is: a few modules of the worker as one Python text.

It is read from standard input, leaves no file behind and needs no package on the board.
"""

from __future__ import annotations

from pathlib import Path

from profilers import schema

MODULES = (  # each after those it imports
    *("profilers", "profilers.errors", "profilers.json_text", "profilers.plugins"),
    *("profilers.precisions", "profilers.schema", "profilers.sysfs", "profilers.cpus"),
    *("profilers.throttling", "profilers.devices", "profilers.devices.host"),
    *("profilers.devices.raspberry_pi", "profilers.devices.jetson"),
    *("profilers.devices.nvidia", "profilers.survey"),
)
LOADER = """
import sys, types
if sys.path and sys.path[0] in ("", "."):
    del sys.path[0]  # what lies in the home folder must not stand in for a module
for name, source in SOURCES:
    module = types.ModuleType(name)
    module.__path__ = []
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
sys.modules["profilers.survey"].main(sys.argv[1:])
"""
# POSIX shell, for boards whose Python is missing or too old. $1: command of the Python.
SHELL = b"""
say() { printf 'hwnas:%s=%s\\n' "$1" "$(printf '%s' "$2" | tr -d '\\000' | head -n 1)"; }
say system "$(uname -s 2>/dev/null)"
say machine "$(uname -m 2>/dev/null)"
say model "$(tr -d '\\000' 2>/dev/null < /proc/device-tree/model)"
say l4t "$(head -n 1 /etc/nv_tegra_release 2>/dev/null)"
say python "$("$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>&1)"
for minor in 14 13 12 11 10 9 8; do
  if command -v "python3.$minor" >/dev/null 2>&1; then say other "python3.$minor"; break; fi
done
"""


def program() -> bytes:
    """The survey as one ASCII text; its arguments are those of `profilers.survey.main`."""
    sources = [(name, _path(name).read_text(encoding="utf-8")) for name in MODULES]
    return f"SOURCES = {sources!a}\n{LOADER}".encode("ascii")


def _path(name: str) -> Path:
    parts = name.split(".")[1:]
    package = Path(schema.__file__).parent
    plain = package.joinpath(*parts).with_suffix(".py") if parts else package / "__init__.py"
    return plain if plain.is_file() else package.joinpath(*parts) / "__init__.py"
