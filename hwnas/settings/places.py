"""Place of a setting: the line of its key in hwnas.yaml, or its `--set`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from profilers.errors import ConfigError


def where(path: Path, place: Sequence[str], overrides: Sequence[str] = ()) -> str:
    """The file and line of a setting as far as it is there, or the override that gives it.

    Args:
        path: hwnas.yaml.
        place: keys and numbers of list entries that lead to it.
        overrides: `key.sub=value` texts, of which the last one counts.
    """
    for text in reversed(overrides):
        keys = text.partition("=")[0].split(".")
        n = min(len(keys), len(place))
        if place and keys[:n] == list(place[:n]):
            return f"--set {text}"
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return str(path)
    line = _line(node, place)
    return f"{path}, line {line}" if line else str(path)


def _line(node: yaml.Node | None, place: Sequence[str]) -> int:
    """Line of the deepest key of a place that is there, from 1; 0 for none."""
    line = 0
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode) and part.isdecimal():
            found = [(value, value) for value in node.value[int(part) : int(part) + 1]]
        else:
            break
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


def named_in(message: str, node: object) -> list[str]:
    """The first key of a part of the settings that a message names; empty where it names none."""
    keys = set(node) if isinstance(node, dict) else set()
    return [word for word in re.findall(r"\w+", message) if word in keys][:1]


@contextlib.contextmanager
def told_of(path: Path, key: str, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Context in which a setting's value is tried: its errors name the setting's place.

    Raises:
        ConfigError: as it was raised, with file, line and key in front.
    """
    try:
        yield
    except ConfigError as error:
        if type(error) is not ConfigError:
            raise
        named = "" if str(error).startswith(key) else f"{key}: "
        place = where(path, key.split("."), overrides)
        raise ConfigError(f"{place}: {named}{error}") from None


@contextlib.contextmanager
def in_words_of(option: str) -> Iterator[None]:
    """While the value of an option is tried: what is wrong with it names the option.

    Raises:
        ConfigError: as it was raised, with the option in front.
    """
    try:
        yield
    except ConfigError as error:
        if type(error) is not ConfigError:
            raise
        raise ConfigError(f"{option}: {error}") from None
