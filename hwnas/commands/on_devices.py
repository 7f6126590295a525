"""`hwnas profile` and `hwnas verify`: the stages that need the devices, and one package alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.commands.options import (
    NO_BUDGET,
    Accept,
    AsJson,
    ConfigPath,
    EnergyBudget,
    Overrides,
    Targets,
    without_settings,
)

DEFAULT = Path("hwnas.yaml")

Clean = Annotated[
    bool, typer.Option("--clean", help="remove at the end what workers keep on the devices")
]
Cluster = Annotated[
    str, typer.Option(help="Dask scheduler whose workers drive the devices, tcp://host:8786")
]


def profile(
    config: ConfigPath = DEFAULT,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    clean: Clean = False,
    cluster: Cluster = "",
    energy_budget: EnergyBudget = None,
    as_json: AsJson = False,
) -> None:
    """Measure the targets and build their latency tables; different devices at the same time."""
    from hwnas.commands import running

    chosen = _on(cluster, overrides)
    if energy_budget is not None:
        chosen.append(f"profile.energy_budget_s={energy_budget:g}")
    request = running.Request(config, chosen, target or (), accept, as_json, clean=clean)
    raise typer.Exit(running.run(("data", "profile"), request))


def verify(
    config: Annotated[
        Path, typer.Argument(help="settings file, or the folder of a package", metavar="CONFIG")
    ] = DEFAULT,
    overrides: Overrides = None,
    target: Targets = None,
    accept: Accept = "",
    cluster: Cluster = "",
    as_json: AsJson = False,
) -> None:
    """Measure every package on its target and compare it with its prediction.

    With the folder of a package instead of settings: measure that one on any --target.
    """
    from hwnas.commands import running
    from profilers.errors import ConfigError

    if config.is_dir():
        if overrides or accept or cluster:
            raise ConfigError(
                "--set, --accept and --cluster go with a settings file; leave them out for the "
                "folder of a package"
            )
        _verify_package(config, target or [], as_json)
        return
    request = running.Request(config, _on(cluster, overrides), target or (), accept, as_json)
    raise typer.Exit(running.run(("verify",), request))


def _on(cluster: str, overrides: list[str] | None) -> list[str]:
    """Overrides of settings, with the scheduler that `--cluster` names."""
    return [*(overrides or ()), *([f"cluster={cluster}"] if cluster else [])]


def _verify_package(folder: Path, names: list[str], as_json: bool) -> None:
    from hwnas.commands import console
    from hwnas.measuring import verdict
    from hwnas.settings.targets import full_name, load_target
    from profilers.errors import ConfigError

    if len(names) != 1:
        raise ConfigError(f"name the one target that shall run {folder}: --target NAME")
    target = load_target(full_name(names[0], Path()), Path())
    with console.reporter(quiet=as_json) as report, without_settings(NO_BUDGET):
        say = report.progress(f"verify {folder.name} on {target.name}")
        found = verified(folder, target, lambda text, share: say(min(share, 0.999), text))
        if found["written"]:
            report.warn(f"{folder.name} on {target.name}: {found['written']}")
        for words in verdict.warnings({**found["latency"], "energy": found.get("energy", {})}):
            report.warn(f"{folder.name} on {target.name}: {words}")
        say(1.0, "")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    timed, outputs = found["latency"], found["outputs"]
    times = ("latency ms", "median", "p95", "spread", "verdict")
    columns = ("package", *times, "outputs differ by", "allowed")
    numbers = [f"{timed[name]:.4f}" for name in ("latency_ms", "median_ms", "p95_ms")]
    shares = [f"{outputs[name]:.1e}" for name in ("max_relative_difference", "tolerance")]
    row = (found["package"], *numbers, f"{timed['spread']:.1%}", timed["verdict"], *shares)
    console.print_table(target.name, columns, [row])
    for words in verdict.doubts(timed):
        print(words)


def verified(folder: Path, target: Any, say: Any) -> dict[str, Any]:
    """A package on a target: latency, and whether its outputs are those of this machine.

    Args:
        folder: of the package.
        target: any target; its batch size must be the package's.
        say: as of `measuring.campaign.run_campaign`.

    Raises:
        VerificationError: a file was changed, or the outputs differ by more than the tolerance.
        ConfigError: the package is for another batch size.
    """
    from hwnas.measuring import connections, here, parity, remote
    from hwnas.measuring.scratch import scratch
    from hwnas.run import package
    from hwnas.settings.config import ProfileConfig
    from profilers import precisions
    from profilers.errors import ConfigError

    manifest = package.read_manifest(folder)
    batch = manifest["target"]["batch"]
    if batch != target.batch:
        raise ConfigError(
            f"{folder} takes batches of {batch}, target {target.name} is for batches of "
            f"{target.batch}; name a target with b{batch}"
        )
    if precisions.load(target.precision).PRECISION.calibrated and not manifest.get("quantised"):
        raise ConfigError(
            f"{folder} computes in fp32, target {target.name} is for {target.precision}; name a "
            "target in fp32, or export for it"
        )
    environment = remote.probe(target)
    by = str(environment["engine_version"])
    with scratch("package") as place:
        model = package.sent_file(folder, target, by, place)
        outputs = parity.package_outputs(target, folder / package.MODEL, manifest["input"], model)
        timed = remote.measure_models(target, [model], ProfileConfig(), say)
        energy = here.energy_fields(target, [model], ProfileConfig())[0]
    written = _written(manifest.get("quantised"), environment, target)
    elsewhere = package.built_elsewhere(manifest, target, by)
    if elsewhere:
        elsewhere += f"; {package.MODEL} was built anew, as example.py does there"
    return {
        "package": manifest["name"],
        "target": connections.published(target),
        "environment": environment,
        "marks": ["emulated"] if environment.get("emulated") else ["measured"],
        "latency": timed[0],
        **energy,
        "outputs": outputs,
        "written": "; ".join(filter(None, (written, elsewhere))),
    }


def _written(how: Any, environment: Any, target: Any) -> str:
    """What must be said of a file that was written for other processors; empty for nothing."""
    from profilers import precisions, runtimes

    if not how:
        return ""
    own = runtimes.engine(target.runtime).recipe
    here = precisions.recipe(how["precision"], environment, own)
    if how["recipe"] == here:
        return ""
    return (
        f"it was written as {how['recipe']} for another processor; for this one it would be {here} "
        "(docs/int8.md): times and outputs are not those of the device that it is for"
    )
