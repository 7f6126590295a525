"""The number of threads: what a few steps are fastest with, at a small cost, without a trace."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.settings.config import DataConfig, TrainConfig
from hwnas.supernet import threads, training
from profilers.cpus import usable_cpus
from profilers.schema import read_lines

SPACE = spaces.load("tiny").restricted([8])


def _quiet(share: float, text: str) -> None:
    """Progress that nobody reads."""


def _chosen(seconds: dict[int, float], steps=100, noise=lambda call: 1.0) -> tuple[int, Counter]:
    """The number chosen of those whose steps take some seconds, and how often each was timed."""
    calls: Counter = Counter()

    def timed(number: int) -> float:
        calls[number] += 1
        return seconds[number] * noise(sum(calls.values()))

    return threads.choose(timed, sorted(seconds, reverse=True), steps), calls


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 0.08, 2: 0.04}, 2),  # a large network, nobody else
        ({1: 0.010, 2: 0.0095}, 1),  # a small one: a second thread gains nothing worth a CPU
        ({1: 0.01, 2: 0.30}, 1),  # another program holds one of the CPUs
        ({1: 0.10, 2: 0.05, 4: 0.03, 8: 0.12}, 4),
    ],
)
def test_the_number_with_the_shortest_step_is_taken_and_fewer_where_they_are_as_good(
    seconds, expected
):
    assert _chosen(seconds)[0] == expected


def test_one_slow_step_decides_nothing():
    assert _chosen({1: 0.02, 2: 0.01}, noise=lambda call: 4.0 if call == 5 else 1.0)[0] == 2


def test_a_number_that_is_hopeless_is_timed_twice_and_fewer_than_it_are_not_tried():
    number, calls = _chosen({1: 0.8, 2: 0.4, 4: 0.2, 8: 0.1})
    assert number == 8
    assert calls[4] == 2
    assert set(calls) == {8, 4}


def test_timing_costs_a_second_or_a_fiftieth_of_the_run():
    for step_s, steps in ((0.01, 10), (0.3, 100), (0.3, 10_000)):
        _, calls = _chosen({1: step_s, 2: step_s}, steps)
        spent_s = step_s * sum(calls.values())
        least_s = 4 * step_s + 2 * step_s  # one to warm up and one to time, each; the last round
        assert spent_s <= max(least_s, 1 + 2 * step_s, 0.02 * steps * step_s + 2 * step_s)
        assert max(calls.values()) <= threads.ROUNDS + 1


def test_on_one_cpu_nothing_is_timed():
    assert _chosen({1: 1.0}) == (1, Counter())


def test_only_cpus_that_this_process_may_use_count(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.usable() == usable_cpus()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.usable() == 1


@pytest.mark.parametrize(("quota", "expected"), [("max", None), ("50000", 1), ("100000", 1)])
def test_a_quota_of_time_limits_the_cpus(tmp_path, quota, expected):
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "cpu.max").write_text(f"{quota} 100000\n")
    assert usable_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


# ---- training -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tensors.Dataset:
    whole = tensors.load(DataConfig(kind="digits"))
    few = tensors.Split(whole.train.images[:128], whole.train.labels[:128])
    return dataclasses.replace(whole, train=few)


def _job(digits: tensors.Dataset, folder: Path, **settings) -> training.Job:
    config = TrainConfig(**{"epochs": 2, "batch_size": 32, **settings})
    return training.Job(config, SPACE, digits, "shift", folder)


def test_the_trial_leaves_no_trace_in_what_is_trained(digits, tmp_path, monkeypatch):
    plain = training.train(_job(digits, tmp_path / "a", threads=1), _quiet).state_dict()
    monkeypatch.setattr(threads, "usable", lambda: 2)
    choose = threads.choose
    tried = []

    def pick_one(timed, numbers, steps):
        tried.append(choose(timed, numbers, steps))
        return 1

    monkeypatch.setattr(threads, "choose", pick_one)
    before = torch.get_num_threads()
    auto = training.train(_job(digits, tmp_path / "b"), _quiet).state_dict()
    assert torch.get_num_threads() == before
    assert tried[0] in (1, 2)
    assert all(torch.equal(plain[name], auto[name]) for name in plain)
    events, _ = read_lines(tmp_path / "b" / "events.jsonl")
    assert {event["threads"] for event in events} == {1}


def test_a_resumed_run_keeps_the_threads_that_it_began_with(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "usable", lambda: 2)
    monkeypatch.setattr(threads, "choose", lambda timed, numbers, steps: 2)
    job = _job(digits, tmp_path, checkpoint_s=1e-6)

    def crash(share: float, text: str) -> None:
        if share > 0.5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        training.train(job, crash)
    monkeypatch.setattr(threads, "choose", lambda timed, numbers, steps: 1)
    training.train(job, _quiet)
    events, _ = read_lines(tmp_path / "events.jsonl")
    assert {event["threads"] for event in events} == {2}
