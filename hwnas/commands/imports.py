"""`hwnas import`: what others measured or fitted for a public once-for-all space, as files of ours.

The supernet itself is `hwnas import-ofa`, latency tables are `hwnas table import-ofa`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.commands.options import AsJson

app = typer.Typer(
    help="Accuracy predictors, measured subnets and architectures of other tools.",
    no_args_is_help=True,
)

SpaceName = Annotated[
    str,
    typer.Option("--space", help="ofa-mbv3-w10, -w12, ofa-proxyless-w10, -w13 or ofa-resnet50d"),
]
Supernet = Annotated[
    Path | None,
    typer.Option(help="supernet file whose subnets were measured; its sha256 is recorded"),
]
Resolution = Annotated[
    int, typer.Option(min=0, max=4096, help="input size where the file says none, px")
]


@app.command("predictor")
def predictor(
    path: Annotated[Path, typer.Argument(help="acc_predictor.pth or alike", metavar="FILE")],
    space: SpaceName,
    out: Annotated[Path, typer.Option(help="where it goes")] = Path("predictor.npz"),
    resolutions: Annotated[
        str, typer.Option(help="of a library file's inputs, as 128,160,192,224")
    ] = "",
    supernet: Supernet = None,
    as_json: AsJson = False,
) -> None:
    """Read an accuracy predictor of once-for-all; no code in the file is run.

    It ranks subnets of the supernet it was fitted for; measure your own with `hwnas evaluate`.
    """
    from hwnas.networks import spaces
    from hwnas.ofa.predictor import import_predictor
    from hwnas.predictors.predictor import save

    whole = spaces.load(space)
    found = import_predictor(
        path, whole, _sizes(resolutions), _sha256(supernet) if supernet else ""
    )
    save(found, out)
    lacks = [size for size in whole.resolutions if size not in found.space.resolutions]
    about = {
        "predictor": str(out),
        "space": found.space.name,
        "source": found.source,
        "supernet_sha256": found.supernet_sha256 or None,
        "resolutions": found.space.resolutions,
        "lacks": lacks,
    }
    text = (
        f"wrote {out}: {found.source}; search it with `search.algorithm: nsga2` at "
        f"{_px(found.space.resolutions)} (space.resolutions)"
    )
    text += f"; it was not fitted at {_px(lacks)}" if lacks else ""
    _say(about, text, as_json)


@app.command("accuracies")
def accuracies(
    path: Annotated[Path, typer.Argument(help="CSV, or once-for-all's <px>.dict", metavar="FILE")],
    space: SpaceName,
    out: Annotated[
        Path, typer.Option(help="where they go; a .csv is what accuracy.results names")
    ] = Path("accuracy.jsonl"),
    resolution: Resolution = 0,
    supernet: Supernet = None,
    as_json: AsJson = False,
) -> None:
    """Read measured subnets of once-for-all or DyNAS-T; a row that cannot be used is named."""
    from hwnas.networks import spaces
    from hwnas.ofa.results import read_results, write_results
    from hwnas.predictors.results import repeats_text

    found = read_results(path, spaces.load(space), resolution)
    write_results(found, path, out, _sha256(supernet) if supernet else "")
    best = max(found, key=lambda result: result.top1)
    about = {
        "accuracies": str(out),
        "space": space,
        "subnets": len(found),
        "best_top1": best.top1,
        "best": best.arch.to_json(),
        "repeated": [{"lines": r.lines, "apart": r.apart} for r in found if len(r.lines) > 1],
    }
    text = f"wrote {out}: {len(found)} subnets of {space}, the best {best.top1:.2%}"
    text = "\n".join(filter(None, (text, repeats_text(found))))
    _say(about, text, as_json)


@app.command("architecture")
def architecture(
    path: Annotated[
        Path, typer.Argument(help="net.config, or the folder that holds it", metavar="FILE")
    ],
    space: SpaceName,
    out: Annotated[Path | None, typer.Option(help="file to write; none: only print it")] = None,
    resolution: Resolution = 0,
) -> None:
    """Read the architecture of a specialised network of once-for-all; prints it as JSON."""
    from hwnas.networks import spaces
    from hwnas.ofa.net_config import read_net_config
    from profilers.schema import write_json

    arch = read_net_config(path, spaces.load(space), resolution)
    if out is not None:
        write_json(out, arch.to_json())
    print(json.dumps(arch.to_json(), indent=2))


def _px(sizes: Iterable[int]) -> str:
    return f"{', '.join(map(str, sizes))} px"


def _sizes(text: str) -> tuple[int, ...]:
    """Resolutions of a list separated by commas."""
    from profilers.errors import ConfigError

    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--resolutions {text!r} is not like 128,160,192,224") from None
    if list(sizes) != sorted(set(sizes)):
        raise ConfigError(f"--resolutions {text!r} are not ascending")
    return sizes


def _sha256(path: Path) -> str:
    from profilers.errors import FileFormatError
    from profilers.schema import sha256_file

    if not path.is_file():
        raise FileFormatError(f"--supernet {path} does not exist")
    return sha256_file(path)


def _say(about: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(about, indent=2) if as_json else text)
