"""No device: the table of such a target came from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.measuring.transport import Connection
from profilers.errors import ConfigError
from profilers.schema import Target

COMES_BACK = False


def queue(target: Target) -> str:
    """The device's name."""
    return target.device


def published(connection: Mapping[str, Any]) -> dict[str, Any]:
    """All of it: there is no address."""
    return dict(connection)


def kept(target: Target) -> str:
    """Nothing."""
    return ""


def open(target: Target) -> Connection:
    """Refused.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"target {target.name} has no device, its table came from elsewhere; "
        "`hwnas devices add` makes a target that can be measured"
    )
