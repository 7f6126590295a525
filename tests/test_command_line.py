"""The command line itself: help, examples, completion, words of refusals."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from hwnas import cli
from hwnas.commands.explain import EXAMPLES, explain
from hwnas.commands.options import BUDGETS, without_settings
from profilers.errors import UnstableMeasurementError


def whole():
    command = typer.main.get_command(cli.app)
    explain(command)
    return command


def every(command, words=()):
    """Each command with the words that lead to it."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from every(below, (*words, name))


COMMANDS = {" ".join(words): command for words, command in every(whole())}


def hwnas(*words):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return ended.value.code


def shown(words):
    """The example of a command, behind the program's name."""
    text = f"{COMMANDS[words].help}\n\n{COMMANDS[words].epilog or ''}"
    found = re.findall(r"^ *Example: hwnas (.*?)(?:\n\n|\Z)", text, re.S | re.M)
    return " ".join(found[0].split()) if len(found) == 1 else found


LEAVES = [words for words, command in COMMANDS.items() if not hasattr(command, "commands")]


def test_every_example_is_of_a_command():
    assert set(EXAMPLES) <= set(LEAVES)


@pytest.mark.parametrize("example", [shown(words) for words in LEAVES], ids=LEAVES)
def test_an_example_is_what_its_command_takes(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rest, command, context = shlex.split(example), whole(), None
    while hasattr(command, "commands"):
        context = command.make_context("hwnas", [], parent=context, resilient_parsing=True)
        command = command.commands[rest.pop(0)]
    command.make_context("it", rest, parent=context)  # or a usage error


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words or "hwnas")
def test_help_shows_an_example_whole_summaries_and_no_types(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert hwnas(*words.split(), "-h") == 0
    shown = capsys.readouterr().out
    assert hwnas(*words.split(), "--help") == 0
    assert capsys.readouterr().out == shown
    said = " ".join(shown.split())
    if words in EXAMPLES:
        assert f"Example: hwnas {EXAMPLES[words]}" in said
    assert not re.search(r"\w\.\.\.", said)
    assert not re.search(r"\b(TEXT|INTEGER|FLOAT|PATH|RANGE)\b", shown)


def test_every_summary_is_whole_in_the_list_of_commands(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert hwnas("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, command in whole().commands.items():
        summary = " ".join((command.help or "").partition("\n\n")[0].split())
        assert f"{name} {summary}" in shown


@pytest.mark.parametrize(
    "words", [("--debug", "space", "show", "tyni"), ("space", "show", "tyni", "--debug")]
)
def test_debug_counts_wherever_it_stands(words, monkeypatch, capsys):
    monkeypatch.setenv("HWNAS_DEBUG", "")
    assert hwnas(*words) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("hwnas: unknown search space 'tyni'; did you mean")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_completion(shell):
    words = {"_HWNAS_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "hwnas ta"}
    words |= {"COMP_WORDS": "hwnas ta", "COMP_CWORD": "1"}
    if shell == "fish":
        words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    done = subprocess.run(
        [sys.executable, "-m", "hwnas"],
        env={**os.environ, **words},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "table" in done.stdout
    assert "train" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian",), "No such command 'trian'.*rain.* see `hwnas --help`"),
        (("table", "shwo"), "No such command 'shwo'.*show.* see `hwnas table --help`"),
        (("table", "show"), "Missing argument 'TABLE'; see `hwnas table show --help`"),
        (("evaluate", "--workers", "0"), "'--workers': must be greater than or equal to 1; see"),
        (("fleet", "--models", "few"), "'--models': must be a whole number; see `hwnas fleet"),
        (
            ("measure", "a.onnx", "--target", "x", "--budget", "long"),
            "'--budget': must be a number;",
        ),
        (("run", "--colour"), "No such option: --colour.*; see `hwnas run --help`"),
    ],
)
def test_a_wrong_command_line_names_the_help_of_the_command_at_hand(words, message, capsys):
    assert hwnas(*words) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(message, said), said


def test_a_command_without_settings_names_its_own_options():
    refused = "3 rounds, 8 are needed; stop other work on the device or raise profile.budget_s"
    wanted = pytest.raises(UnstableMeasurementError, match=r"or raise --budget$")
    with wanted, without_settings(BUDGETS):
        raise UnstableMeasurementError(refused)


def test_every_space_is_a_line_of_facts(capsys):
    assert hwnas("space", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    tiny = next(line for line in lines if line.startswith("tiny"))
    assert re.search(r"images +8 to 16 px +10,000 networks, 0\.\d+ to 0\.\d+ million MACs", tiny)
    assert any(re.match(r"tcn-128 +time series +32 to 128 steps", line) for line in lines)
