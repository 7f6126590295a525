"""Training: what a step trains, that interruptions change nothing, and that it learns digits."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from processes import ends, together

from hwnas.images import tensors as data
from hwnas.networks import spaces
from hwnas.run.train import enlarged
from hwnas.settings.config import AccuracyConfig, DataConfig, TrainConfig
from hwnas.supernet import batches, evaluation, exported, outset, plan, recipes, training, watch
from hwnas.supernet.evaluation import (
    Evaluator,
    measure_all,
    metric_of,
    read_accuracies,
    to_measure,
)
from hwnas.supernet.files import load_subnet, save_subnet, sha256_of
from hwnas.supernet.network import Subnet
from hwnas.supernet.plan import rate_of
from hwnas.supernet.recipes import ALL
from profilers.errors import ConfigError, DiskFullError, FileFormatError
from profilers.schema import read_lines

SPACE = spaces.load("tiny").restricted([8, 12])


def _quiet(share: float, text: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load(DataConfig(kind="digits"))


def _job(digits: data.Dataset, folder: Path, **settings) -> training.Job:
    small = data.Split(digits.train.images[:128], digits.train.labels[:128])
    few = data.Dataset(
        small, digits.val, digits.test, digits.class_names, digits.mean, digits.std, "few"
    )
    config = TrainConfig(**{"epochs": 4, "batch_size": 32, "threads": 1, **settings})
    return training.Job(config, SPACE, few, "shift", folder)


def _same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_the_max_network_trains_alone_first_then_the_sandwich(digits, tmp_path):
    shared = dataclasses.replace(recipes.load("sandwich"), resolutions="shared")
    job = _job(digits, tmp_path, max_only=0.5, random_subnets=2)
    job = dataclasses.replace(job, own_recipe=shared)
    alone = training.sampled_architectures(job, 0)
    sandwich = training.sampled_architectures(job, job.plan.steps - 1)
    assert {role: len(archs) for role, archs in alone.items()} == {"max": 1}
    assert {role: len(archs) for role, archs in sandwich.items()} == {
        "max": 1,
        "min": 1,
        "random": 2,
    }
    for roles in (alone, sandwich):
        assert roles["max"][0].values[1:] == SPACE.largest.values[1:]
        assert len({arch.resolution for archs in roles.values() for arch in archs}) == 1
    assert sandwich["min"][0].values[1:] == SPACE.smallest.values[1:]


@pytest.mark.parametrize("share", [0, 0.3, 1, None])
def test_a_recipe_of_one_stage_has_no_other_to_share_steps_with(digits, tmp_path, share):
    one = dataclasses.replace(recipes.load("sandwich"), stages=(recipes.Stage(1.0),))
    job = dataclasses.replace(_job(digits, tmp_path, max_only=share), own_recipe=one)
    assert job.plan.starts == (0, job.plan.steps)


def test_networks_of_a_recipe_may_have_resolutions_of_their_own(digits, tmp_path):
    recipe = dataclasses.replace(recipes.load("sandwich"), tilt=2.0)
    job = dataclasses.replace(_job(digits, tmp_path, max_only=0), own_recipe=recipe)
    steps = [training.sampled_architectures(job, step) for step in range(16)]
    assert {roles["max"][0] for roles in steps} == {SPACE.largest}
    for role in ("min", "random"):
        assert {arch.resolution for roles in steps for arch in roles[role]} == {8, 12}


def test_tilted_random_subnets_reach_both_ends_of_the_space():
    def sizes(tilt: float) -> np.ndarray:
        tilts = np.random.default_rng(1).uniform(-tilt, tilt, 500)
        drawn = plan.tilted_sample(SPACE, {"": ALL}, tilts, np.random.default_rng(0))
        return (drawn / (SPACE.n_options - 1)).mean(1)

    even, tilted = sizes(0.0), sizes(3.0)
    assert even.mean() == pytest.approx(0.5, abs=0.02)
    assert tilted.mean() == pytest.approx(0.5, abs=0.05)
    assert (tilted < 0.1).sum() > 5 * (even < 0.1).sum()
    assert (tilted > 0.9).sum() > 5 * (even > 0.9).sum()


def test_progressive_shrinking_offers_kernels_first_widths_last_and_all_in_the_end(
    digits, tmp_path
):
    job = _job(digits, tmp_path, epochs=120, recipe="progressive")
    seen, counts = {}, []
    for number, start in enumerate(job.plan.starts[:-1]):
        steps = range(start, min(start + 40, job.plan.starts[number + 1]))
        drawn = [training.sampled_architectures(job, step) for step in steps]
        counts.append({role: len(archs) for role, archs in drawn[0].items()})
        genome = SPACE.genome([arch for roles in drawn for arch in roles.get("random", [])])
        seen[number] = {
            kind: {int(v) for v in SPACE.n_options[c] - 1 - genome[:, c]}
            for kind, c in (("kernel", 1), ("width", 4))
            if len(genome)
        }
    assert counts == [{"max": 1}, *({"random": n} for n in (1, 2, 2, 4, 4))]
    assert seen[0] == {}
    assert seen[1] == seen[3] == {"kernel": {0, 1}, "width": {0}}
    assert seen[4]["width"] == {0, 1}
    assert seen[5]["width"] == {0, 1, 2}
    rates = [rate_of(job, start + 5) for start in job.plan.starts[:-1]]
    assert rates[1] > rates[3] > rates[2]


def test_every_resolution_is_trained(digits, tmp_path):
    job = _job(digits, tmp_path)
    steps = [training.sampled_architectures(job, step) for step in range(16)]
    assert {arch.resolution for roles in steps for archs in roles.values() for arch in archs} == {
        8,
        12,
    }


@pytest.mark.parametrize(("plain", "expected"), [(0, "ccc"), (1, "cc="), (9, "===")])
def test_the_last_epochs_take_the_images_as_they_are(digits, tmp_path, plain, expected):
    job = _job(digits, tmp_path, epochs=3, plain_epochs=plain)
    known = {pixels.tobytes() for pixels in job.dataset.train.images.numpy()}
    found = ""
    steps = list(batches.batches_of(job, Subnet(job.space.largest), 0, (0, 1)))
    for epoch in np.split(np.arange(len(steps)), 3):
        taken = [pixels.tobytes() in known for i in epoch for pixels in steps[i].images.numpy()]
        found += "=" if all(taken) else "c" if sum(taken) < 0.5 * len(taken) else "?"
    assert found == expected


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_nothing():
    config = TrainConfig(learning_rate=0.2, warmup=0.1)
    rates = [training.learning_rate(step, 100, config) for step in range(100)]
    assert max(rates) == pytest.approx(0.2)
    assert int(np.argmax(rates)) in (9, 10)
    assert rates[0] == pytest.approx(0.02)
    assert rates[-1] < 0.001


@pytest.mark.parametrize("settings", [{}, {"recipe": "progressive", "max_only": 0.3}])
def test_an_interrupted_run_resumes_to_the_same_bits(digits, tmp_path, settings):
    averaged = dataclasses.replace(recipes.load(settings.get("recipe", "sandwich")), ema=0.9)

    def given(name: str) -> training.Job:
        job = _job(digits, tmp_path / name, **settings)
        return dataclasses.replace(job, own_recipe=averaged) if settings else job

    whole = training.train(given("whole"), _quiet)

    def stop_early(share: float, text: str) -> None:
        if share >= 0.6:
            os.kill(os.getpid(), signal.SIGINT)

    job = given("cut")
    with pytest.raises(KeyboardInterrupt):
        training.train(job, stop_early)
    assert job.checkpoint.exists()
    assert _same(training.train(job, _quiet), whole)
    assert not job.checkpoint.exists()


def test_a_killed_run_resumes_from_its_last_checkpoint_to_the_same_bits(digits, tmp_path):
    whole = training.train(_job(digits, tmp_path / "whole"), _quiet)

    class KilledError(Exception):
        pass

    def crash(share: float, text: str) -> None:
        if share > 0.7:
            raise KilledError

    job = _job(digits, tmp_path / "cut", checkpoint_s=1e-6)
    with pytest.raises(KilledError):
        training.train(job, crash)
    assert _same(training.train(job, _quiet), whole)


def test_a_run_that_ends_before_a_checkpoint_is_due_writes_none(digits, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(training, "save_checkpoint", lambda job, state, step: written.append(step))
    training.train(_job(digits, tmp_path, epochs=1, checkpoint_s=3600), _quiet)
    assert written == []
    training.train(_job(digits, tmp_path, epochs=1, checkpoint_s=1e-9), _quiet)
    assert written == [1, 2, 3]


def test_a_checkpoint_of_other_settings_is_not_resumed(digits, tmp_path):
    def crash(share: float, text: str) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        training.train(_job(digits, tmp_path / "a", checkpoint_s=1e-6), crash)
    other = _job(digits, tmp_path / "a", seed=1)
    expected = training.train(_job(digits, tmp_path / "b", seed=1), _quiet)
    assert _same(training.train(other, _quiet), expected)


def _interrupted(job: training.Job) -> None:
    """Leave the checkpoint of a run that was cut."""

    def crash(share: float, text: str) -> None:
        if share > 0.5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        training.train(job, crash)


def test_a_checkpoint_of_other_settings_is_kept_under_another_name(digits, tmp_path):
    _interrupted(_job(digits, tmp_path, checkpoint_s=1e-6))
    bytes_before = (tmp_path / "train.checkpoint.safetensors").read_bytes()
    said = []
    training.train(_job(digits, tmp_path, seed=1), lambda share, text: said.append(text))
    kept = tmp_path / "train.checkpoint.1.old.safetensors"
    assert kept.read_bytes() == bytes_before
    assert kept.name in said[0]
    _interrupted(_job(digits, tmp_path, checkpoint_s=1e-6))
    assert training.set_aside(_job(digits, tmp_path)) is None
    assert training.set_aside(_job(digits, tmp_path, seed=1)).name.endswith(".2.old.safetensors")


def test_training_that_diverges_stops_with_the_settings_to_lower(digits, tmp_path):
    job = _job(digits, tmp_path, learning_rate=10, weight_decay=1, warmup=0, checkpoint_s=1e-6)
    message = r"diverged at step \d+ of 16 .*lower train\.learning_rate \(now 10\) and .*decay"
    with pytest.raises(ConfigError, match=message) as refused:
        training.train(job, _quiet)
    assert refused.value.exit_code == 2
    step = int(str(refused.value).split("at step ")[1].split()[0])
    assert step > 1
    with safetensors.safe_open(job.checkpoint, framework="pt") as handle:
        assert json.loads(handle.metadata()["hwnas"])["step"] == step - 1
        assert all(handle.get_tensor(name).isfinite().all() for name in handle.keys())  # noqa: SIM118


def test_a_loss_is_out_of_proportion_from_a_hundred_times_that_of_guessing(
    digits, tmp_path, monkeypatch
):
    told = {"loss_max": 99 * math.log(digits.n_classes)}
    learn = training.backward
    monkeypatch.setattr(training, "backward", lambda *given: {**learn(*given), **told})
    training.train(_job(digits, tmp_path, epochs=1), _quiet)
    told["loss_max"] *= 102 / 99
    with pytest.raises(ConfigError, match="training diverged at step 1 of 4"):
        training.train(_job(digits, tmp_path, epochs=1), _quiet)


def test_a_network_that_was_evaluated_before_is_trained_as_one_that_learns(
    digits, tmp_path, monkeypatch
):
    modes = []

    learn = training.backward

    def backward(step, number):
        modes.append(step.state.net.training)
        return learn(step, number)

    monkeypatch.setattr(training, "backward", backward)
    training.train(_job(digits, tmp_path, epochs=1), _quiet, training.Supernet(SPACE).eval())
    assert modes == [True] * 4


def test_a_network_that_is_broken_after_the_last_step_is_not_returned(digits, tmp_path):
    torch.manual_seed(0)
    net = training.Supernet(SPACE)
    net.slots["stem"]["conv_norm"].running_var.fill_(float("inf"))  # what a loss does not see
    with pytest.raises(ConfigError, match=r"diverged at step 16 of 16 .*train\.learning_rate"):
        training.train(_job(digits, tmp_path), _quiet, net)


def test_weights_that_are_no_numbers_are_refused_and_their_answers_too(digits, tmp_path):
    net, job = training.Supernet(SPACE), _job(digits, tmp_path)
    with torch.no_grad():
        net.slots["classifier"]["linear"].weight[0, 0] = float("nan")
    evaluator = Evaluator(net.eval(), digits, AccuracyConfig(bn_images=32), "hash")
    with pytest.raises(
        ConfigError, match=r"logits that are NaN or infinite.*lower train\.learning_rate"
    ):
        evaluator.measure(SPACE.smallest)
    training.save_supernet(net, job, tmp_path / "s.safetensors")
    with pytest.raises(FileFormatError, match=r"NaN or infinite .*slots\.classifier.*train again"):
        training.load_supernet(tmp_path / "s.safetensors", SPACE)


@pytest.mark.parametrize("damage", ["tensor", "step", "momentum", "threads", "split_gradients"])
def test_a_checkpoint_that_was_edited_is_named_with_the_fix(digits, tmp_path, damage):
    job = _job(digits, tmp_path, checkpoint_s=1e-6)
    _interrupted(job)
    with safetensors.safe_open(job.checkpoint, framework="pt") as handle:
        about = json.loads(handle.metadata()["hwnas"])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    if damage == "tensor":
        del tensors["net.slots.stem.conv.weight"]
    if damage == "momentum":
        tensors["momentum.slots.stem.conv.weight"] = torch.zeros(2)
    if damage in about:
        del about[damage]
    about["weights_sha256"] = sha256_of(tensors)
    safetensors.torch.save_file(tensors, job.checkpoint, {"hwnas": json.dumps(about)})
    with pytest.raises(FileFormatError, match=r"does not hold what it should .*delete it"):
        training.train(job, _quiet)


def test_weights_that_changed_in_a_file_are_refused_wherever_they_are_read(digits, tmp_path):
    job = _job(digits, tmp_path, checkpoint_s=1e-6)
    _interrupted(job)
    supernet, subnet = tmp_path / "s.safetensors", tmp_path / "n.safetensors"
    training.save_supernet(training.Supernet(SPACE), job, supernet)
    save_subnet(Subnet(SPACE.smallest), {}, subnet)
    reads = {
        job.checkpoint: lambda: training.train(job, _quiet),
        supernet: lambda: training.load_supernet(supernet, SPACE),
        subnet: lambda: load_subnet(subnet, SPACE.smallest),
    }
    for path, read in reads.items():
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=r"weights are not those .*delete it"):
            read()


def test_the_pace_of_training_changes_neither_the_supernet_file_nor_the_run(digits, tmp_path):
    net, jobs = training.Supernet(SPACE), {}
    for name, settings in (("a", {}), ("b", {"threads": 2, "checkpoint_s": 7})):
        jobs[name] = _job(digits, tmp_path, **settings)
        training.save_supernet(net, jobs[name], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert jobs["a"].identity(None) == jobs["b"].identity(None)
    assert jobs["a"].identity(None) != _job(digits, tmp_path, seed=1).identity(None)


def test_a_truncated_checkpoint_is_named(digits, tmp_path):
    job = _job(digits, tmp_path)
    training.save_supernet(training.Supernet(SPACE), job, tmp_path / "s.safetensors")
    whole = (tmp_path / "s.safetensors").read_bytes()
    (tmp_path / "s.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"s\.safetensors cannot be read"):
        training.load_supernet(tmp_path / "s.safetensors", SPACE)


def test_a_supernet_of_another_geometry_is_refused(digits, tmp_path):
    training.save_supernet(
        training.Supernet(SPACE), _job(digits, tmp_path), tmp_path / "s.safetensors"
    )
    with pytest.raises(FileFormatError, match="another geometry"):
        training.load_supernet(tmp_path / "s.safetensors", SPACE.for_data(3, 10))


def test_a_saved_supernet_loads_to_the_same_weights_and_equal_bytes(digits, tmp_path):
    net, job = training.Supernet(SPACE), _job(digits, tmp_path)
    for name in ("a", "b"):
        training.save_supernet(net, job, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert _same(training.load_supernet(tmp_path / "a", SPACE), net)


def test_events_are_logged_over_the_whole_run(digits, tmp_path):
    job = _job(digits, tmp_path, max_only=0.5)
    training.train(job, _quiet)
    events, broken = read_lines(tmp_path / "events.jsonl")
    assert not broken
    assert events[-1]["step"] == job.plan.steps
    assert {"loss_max", "loss_min", "loss_random"} <= set(events[-1])


def test_curves_go_to_tensorboard_and_a_resumed_run_goes_on_with_them(digits, tmp_path):
    tensorboardx = pytest.importorskip("tensorboardX")
    job = _job(digits, tmp_path, tensorboard=True)
    _interrupted(job)
    training.train(job, _quiet)
    points = {}
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # a record: its length, a checksum, an event, a checksum
            n = int.from_bytes(data[:8], "little")
            event = tensorboardx.proto.event_pb2.Event.FromString(data[12 : 12 + n])
            data = data[16 + n :]
            for value in event.summary.value:
                points.setdefault(value.tag, {})[event.step] = value.simple_value
    logged = read_lines(tmp_path / "events.jsonl")[0]
    for name in ("loss_max", "labels_max", "learning_rate"):
        expected = {event["step"]: event[name] for event in logged}
        assert points[name] == pytest.approx(expected, rel=1e-6)


def test_tensorboard_without_its_package_is_refused_before_the_first_step(
    digits, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"pip install 'hwnas\[tensorboard\]'"):
        training.train(_job(digits, tmp_path, tensorboard=True), _quiet)
    assert not (tmp_path / "events.jsonl").exists()


def test_the_same_schedule_trains_a_plain_network_alone(digits, tmp_path):
    torch.manual_seed(0)
    arch = SPACE.smallest
    before = Subnet(arch)
    state = {n: v.clone() for n, v in before.state_dict().items()}
    after = training.train(_job(digits, tmp_path), _quiet, before)
    assert any(not torch.equal(v, state[n]) for n, v in after.state_dict().items())


def test_a_run_is_looked_at_a_few_times_and_trains_the_same(digits, tmp_path, monkeypatch):
    plain = training.train(_job(digits, tmp_path / "plain"), _quiet)
    monkeypatch.setattr(watch, "PAUSE_S", -1.0)
    notes = []
    job = _job(digits, tmp_path / "watched")
    assert _same(training.train(job, _quiet, note=notes.append), plain)
    events, _ = read_lines(tmp_path / "watched" / "events.jsonl")
    looks = [event for event in events if "validation" in event]
    assert [look["step"] for look in looks] == [3, 6, 10, 13, 16]
    assert all(set(look["validation"]) == set(watch.NAMES) for look in looks)
    assert {"labels_max", "images_per_s", "validation_loss"} <= set(looks[-1])
    assert len(notes) == 1  # 128 images four times are too few
    assert re.search(r"stopped too early.*on training images.*more epochs", notes[0])


def test_a_network_that_knows_its_images_better_than_new_ones_has_not_stopped_too_early(
    digits, tmp_path
):
    seen = watch.Watch(_job(digits, tmp_path))
    seen.note(0, {"labels_max": 9.0})  # of the first steps, which do not count
    seen.note(15, {"labels_max": 0.5})
    assert seen.too_early(watch.Look({}, 0.6)) == ""
    assert "0.500 on training images and 0.510 on" in seen.too_early(watch.Look({}, 0.51))


def test_a_run_says_first_how_long_it_takes_and_where_it_goes_on(digits, tmp_path):
    job, said, notes = _job(digits, tmp_path, checkpoint_s=1e-6), [], []
    _interrupted(job)
    training.train(job, lambda share, text: said.append((share, text)), note=notes.append)
    assert said[0][0] == pytest.approx(0.5)
    assert re.fullmatch(r"epoch 3/4, about .* left", said[0][1])
    assert notes == ["training is resumed at epoch 3/4, step 9 of 16"]


def test_what_would_fail_after_hours_is_refused_before_the_first_step(
    digits, tmp_path, monkeypatch
):
    job = _job(digits, tmp_path)
    one = data.Split(digits.train.images[:1], digits.train.labels[:1])
    single = dataclasses.replace(job, dataset=dataclasses.replace(job.dataset, train=one))
    with pytest.raises(ConfigError, match=r"1 image\(s\) leaves 1 .* BatchNorm needs two"):
        training.train(single, _quiet)
    with pytest.raises(ConfigError, match=r"32 cannot be shared by 1 .* in 5 parts .*tiple of 5"):
        training.train(_job(digits, tmp_path, accumulate=5), _quiet)
    with pytest.raises(ConfigError, match=r"32 image\(s\) leaves 1 to each of 1 .* in 32 parts"):
        training.train(_job(digits, tmp_path, accumulate=32), _quiet)
    monkeypatch.setattr(training, "join_processes", lambda: (0, 32))
    with pytest.raises(ConfigError, match=r"32 image\(s\) leaves 1 to each of 32 .*fewer proc"):
        training.train(job, _quiet)
    monkeypatch.setattr(training, "join_processes", lambda: (0, 200))
    many = _job(digits, tmp_path, batch_size=400)
    with pytest.raises(ConfigError, match=r"128 training images cannot be shared by 200 proc"):
        training.train(many, _quiet)


def test_weights_that_nothing_has_trained_teach_nobody(digits, tmp_path):
    job = _job(digits, tmp_path, recipe="progressive", max_only=0.0)
    with pytest.raises(ConfigError, match=r"max network .* untrained; leave max_only out, or set"):
        training.train(job, _quiet)
    assert not list(tmp_path.iterdir())
    given = training.Supernet(SPACE)  # trained before, as far as anyone knows: as it is it teaches
    training.train(dataclasses.replace(job, config=job.config.model_copy(update={"epochs": 1})),
                   _quiet, given)  # fmt: skip


def test_resolutions_far_above_the_size_of_the_images_are_said():
    space = spaces.load("mbv3-28")
    assert enlarged(28, space) == enlarged(14, space) == enlarged(0, space) == ""
    assert re.search("8 px are enlarged to 28, .*space.resolutions", enlarged(8, space))


def test_a_disk_without_room_for_the_checkpoint_is_named_before_the_first_step(
    digits, tmp_path, monkeypatch
):
    job, usage = _job(digits, tmp_path / "run"), outset.shutil.disk_usage
    monkeypatch.setattr(outset.shutil, "disk_usage", lambda path: usage(path)._replace(free=10**5))
    with pytest.raises(DiskFullError, match=r"take [\d.]+ MB, .* has 0 MB free; free some space"):
        training.train(job, _quiet)
    assert not (tmp_path / "run").exists()


def test_the_room_that_a_checkpoint_needs_counts_the_teacher_that_is_kept_later(
    digits, tmp_path, monkeypatch
):
    usage, said = outset.shutil.disk_usage, []
    monkeypatch.setattr(outset.shutil, "disk_usage", lambda path: usage(path)._replace(free=0))
    for recipe in ("sandwich", "progressive"):
        with pytest.raises(DiskFullError) as caught:
            training.train(_job(digits, tmp_path, recipe=recipe, max_only=0.5), _quiet)
        said.append(float(re.findall(r"take ([\d.]+) MB", str(caught.value))[0]))
    assert said[1] == pytest.approx(1.5 * said[0], rel=0.1)  # net, momentum; and the teacher


def test_a_step_that_does_not_fit_in_memory_is_named_before_the_first_step(
    digits, tmp_path, monkeypatch
):
    job = _job(digits, tmp_path)

    def answer(config, net, x, arch):
        if arch.resolution == 12 and arch.values[1:] == SPACE.smallest.values[1:]:
            torch.empty(2**60)  # what the allocator says where there is no such memory
        return net(x, arch)

    monkeypatch.setattr(outset, "answer", answer)
    with pytest.raises(
        ConfigError,
        match=r"32 images at 12 px does not fit in memory; raise accumulate, lower batch",
    ):
        training.train(job, _quiet)


@pytest.mark.slow
def test_a_short_training_learns_digits_and_evaluation_is_cached(digits, tmp_path):
    config = TrainConfig(epochs=12, threads=1)
    net = training.train(training.Job(config, SPACE, digits, "none", tmp_path), _quiet)
    evaluator = Evaluator(net.eval(), digits, AccuracyConfig(bn_images=256), "hash")
    best = metric_of(evaluator.subnet(SPACE.largest), digits, digits.val)
    assert best > 0.9
    archs = to_measure(SPACE, 12, np.random.default_rng(0))
    path = tmp_path / "accuracy.jsonl"
    first = dict(measure_all(archs, evaluator, path))
    size = path.stat().st_size
    assert dict(measure_all(archs, evaluator, path)) == first
    assert path.stat().st_size == size
    assert first[SPACE.largest] == evaluator.measure(SPACE.largest)


def test_one_image_left_over_is_no_batch_to_calibrate_by(digits):
    config = AccuracyConfig(bn_images=257)
    evaluator = Evaluator(training.Supernet(SPACE).eval(), digits, config, "hash")
    assert [len(images) for images in evaluator._calibration(8)] == [256]


class OnDevice(torch.Tensor):
    """A tensor that numpy cannot see until it is copied, as on a GPU."""

    def numpy(self, *given, **named):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self, *given, **named):
        return self.as_subclass(torch.Tensor)


def test_weights_of_a_gpu_are_kept(tmp_path):
    plain = Subnet(SPACE.smallest)
    net = copy.deepcopy(plain)
    for module in net.modules():
        for held in (module._parameters, module._buffers):
            held.update({n: v.data.as_subclass(OnDevice) for n, v in held.items() if v is not None})
    save_subnet(net, {}, tmp_path / "subnet.safetensors")
    assert _same(load_subnet(tmp_path / "subnet.safetensors", SPACE.smallest)[0], plain)


def _measured(digits: data.Dataset, path: Path, **settings) -> Evaluator:
    """An evaluator whose accuracies of three networks are in path."""
    config = AccuracyConfig(bn_images=32, images=16, **settings)
    torch.manual_seed(0)
    evaluator = Evaluator(training.Supernet(SPACE).eval(), digits, config, "hash")
    archs = to_measure(SPACE, 3, np.random.default_rng(0))
    assert len(list(measure_all(archs, evaluator, path))) == 3
    return evaluator


def test_an_accuracy_of_another_seed_or_of_other_data_is_measured_again(digits, tmp_path):
    path = tmp_path / "accuracy.jsonl"
    evaluator = _measured(digits, path)
    assert len(read_accuracies(path, evaluator).accuracy) == 3
    seed = dataclasses.replace(evaluator, config=AccuracyConfig(bn_images=32, images=16, seed=1))
    other = dataclasses.replace(evaluator, dataset=dataclasses.replace(digits, fingerprint="other"))
    for changed in (seed, other):
        assert read_accuracies(path, changed) == ({}, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": None},
        {"accuracy": "0.9"},
        {"accuracy": 1.5},
        {"accuracy": float("nan")},
        {"arch": 3},
        {"arch": {"space": "tiny"}},
        {"arch": {"space": "tiny", "choices": {"resolution": "wide"}}},
    ],
)
def test_a_malformed_accuracy_is_counted_and_measured_again(digits, tmp_path, change):
    path = tmp_path / "accuracy.jsonl"
    evaluator = _measured(digits, path)
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), **change}), *rest, "{half"]))
    known = read_accuracies(path, evaluator)
    assert (len(known.accuracy), known.n_bad) == (2, 2)


def test_subnets_to_measure_start_at_the_corners_and_are_all_different():
    archs = to_measure(SPACE, 40, np.random.default_rng(0))
    assert len(set(archs)) == 40
    assert archs[:2] == [SPACE.largest, SPACE.smallest]


TWO_PROCESSES = """
import os
import sys
from pathlib import Path
import torch
from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.settings.config import DataConfig, TrainConfig
from hwnas.supernet import batches, outset, plan, recipes, training, watch
from hwnas.supernet.job import Job
digits = tensors.load(DataConfig(kind="digits"))
out = Path(sys.argv[1])
config = TrainConfig(epochs=1, batch_size=128, threads=1, max_only=0.5)
job = Job(config, spaces.load("tiny").restricted([8]), digits, "none", out)
net = training.train(job, lambda share, text: None)
torch.save(net.state_dict(), out / f"rank{os.environ['RANK']}.pt")
"""


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    codes, said = ends(together([sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]))
    assert codes == [0, 0], said
    first, second = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2))
    trained = [name for name in first if "running" not in name]
    assert all(torch.equal(first[name], second[name]) for name in trained)


SETTINGS = """
run: run
data: {kind: digits}
space: {name: tiny, resolutions: [8]}
train: {epochs: 8, batch_size: 128, threads: 1}
targets: [fake.fake.fp32.b1.t1]
"""


@pytest.mark.slow
def test_the_command_trains_with_two_processes_that_stop_together(tmp_path):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS)
    command = [sys.executable, "-m", "hwnas", "train", str(tmp_path / "hwnas.yaml")]
    running = together(command)
    events = tmp_path / "run" / "events.jsonl"
    until = time.monotonic() + 60
    while not events.exists() and time.monotonic() < until:
        time.sleep(0.02)
    running[1].send_signal(signal.SIGTERM)  # the other one is not told
    codes, said = ends(running)
    assert codes == [130, 130], said
    assert (tmp_path / "run" / "train.checkpoint.safetensors").exists()
    codes, said = ends(together(command))
    assert codes == [0, 0], said
    assert not said[1]
    assert (tmp_path / "run" / "supernet.safetensors").exists()
    codes, said = ends(together(command))
    assert codes == [0, 0], said
    assert "up to date" in said[0]


ONE_ENDS = """
import os
from hwnas.supernet import batches, outset, plan, recipes, training, watch
training.agreed(False)
if os.environ["RANK"] == "0":
    os._exit(0)
training.agreed(False)
"""


@pytest.mark.slow
def test_a_process_that_is_left_alone_says_so():
    codes, said = ends(together([sys.executable, "-c", ONE_ENDS]))
    assert codes == [0, 1]
    assert "DeviceError: another process of this training ended" in said[1]


def test_many_images_are_measured_by_the_exported_file(digits, monkeypatch):
    evaluator = Evaluator(
        training.Supernet(SPACE).eval(), digits, AccuracyConfig(bn_images=64), "hash"
    )
    few = evaluator.measure(SPACE.largest)
    shown: list[int] = []
    plain = exported.Exported.__call__
    counted = lambda net, x: shown.append(len(x)) or plain(net, x)  # noqa: E731
    monkeypatch.setattr(exported.Exported, "__call__", counted)
    monkeypatch.setattr(evaluation, "MANY", len(digits.val))
    assert evaluator.measure(SPACE.largest) == few
    assert sum(shown) == len(digits.val)
    monkeypatch.setattr(evaluation, "MANY", len(digits.val) + 1)
    assert evaluator.measure(SPACE.largest) == few
    assert sum(shown) == len(digits.val)
