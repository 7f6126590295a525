"""The files that a pipeline reads, made of one result document; formats: docs/formats.md, "Result".

Pure functions from the document to text, and one that writes them with the packages beside them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hwnas.run.gates import FAILED, MUTED, PASSED, Gate
from hwnas.run.leftovers import is_package
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import read_json, sha256_file, write_atomic, write_error, write_json

Document = Mapping[str, Any]
RESULT, SUMS, PACKAGES = "result.json", "SHA256SUMS", "packages"
OTHERS = ("packages.json", "benchmark.json", "benchmark.bencher.json", "junit.xml", "summary.md")
UNITS = {"ms": "ms", "mj": "mJ", "bytes": "bytes"}  # by the ends of metrics


# ---- the document in the forms that others read -------------------------------------------------


def junit(result: Document) -> str:
    """JUnit XML: a suite for each target with a case for each package and gate, and one for
    other failures.
    """
    root = Element("testsuites", name="hwnas")
    for target in result["targets"]:
        cases = [
            (f"{package['package']}.{gate.gate}", f"hwnas.{target}", gate)
            for package in result["packages"]
            if package["target"] == target
            for gate in _gates(package)
        ]
        suite = _suite(root, target, len(cases), [gate.verdict for _, _, gate in cases])
        for name, classname, gate in cases:
            case = SubElement(suite, "testcase", name=name, classname=classname)
            if gate.verdict != PASSED:
                kind = "failure" if gate.verdict == FAILED else "skipped"
                why = gate.reason or ("accepted by name" if gate.verdict == MUTED else "")
                words = f"{gate}; {why}" if why else str(gate)
                SubElement(case, kind, type=gate.verdict, message=words)
    failures = result["failures"]
    suite = _suite(root, "stages", max(len(failures), 1), ["error"] * len(failures))
    for failure in failures:
        case = SubElement(suite, "testcase", name=failure["work"], classname="hwnas.stages")
        kind = f"exit-{failure['exit_code']}"
        SubElement(case, "error", type=kind, message=_plain(failure["error"]))
    if not failures:
        SubElement(suite, "testcase", name="all", classname="hwnas.stages")
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: Element, name: str, n: int, verdicts: list[str]) -> Element:
    failed, errors = verdicts.count(FAILED), verdicts.count("error")
    skipped = n - failed - errors - verdicts.count(PASSED) if verdicts else 0
    counts = {"tests": n, "failures": failed, "errors": errors, "skipped": skipped}
    told = {key: str(value) for key, value in counts.items()}
    return SubElement(root, "testsuite", {"name": name, **told})


def _plain(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return "".join(c if c.isprintable() else " " for c in text)


def summary(result: Document, comparison: str = "") -> str:
    """Markdown for people: packages with their gates, failures, changes since the lock."""
    packages = result["packages"]
    n_failed = sum(not _is_good(package) for package in packages)
    lines = [
        f"# hwnas: {len(packages)} packages for {len(result['targets'])} targets, "
        f"{n_failed or 'none'} failed{_also(result['failures'])}",
        "",
        "| target | package | px | error | latency ms | energy mJ | kB | gates |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for package in packages:
        value = {name: told["value"] for name, told in package["metrics"].items()}
        numbers = [
            f"{value[name] * scale:{form}}" if name in value else ""
            for name, scale, form in (
                ("error", 1, ".2%"),
                ("latency_ms", 1, ".4f"),
                ("energy_mj", 1, ".4g"),
                ("size_bytes", 1e-3, ".0f"),
            )
        ]
        cells = (package["target"], package["package"], str(package["resolution"]), *numbers)
        lines.append(f"| {' | '.join(cells)} | {_gate_words(package)} |")
    lines += ["", *(f"- **{f['work']}**: {f['error']}" for f in result["failures"])]
    bare = {name: told["reason"] for name, told in result.get("devices", {}).items()}
    lines += [f"- **{name}** has no package: {reason}" for name, reason in bare.items() if reason]
    if moved := result.get("moved"):
        lines += ["", f"Moved since hwnas.lock: {', '.join(moved)}."]
    return "\n".join([*lines, "", *([comparison] if comparison else [])])


def _also(failures: Sequence[Document]) -> str:
    return f"; {', '.join(failure['work'] for failure in failures)} failed" if failures else ""


def _gate_words(package: Document) -> str:
    bad = [f"{gate.verdict}: {gate}" for gate in _gates(package) if gate.verdict != PASSED]
    return "; ".join(bad) or "passed"


def _gates(package: Document) -> list[Gate]:
    return [Gate(**gate) for gate in package["gates"]]


def _is_good(package: Document) -> bool:
    return all(gate.verdict != FAILED for gate in _gates(package))


def packages(result: Document) -> list[dict[str, Any]]:
    """Every package with where it lies in the output folder, and whether it passed."""
    return [
        {
            "target": package["target"],
            "package": package["package"],
            "id": package["id"],
            "folder": _folder(package),
            "model_sha256": package["files"][package["model"]],
            "passed": _is_good(package),
            **{name: told["value"] for name, told in package["metrics"].items()},
        }
        for package in result["packages"]
    ]


def _folder(package: Document) -> str:
    return f"packages/{package['target']}/{package['package']}"


def custom_smaller_is_better(result: Document) -> list[dict[str, Any]]:
    """For github-action-benchmark, tool `customSmallerIsBetter`."""
    return [
        {
            "name": f"{package['target']}/{package['package']}: {name.rpartition('_')[0] or name}",
            "unit": UNITS.get(name.rpartition("_")[2], "share"),
            "value": told["value"],
            "range": f"± {told['noise']:.3g}",
            "extra": f"network {package['id']}, model {package['files'][package['model']][:12]}",
        }
        for package in result["packages"]
        for name, told in package["metrics"].items()
    ]


def bencher(result: Document) -> dict[str, Any]:
    """Bencher Metric Format: value and bounds of each measure of each package."""
    return {
        f"{package['target']}/{package['package']}": {
            name.replace("_", "-"): {
                "value": told["value"],
                "lower_value": max(told["value"] - told["noise"], 0.0),
                "upper_value": told["value"] + told["noise"],
            }
            for name, told in package["metrics"].items()
        }
        for package in result["packages"]
    }


def error_lines(result: Document) -> list[str]:
    """Workflow commands of GitHub Actions: an `::error` for each failed gate and stage."""
    told = [(f["work"], f["error"]) for f in result["failures"]]
    for package in result["packages"]:
        name = f"{package['package']} on {package['target']}"
        told += [(name, str(gate)) for gate in _gates(package) if gate.verdict == FAILED]
    return [f"::error title={_escaped(t, ':,')}::{_escaped(text)}" for t, text in told]


def _escaped(text: str, more: str = "") -> str:
    """Text of a workflow command, as actions/toolkit, packages/core/src/command.ts, escapes it."""
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text


# ---- files --------------------------------------------------------------------------------------


def prepare(out: Path, run: Path | None = None) -> None:
    """Make the output folder, before any work is done.

    Args:
        out: to be written to.
        run: the run folder, where it is known.

    Raises:
        ConfigError: it is a file, lies in the run folder, holds files of others under names of
            ours, or cannot be written.
    """
    if run is not None and out.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"--ci {out} lies in the run folder {run}; name another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except FileExistsError:
        raise ConfigError(f"--ci {out} is a file; name a folder") from None
    except OSError as error:
        raise write_error(out, error) from error
    taken = [name for name in (RESULT, *OTHERS, SUMS, PACKAGES) if (out / name).exists()]
    if taken and not _is_result(out / RESULT):
        raise ConfigError(f"--ci {out} holds a {taken[0]} that is not ours; name an empty folder")


def _is_result(path: Path) -> bool:
    """Whether a file is a result, of this version or an older one."""
    with contextlib.suppress(FileFormatError):
        told = read_json(path)
        return isinstance(told, dict) and str(told.get("format")).startswith("hwnas-result-")
    return False


def write(result: Document, source: Path, out: Path, comparison: str = "") -> None:
    """Write everything that a pipeline reads into a folder, the packages too.

    Args:
        result: the document.
        source: folder of the packages, by target and name.
        out: of `prepare`.
        comparison: Markdown to end the summary with.
    """
    text = summary(result, comparison)
    write_json(out / RESULT, result)  # first: it says that what lies here is ours
    try:
        for old in filter(is_package, (out / PACKAGES).glob("*/*/")):
            shutil.rmtree(old)
        for package in result["packages"]:
            for name in (*package["files"], "manifest.json"):
                file = source / package["target"] / package["package"] / name
                write_atomic(out / _folder(package) / name, file.read_bytes())
    except OSError as error:
        raise write_error(out, error) from error
    write_json(out / "packages.json", packages(result))
    write_json(out / "benchmark.json", custom_smaller_is_better(result))
    write_json(out / "benchmark.bencher.json", bencher(result))
    write_atomic(out / "junit.xml", junit(result).encode())
    write_atomic(out / "summary.md", text.encode())
    write_atomic(out / SUMS, _sums(out).encode())
    _append_summary(text)


def _sums(out: Path) -> str:
    """Lines that `sha256sum -c` reads."""
    files = [out / name for name in (RESULT, *OTHERS)]
    files += [path for path in (out / PACKAGES).rglob("*") if path.is_file()]
    told = sorted((path.relative_to(out).as_posix(), path) for path in files)
    return "".join(f"{sha256_file(path)}  {name}\n" for name, path in told)


def _append_summary(text: str) -> None:
    """Add the summary to that of the job, where GitHub's runner asks for one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as error:
        raise write_error(Path(path), error) from error
