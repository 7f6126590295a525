"""Threads that would take turns on too few CPUs are refused, wherever a target is used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_commands_measure import adder

from hwnas.measuring import cpus
from hwnas.settings.errors import ConfigError
from profilers.schema import Target, target_from_name

ROOT = Path(__file__).parent.parent


def facts(cores=4, quota=None, names="0-3"):
    return {"cores": cores, "cpu_quota": quota, "cpus": names}


@pytest.mark.parametrize(
    ("told", "most"),
    [
        (facts(), 4),
        (facts(quota=2.0), 2),
        (facts(quota=1.5), 1),
        (facts(quota=0.5), 1),  # a thread there must be
        (facts(quota=64.0), 4),
        (facts(quota=1.9999), 2),
    ],
)
def test_threads_fit_the_cpus_of_affinity_and_quota(told, most):
    assert cpus.usable(told) == most
    cpus.check_threads(Target("pi", "ort-cpu", threads=most), told)
    with pytest.raises(ConfigError, match=f"has {most + 1} threads, .*name a target with t{most}"):
        cpus.check_threads(Target("pi", "ort-cpu", threads=most + 1), told)


def test_the_refusal_names_the_cpus_and_the_quota():
    with pytest.raises(ConfigError, match=r"use 1 \(CPUs 0-3, a control group's quota of 1.5\)"):
        cpus.check_threads(target_from_name("host.ort-cpu.fp32.b1.t2"), facts(quota=1.5))


def on_one_cpu(folder, *words):
    """A command that may use one CPU of this machine, as in a container with a cpuset."""
    mask = min(os.sched_getaffinity(0))
    return subprocess.run(
        [sys.executable, "-m", "hwnas", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: os.sched_setaffinity(0, {mask}),
        capture_output=True,
        text=True,
        check=False,
    )


SETTINGS = """
data: {kind: digits}
space: {name: tiny}
targets: [host.ort-cpu.fp32.b1.t2]
"""


def test_commands_refuse_two_threads_on_one_cpu_before_any_work(tmp_path):
    adder(tmp_path / "m.onnx", [[1, 8]])
    (tmp_path / "hwnas.yaml").write_text(SETTINGS)
    mask = min(os.sched_getaffinity(0))
    for words in (
        ("measure", "m.onnx", "--target", "host.ort-cpu.fp32.b1.t2"),
        ("run", "hwnas.yaml"),
        ("devices", "add", "local", "--threads", "2"),
    ):
        done = on_one_cpu(tmp_path, *words)
        assert done.returncode == 2, done.stderr
        assert f"the worker there may use 1 (CPUs {mask}" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("data.json"))
    assert not (tmp_path / "targets").exists()
    assert f"threads for 1 (CPUs {mask}" in on_one_cpu(tmp_path, "doctor").stdout
