"""A real Dask cluster on this machine: its workers drive devices (times are modelled) or measure
subnets.
"""

import contextlib
import importlib
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_remote import model
from test_workers import FOLDER, SPACE, deadly, evaluator
from worker_kits import fake_kit

from hwnas.measuring import connections, device_queues, here, remote
from hwnas.measuring.connections import cluster
from hwnas.settings.config import ProfileConfig
from hwnas.supernet import cluster as measuring
from hwnas.supernet.evaluation import Measurer, measure_all, to_measure
from profilers.errors import ConfigError, DeviceError
from profilers.schema import Target, read_lines

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
FEW = ProfileConfig(budget_s=600, rounds=5, seed=1)
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def scheduler():
    """Address of a cluster of workers in threads; the last two drive a board each, the two before
    them measure subnets, and there are more before these than Dask tells of by default.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)
    resources = {f"idle-{number}": {} for number in range(6)}
    resources |= {f"measures-{n}": {"resources": {"evaluate": 1}} for n in (1, 2)}
    resources |= {f"drives-{n}": {"resources": {f"board-{n}": 1}} for n in (1, 2)}
    workers = {
        name: {"cls": distributed.Worker, "options": {"nthreads": 1, **options}}
        for name, options in resources.items()
    }
    from distributed.deploy.spec import SpecCluster

    place = {"cls": distributed.Scheduler, "options": {"dashboard": False, "port": 0}}
    with SpecCluster(workers=workers, scheduler=place, silence_logs=logging.ERROR) as found:
        yield found.scheduler_address


def board(address, number, **options):
    connection = {"cluster": address, **{name: str(value) for name, value in options.items()}}
    return Target(f"board-{number}", "fake", connection=connection, hardware="fake")


def contents(path):
    (header, *found), broken = read_lines(path)
    assert not broken
    names = [(*record["id"], record["order"]) for record in found]
    assert len(set(names)) == len(names)
    return header, found


def test_two_boards_are_measured_at_once_each_by_the_worker_that_drives_it(scheduler, tmp_path):
    fake_kit(tmp_path / "kit")
    targets = [board(scheduler, number) for number in (1, 2)]
    told = {target.device: [] for target in targets}

    def piece(target):
        say = lambda text, share: told[target.device].append(text)  # noqa: E731
        out = tmp_path / f"{target.device}.jsonl"
        return lambda: remote.run_campaign(target, tmp_path / "kit", out, FEW, say)

    work = {target.device: piece(target) for target in targets}
    assert {connections.queue(target) for target in targets} == set(work)
    done = device_queues.drive(work, {name: name for name in work})
    for name, future in done.items():
        result = future.result()
        assert (result.stable, result.good) == (True, {"a": 5, "b": 5})
        header, _ = contents(result.path)
        assert header["environment"]["device"] == name
        assert "cluster" not in header["target"]["connection"]
        assert any("of the budget left" in text for text in told[name])


@pytest.mark.parametrize("number", [1, 2])
def test_every_worker_of_the_cluster_is_seen(scheduler, tmp_path, monkeypatch, number):
    monkeypatch.setattr(cluster, "ABSENT_S", 0.0)
    fake_kit(tmp_path / "kit")
    target, out = board(scheduler, number), tmp_path / "out.jsonl"
    assert remote.run_campaign(target, tmp_path / "kit", out, FEW, lambda *_: None).stable


def test_a_campaign_that_was_cut_goes_on_with_what_is_known(scheduler, tmp_path):
    fake_kit(tmp_path / "kit")
    target, out = board(scheduler, 1), tmp_path / "out.jsonl"
    silent = lambda text, share: None  # noqa: E731
    with pytest.raises(DeviceError, match=r"signal 9"):
        remote.run_campaign(board(scheduler, 1, die_after=90), tmp_path / "kit", out, FEW, silent)
    before = out.read_bytes()
    assert len(before.splitlines()) > 5
    result = remote.run_campaign(target, tmp_path / "kit", out, FEW, silent)
    assert out.read_bytes().startswith(before)
    assert result.good == {"a": 5, "b": 5}
    contents(out)


def test_measurements_of_another_kit_are_kept_aside(scheduler, tmp_path):
    out, silent = tmp_path / "out.jsonl", lambda text, share: None
    for seed in (0, 5):
        fake_kit(tmp_path / "kit", seed=seed)
        remote.run_campaign(board(scheduler, 1), tmp_path / "kit", out, FEW, silent)
    kits = [json.loads(path.read_text().splitlines()[0])["kit"] for path in tmp_path.glob("out*")]
    assert len(kits) == len(set(kits)) == 2


def test_models_and_outputs_are_those_of_the_board(scheduler, tmp_path):
    ops = model(tmp_path / "m.onnx")
    found = remote.measure_models(board(scheduler, 2), [tmp_path / "m.onnx"], FEW, ops=[ops])
    assert found[0]["rounds"] == FEW.rounds
    images = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    there = Target("board-2", "ort-cpu", connection={"cluster": scheduler}, hardware="host")
    here = remote.run_model(Target("host", "ort-cpu"), tmp_path / "m.onnx", images)
    np.testing.assert_array_equal(remote.run_model(there, tmp_path / "m.onnx", images), here)


def test_a_worker_of_another_version_measures_nothing(scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "versions", SimpleNamespace(code=lambda: "0.0+another"))
    other = (
        r"worker drives-1 of the cluster has hwnas .*, the process that asks has 0\.0\+another; "
    )
    with pytest.raises(ConfigError, match=other + "install there"):
        remote.probe(board(scheduler, 1))


def test_a_device_that_no_worker_drives_is_told_with_the_command(scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "ABSENT_S", 0.0)
    with pytest.raises(DeviceError, match=r'board-1, board-2, evaluate\).*--resources "board-9=1"'):
        remote.probe(board(scheduler, 9))


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(DeviceError, match=r"cluster tcp://127\.0\.0\.1:1 is not reached"):
        remote.probe(board("tcp://127.0.0.1:1", 1))


def test_what_is_not_done_through_a_cluster_says_so():
    with pytest.raises(ConfigError, match="not done through a cluster"), contextlib.ExitStack():
        here.clean(board("tcp://127.0.0.1:1", 1))


# ---- subnets -----------------------------------------------------------------------------------


def test_workers_of_a_cluster_measure_subnets_as_one_process_does(scheduler, tmp_path):
    archs, mine = to_measure(SPACE, 8, np.random.default_rng(0)), evaluator()
    torch.set_num_threads(1)
    one, path = tmp_path / "one.jsonl", tmp_path / "accuracy.jsonl"
    expected = list(measure_all(archs, mine, one))
    with measuring.workers(scheduler, mine, 1) as farm:
        assert list(Measurer(mine, path, farm).measure(archs)) == expected
    assert path.read_bytes() == one.read_bytes()
    assert [file.name for file in tmp_path.glob("accuracy.*")] == ["accuracy.jsonl"]
    with measuring.workers("tcp://127.0.0.1:1", mine, 1) as farm:  # called for new networks only
        assert list(Measurer(mine, path, farm).measure(archs)) == expected


def test_a_cluster_without_workers_that_measure_is_told_with_the_command(
    scheduler, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "ABSENT_S", 0.0)
    monkeypatch.setattr(measuring, "OFFER", measuring.OFFER._replace(name="nobody"))
    with measuring.workers(scheduler, evaluator(), 1) as farm:
        known = Measurer(evaluator(), tmp_path / "accuracy.jsonl", farm)
        with pytest.raises(DeviceError, match=r'offers \'nobody\' .*--resources "nobody=1"'):
            list(known.measure([SPACE.smallest]))


class Elsewhere:
    """What only a module of the user's own can make."""

    def __reduce__(self):
        return importlib.import_module, ("lab_of_mine",)


def test_a_worker_of_a_cluster_that_lacks_a_module_is_told(scheduler, tmp_path):
    with measuring.workers(scheduler, evaluator(how={"lab": Elsewhere()}), 1) as farm:
        known = Measurer(evaluator(), tmp_path / "accuracy.jsonl", farm)
        with pytest.raises(ConfigError, match=r"cannot load .*lab_of_mine.*; install there"):
            list(known.measure([SPACE.smallest]))


def test_a_worker_of_another_version_measures_no_subnet(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "versions", SimpleNamespace(code=lambda: "0.0+another"))
    with measuring.workers(scheduler, evaluator(), 1) as farm:
        known = Measurer(evaluator(), tmp_path / "accuracy.jsonl", farm)
        with pytest.raises(ConfigError, match=r"worker measures-\d of the cluster has hwnas"):
            list(known.measure([SPACE.smallest]))


@pytest.mark.slow
def test_a_worker_of_a_cluster_that_is_killed_costs_one_measurement(tmp_path, monkeypatch):
    archs, path = to_measure(SPACE, 6, np.random.default_rng(0)), tmp_path / "accuracy.jsonl"
    torch.set_num_threads(1)
    expected = list(measure_all(archs, evaluator(), tmp_path / "one.jsonl"))
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (tmp_path / f"{archs[1].id}.once").touch()
    options = {"n_workers": 2, "threads_per_worker": 1, "resources": {"evaluate": 1}}
    with distributed.LocalCluster(**options, dashboard_address=":0") as found:
        address = found.scheduler_address
        with measuring.workers(address, evaluator(made=deadly), 1) as farm:
            assert list(Measurer(evaluator(), path, farm).measure(archs)) == expected
        (tmp_path / f"{archs[0].id}.always").touch()
        path.unlink()
        with measuring.workers(address, evaluator(made=deadly), 1) as farm:
            known = Measurer(evaluator(), path, farm)
            with pytest.raises(DeviceError, match=rf"{archs[0].id} \(KilledWorker\)"):
                list(known.measure(archs))
