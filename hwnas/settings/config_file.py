"""hwnas.yaml read from its file, and the JSON Schema and reference made of the settings."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hwnas.settings.config import Config, PickConfig
from hwnas.settings.errors import ConfigError, explain_settings
from hwnas.settings.places import named_in, where

Model = TypeVar("Model", bound=BaseModel)
MAX_BYTES = 1 << 20  # of a configuration file; a larger one is not a configuration
MAX_VALUES = 100_000  # once aliases are written out
_DOCUMENTS = "holds more than one YAML document; delete the line `---`"
_ESCAPES = "write a path with / or in single quotes"
_HOW = "write `key: value`, a line each, those of a part two spaces in"


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """The settings of a YAML file.

    Args:
        path: hwnas.yaml.
        overrides: `key.sub=value` texts, values in YAML, that replace what the file says.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or given twice, a value out
            of bounds, or there is no kind of data.
    """
    data = read_yaml(path)
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: give key.sub=value, for example train.epochs=20")
        try:
            given = _parsed(value)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"--set {text}: the value is not YAML: {reason}") from None
        _set(data, key.split("."), given, text)
    images = data.get("data", {})
    if isinstance(images, dict) and "kind" not in images:
        raise ConfigError(
            f"{where(path, ['data'], overrides or ())}: data does not say what kind of data there "
            "is; write `data: {kind: image_folder, root: photos}`, `{kind: digits}` for the demo, "
            "or `{kind: none}` for an imported supernet alone; `hwnas init --images photos` looks "
            "at a folder"
        )
    return _validated(Config, data, functools.partial(where, path, overrides=overrides or ()))


def parse_config(data: dict[str, Any], source: str) -> Config:
    """The settings of a plain dictionary read from source."""
    return explained(Config, data, source)


def explained(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """A part of the settings from a plain dictionary.

    Args:
        model: which part.
        data: its fields.
        source: where they come from, for the message.

    Raises:
        ConfigError: a key is unknown, a value out of bounds.
    """
    return _validated(model, data, lambda place: source)


def _validated(
    model: type[Model], data: dict[str, Any], source: Callable[[list[str]], str]
) -> Model:
    """As `explained`; `source` says where the setting of a place comes from."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        place, words = explain_settings(error.errors(), functools.partial(_keys_at, model))
        inner: Any = data
        for part in place:
            inner = inner.get(part) if isinstance(inner, dict) else None
        raise ConfigError(f"{source([*place, *named_in(words, inner)])}: {words}") from None


class _Strict(yaml.SafeLoader):
    """YAML in which a key that appears twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node, whose keys all differ."""
        seen: dict[tuple[str, str], int] = {}  # line of each key
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in seen:
                    first = seen[name]
                    lines = (
                        f" on line {line}" if first == line else f", on lines {first} and {line}"
                    )
                    raise ValueError(f"the key {key.value!r} appears twice{lines}; keep one")
                seen[name] = line
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    """What YAML says; ValueError where its aliases make far more of it than was written."""
    data = yaml.load(text, _Strict)
    left, count = [data], 0
    while left:
        value = left.pop()
        count += 1
        if count > MAX_VALUES:
            raise ValueError(f"its aliases (*name) make more than {MAX_VALUES:,} values; use fewer")
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
    return data


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file.

    Raises:
        ConfigError: missing, too large, not YAML, not a mapping, or a key appears twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"{path} is larger than 1 MiB, the most that is read of YAML; name another file"
            )
        data = _parsed(path.read_text(encoding="utf-8"))
    except ConfigError:
        raise
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder, expected a settings file; `hwnas init mine.yaml --images {path}` "
            "writes one for the images in it"
        ) from None
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; `hwnas init` writes one to start from") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: is not UTF-8; save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        marks = [mark.line + 1 for mark in (error.context_mark, error.problem_mark) if mark]
        first, last = min(marks, default=1), max(marks, default=1)
        said = " ".join(str(error.problem).split())
        for words, line, text in (
            ("but found another document", last, _DOCUMENTS),
            ("unknown escape character", first, f"is not YAML: {said}; {_ESCAPES}"),
        ):
            if words in said:
                raise ConfigError(f"{path}, line {line}: {text}") from None
        said += f" on line {last}" if last > first else ""
        raise ConfigError(f"{path}, line {first}: is not YAML: {said}; {_HOW}") from None
    except yaml.reader.ReaderError:
        raise ConfigError(f"{path} is not a text file; name a YAML file") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # numbers, dates that are none
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "one value"
        raise ConfigError(f"{path}, line 1: holds {kind}, expected keys and values; {_HOW}")
    return data


def json_schema() -> str:
    """JSON Schema of hwnas.yaml, for editors; shipped as hwnas/settings/hwnas.schema.json."""
    return json.dumps(Config.model_json_schema(), indent=1, sort_keys=True) + "\n"


def reference() -> str:
    """Markdown table of every setting: docs/configuration.md below its introduction."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, default, meaning in _settings_of(Config, ""):
        lines.append(f"| `{name}` | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _settings_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        inner = PickConfig if name == "pick" else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _settings_of(inner, f"{prefix}{name}{'[]' if name == 'pick' else ''}.")
        else:
            default = field.get_default(call_default_factory=True)
            meaning = (field.description or "").replace("|", "\\|")
            yield f"{prefix}{name}", json.dumps(default), meaning


def _set(data: dict[str, Any], keys: list[str], value: Any, text: str) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {text}: {key} has no keys below it")
    data[keys[-1]] = value


def _keys_at(model: Any, place: list[str]) -> list[str]:
    for part in place:
        if part.isdigit():
            continue
        model = {"pick": PickConfig}.get(part) or model.model_fields[part].annotation
    return list(model.model_fields)
