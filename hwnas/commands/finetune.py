"""`hwnas finetune`: train an imported supernet, or one subnet, on the images of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import AsJson, ConfigPath, Overrides

if TYPE_CHECKING:
    from hwnas.networks.space import Architecture
    from hwnas.run.context import Context


def finetune(
    config: ConfigPath = Path("hwnas.yaml"),
    overrides: Overrides = None,
    subnet: Annotated[
        str,
        typer.Option(
            help="one network only: id of a point of a front, name of a package, or a JSON file "
            "with an architecture"
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Train existing weights further (settings: finetune).

    Without --subnet: the imported supernet, on your images and classes; a classifier of another
    number of classes is replaced. With --subnet: that network alone, which also learns from the
    max network; `hwnas export` then takes these weights. Cut off, the same command goes on.
    """
    from hwnas.commands import console
    from hwnas.run import finetune as stage
    from hwnas.run.context import Context
    from hwnas.run.data import describe_data
    from hwnas.run.folder import is_first_process, locked
    from hwnas.settings.config_file import load_config

    settings = load_config(config, list(overrides or ()))
    base = config.resolve().parent
    quiet = as_json or not is_first_process()
    with locked(base / settings.run) as folder, console.reporter(quiet) as report:
        context = Context(settings, base, folder, report)
        describe_data(context)
        if not subnet:
            done = stage.finetune_supernet(context)
            about: dict[str, Any] = {"supernet": str(context.run.supernet)}
        else:
            arch = _chosen(context, subnet)
            done = stage.finetune_subnet(context, arch)
            about = {"subnet": arch.id, "weights": str(stage.subnet_path(context, arch))}
    if not is_first_process():
        return
    if as_json:
        print(json.dumps({**about, "done": done}, indent=2))
        return
    made = next(path for name, path in about.items() if name != "subnet")
    print(f"wrote {made}" if done else "everything is up to date", file=sys.stderr)
    print(f"next: hwnas {'export' if subnet else 'run'} {config}")


def _chosen(context: Context, name: str) -> Architecture:
    """The network that a text names.

    Raises:
        ConfigError: no front or package knows it, or it is not an architecture of the space.
    """
    from hwnas.run.picking import packages_of
    from hwnas.run.search import load_front
    from hwnas.settings.errors import ConfigError

    if name.endswith(".json"):
        return _read(context, Path(name))
    known: dict[str, Architecture] = {}
    for target in context.config.targets:
        if context.run.front(target).exists():
            found = load_front(context, target)
            known |= {point.id: point.arch for point in found.points}
            for choice in packages_of(context, target):
                if known.setdefault(choice.name, choice.point.arch) != choice.point.arch:
                    raise ConfigError(
                        f"--subnet {choice.name}: packages of this name differ between targets; "
                        "give an id, as `hwnas pick` shows them"
                    )
    if name not in known:
        raise ConfigError(
            f"--subnet {name} is in no front of this run; `hwnas pick` shows ids and packages"
        )
    return known[name]


def _read(context: Context, path: Path) -> Architecture:
    """The architecture in a file, as `hwnas import architecture` writes it."""
    from hwnas.settings.errors import FileFormatError

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} must hold an architecture, as a JSON object")
    return context.space.from_json(found)
