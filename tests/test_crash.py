"""An engine that fails on one model: it is named, the rest is measured, the table says what it
lacks. The engines here are plug-ins that end the worker's process for real, or refuse a model.
"""

import numpy as np
import pytest
from campaigns import World, simulate
from worker_kits import connect, fake_kit, plan

from hwnas.measuring import campaign, coverage, remote
from hwnas.measuring import kit as kits
from hwnas.measuring.records import CRASHES_OF_ITEM, MOST_CRASHING, Log, failures
from hwnas.measuring.retry import IN_VAIN
from hwnas.networks import spaces
from hwnas.settings.config import ProfileConfig
from hwnas.tables import fit, table
from profilers.errors import (
    ConfigError,
    DeviceError,
    EngineCrashError,
    MemoryShortError,
    MissingOpError,
    UnstableMeasurementError,
)
from profilers.schema import Target, read_lines

SPACE = spaces.load("tiny").restricted([8])
FEW = ProfileConfig(budget_s=600, rounds=6, seed=1)
# An engine that is `fake` but for one model, on which it does as WAY says at the time WHEN.
ENGINE = """
import os, signal, sys
from profilers.errors import ConfigError, DeviceFaultError, MemoryShortError
from hwnas.fakes.runtimes import fake

class Session(fake.FakeSession):
    opened = False

    def info(self):
        self.opened = True
        return super().info()

    def time(self, loops):
        if self.bad and self.opened and "{when}" == "sample":
            {way}
        return super().time(loops)

    def profile(self, loops):
        if self.bad and "{when}" == "profile":
            {way}
        return super().profile(loops)

class RUNTIME:
    version, clock = staticmethod(fake.version), staticmethod(fake.clock)

    @staticmethod
    def load(path, target):
        bad = path.name in {names!r}
        if bad and "{when}" == "load":
            {way}
        session = fake.load(path, target)
        session.__class__, session.bad = Session, bad
        return session
"""
ABORT, SEGV, REFUSE = (
    "os.abort()",
    "os.kill(os.getpid(), signal.SIGSEGV)",
    'raise ConfigError("no")',
)
SHORT, FAULT = 'raise MemoryShortError("out of memory")', 'raise DeviceFaultError("CUDA error 700")'
STRANGE = 'raise ZeroDivisionError("an error nobody expects")'


@pytest.fixture
def engine(tmp_path):
    """A target whose engine fails on models of a kit, by number."""

    def make(numbers, way=ABORT, when="load"):
        names = {f"model-{number:03d}.onnx" for number in numbers}
        path = tmp_path / "fragile.py"
        path.write_text(ENGINE.format(names=names, way=way, when=when))
        return Target("fake", "fragile:RUNTIME", plugins=(str(path),))

    return make


def run(tmp_path, target, connect=connect):
    return campaign.run_campaign(
        target, tmp_path / "kit", tmp_path / "out.jsonl", FEW, lambda *_: None, connect
    )


def items(result):
    return items_of(result.path)


def items_of(path):
    return {record["id"][3] for record in read_lines(path)[0][1:] if "ms" in record}


@pytest.mark.parametrize("way", [ABORT, SEGV, REFUSE, STRANGE])
def test_a_model_that_the_engine_fails_on_is_named_and_the_rest_measured(tmp_path, engine, way):
    made = fake_kit(tmp_path / "kit")
    names = [item["name"] for item in made["items"]]
    bad = next(n for n, item in enumerate(made["items"]) if item["role"] == "micro")
    result = run(tmp_path, engine([bad], way))
    assert result.stable
    assert items(result) == set(names) - {names[bad]}
    assert len(result.failed) == 1
    assert result.failed[0].startswith(made["items"][bad]["ops"][0]["key"])


def test_a_model_that_failed_is_not_tried_again(tmp_path, engine):
    fake_kit(tmp_path / "kit")
    first = run(tmp_path, engine([2, 5]))
    before = first.path.read_bytes()
    again = run(tmp_path, engine([2, 5]))
    assert again.path.read_bytes() == before
    assert again.failed == first.failed
    assert len(first.failed) == 2


@pytest.mark.parametrize("way", [ABORT, REFUSE, SHORT, FAULT, "open('/no/such/file')"])
def test_a_profile_that_fails_costs_node_times_and_nothing_else(tmp_path, engine, way):
    made = fake_kit(tmp_path / "kit")
    bad = made["items"][1]["name"]
    result = run(tmp_path, engine([1], way, when="profile"))
    assert made["items"][1]["role"] == "covering"
    assert result.stable
    assert (result.failed, result.passing) == ((), ())
    assert items(result) == {item["name"] for item in made["items"]}
    profiles = [r for r in read_lines(result.path)[0][1:] if "profile" in r]
    assert [(r["profile"], bool(r["reason"])) for r in profiles if r["id"][3] == bad] == [
        ([], True)
    ]
    assert any(r["profile"] for r in profiles)


def once(tmp_path, way):
    """What an engine does the first time only."""
    marker = str(tmp_path / "done")
    return f"if not os.path.exists({marker!r}): open({marker!r}, 'x').close(); {way}"


def test_a_device_that_failed_once_costs_a_worker(tmp_path, engine):
    made = fake_kit(tmp_path / "kit")
    result = run(tmp_path, engine([3], once(tmp_path, FAULT)))
    assert result.stable
    assert (result.failed, result.passing) == ((), ())
    assert items(result) == {item["name"] for item in made["items"]}


@pytest.mark.parametrize("way", [SHORT, FAULT])
def test_what_memory_or_the_device_kept_from_running_is_tried_again(tmp_path, engine, way):
    """The item after the anchor: of those that come later none is opened when memory is short."""
    made = fake_kit(tmp_path / "kit", plan(covering=0))
    bad = made["items"][1]["name"]
    first = run(tmp_path, engine([1], way))
    assert first.stable
    assert first.failed == ()
    assert [text.partition(":")[0] for text in first.passing] == [bad]
    assert bad not in items(first)
    again = run(tmp_path, engine([]))
    assert (again.stable, again.failed, again.passing) == (True, (), ())
    assert bad in items(again)
    assert failures(read_lines(again.path)[0][1:]) == {}


def test_the_anchor_that_finds_no_memory_ends_the_campaign_with_numbers(tmp_path, engine):
    fake_kit(tmp_path / "kit")
    with pytest.raises(MemoryShortError, match="out of memory; none was open"):
        run(tmp_path, engine([0], SHORT))
    assert run(tmp_path, engine([])).stable


def test_failures_of_earlier_versions_that_may_have_passed_are_tried_again(tmp_path, engine):
    made = fake_kit(tmp_path / "kit")
    first = run(tmp_path, engine([2], REFUSE))
    assert len(first.failed) == 1
    text = first.path.read_text(encoding="utf-8")
    first.path.write_text(text.replace('"code":"ConfigError"', '"code":"DeviceError"'))
    again = run(tmp_path, engine([]))
    assert items(again) == {item["name"] for item in made["items"]}


@pytest.mark.parametrize("way", [SEGV, STRANGE])
def test_an_engine_that_crashes_on_every_round_is_given_up(tmp_path, engine, way):
    """While samples are taken nobody knows on which model."""
    fake_kit(tmp_path / "kit")
    started = []

    def counting(target, purpose):
        assert len(started) < 10, "workers are started for ever"
        started.append(purpose)
        return connect(target, purpose)

    with pytest.raises(DeviceError, match=r"worker ended .*; run the same command again"):
        run(tmp_path, engine([3], way, when="sample"), counting)
    assert len(started) == 1 + IN_VAIN  # one asked what the device is
    assert not items_of(tmp_path / "out.jsonl")


def test_an_engine_that_crashed_on_one_round_costs_a_worker(tmp_path, engine):
    made = fake_kit(tmp_path / "kit")
    result = run(tmp_path, engine([3], once(tmp_path, SEGV), when="sample"))
    assert result.stable
    assert result.failed == ()
    assert items(result) == {item["name"] for item in made["items"]}
    assert {r["id"][3] for r in read_lines(result.path)[0][1:]} == items(result)


def test_without_its_anchor_nothing_can_be_measured(tmp_path, engine):
    fake_kit(tmp_path / "kit")
    with pytest.raises(DeviceError, match=r"SIGABRT.*busy with anchor-000"):
        run(tmp_path, engine([0]))
    (tmp_path / "out.jsonl").unlink()
    with pytest.raises(ConfigError, match="no"):
        run(tmp_path, engine([0], REFUSE))


def test_an_engine_that_crashes_on_everything_is_given_up():
    log = Log("a" * 64)
    errors = [EngineCrashError(f"item {n}", f"item {n}") for n in range(MOST_CRASHING + 1)]
    for error in errors[:-1] * CRASHES_OF_ITEM + errors[-1:]:
        log.crashed("a", error)
    with pytest.raises(EngineCrashError, match=f"item {MOST_CRASHING}"):
        log.crashed("a", errors[-1])
    assert set(log.failed) == {error.item for error in errors[1:-1]} | {"item 0"}


def test_a_kill_from_outside_is_no_crash_of_the_engine(tmp_path, engine):
    fake_kit(tmp_path / "kit")
    with pytest.raises(DeviceError, match="SIGKILL"):
        run(tmp_path, engine([2], "os.kill(os.getpid(), signal.SIGKILL)"))


def test_a_wheel_for_another_processor_is_told_with_what_to_do(tmp_path):
    """It ends the process that imports it."""
    (tmp_path / "newer.py").write_text(
        "import os\n\n\nclass RUNTIME:\n    @staticmethod\n    def version():\n"
        "        os.kill(os.getpid(), 4)\n"
    )
    target = Target("host", "newer:RUNTIME", plugins=(str(tmp_path / "newer.py"),))
    told = r"signal 4 \(SIGILL\): it wants instructions that this processor lacks; install another"
    with pytest.raises(DeviceError, match=told) as ended:
        remote.probe(target)
    assert ended.value.exit_code == 4


def test_a_model_of_the_users_own_that_crashes_the_engine_is_an_error(tmp_path, engine):
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ConfigError, match="no"):
        remote.measure_models(engine([0], REFUSE), [_renamed(tmp_path)], FEW)


def _renamed(folder):
    path = folder / "own.onnx"
    path.write_bytes(b"x" * 9)
    return path


# ---- what the table says -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A kit of `tiny`, and header and records of a campaign of it."""
    folder = tmp_path_factory.mktemp("kit")
    settings = ProfileConfig(heldout=30)
    made = kits.make_kit(SPACE, folder / "kit", 1, settings).kit
    return made, *simulate(made, World(rounds=6))


def without(made, records, keys):
    """The records of an engine that crashes on every model that holds one of these ops."""
    bad = {i["name"] for i in made["items"] if any(op["key"] in keys for op in i["ops"])}
    told = {"code": "DeviceError", "text": "worker ended by signal 6 (SIGABRT)"}
    kit_hash = kits.kit_hash(made)
    failed = [
        {"id": [kit_hash, "a", 0, name], "role": "failed", "order": 0, "loops": 0, "failed": told}
        for name in sorted(bad)
    ]
    return failed + [record for record in records if record["id"][3] not in bad], bad


def test_a_table_names_the_op_it_lacks_and_knows_all_others(measured):
    made, header, records = measured
    anchor = next(item for item in made["items"] if item["role"] == "anchor")
    used = {op["key"] for op in anchor["ops"]}
    lost = next(key for key in coverage.distinct_ops(SPACE) if key not in used)
    left, bad = without(made, records, {lost})
    found = fit.fit_table(SPACE, made, header, left, seed=0)
    assert set(found.rows) == set(coverage.distinct_ops(SPACE)) - {lost}
    assert found.validation["missing"] == [lost]
    assert found.verdict == "unreliable"
    assert lost in found.validation["reason"]
    assert set(found.protocol["failed"]) == bad
    whole = fit.fit_table(SPACE, made, header, records, seed=0)
    gaps = [
        abs(row["latency_ms"] - whole.rows[key]["latency_ms"]) / whole.rows[key]["latency_ms"]
        for key, row in found.rows.items()
    ]
    assert np.median(gaps) < 0.1
    with pytest.raises(MissingOpError, match=r"lacks 1 of \d+ ops"):
        table.check_serves(found, SPACE, ["unreliable"])


def test_where_no_network_is_left_there_is_no_table(measured):
    made, header, records = measured
    stem = made["items"][0]["ops"][0]["key"]
    left, _ = without(made, records, {stem})
    with pytest.raises(
        UnstableMeasurementError, match="no network is left without what the engine"
    ):
        fit.fit_table(SPACE, made, header, left, seed=0)
