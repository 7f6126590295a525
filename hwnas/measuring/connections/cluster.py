"""Devices that the workers of a Dask cluster reach: each device is a named resource of a worker.

A worker says which devices it drives when it starts (`dask worker tcp://… --resources "pi5=1"`),
the scheduler sends each device its work and never two pieces to one device. The device knows
nothing of it. Measurements are told as they are made and kept here: this file is the master copy, a
worker that is lost costs a round. Needs the extra `cluster`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hwnas.measuring import cluster_tasks, connections, records
from hwnas.measuring.campaign import CampaignResult
from hwnas.measuring.rounds import Say
from hwnas.settings import versions
from hwnas.settings.config import ProfileConfig
from profilers.errors import ConfigError, DeviceError
from profilers.schema import Target, append_lines, read_lines, write_error

CONNECT_S = 20.0
ABSENT_S = 60.0  # how long a device may have no worker; its worker may be starting
POLL_S = 0.5  # between questions which workers there are
STEP_S = 0.02  # between looks at what is done


COMES_BACK = False  # a worker of the cluster that is lost is the scheduler's


def queue(target: Target) -> str:
    """The device's name, by which the workers of a cluster know it."""
    return target.device


def published(connection: Mapping[str, Any]) -> dict[str, Any]:
    """The target as the worker sees it, without an address."""
    inner = _inner(connection)
    found: dict[str, Any] = connections.load(inner).published(inner)
    return found


def kept(target: Target) -> str:
    """Nothing: the worker's own files are not ours."""
    return ""


def probe(target: Target, settings: ProfileConfig | None = None) -> dict[str, Any]:
    """As `here.probe`; settings of waiting are the worker's."""
    found: dict[str, Any] = _call(target, cluster_tasks.probe, _named(target))
    return found


def run_campaign(
    target: Target, kit_dir: Path, out: Path, settings: ProfileConfig, say: Say
) -> CampaignResult:
    """As `here.run_campaign`; writes the file here as lines arrive."""
    kit = {path.name: path.read_bytes() for path in sorted(kit_dir.iterdir()) if path.is_file()}
    known = out.read_bytes() if out.exists() else b""
    log = _Copy(out, say)
    found = _call(
        target, cluster_tasks.campaign, _named(target), kit, _plain(settings), known, hear=log.hear
    )
    fields = {name: value for name, value in found.items() if name != "path"}
    return CampaignResult(path=out, **fields)


def measure_models(
    target: Target, paths: Sequence[Path], settings: ProfileConfig, say: Say, ops: Sequence[Any]
) -> list[dict[str, Any]]:
    """As `here.measure_models`."""
    contents = [path.read_bytes() for path in paths]
    found: list[dict[str, Any]] = _call(
        target,
        cluster_tasks.models,
        _named(target),
        contents,
        _plain(settings),
        list(ops),
        hear=lambda news: say(news["text"], news["share"]),
    )
    return found


def run_model(target: Target, path: Path, inputs: np.ndarray) -> np.ndarray:
    """As `here.run_model`."""
    return np.asarray(
        _call(target, cluster_tasks.outputs, _named(target), path.read_bytes(), inputs)
    )


def built_files(target: Target, paths: Sequence[Path], ops: Sequence[Any]) -> list[list[bytes]]:
    """As `here.built_files`."""
    contents = [path.read_bytes() for path in paths]
    found: list[list[bytes]] = _call(
        target, cluster_tasks.built, _named(target), contents, list(ops)
    )
    return found


class _Copy:
    """The measurements file here, grown by the lines that arrive; known records are not added."""

    def __init__(self, path: Path, say: Say) -> None:
        self._path, self._say = path, say
        self._known = {_identity(record) for record in read_lines(path)[0][1:]}

    def hear(self, news: Mapping[str, Any]) -> None:
        """Take one message of a task."""
        lines = bytes(news["lines"])
        if lines:
            self._take(lines, begins=news["offset"] == 0)
        if news["share"] >= 0:
            self._say(str(news["text"]), float(news["share"]))

    def _take(self, lines: bytes, begins: bool) -> None:
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(lines)
            found, _ = read_lines(part)
            part.unlink()
        except OSError as error:
            raise write_error(part, error) from error
        if begins and self._path.exists():
            header = read_lines(self._path)[0][:1]
            if header != found[:1]:
                records.set_aside(self._path)
                self._known = set()
        fresh = [record for record in found if "format" in record or self._is_new(record)]
        if begins and self._path.exists():
            fresh = [record for record in fresh if "format" not in record]
        if fresh:
            append_lines(self._path, fresh)

    def _is_new(self, record: Mapping[str, Any]) -> bool:
        name = _identity(record)
        new = name not in self._known
        self._known.add(name)
        return new


def _identity(record: Mapping[str, Any]) -> str:
    return f"{record.get('id')} {record.get('order')} {record.get('role')} {'ms' in record}"


def _named(target: Target) -> dict[str, Any]:
    """A target as its worker sees it: without the way to the worker."""
    found = dataclasses.replace(target, connection=_inner(target.connection)).to_json()
    return {name: value for name, value in found.items() if name != "name"}


def _inner(connection: Mapping[str, Any]) -> dict[str, Any]:
    """How the worker reaches the device."""
    found = {name: value for name, value in connection.items() if name != "cluster"}
    return found or {"kind": "local"}


def _plain(settings: ProfileConfig) -> dict[str, Any]:
    return settings.model_dump(mode="json")


def _call(
    target: Target,
    task: Callable[..., Any],
    *arguments: Any,
    hear: Callable[[Mapping[str, Any]], None] | None = None,
) -> Any:
    """What a task gives that runs where the target's device is.

    Args:
        target: its device names the resource.
        task: a function of `cluster_tasks`.
        arguments: of the task, after the topic if it tells something.
        hear: called with what it tells.

    Raises:
        HwnasError: as the task raised it.
        DeviceError: no worker drives the device, or the cluster is lost.
    """
    address = str(target.connection["cluster"])
    offer = Offer(target.device, "drives", "where the device is reached")
    with connected(address) as client:
        problems: list[Exception] = []
        if hear is not None:
            topic = f"hwnas-{uuid.uuid4().hex}"
            client.subscribe_topic(topic, lambda event: _heard(event, hear, problems))
            arguments = (topic, *arguments)
        future = submit(client, offer, task, *arguments)
        return result(first_done(client, [future], offer, problems), "the worker of this device")


def _heard(
    event: Any, hear: Callable[[Mapping[str, Any]], None], problems: list[Exception]
) -> None:
    """Pass on what a task told; this runs in the client's own thread, where nobody catches."""
    try:
        hear(event[1])
    except (ConfigError, DeviceError) as error:
        problems.append(error)


class Offer(NamedTuple):
    """The resource that tasks need: its name, what a worker does that offers it, where to start
    one.
    """

    name: str
    does: str
    where: str


def submit(client: Any, offer: Offer, task: Callable[..., Any], *arguments: Any) -> Any:
    """The future of a task that a worker runs which offers what it needs and has our code."""
    resources = {offer.name: 1}
    return client.submit(
        cluster_tasks.by_equal_code,
        versions.code(),
        task,
        *arguments,
        resources=resources,
        pure=False,
        retries=0,
    )


def first_done(
    client: Any, futures: Sequence[Any], offer: Offer, problems: Sequence[Exception] = ()
) -> Any:
    """The first future, in their order, that is done; waits as long as some worker offers what the
    tasks need.

    Raises:
        DeviceError: none has for ABSENT_S, or the scheduler is gone.
    """
    asked_s = seen_s = time.monotonic() - POLL_S
    while True:
        done = [future for future in futures if future.done() or future.status == "lost"]
        if done:
            return done[0]
        if problems:
            client.cancel(list(futures))
            raise problems[0]
        if time.monotonic() - asked_s >= POLL_S:
            asked_s = time.monotonic()
            offered = _offered(client)
            if offer.name in offered:
                seen_s = asked_s
            elif asked_s - seen_s > ABSENT_S:
                client.cancel(list(futures))
                address = client.scheduler.address
                raise DeviceError(
                    f"no worker of cluster {address} {offer.does} {offer.name!r} (there are: "
                    f"{', '.join(offered) or 'none'}); start one {offer.where}: "
                    f'dask worker {address} --nthreads 1 --resources "{offer.name}=1"'
                )
        time.sleep(STEP_S)


def _offered(client: Any) -> list[str]:
    """Names of the resources that workers offer.

    The scheduler is asked itself: what the client remembers of it (`scheduler_info`) may be that of
    its own, shorter question, which it repeats every few seconds.

    Raises:
        DeviceError: it does not answer any more.
    """
    from distributed import Scheduler

    limited = "n_workers" in inspect.signature(Scheduler.identity).parameters  # 2025.4 and newer
    try:
        found = client.sync(client.scheduler.identity, **({"n_workers": -1} if limited else {}))
    except OSError as error:
        raise DeviceError(
            f"the cluster's scheduler does not answer any more ({error}); run the same command "
            "again to go on"
        ) from None
    workers = found["workers"].values()
    return sorted({name for worker in workers for name in worker.get("resources", {})})


def result(future: Any, lost: str) -> Any:
    """What a task gave.

    Args:
        lost: what the cluster lost where it gave nothing.

    Raises:
        HwnasError: as the task raised it.
        ConfigError: a worker lacks a module, or has another version of hwnas.
        DeviceError: its worker or the scheduler is gone.
    """
    from distributed import CancelledError, KilledWorker

    try:
        return future.result(timeout=CONNECT_S)
    except (CancelledError, KilledWorker, TimeoutError) as error:
        raise DeviceError(
            f"the cluster lost {lost} ({type(error).__name__}); run the same command again to go on"
        ) from None
    except ImportError as error:
        raise ConfigError(
            f"a worker of the cluster cannot load what it was sent ({error}); install there what "
            "is installed here: hwnas, torch, modules of your own"
        ) from error


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of a cluster.

    Raises:
        ConfigError: the extra is not installed.
        DeviceError: the scheduler is not reached.
    """
    try:
        import distributed
    except ImportError:
        raise ConfigError("a cluster needs Dask: pip install 'hwnas-optimizer[cluster]'") from None
    try:
        connect: Any = distributed.Client
        client = connect(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise DeviceError(f"cluster {address} is not reached: {error}") from None
    with client:
        yield client
