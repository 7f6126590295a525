"""The worker: does what touches the hardware for one host, and keeps a kit cache.

Protocol: docs/formats.md, "Worker". One session serves one target. The worker decides nothing about
the campaign: the host says what to measure in which order, and holds the only copy of what came
out.
"""

from __future__ import annotations

import base64
import binascii
import math
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import numpy as np

from profilers import devices, environment, errors, precisions, runtimes
from profilers.channel import Channel
from profilers.energy import meters
from profilers.energy import windows as energy
from profilers.errors import (
    ConfigError,
    DeviceFaultError,
    FileFormatError,
    HwnasError,
    MemoryShortError,
)
from profilers.kitcache import Kit, KitCache
from profilers.memory import give_back, resident_bytes
from profilers.open_models import OpenModels, waited_since
from profilers.schema import (
    LINE_BYTES,
    Target,
)
from profilers.waiting import waited_ms

PIECE_BYTES = LINE_BYTES // 2  # of a file or an output in one line, before base64


def error_fields(error: Exception) -> Dict[str, str]:
    """The fields of an error in a message to the host."""
    return {"code": type(error).__name__, "text": str(error)}


class Worker:
    """One session: a target, its runtime, the kit in use and the models open now."""

    def __init__(self, channel: Channel, target: Target, cache: Path) -> None:
        self._channel, self._target = channel, target
        self._device = devices.load(target.hardware or target.device)
        self._runtime = runtimes.load(target.runtime)
        self._meter = meters.load(target.meter)
        make_clock = getattr(self._runtime, "clock", None)
        self._now_s: Callable[[], float] = make_clock(target) if make_clock else time.monotonic
        make_sleep = getattr(self._runtime, "sleep", None)
        self._sleep: Callable[[float], None] = make_sleep(target) if make_sleep else time.sleep
        make_wait = getattr(self._runtime, "waiting", None)
        self._waited_ms: Callable[[], Optional[float]] = (
            make_wait(target) if make_wait else waited_ms
        )
        self._cache = KitCache(cache, target.device, shared_lock=not self._device.modelled)
        self._locked = self._ran = False
        self._kit: Optional[Kit] = None
        self._open_models: Dict[str, OpenModels] = {}

    def lock(self, purpose: str) -> None:
        """Keep other workers off the device, or raise DeviceError with who holds it."""
        self._cache.lock(purpose)
        self._locked = True

    def close(self) -> None:
        """Close every model and let others measure."""
        self._close_models()
        try:
            if self._ran:  # not what was sent of a kit: a line that is cut goes on with it
                self._cache.drop_blobs()
        finally:
            self._cache.unlock()

    def handle(self, kind: str, fields: Dict[str, Any], seq: int) -> Dict[str, Any]:
        """The fields of the `done` that answers a message."""
        if kind == "probe":
            return {"environment": environment.describe(self._target)}
        if not self._locked:
            raise ConfigError(f"{kind} needs a session with exclusive = true")
        if kind == "put":
            return self._put(**fields)
        if kind == "kit":
            return self._open_kit(fields["hash"])
        if kind == "measure":
            return self._measure(seq, fields)
        if kind == "energy":
            return self._energy(seq, **fields)
        if kind == "cold":
            return self._cold(seq, fields["item"])
        if kind == "built":
            return self._built(seq, fields["item"])
        if kind == "clean":
            return self._clean()
        return self._run(seq, fields)

    def _put(self, sha256: str, offset: int, size: int, data: str) -> Dict[str, Any]:
        try:
            piece = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise FileFormatError(f"piece of {sha256} is not base64 ({error})") from None
        return {"have": self._cache.put(sha256, offset, size, piece)}

    def _open_kit(self, kit_hash: str) -> Dict[str, Any]:
        self._close_models()
        missing = self._cache.missing(kit_hash)
        if not missing:
            self._kit = self._cache.open(kit_hash)
        return {"missing": missing}

    def _clean(self) -> Dict[str, Any]:
        """Remove everything that workers keep on this device, this worker's file included."""
        self._close_models()
        self._kit = None
        return {"folder": str(self._cache.root), "freed_bytes": self._cache.clean()}

    # ---- measure -------------------------------------------------------------------------------

    def _measure(self, seq: int, fields: Dict[str, Any]) -> Dict[str, Any]:
        """One round: samples in the order of `items`, then profiles; records after the last one,
        so that writing them disturbs nothing. Models are opened in the order of `opening`.
        """
        if self._kit is None:
            raise ConfigError("measure came before a whole kit; send the kit first")
        wanted = list(dict.fromkeys([*fields["opening"], *fields["items"]]))
        if not fields["items"] or len(wanted) > len(set(fields["items"])):
            raise ConfigError("measure names no items, or is to open what it does not measure")
        begin_s = self._now_s()
        opened = self._session_models(fields["session"])
        if fields["alone"] and not opened.holds(wanted):
            self._close_models(but=opened)
        if fields["memory_bytes"]:
            others = sum(b.claimed_bytes for b in self._open_models.values() if b is not opened)
            opened.limit(max(fields["memory_bytes"] - others, 0))
        models = self._kit.models(wanted)
        left = opened.open(models, fields["loops"], self._tell(seq))
        if opened.is_short and len(self._open_models) > 1:
            self._close_models(but=opened)
            left = opened.open(models, fields["loops"], self._tell(seq))
        self._tell(seq)("", len(fields["items"]), len(fields["items"]))
        closed = {*left, *opened.failed}
        opened_s = self._now_s()
        names = [name for name in fields["items"] if name not in closed]
        records, short = self._samples(opened, names)
        left, closed = [*left, *short], closed | short
        sampled_s = self._now_s()
        profiled = [name for name in fields["profile"] if name not in closed]
        records += self._profiles(seq, opened, profiled, len(records))
        for record in records:
            self._channel.send("record", re=seq, record=record)
        return {
            "left": left,
            "failed": {name: error_fields(error) for name, error in opened.failed.items()},
            "open_s": opened_s - begin_s - opened.built_s,
            "sample_s": sampled_s - opened_s,
            "profile_s": self._now_s() - sampled_s,
        }

    def _samples(
        self, opened: OpenModels, names: List[str]
    ) -> Tuple[List[Dict[str, Any]], Set[str]]:
        """A record of each sample, the first and the last one with the state of the device before
        and after the round; the models that had to be closed because memory was short.
        """
        before, records, short = self._device.state(), [], set()
        for name in names:
            if name in short:
                continue
            record = self._record(name, 0)
            try:
                records.append({**record, **opened.sample(name)})
            except MemoryShortError:
                if record["role"] == "anchor":
                    raise
                opened.close_model(name)
                short.add(name)
        records = [record for record in records if record["item"] not in short]
        for order, record in enumerate(records):
            record["order"] = order
        if records:
            records[0]["probe"] = before
        if len(records) > 1:
            records[-1]["probe"] = self._device.state()
        return records, short

    def _profiles(
        self, seq: int, opened: OpenModels, names: List[str], order: int
    ) -> List[Dict[str, Any]]:
        """A record of each profile; without `ms`, because the profiler slows the nodes down. One
        that fails is empty and says why: it costs node times, not the round.
        """
        assert self._kit is not None
        records: List[Dict[str, Any]] = []
        for name in names:
            record = self._record(name, order + len(records))
            self._tell(seq)(name, len(names), len(names))
            try:
                found = opened.profile(name, {op["slot"] for op in self._kit.items[name]["ops"]})
            except DeviceFaultError:
                raise
            except (HwnasError, OSError) as error:
                found = {"loops": 1, "profile": [], "reason": errors.printable(str(error), 300)}
            if found is not None:
                records.append({**record, **found})
        return records

    def _record(self, name: str, order: int) -> Dict[str, Any]:
        """What a record says beside what was measured; stops here if the host is gone."""
        assert self._kit is not None
        self._channel.check()
        role = self._kit.items[name]["role"]
        return {"item": name, "role": role, "order": order, "t_s": round(self._now_s(), 6)}

    def _session_models(self, session: str) -> OpenModels:
        """The models that a session has open; every session opens its own, within half of the
        memory that is free when it begins.
        """
        if session not in self._open_models:
            free = self._device.state()["memory_free_bytes"]
            half = None if free is None else free // 2
            self._open_models[session] = OpenModels(
                self._runtime, self._target, half, self._waited_ms
            )
        return self._open_models[session]

    def _close_models(self, but: Optional[OpenModels] = None) -> None:
        for opened in self._open_models.values():
            if opened is not but:
                opened.close()
        self._open_models = {
            name: opened for name, opened in self._open_models.items() if opened is but
        }

    def _tell(self, seq: int) -> Callable[[str, int, int], None]:
        """Names a model before it is opened, or (all open) profiled: should the engine crash, the
        host knows on which. Says to the host that work goes on.
        """

        def tell(name: str, count: int, total: int) -> None:
            self._channel.check()
            self._channel.send("progress", re=seq, item=name, opened=count, of=total)

        return tell

    # ---- energy --------------------------------------------------------------------------------

    def _energy(self, seq: int, items: List[str], window: Dict[str, float]) -> Dict[str, Any]:
        """A window of each item, rest before and after it; a record as soon as one is known."""
        if self._kit is None:
            raise ConfigError("energy came before a whole kit; send the kit first")
        self._close_models()
        models, begin_s = self._kit.models(items), self._now_s()
        with self._meter.open(self._target) as meter:
            clock = energy.Clock(self._now_s, self._sleep)
            windows = energy.Windows(meter, clock, check=self._channel.check, **window)
            names = {path: name for name, path in models.items()}

            def load(path: Path) -> runtimes.Session:
                self._tell(seq)(names[path], 0, len(names))
                return self._runtime.load(path, self._target)

            found = energy.of_models(windows, models, load)
            for order, (name, told) in enumerate(found):
                state = {"probe": self._device.state()}
                record = {**self._record(name, order), **told, **state}
                self._channel.send("record", re=seq, record=record)
        return {"energy_s": self._now_s() - begin_s}

    # ---- cold start ----------------------------------------------------------------------------

    def _cold(self, seq: int, item: str) -> Dict[str, Any]:
        """Load one model into a process that holds none, run it once, close it.

        Returns:
            load_ms, first_run_ms; wait_ms of both, None if not known; engine_bytes,
            resident_bytes: memory of this process with the engine imported, and with the model
            loaded and run; input_shape, None if not known.
        """
        if self._kit is None:
            raise ConfigError("cold came before a whole kit; send the kit first")
        path = self._kit.models([item])[item]
        self._close_models()
        self._runtime.version()  # imports the engine
        precisions.load(self._target.precision)  # and what is ours
        give_back()  # as after writing a file: all precisions begin alike
        engine_bytes = resident_bytes()
        self._tell(seq)(item, 0, 1)
        before_ms, begin_s = self._waited_ms(), self._now_s()
        session = self._runtime.load(path, self._target)
        try:
            loaded_s = self._now_s()
            first_run_ms, info = session.time(1), session.info()
            ours_s = info.get("build_s", 0.0) + info.get("rewrite_s", 0.0)
            return {
                "load_ms": 1000 * (loaded_s - begin_s - ours_s),
                "first_run_ms": first_run_ms,
                "wait_ms": waited_since(before_ms, self._waited_ms()).get("wait_ms"),
                "engine_bytes": engine_bytes,
                "resident_bytes": resident_bytes(),
                "input_shape": info["input_shape"],
            }
        finally:
            session.close()

    # ---- run -----------------------------------------------------------------------------------

    def _run(self, seq: int, fields: Dict[str, Any]) -> Dict[str, Any]:
        """Outputs of a model for inputs that were put; they go back in pieces."""
        self._ran = True
        shape = tuple(fields["shape"])
        data = np.fromfile(self._cache.blob(fields["data"]), dtype="<f4")
        if data.size != math.prod(shape):
            raise ConfigError(f"inputs hold {data.size} numbers, shape {list(shape)} needs others")
        session = self._runtime.load(self._cache.blob(fields["model"]), self._target)
        try:
            outputs = np.concatenate(list(self._batches(seq, session, data.reshape(shape))))
        finally:
            session.close()
        self._cache.blob(fields["data"]).unlink()  # what is built of the model serves the next one
        self._send(seq, outputs.astype("<f4").tobytes())
        return {"shape": list(outputs.shape)}

    def _send(self, seq: int, data: bytes) -> None:
        """Bytes in pieces."""
        for start in range(0, len(data), PIECE_BYTES):
            piece = base64.b64encode(data[start : start + PIECE_BYTES]).decode("ascii")
            self._channel.send("record", re=seq, record={"offset": start, "data": piece})

    def _built(self, seq: int, item: str) -> Dict[str, Any]:
        """The files that the engine has made of a model on this device, in pieces, one after the
        other; built now where they are not kept.
        """
        if self._kit is None:
            raise ConfigError("built came before a whole kit; send the kit first")
        make = getattr(self._runtime, "built", None)
        if make is None:
            raise ConfigError(f"runtime {self._target.runtime} builds no files on a device")
        self._tell(seq)(item, 0, 1)
        files = make(self._kit.models([item])[item], self._target)
        self._send(seq, b"".join(files))
        return {"sizes": [len(content) for content in files]}

    def _batches(
        self, seq: int, session: runtimes.Session, images: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Outputs of each batch; the last one is filled up with its last image."""
        wanted = session.info()["input_shape"] or [self._target.batch, *images.shape[1:]]
        batch = wanted[0]
        if list(images.shape[1:]) != list(wanted[1:]) or not len(images):
            raise ConfigError(f"inputs have shape {list(images.shape)}, the model takes {wanted}")
        for start in range(0, len(images), batch):
            self._tell(seq)("", start, len(images))
            part = images[start : start + batch]
            filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            yield session.run(filled)[: len(part)]
