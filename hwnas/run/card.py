"""What is said of a package: its MODEL_CARD.md, and the words of it that the report shows too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.run import accuracy, native
from hwnas.run.own import in_words
from hwnas.settings.targets import REFERENCE
from profilers import runtimes
from profilers.runtimes import MODEL

WHERE = {"target": "on the target", "host": "in ONNX Runtime on the host"}  # accuracy was taken


def is_serial(manifest: Mapping[str, Any]) -> bool:
    """Whether inputs are series, not images."""
    return len(manifest["input"]["shape"]) == 2


def runner(runtime: str) -> Any:
    """The runtime that runs a package without hwnas: its target's, or the reference."""
    known = runtimes.load(runtime) if runtime in runtimes.names() else None
    return known if hasattr(known, "Deployed") else runtimes.load(REFERENCE)


def model_card(manifest: Mapping[str, Any]) -> str:
    """MODEL_CARD.md in Markdown, with the front matter that model hubs read."""
    measured, predicted = manifest.get("measured") or {}, manifest["predicted"]
    given, target = manifest["input"], manifest["target"]["name"]
    metric = manifest["task"]["metric"]
    spread = "" if measured and not measured.get("test_interval") else " (95 % interval)"
    serial = is_serial(manifest)
    shape, inputs = " x ".join(map(str, given["shape"])), "series" if serial else "images"
    lines = [
        "---",
        f"library_name: {_engine(manifest).file.rpartition('.')[2]}",
        *(() if serial else (f"pipeline_tag: image-{manifest['task']['name']}",)),
        "tags: [hwnas, once-for-all]",
        "---",
        "",
        f"# {manifest['name']} for {target}",
        "",
        f"Subnet `{manifest['id']}` of space `{manifest['space']}`, cut out of a once-for-all "
        f"supernet and exported as {_form(manifest)}.",
        "",
        "| | predicted | measured |",
        "|---|---|---|",
        f"| {metric}{spread}, {tested_on(manifest)} | | {tested_words(manifest)} |",
        f"| error, validation {inputs} | {_share(predicted.get('error'))} | |",
        f"| latency, ms (10th percentile, batch {manifest['target']['batch']}) "
        f"| {_ms(predicted.get('latency_ms'))} | {_ms(measured.get('latency_ms'))} |",
        f"| latency, ms (median) | | {_ms(measured.get('median_ms'))} |",
        *(f"| measured latency is {v} | | {measured['reason']} |" for v in _doubts(measured)),
        *_energy_lines(predicted, measured),
        f"| MACs | {predicted['macs']:,} | |",
        f"| parameters | {predicted['params']:,} | |",
        f"| weights, bytes | {predicted['weight_bytes']:,} | |",
        f"| peak activations, bytes | {predicted['peak_activation_bytes']:,} | |",
        "",
        f"Input: `{given['name']}`, {shape}, {given['scale']}; resize: {given['resize']}.",
        "",
        "Classes: " + ", ".join(manifest["classes"]) + ".",
        "",
        f"`example.py` runs the model with numpy{'' if serial else ', Pillow'} and "
        f"{_engine(manifest).pip} alone. Predictions come "
        "from a latency table and an accuracy predictor, measurements from this very file.",
        "",
    ]
    engine = _engine(manifest)
    lines += native.usage(manifest, engine.file)
    return "\n".join([*lines, *_card_notes(manifest), *native.licences(manifest, engine)])


def _engine(manifest: Mapping[str, Any]) -> runtimes.Engine:
    """What is known of the engine that runs a package."""
    found: runtimes.Engine = runner(manifest["target"]["runtime"]).ENGINE
    return found


def _form(manifest: Mapping[str, Any]) -> str:
    """What the model's file is, and beside which one it lies."""
    engine = _engine(manifest)
    if engine.file == MODEL:
        return f"static {engine.form}, {_computed(manifest)}"
    return (
        f"{engine.form}, {_computed(manifest)}: `{engine.file}`, which {engine.title} loads, and "
        f"`{MODEL}`, the same network before it was converted"
    )


def _computed(manifest: Mapping[str, Any]) -> str:
    """The precision of the file; an engine may build another one of it."""
    return str((manifest.get("quantised") or {}).get("precision", "fp32"))


def _card_notes(manifest: Mapping[str, Any]) -> list[str]:
    """What a reader of the card must know besides: origin, statistics, tuning, accepted words."""
    inputs, metric = "series" if is_serial(manifest) else "images", manifest["task"]["metric"]
    lines: list[str] = []
    if manifest.get("origin"):
        lines += [f"It was cut out of {in_words(manifest['origin'])}.", ""]
    for words in (manifest.get("predictor") or {}).values():
        lines += [f"{words[0].upper()}{words[1:]}.", ""] if words else []
    if manifest.get("statistics") == "imported":
        lines += [
            "Its BatchNorm statistics are those of the imported supernet's max network, not "
            "calibrated for this network: its accuracy is lower than it could be, and unknown.",
            "",
        ]
    if how := manifest.get("quantised"):
        left = ", ".join(f"{n} {op}" for op, n in how["in_float"].items())
        lines += [
            f"It computes in {how['precision']} ({how['recipe']}); the ranges of its activations "
            f"are those of {how['images']} training {inputs} ({how['calibration']}). Left in "
            f"float: {left or 'nothing'}.",
            "",
        ]
        if tuned := how.get("tuned"):
            lines += [
                f"Its weights were trained on in {how['precision']}, {tuned['steps']} steps: "
                f"{metric} on validation {inputs} {_gained(tuned)}; "
                f"{_share(tuned['val_accuracy_fp32'])} in fp32. The "
                "predicted error is that of before.",
                "",
            ]
    if built := manifest.get("built"):
        files = " and ".join(f"`{name}`" for name in built["files"])
        lines += [
            f"{files} are what {_engine(manifest).title} {built['engine_version']} built of it in "
            f"{manifest['target']['precision']}; they load there only. Elsewhere `example.py` "
            f"builds `{MODEL}` anew, and says so.",
            "",
        ]
    if manifest.get("finetuned"):
        tuned = manifest["finetuned"]
        lines += [
            "Its weights were fine-tuned on their own, after the search: "
            f"{metric} on validation {inputs} {_gained(tuned)}; the predicted error is that of "
            "before.",
            "",
        ]
    if manifest.get("accepted"):
        names = ", ".join(manifest["accepted"])
        lines += [f"Made with refusals overridden by name (`--accept`): {names}.", ""]
    return lines


def input_words(manifest: Mapping[str, Any]) -> str:
    """The size of the input, as 28 px or 100 steps."""
    return f"{manifest['input']['size']} {'steps' if is_serial(manifest) else 'px'}"


def tested_on(manifest: Mapping[str, Any]) -> str:
    """How many test images or series, and where the accuracy on them was taken."""
    measured = manifest.get("measured") or {}
    inputs = "series" if is_serial(manifest) else "images"
    if measured.get("test_accuracy") is None:
        return f"test {inputs}"
    return f"{measured['test_images']} test {inputs} {WHERE[measured['accuracy_on']]}"


def between(manifest: Mapping[str, Any]) -> str:
    """The 95 % interval of the accuracy on test images; empty where it is unknown."""
    words = tested_words(manifest).partition("(")[2]
    return f", 95 % interval {words.rstrip(')')} %" if words else ""


def tested_words(manifest: Mapping[str, Any]) -> str:
    """The metric on test images with its 95 % interval; empty where it is unknown."""
    measured = manifest.get("measured") or {}
    return accuracy.in_words(measured.get("test_accuracy"), measured.get("test_interval"))


def _doubts(measured: Mapping[str, Any]) -> list[str]:
    """The verdict of the measured latency, unless it is good or unknown."""
    found = measured.get("verdict", "good")
    return [] if found == "good" else [found]


def _energy_lines(predicted: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """Rows of a model card; none where nothing is known."""
    values = (predicted.get("energy_mj"), measured.get("energy_mj"))
    if values == (None, None):
        return []
    net_mj = (measured.get("energy") or {}).get("net_energy_mj")
    return [
        f"| energy, mJ (with the power at rest) | {_ms(values[0])} | {_ms(values[1])} |",
        f"| energy, mJ (net of it) | | {_ms(net_mj)} |",
    ]


def _gained(tuned: Mapping[str, Any]) -> str:
    return f"{_share(tuned['val_accuracy_before'])} before, {_share(tuned['val_accuracy'])} after"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
