"""`hwnas import-ofa`: a published once-for-all supernet instead of training one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.commands.options import AsJson

if TYPE_CHECKING:
    from hwnas.ofa.checkpoint import Imported


def import_ofa(
    checkpoint: Annotated[
        Path, typer.Argument(help="downloaded file, as ofa_mbv3_d234_e346_k357_w1.0")
    ],
    space: Annotated[
        str,
        typer.Option(help="ofa-mbv3-w10, -w12, ofa-proxyless-w10, -w13 or ofa-resnet50d"),
    ],
    out: Annotated[
        Path, typer.Option(help="file to write: <run folder>/supernet.safetensors")
    ] = Path("supernet.safetensors"),
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
    """Read a public once-for-all supernet; a run folder that holds the result trains nothing.

    No code in the file is run. Every tensor is checked against the space. Then set `run` to the
    folder and `space.name` to the space in hwnas.yaml: `hwnas run` skips training, calibrates
    BatchNorm on your images, and goes on as with a supernet of its own.
    """
    from hwnas.ofa.checkpoint import import_supernet

    imported = import_supernet(checkpoint, space, out, classes)
    if as_json:
        print(json.dumps(_document(imported, out), indent=2))
        return
    for line in _lines(imported, out):
        print(line)


def _document(imported: Imported, out: Path) -> dict[str, object]:
    return {
        "supernet": str(out),
        "space": imported.space.name,
        "n_classes": imported.space.n_classes,
        "checkpoint_sha256": imported.sha256,
        "kernel_transforms_missing": imported.identity,
        "new_classifier": imported.new_classifier,
    }


def _lines(imported: Imported, out: Path) -> list[str]:
    """What was made, and the next steps."""
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
