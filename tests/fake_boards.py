"""Boards that answer from records: what `ssh` would bring back, without a line in between.

`FakeBoard` stands in for `openssh.run_remote`: the words of the command decide whether
the shell, the survey or an engine is asked. Surveys are made by the real program from the recorded
trees of `tests/boards`.
"""

import json
import subprocess

from board_trees import files, grow

from hwnas.boards import catalog
from profilers import survey

ORT = {"version": "1.31.1", "providers": ["AzureExecutionProvider", "CPUExecutionProvider"]}
LOADED = {"numpy": True, "onnxruntime": True, "tensorrt": False}


class FakeBoard:
    """A board with a recorded tree; every answer may be replaced.

    Attributes:
        asked: the words of every command.
    """

    def __init__(self, folder, name, python="3.11.2", engines=None, **changes):
        tree = files(name)
        self.engines = {"onnxruntime": ORT} if engines is None else engines
        asked = list(catalog.modules())
        modules = {each: each in self.engines for each in asked}
        self.answer = survey.survey(grow(folder, name), "", asked)
        self.answer.update(python=python, modules={**modules, "numpy": bool(self.engines)})
        self.answer.update(machine="aarch64", cores=4, environment=False, **changes)
        self.look = {
            "system": "Linux",
            "machine": "aarch64",
            "model": tree.get("proc/device-tree/model", "").strip(),
            "l4t": tree.get("etc/nv_tegra_release", "").split("\n")[0],
            "python": python,
        }
        self.raw, self.status, self.asked = None, 0, []

    def __call__(self, address, argv, config="", given=b"", timeout_s=60.0):
        self.asked.append([address, *argv])
        return subprocess.CompletedProcess(argv, self.status, self._out(list(argv)), b"")

    def _out(self, words):
        if words[:2] == ["sh", "-s"]:
            return "".join(f"hwnas:{k}={v}\n" for k, v in self.look.items()).encode()
        if words[-2:-1] == ["engine"]:
            found = {"name": words[-1], "problem": None, **self.engines[words[-1]]}
            return json.dumps({"format": "hwnas-engine-1", **found}).encode()
        return json.dumps(self.answer).encode() if self.raw is None else self.raw
