"""`hwnas import`: turn what others trained, fitted or measured into our files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.commands.options import AsJson, end_with, keep_apart

if TYPE_CHECKING:
    from hwnas.networks.space import SearchSpace
    from hwnas.ofa.checkpoint import Imported
    from hwnas.tables.table import CostTable

app = typer.Typer(
    help="Turn what others trained, fitted or measured into our files: supernets, predictors, "
    "accuracies, architectures, latency tables, latencies of networks.",
    no_args_is_help=True,
)

SpaceName = Annotated[
    str,
    typer.Option("--space", help="a space of once-for-all, or module:NAME of your own like them"),
]
AnySpace = Annotated[
    str, typer.Option("--space", help="a space of `hwnas space list`, or module:NAME of your own")
]
On = Annotated[
    str,
    typer.Option("--target", help="what was measured on, as note10.tflite.fp32.b1.t1"),
]
Out = Annotated[Path, typer.Option("--out", help="file to write")]
Supernet = Annotated[
    Path | None,
    typer.Option(help="supernet file whose subnets were measured; its sha256 is recorded"),
]
Resolution = Annotated[
    int, typer.Option(min=0, max=4096, help="input size where the file says none, px")
]


def _file(text: str) -> Any:
    return typer.Argument(help=text, metavar="FILE")


@app.command("supernet")
def supernet(
    path: Annotated[
        Path,
        typer.Argument(
            help="downloaded file, as ofa_mbv3_d234_e346_k357_w1.0", metavar="CHECKPOINT"
        ),
    ],
    space: SpaceName,
    out: Out = Path("supernet.safetensors"),
    classes: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000,
            help="outputs of the classifier; another number than the file's replaces it "
            "[default: 1000]",
            show_default=False,
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Read a public supernet; a run folder that holds the result trains nothing.

    Example: hwnas import supernet ofa_mbv3_d234_e346_k357_w1.0 --space ofa-mbv3-w10 --out
    runs/mine/supernet.safetensors

    No code in the file is run. Every tensor is checked against the space. Then set `run` to the
    folder and `space.name` to the space in hwnas.yaml: `hwnas run` skips training, calibrates
    BatchNorm on your images, and goes on as with a supernet of its own.
    """
    from hwnas.ofa.checkpoint import import_supernet

    with _reads("supernet", out, path):
        imported = import_supernet(path, space, out, classes)
    about = {
        "supernet": str(out),
        "space": imported.space.name,
        "n_classes": imported.space.n_classes,
        "checkpoint_sha256": imported.sha256,
        "kernel_transforms_missing": imported.identity,
        "new_classifier": imported.new_classifier,
    }
    _say(about, _next_steps(imported, out), as_json)


@app.command("predictor")
def predictor(
    path: Annotated[Path, _file("acc_predictor.pth or alike")],
    space: SpaceName,
    out: Out = Path("predictor.npz"),
    resolutions: Annotated[
        str, typer.Option(help="of a library file's inputs, as 128,160,192,224")
    ] = "",
    supernet: Supernet = None,
    as_json: AsJson = False,
) -> None:
    """Read an accuracy predictor; no code in the file is run.

    Example: hwnas import predictor acc_predictor.pth --space ofa-mbv3-w12 --out
    runs/mine/predictor.npz

    It ranks subnets of the supernet it was fitted for; measure your own with `hwnas evaluate`.
    """
    from hwnas.networks import spaces
    from hwnas.ofa.predictor import import_predictor
    from hwnas.predictors.predictor import save

    whole = spaces.load(space)
    sizes, sha256 = _sizes(resolutions), _sha256(supernet)
    with _reads("predictor", out, path):
        found = import_predictor(path, whole, sizes, sha256)
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
    _say(about, [text], as_json)


@app.command("results")
def results(
    path: Annotated[Path, _file("CSV of networks and accuracies, or once-for-all's <px>.dict")],
    space: AnySpace,
    out: Annotated[
        Path, typer.Option("--out", help="file to write; a .csv is what accuracy.results names")
    ] = Path("accuracy.jsonl"),
    resolution: Resolution = 0,
    supernet: Supernet = None,
    as_json: AsJson = False,
) -> None:
    """Read measured subnets; a row that cannot be used is named.

    Example: hwnas import results results.csv --space ofa-mbv3-w10 --out measured.csv
    """
    from hwnas.ofa.results import read_results, write_results
    from hwnas.predictors.results import repeats_text

    sha256 = _sha256(supernet)
    with _reads("results", out, path):
        found = read_results(path, _whole(space), resolution)
    write_results(found, path, out, sha256)
    best = max(found, key=lambda result: result.top1)
    about = {
        "results": str(out),
        "space": space,
        "subnets": len(found),
        "best_top1": best.top1,
        "best": best.arch.to_json(),
        "repeated": [{"lines": r.lines, "apart": r.apart} for r in found if len(r.lines) > 1],
    }
    text = f"wrote {out}: {len(found)} subnets of {space}, the best {best.top1:.2%}"
    _say(about, list(filter(None, (text, repeats_text(found)))), as_json)


@app.command("architecture")
def architecture(
    path: Annotated[Path, _file("net.config, or the folder that holds it")],
    space: SpaceName,
    out: Out = Path("architecture.json"),
    resolution: Resolution = 0,
    as_json: AsJson = False,
) -> None:
    """Read the architecture of a specialised network.

    Example: hwnas import architecture FOLDER --space ofa-mbv3-w10 --out arch.json
    """
    from hwnas.networks import spaces
    from hwnas.ofa.net_config import read_net_config
    from profilers.schema import write_json

    with _reads("architecture", out, path):
        arch = read_net_config(path, spaces.load(space), resolution)
    write_json(out, arch.to_json())
    text = f"wrote {out}: network {arch.id} of {space} at {arch.resolution} px"
    told = [text, f"next: hwnas finetune hwnas.yaml --subnet {out}"]
    _say({"architecture": str(out), **arch.to_json()}, told, as_json)


@app.command("table")
def table(
    files: Annotated[
        list[Path], _file("<px>_lookup_table.yaml, any number, or a JSON or CSV of op costs")
    ],
    space: AnySpace,
    target: On,
    out: Out = Path("table.json"),
    as_json: AsJson = False,
) -> None:
    """Make a table of look-up files: once-for-all's of a MobileNet, or what ops cost by their keys,
    as JSON or CSV (docs/formats.md). Nothing says how good it is.

    Example: hwnas import table 224_lookup_table.yaml --space ofa-mbv3-w12 --target
    note10.tflite.fp32.b1.t1 --out table.json
    """
    from hwnas.commands.table_words import print_made
    from hwnas.ofa.lookup_tables import import_tables, max_network
    from hwnas.ofa.op_costs import import_op_costs
    from hwnas.tables.table import save
    from profilers.schema import target_from_name

    on, whole = target_from_name(target), _whole(space)
    of_ops = len(files) == 1 and files[0].suffix in (".json", ".csv")
    with _reads("table", out, *files):
        found = import_op_costs(files[0], whole, on) if of_ops else import_tables(files, space, on)
    save(found, out)
    print_made(out, found, as_json)
    if not as_json:
        told = max_network(found, whole)
        print(f"{told}: if it does not, the files are of another unit or device")
        print(_use(found))


@app.command("latencies")
def latencies(
    path: Annotated[Path, _file("CSV of networks and latencies, maybe energies")],
    space: AnySpace,
    target: On,
    out: Out = Path("table.json"),
    resolution: Resolution = 0,
    seed: Annotated[int, typer.Option(min=0, help="of which networks are held out")] = 0,
    measured: Annotated[
        Path | None,
        typer.Option("--with", help="run folder: fit its measurements of the target too"),
    ] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option(help="table of the space on another target, or of another time; repeatable"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a table from latencies of whole networks; held-out networks test it.

    Example: hwnas import latencies measured.csv --space ofa-mbv3-w10 --target
    phone.tflite.fp32.b1.t4 --out table.json

    A network in several lines was measured several times. The header says the unit: latency_ms,
    latency (us), energy_mj. With --like, 15 networks are enough; without, 25.
    """
    from hwnas.commands.campaigns import measured_in
    from hwnas.commands.table_words import print_made
    from hwnas.ofa.latencies import read_latencies
    from hwnas.run.imported import for_tables
    from hwnas.tables import together
    from hwnas.tables.imported import hashes
    from hwnas.tables.table import load_table, save
    from hwnas.tables.whole_networks import Sources, fit_networks
    from profilers.errors import ConfigError, TableError
    from profilers.schema import target_from_name

    if measured and like:
        raise ConfigError(
            "--with and --like: measurements of the target itself say more of its ops than tables "
            "of others do; leave --like out"
        )
    on, whole = target_from_name(target), _whole(space)
    campaign, whole = measured_in(measured, on, whole) if measured else (None, whole)
    known = [load_table(table) for table in like or ()]
    whole = whole.for_data(*for_tables(whole, known)) if known else whole
    with _reads("latencies", out, path, *(like or ())):
        read = read_latencies(path, whole, on, resolution)
        found = (
            together.fit_together(whole, read.networks, campaign, hashes(path), seed)
            if campaign
            else fit_networks(whole, on, read.networks, Sources(hashes(path), known), seed)
        )
    save(found, out)
    print_made(out, found, as_json)
    if not as_json:
        told = together.words(found) if campaign else []
        print("\n".join(filter(None, (read.repeats, *told, _use(found)))))
    if found.verdict == "unreliable":
        end_with(TableError(f"{out} is unreliable: {found.validation['reason']}"))


# ---- words --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reads(subcommand: str, out: Path, *paths: Path) -> Iterator[None]:
    """Where a file was refused that another subcommand reads, an error that names this one.

    Raises:
        FileFormatError: it is of the other kind.
        ConfigError: it would be written over.
    """
    from profilers.errors import FileFormatError, HwnasError

    keep_apart(out, paths)
    try:
        yield
    except HwnasError:
        from hwnas.ofa.kinds import WORDS, subcommands_of

        for path in paths:
            others = subcommands_of(path)
            if others and subcommand not in others:
                raise FileFormatError(
                    f"{path} is {WORDS[others[0]]}, not {WORDS[subcommand]}; `hwnas import "
                    f"{others[0]}` reads it"
                ) from None
        raise


def _whole(space: str) -> SearchSpace:
    """A space with every resolution that may be asked for."""
    from hwnas.networks import spaces

    found = spaces.load(space)
    return found.restricted(found.every_resolution)


def _use(table: CostTable) -> str:
    """How a table is searched, in words."""
    name = table.target["name"]
    return (
        f"to search it, put it at <run>/tables/{name}.json; targets/{name}.yaml with `connection: "
        "{kind: none}` says that nobody measures on it here"
    )


def _next_steps(imported: Imported, out: Path) -> list[str]:
    """What was made of a supernet, and how to go on."""
    space = imported.space
    lines = [
        f"wrote {out}: supernet of {space.name}, {space.n_classes} classes",
        f"checkpoint sha256 {imported.sha256}",
    ]
    if imported.identity:
        lines.append(
            f"the file has no kernel transforms: {imported.identity} were set to the identity, so "
            "kernels smaller than 7 are plain crops and were never trained"
        )
    settings = f"  run: {out.parent}\n  space: {{name: {space.name}, resolutions: [224]}}"
    lines += ["next, in hwnas.yaml:", settings]
    if imported.new_classifier:
        lines.append("the classifier is new: `hwnas finetune hwnas.yaml` trains it on your images")
    lines.append("then: hwnas run hwnas.yaml    (training is skipped; profile, search, export)")
    return lines


def _px(sizes: Sequence[int]) -> str:
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


def _sha256(path: Path | None) -> str:
    """Of the supernet file that was named; empty if none was."""
    from profilers.errors import FileFormatError
    from profilers.schema import sha256_file

    if path is not None and not path.is_file():
        raise FileFormatError(f"--supernet {path} does not exist")
    return sha256_file(path) if path is not None else ""


def _say(about: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    print(json.dumps(about, indent=2) if as_json else "\n".join(lines))
