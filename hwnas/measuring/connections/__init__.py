"""Connections by name: how a target's device is reached, one file each.

A target's `connection` holds an address under the connection's name (`ssh: user@host`), or says
`kind: NAME`. A file defines

    queue(target)          name of the device: work of one queue is done one piece after the other
    published(connection)  what files that are shipped say of a connection: no address
    kept(target)           where worker and kit stay on a board; empty where it is no board
    COMES_BACK             whether a device that was lost is waited for
    open(target)           context with a `transport.Connection` to a worker that has just started

or, where no worker is driven from here, the requests themselves instead of `open`: `probe`,
`run_campaign`, `measure_models`, `run_model` and `built_files` as in `measuring.here`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profilers import plugins
from profilers.errors import ConfigError
from profilers.schema import Target

THIS_MACHINE = "this machine"  # queue of all that is measured here


def load(connection: Mapping[str, Any]) -> Any:
    """The file that a connection means. A cluster comes before the way that it goes itself.

    Raises:
        ConfigError: there is none of that name.
    """
    addressed = [name for name in plugins.names_in(__path__) if name in connection]
    name = str((addressed or [connection.get("kind", "local")])[0])
    return plugins.load_part(name, __name__, __path__, "connection")


def of(target: Target) -> Any:
    """The connection of a target.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return load(target.connection)
    except ConfigError as error:
        raise ConfigError(f"target {target.name}: {error}") from None


def queue(target: Target) -> str:
    """The queue of a target: one for each physical device, whatever its name and engine."""
    return str(of(target).queue(target))


def is_here(target: Target) -> bool:
    """Whether it is this machine."""
    return queue(target) == THIS_MACHINE


def drives(target: Target) -> bool:
    """Whether a worker for it is driven from here."""
    return hasattr(of(target), "open")


def published(target: Target) -> dict[str, Any]:
    """A target for shipped files, without the place of its device or meter."""
    connection = of(target).published(target.connection)
    return {**target.to_json(), "connection": connection, "meter_options": {}}
