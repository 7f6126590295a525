"""A worker that lies: it speaks the protocol, but answers one kind of request as it is told.

    python impostor.py '{"request": "kit", "lies": [LIE, ...]}'

A lie is a message (sent with the fields that every message has, where it does not bring its own),
text that is sent as it is, or a number of bytes for the error output. Unless its lies end with an
answer, the impostor goes on as an honest worker would: a host that believes them is found out.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

SAMPLE = {"order": 0, "t_s": 1.0, "warm": 2, "loops": 3, "ms": 1.0}
WINDOW = {
    **{"order": 0, "t_s": 1.0, "loops": 9, "window_s": 2.0, "run_ms": 222.0, "energy_mj": 3.0},
    **{"net_energy_mj": 1.0, "power_w": 1.5, "idle_w": 1.0, "idle_before_w": 1.0, "samples": 90},
    **{"idle_after_w": 1.0, "rails": {"x": 3.0}, "period_s": 0.02},
}
COLD = {
    "load_ms": 1.0,
    "first_run_ms": 1.0,
    "wait_ms": None,
    "engine_bytes": 1,
    "resident_bytes": 2,
}
STATE = (
    *("governor", "clock_mhz", "temperature_c", "throttled", "load_average", "memory_free_bytes"),
    *("power_mode", "clocks_locked", "gpu_clock_mhz"),
)
ENVIRONMENT = {
    **dict.fromkeys(
        (*STATE, "board", "cpu", "cpu_id", "memory_bytes", "virtual", "os", "cpu_quota")
    ),
    **{"gpu": None, "gpu_driver": None, "tf32": None, "cpu_features": [], "cores": 1},
    **{"cpus": "0", "machine": "x", "python": "3.11", "emulated": False},
    **{"device": "fake", "engine": "fake", "engine_version": "1", "numpy": "2", "kernel": "6"},
    "fingerprint": "0" * 64,
}
LAST = ("ready", "done", "error")


def role(item):
    return item.partition("-")[0]


def record(item, fields, order=0):
    return {
        "type": "record",
        "record": {**fields, "item": item, "role": role(item), "order": order},
    }


def honest(message):
    """What a worker answers that has every file and measures the same each time."""
    kind = message["type"]
    if kind == "hello":
        return [{"type": "ready"}]
    between, fields = [], {}
    if kind == "probe":
        fields = {"environment": ENVIRONMENT}
    elif kind == "put":
        size = min(1 << 19, message["size"] - message["offset"])
        fields = {"have": message["offset"] + size}
    elif kind == "kit":
        fields = {"missing": []}
    elif kind == "measure":
        between = [record(item, SAMPLE, i) for i, item in enumerate(message["items"])]
        fields = {"left": [], "failed": {}, "open_s": 0.1, "sample_s": 1.0, "profile_s": 0.0}
    elif kind == "energy":
        between = [record(item, WINDOW, i) for i, item in enumerate(message["items"])]
        fields = {"energy_s": 5.0}
    elif kind == "cold":
        fields = {**COLD, "input_shape": [1, 1, 8, 8]}
    elif kind == "run":
        between = [{"type": "record", "record": {"offset": 0, "data": "AACAPw=="}}]
        fields = {"shape": [1, 1]}
    elif kind == "clean":
        fields = {"folder": "/x/hwnas-worker", "freed_bytes": 1}
    return [*between, {"type": "done", **fields}]


def told(lie, message):
    """A lie as a line; what it leaves out of a record or an answer is as an honest one has it."""
    if isinstance(lie, str):
        return lie
    lie = json.loads(json.dumps(lie).replace("@item", message.get("items", ["x"])[0]))
    for whole in honest(message):
        if whole["type"] == lie.get("type"):
            inner = {**whole.get("record", {}), **lie.get("record", {})}
            lie = {**whole, **lie, **({"record": inner} if "record" in whole else {})}
            break
    return json.dumps({"seq": 1, "re": message["seq"], **lie})


def main():
    plan = json.loads(sys.argv[1])
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "heartbeat":
            continue
        lies = plan["lies"] if message["type"] == plan["request"] else []
        for lie in lies:
            if isinstance(lie, int):
                sys.stderr.write("x" * lie)
                continue
            print(told(lie, message), flush=True)
        answered = any(isinstance(lie, dict) and lie["type"] in LAST for lie in lies)
        for answer in [] if answered else honest(message):
            print(json.dumps({"seq": 1, "re": message["seq"], **answer}), flush=True)
        if message["type"] == "bye":
            return


@contextlib.contextmanager
def connect(target, purpose, request="", lies=()):
    """An impostor in the place of a worker."""
    from hwnas.measuring import client, transport

    plan = json.dumps({"request": request, "lies": lies})
    with tempfile.TemporaryDirectory():
        connection = transport.Connection([sys.executable, __file__, plan], 30.0)
        with client.greet(connection, target, purpose) as worker:
            yield worker


def asked(request, folder):
    """Do what makes a host send a kind of request, against `connect`; what it believed.

    Args:
        request: the kind.
        folder: empty; measurements go to `m.jsonl` in it.
    """
    import numpy as np
    from worker_kits import fake_kit, files_of

    from hwnas.measuring import campaign, energy, records
    from hwnas.settings.config import ProfileConfig
    from profilers.schema import Target, canonical_json, sha256_text

    settings = ProfileConfig(budget_s=60, rounds=5, energy_budget_s=20, reconnect_s=0)
    target = Target("fake", "fake", meter="replay")
    path = Path(folder) / "m.jsonl"
    kit = fake_kit(Path(folder) / "kit")

    def through(lies):
        def start(target, purpose):
            return connect(target, purpose, request, lies)

        if request == "energy":
            log = records.Log(sha256_text(canonical_json(kit)), path)
            files = files_of(kit, Path(folder) / "kit")
            return energy.run_energy(target, kit, files, log, settings, lambda *_: None, start)
        if request in ("cold", "run", "clean", "put"):
            with start(target, "a test") as worker:
                worker.send_kit(kit, files_of(kit, Path(folder) / "kit"))
                if request == "cold":
                    return worker.cold(kit["items"][0]["name"])
                if request == "clean":
                    return worker.clean()
                return worker.run(b"model", np.zeros((1, 1, 8, 8), np.float32))
        where = Path(folder) / "kit"
        return campaign.run_campaign(target, where, path, settings, lambda *_: None, start)

    return through


if __name__ == "__main__":
    main()
