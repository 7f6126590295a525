"""Small kits and workers for tests of measuring: modelled ones, and real graphs of `tiny`."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np

from hwnas.measuring import client, transport
from hwnas.measuring.connections import local
from hwnas.networks import onnx_graph, spaces
from profilers import weights
from profilers.schema import Target, sha256_file, write_json

TINY = spaces.load("tiny").restricted([8])


def fake_target(**options):
    """A modelled target; options as in hwnas/fakes/runtimes/fake.py."""
    connection = {"kind": "local", **{name: str(value) for name, value in options.items()}}
    return Target("fake", "fake", connection=connection)


@contextlib.contextmanager
def connect(target, purpose="a test", silence_s=3.0, exclusive=True):
    """A local worker with a quick heartbeat, so that no test waits long for a silent one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*local.local_command(target, Path(folder)), "--heartbeat", "0.3"]
        connection = transport.Connection(command, silence_s)
        with client.greet(connection, target, purpose, exclusive) as worker:
            yield worker


def networks(count, seed=0):
    rng = np.random.default_rng(seed)
    return [TINY.random(rng).ops for _ in range(count)]


def plan(covering=2, heldout=3, micro=4, seed=0):
    """(role, ops) of each item of a kit."""
    ops = networks(1 + covering + heldout, seed)
    roles = ["anchor"] + ["covering"] * covering + ["heldout"] * heldout
    items = list(zip(roles, ops, strict=True))
    single = list({placed.op.key: placed for network in ops for placed in network}.values())
    return items + [("micro", (op,)) for op in single[:micro]]


def fake_kit(folder, items=None, seed=0):
    """A kit whose models only the runtime `fake` can load: it goes by their ops."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {"bytes": 0, "sha256": "", "tensors": {}}
    entries = items or plan(seed=seed)
    for number, _ in enumerate(entries):
        (folder / _file(number)).write_bytes(b"modelled %d" % number)
    return _write(folder, entries, table)


def real_kit(folder, items=None):
    """A kit of real graphs with their weights in weights.bin, which the device makes."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = items or plan()
    tensors, size = {}, 0
    for number, (_, ops) in enumerate(entries):
        offsets = {}
        for weight in onnx_graph.weights_of(ops):
            known = tensors.setdefault(weight.name, [])
            found = [e for e in known if e[1] == list(weight.shape)]
            if not found:
                scale = (3 / weight.fan_in) ** 0.5 if weight.fan_in else 0.0
                found = [[size, list(weight.shape), scale]]
                known += found
                size += -(-4 * int(np.prod(weight.shape)) // 64) * 64
            offsets[weight.name] = found[0][0]
        model = onnx_graph.to_bytes(onnx_graph.build_external(ops, offsets))
        (folder / _file(number)).write_bytes(model)
    table = {"bytes": size, "tensors": tensors}
    return _write(folder, entries, {**table, "sha256": weights.digest(table, 0)})


def _file(number):
    return f"model-{number:03d}.onnx"


def _write(folder, entries, table):
    items = []
    for number, (role, ops) in enumerate(entries):
        items.append(
            {
                "name": f"{role}-{number:03d}",
                "file": _file(number),
                "sha256": sha256_file(folder / _file(number)),
                "role": role,
                "arch": None,
                "resolution": 8,
                "ops": [{"slot": placed.slot, "key": placed.op.key} for placed in ops],
                "inputs": {"image": [1, *ops[0].op.inputs[0]]},
            }
        )
    kit = {
        "format": "hwnas-kit-1",
        "space": "tiny",
        "geometry": TINY.geometry,
        "offered": TINY.offered(),
        "batch": 1,
        "precision": "fp32",
        "seed": 0,
        "items": items,
        "weights": table,
    }
    write_json(folder / "kit.json", kit)
    return kit


def files_of(kit, folder):
    return {item["sha256"]: folder / item["file"] for item in kit["items"]}
