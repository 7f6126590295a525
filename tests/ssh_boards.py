"""Boards for tests: targets that a real OpenSSH server reaches, modelled or real."""

import sys
from pathlib import Path

import hwnas.fakes
from profilers.schema import Target

FAKES = Path(hwnas.fakes.__file__).parent
# Modelled times as parts of the user's own: fakes are never sent to a board.
PLUGINS = (
    str(FAKES / "machine.py"),
    str(FAKES / "devices" / "fake.py"),
    str(Path(__file__).with_name("modelled_board.py")),
)
MODELLED = "modelled_board:RUNTIME"


def board(folder, config, name="a", python=sys.executable, engine=MODELLED, **options):
    """A target `board-<name>` with a cache of its own below a folder.

    Args:
        folder: of the test.
        config: ssh configuration of `ssh_server.server`.
        name: of the board.
        python: its Python.
        engine: MODELLED (options as in hwnas/fakes/runtimes/fake.py) or `ort-cpu`.
    """
    way = {
        "address": f"board-{name}",
        "config": str(config),
        "python": str(python),
        "cache": str(Path(folder) / f"cache-{name}"),
    }
    connection = {"ssh": way, **{key: str(value) for key, value in options.items()}}
    if engine != MODELLED:
        return Target(f"board-{name}", engine, connection=connection, hardware="host")
    return Target(
        f"board-{name}", engine, connection=connection, hardware="fake:DEVICE", plugins=PLUGINS
    )


def written(folder, target):
    """The target file of a target, in a project's folder."""
    import yaml

    path = Path(folder) / "targets" / f"{target.name}.yaml"
    path.parent.mkdir(exist_ok=True)
    content = target.to_json()
    del content["name"]
    path.write_text(yaml.safe_dump(content))
    return path
