"""What `--help` says beside docstrings: an example of every command, whole summaries, and what a
value is in place of its type.
"""

from __future__ import annotations

from typing import Any

EXAMPLES = {  # by the command's words, of those whose docstring holds none; tests parse each
    "run": "run hwnas.yaml --target host.ort-cpu.fp32.b1.t1",
    "demo": "demo",
    "init": "init mine.yaml --images photos",
    "status": "status hwnas.yaml",
    "train": "train hwnas.yaml --set train.epochs=20",
    "profile": "profile hwnas.yaml --target pi5.ort-cpu.fp32.b1.t4",
    "evaluate": "evaluate hwnas.yaml --set accuracy.measure=300",
    "refine": "refine hwnas.yaml",
    "search": "search hwnas.yaml --set search.algorithm=exact",
    "export": "export hwnas.yaml --target host.ort-cpu.fp32.b1.t1",
    "verify": "verify runs/mine/packages/host.ort-cpu.fp32.b1.t1/best --target pi5",
    "report": "report hwnas.yaml",
    "finetune": "finetune hwnas.yaml --subnet knee",
    "doctor": "doctor",
    "pick": "pick hwnas.yaml --set 'pick=[{budget: {latency_ms: 4.5}}]'",
    "front": "front hwnas.yaml --csv front.csv",
    "fleet": "fleet hwnas.yaml --models 2 --budget latency_ms=60%",
    "measure": "measure model.onnx --target host.ort-cpu.fp32.b1.t1",
    "compare": "compare main/out out",
    "accept": "accept hwnas.yaml",
    "gc": "gc hwnas.yaml --dry-run",
    "table list": "table list",
    "table show": "table show runs/mine/tables/host.ort-cpu.fp32.b1.t1.json --all",
    "table fit": "table fit a.jsonl --kit runs/mine/kits/tiny --out table.json",
    "table check": "table check runs/mine/tables/host.ort-cpu.fp32.b1.t1.json",
    "table counts": "table counts ofa-mbv3-w10 --resolutions 128,160 --out macs.json",
    "table diff": "table diff before.json after.json",
    "space list": "space list",
    "space show": "space show mbv3-28",
    "space profile": "space profile hwnas.yaml --budget latency_ms=60%",
    "space rank": "space rank hwnas.yaml --n 30",
    "space analyse": "space analyse hwnas.yaml",
    "devices add": "devices add pi@raspberrypi.local --name pi5",
    "devices list": "devices list",
    "devices show": "devices show pi5",
    "devices check": "devices check pi5",
    "devices clean": "devices clean pi5",
}
VALUES = {  # of options, where the option's own name does not say it
    "--set": "KEY=VALUE",
    "--accept": "WORDS",
    "--ci": "FOLDER",
    "--from": "CSV",
    "--csv": "FILE",
    "--out": "FILE",
    "--kit": "FOLDER",
    "--weight": "TARGET=NUMBER",
    "--budget": "METRIC=AMOUNT",
    "--energy-budget": "SECONDS",
    "--together": "worst|mean",
    "--input-shape": "NAME=SIZES",
    "--sustained": "TIME",
    "--save": "NAME",
    "--cluster": "ADDRESS",
    "--python": "COMMAND",
    "--ssh-config": "FILE",
    "--cache": "FOLDER",
    "--models": "N",
    "--n": "N",
    "--ops": "N",
    "--rounds": "N",
    "--seed": "N",
    "--steps": "N",
    "--threads": "N",
    "--workers": "N",
}


def explain(command: Any, words: str = "") -> None:
    """Complete the help of a command and of those below it, which are made anew each time.

    Args:
        command: of typer.
        words: that lead to it, without the program.
    """
    for name, below in getattr(command, "commands", {}).items():
        below.short_help = (below.help or "").partition("\n\n")[0]
        explain(below, f"{words} {name}".strip())
    if words in EXAMPLES:
        command.epilog = f"Example: hwnas {EXAMPLES[words]}"
    for option in command.params:
        option.metavar = option.metavar or _value(option)


def _value(option: Any) -> str | None:
    """What the value of an option is, in a word; None where it has none."""
    if option.param_type_name != "option" or option.is_flag:
        return None
    name = str(option.opts[0])
    if name == "--budget" and not option.multiple:  # a device's time, not what networks may cost
        return "SECONDS"
    return VALUES.get(name, name.strip("-").replace("-", "_").upper())
