"""`hwnas init`: settings to start from; for a folder of images, ones that fit it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from hwnas.commands.options import ConfigPath
from profilers.errors import ConfigError
from profilers.schema import write_atomic

STARTER = Path(__file__).parents[1] / "run" / "templates" / "hwnas.yaml"


def init(
    config: ConfigPath = Path("hwnas.yaml"),
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="look at these images, FOLDER/<class>/*.jpg"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
) -> None:
    """Write a settings file to start from; with --images, one that fits a folder of images."""
    if config.is_dir():
        raise ConfigError(
            f"{config} is a folder, and would be the settings file; for the images in it: hwnas "
            f"init mine.yaml --images {config}"
        )
    if config.exists() and not force:
        raise ConfigError(f"{config} exists; --force replaces it")
    text = _for_digits(config) if images is None else _for_images(config, images)
    write_atomic(config, text.encode())
    print(f"wrote {config}; next: hwnas run {config}")


def _for_digits(config: Path) -> str:
    """Settings that need no data; the run folder has the name of the settings file."""
    from hwnas.run import first_settings

    run = f"{'run: ' + first_settings.as_yaml(f'runs/{config.stem}'):<34}#"
    return re.sub(r"^run: .*?#", lambda _: run, STARTER.read_text("utf-8"), count=1, flags=re.M)


def _for_images(config: Path, images: Path) -> str:
    """Settings for a folder of images; prints what was seen in it."""
    from hwnas.images.survey import survey
    from hwnas.run import first_settings

    if not str(images).isprintable() or "\\udc" in ascii(str(images)):
        raise ConfigError(f"--images {str(images)!r}: its name is not UTF-8; rename the folder")
    try:
        found = survey(str(images))
    except ConfigError as error:
        raise ConfigError(str(error).replace("data.root", "--images")) from None
    root = images
    if not images.is_absolute():
        root = Path(os.path.relpath(images.resolve(), config.resolve().parent))
    text = first_settings.text(found, root.as_posix(), f"runs/{config.stem}")
    for line in text.splitlines():
        if line.startswith(("# Seen", "#   ")):
            print(line.removeprefix("# Seen: ").removeprefix("#       "))
    for name, why in found.seen.skipped.items():
        print(f"cannot be read, will be skipped: {name}: {why}")
    return text
