"""Stage `space`: makes a search space, and the start weights of its supernet, from a torch model.

The model is exported, analysed, proved, lowered, and compared with the result. The user's code,
which the settings name, runs only here; later stages read the files. Loads torch only if there is
something to do.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.networks.families.traced import KEPT, WIDTH
from hwnas.networks.slots import check_family
from hwnas.networks.space import Architecture, SearchSpace
from hwnas.run.context import Context
from hwnas.run.data import agreed
from hwnas.run.folder import begin, is_current, is_first_process, mark_current
from hwnas.run.own import space_work
from hwnas.settings.config import SpaceConfig
from profilers.errors import ConfigError
from profilers.schema import sha256_file, sha256_text, write_json

if TYPE_CHECKING:
    from hwnas.networks.families.traced import Traced
    from hwnas.traced.analysis import Analysis
    from hwnas.traced.proof import Proof
    from hwnas.traced.samples import Sample

TRIALS = 10  # random networks of the proof
IMPORTANCE = "norm"  # of a unit; benchmarks/own_model.py importance compares the measures
NETWORKS = 10  # of the space, compared with the model


def make_space(context: Context) -> bool:
    """Write the space of the settings' model and its start weights. Returns whether anything was
    to do. Rank 0 writes; the other ranks wait.

    Raises:
        ConfigError, FileFormatError: the model or its weights cannot be loaded, or nothing of it
            can be made elastic.
        VerificationError: a network cut out of it would not be part of it.
    """
    done = is_first_process() and _make_space(context)
    return agreed(done)


def _make_space(context: Context) -> bool:
    settings, base, run = context.config.space, context.base, context.run
    sizes = sorted(set(settings.resolutions or settings.input[-1:]))
    if is_current(run, space_work(settings, base, run), context.report.note):
        return False
    from hwnas.traced import model  # these import torch
    from hwnas.traced.analyse import analyse
    from hwnas.traced.proof import prove
    from hwnas.traced.samples import check_outputs, sample

    say = context.report.progress("space")
    say(0.0, "load the model")
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no result of ours
        net = model.load(settings, base, context.report.note)
        say(0.1, "export and analyse it")
        analysis = analyse(net, settings.input, settings.keep, settings.skip_blocks)
        samples = [sample(net, settings, size) for size in sizes]
        check_outputs(settings.model, samples)
        say(0.3, f"prove it on {TRIALS} random networks")
        proof = prove(analysis, TRIALS, 0, net)
    if settings.model.startswith(model.TIMM) and not settings.weights:
        context.report.warn(f"{settings.model} has random weights; name others as space.weights")
    say(0.7, "lower it, and compare the largest network with the model")
    begin(run, space_work(settings, base, run))
    _write(context, analysis, proof, samples)
    say(1.0, "")
    mark_current(run, space_work(settings, base, run))  # its sources are known now
    return True


def _write(context: Context, analysis: Analysis, proof: Proof, samples: Sequence[Sample]) -> None:
    """Lower what was analysed; write the space and the weights of its supernet."""
    from hwnas.supernet.files import about_space, write_supernet  # these import torch
    from hwnas.traced.lowering import lowered
    from hwnas.traced.samples import largest_gap, networks_gap
    from hwnas.traced.weights import importance, orders, own_supernet

    settings, run = context.config.space, context.run
    low = lowered(analysis, settings.widths, settings.round_to)
    family, whole = low.family, {**analysis.whole, **low.whole}
    space = spaces.of_model(family, [sample.size for sample in samples], low.bn_eps)
    if space.size == len(samples):
        raise ConfigError(_nothing(settings, whole))
    order = orders(importance(analysis, IMPORTANCE))
    supernet = own_supernet(space, low, analysis, order)
    check_family(space, spaces.CHECKED, np.random.default_rng(0))
    gaps = {
        "largest": largest_gap(settings.model, supernet, samples),
        "networks": networks_gap(supernet, analysis, order, NETWORKS),
    }
    origin = {
        "model": settings.model,
        "weights_sha256": sha256_file(context.base / settings.weights) if settings.weights else "",
        "program_sha256": sha256_text(str(analysis.program.graph)),
    }
    about = {
        **spaces.to_json(space, family),
        "origin": origin,
        "sources": _sources(context.base, settings.model),
        "networks": space.size,
        **_parts(space, family),
        "whole": whole,
        "proof": {**proof._asdict(), **gaps},
    }
    write_supernet(supernet.state_dict(), {**about_space(space), "origin": origin}, run.start)
    write_json(run.space, about)


def _nothing(settings: SpaceConfig, whole: Mapping[str, str]) -> str:
    """Why the model gives no network but itself."""
    reasons = "; ".join(f"{name}: {why}" for name, why in list(whole.items())[:3])
    what = "raise space.widths" if settings.widths == 1 else "lower space.round_to"
    return (
        f"nothing of {settings.model} can be made elastic "
        f"({reasons or 'it has no channels of its own'}); {what}, leave space.keep out, or put "
        "what stands in the way into the function's own wrapper"
    )


def _parts(space: SearchSpace, family: Traced) -> dict[str, Any]:
    """Groups and branches with their shares of the MACs of the largest network.

    The share of a group is of every op whose size the group decides, that of a branch of the ops
    that go with it.
    """
    by_slot = {placed.slot: placed.op.macs for placed in space.largest.ops}
    total = max(1, sum(by_slot.values()))
    deciding = {
        name: [slot for slot, columns in space.depends_on.items() if column in columns]
        for name, column in space.columns.items()
    }
    return {
        "groups": [
            {
                "name": group.name,
                "units": group.widths[-1],
                "widths": list(group.widths),
                "macs_share": sum(by_slot[s] for s in deciding[group.name + WIDTH]) / total,
            }
            for group in family.groups
            if len(group.widths) > 1
        ],
        "branches": [
            {
                "name": skip.name,
                "macs_share": 1 - exact_costs(_without(space, skip.name + KEPT))["macs"] / total,
            }
            for skip in family.skips
        ],
    }


def _without(space: SearchSpace, choice: str) -> Architecture:
    """The largest network but for one choice, which is at its least option."""
    genome = space.n_options[None] - 1
    genome[0, space.columns[choice]] = 0
    return space.architectures(genome)[0]


def _sources(base: Path, model: str) -> list[str]:
    """Files that the user's function was loaded from, named relative to the folder of the settings:
    all below that folder, and elsewhere those of the function's own package if it is not installed.
    """
    root, package = Path(base).resolve(), model.partition(":")[0].partition(".")[0]
    found = set()
    for name, module in list(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        if file and top not in ("hwnas", "profilers"):
            path = Path(file).resolve()
            own = top == package or path.is_relative_to(root)
            if own and not {"site-packages", "dist-packages"} & set(path.parts):
                found.add(Path(os.path.relpath(path, root)).as_posix())
    return sorted(found)
