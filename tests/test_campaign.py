"""Campaigns on a modelled machine: complete, within the budget, resumed, disturbed, unstable."""

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_kits import connect, fake_kit, fake_target, plan

from hwnas.fakes.runtimes import fake
from hwnas.measuring import campaign, rounds
from hwnas.measuring.kit import load_kit
from hwnas.measuring.records import Log, is_record, open_log
from hwnas.measuring.rounds import SessionPlan, shuffled
from hwnas.settings.config import ProfileConfig
from profilers import stats
from profilers.errors import ConfigError, DeviceError, FileFormatError
from profilers.schema import Target, read_lines, write_json

FEW = ProfileConfig(budget_s=600, rounds=6, seed=1)


def silent(text, share):
    assert 0 <= share <= 1


def run(tmp_path, target=None, settings=FEW, say=silent, name="out.jsonl"):
    found = target or fake_target()
    return campaign.run_campaign(found, tmp_path / "kit", tmp_path / name, settings, say, connect)


def records_of(result):
    found, broken = read_lines(result.path)
    assert not broken
    return found[0], found[1:]


def samples(records, session):
    """ms of each item in the undisturbed rounds of a session."""
    disturbed = stats.disturbed_rounds(records)
    out = {}
    for record in records:
        name = record["id"]
        if "ms" in record and name[1] == session and (session, name[2]) not in disturbed:
            out.setdefault(name[3], []).append(record["ms"])
    return out


@pytest.fixture
def kit(tmp_path):
    return fake_kit(tmp_path / "kit")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A campaign of `kit` that went through, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    fake_kit(folder / "kit")
    return run(folder)


@pytest.fixture
def finished(tmp_path, kit, whole):
    """The same one, in the test's own folder."""
    shutil.copy(whole.path, tmp_path / "out.jsonl")
    return replace(whole, path=tmp_path / "out.jsonl")


# ---- a whole campaign --------------------------------------------------------------------------


def test_every_item_gets_its_rounds_and_heldout_networks_as_many_again(kit, whole):
    result = whole
    header, records = records_of(result)
    assert result.stable
    assert header["kit"] == records[0]["id"][0]
    assert header["environment"]["fingerprint"] == result.environment["fingerprint"]
    names = {item["name"]: item["role"] for item in kit["items"]}
    first, again = samples(records, "a"), samples(records, "b")
    assert set(first) == set(names)
    assert set(again) == {n for n, role in names.items() if role in ("heldout", "anchor")}
    counts = {len(found) for n, found in [*first.items(), *again.items()] if "anchor" not in n}
    assert counts == {FEW.rounds}
    assert all(record["role"] == names[record["id"][3]] for record in records)
    identities = [(*record["id"], record["order"]) for record in records]
    assert len(set(identities)) == len(identities)


def test_latencies_are_those_of_the_modelled_machine(tmp_path, kit):
    _, records = records_of(run(tmp_path, fake_target(noise=0.01)))
    for session in "ab":
        found = samples(records, session)
        for item in kit["items"]:
            if item["role"] in ("heldout", "anchor"):
                true = fake.RUN_MS + sum(fake.op_ms(op["key"]) for op in item["ops"])
                assert stats.low_quantile(found[item["name"]]) == pytest.approx(true, rel=0.01)


def test_orders_differ_between_rounds_and_sessions_and_loops_do_not(kit, whole):
    _, records = records_of(whole)
    orders, loops = {}, {}
    for record in records:
        if "ms" in record:
            orders.setdefault(tuple(record["id"][1:3]), []).append(record["id"][3])
            loops.setdefault(record["id"][3], set()).add(record["loops"])
    assert len(orders) == 2 * FEW.rounds
    assert len({tuple(order) for (session, _), order in orders.items() if session == "a"}) == 6
    assert len({tuple(order) for (session, _), order in orders.items() if session == "b"}) > 1
    assert all(len(found) == 1 for found in loops.values())
    anchor = kit["items"][0]["name"]
    assert all(order[0] == order[-1] == anchor for order in orders.values())


def test_covering_networks_are_profiled_a_few_times_and_nothing_else(kit, whole):
    _, records = records_of(whole)
    taken = Counter(record["id"][3] for record in records if "profile" in record)
    covering = {item["name"] for item in kit["items"] if item["role"] == "covering"}
    assert taken == dict.fromkeys(covering, rounds.PROFILE_ROUNDS)
    items = {item["name"]: item for item in kit["items"]}
    for record in records:
        for slot, ms in record.get("profile", []):
            assert slot in {op["slot"] for op in items[record["id"][3]]["ops"]}
            assert ms > 0


def test_an_engine_without_node_times_is_asked_once(tmp_path, kit):
    result = run(tmp_path, fake_target(no_profile=1))
    assert result.stable
    assert not any("profile" in record for record in records_of(result)[1])


def test_models_that_do_not_fit_together_are_measured_in_groups_with_the_anchor(tmp_path, kit):
    result = run(tmp_path, fake_target(session_mb=100))  # five in half of 1 GiB
    _, records = records_of(result)
    assert result.stable
    anchor = kit["items"][0]["name"]
    groups = {}
    for record in records:
        groups.setdefault(tuple(record["id"][1:3]), set()).add(record["id"][3])
    assert all(anchor in group for group in groups.values())
    assert max(len(group) for group in groups.values()) == 5
    told = {r["id"][1]: r["left"] for r in reversed(records) if "left" in r}
    first, again = campaign.session_plans(kit, 0)
    assert told == {"a": 1 + len(first.items) - 5}  # the networks of b fit, with their anchor
    assert [rounds.is_grouped(records, plan) for plan in (first, again)] == [True, False]
    assert {len(found) for n, found in samples(records, "a").items() if n != anchor} == {6}


def test_groups_within_a_memory_limit_hold_the_same_networks_in_both_sessions(tmp_path):
    fake_kit(tmp_path / "kit", plan(covering=6, heldout=12, micro=12))
    settings = FEW.model_copy(update={"memory_mb": 12})
    result = run(tmp_path, fake_target(session_mb=1), settings)
    assert result.stable
    groups = {}
    for record in records_of(result)[1]:
        groups.setdefault(tuple(record["id"][1:3]), set()).add(record["id"][3])
    assert max(len(group) for group in groups.values()) <= 12  # of 1 MiB in 12 MB
    order = list(groups)
    shared = [
        len({n for n in groups[key] if "heldout" in n} & groups[order[i + 1]]) > 0
        for i, key in enumerate(order[:-1])
        if key[0] == "a" and order[i + 1][0] == "b" and any("heldout" in n for n in groups[key])
    ]
    assert np.mean(shared) > 0.5


def test_groups_on_a_device_that_drifts_settle(tmp_path):
    fake_kit(tmp_path / "kit", plan(covering=6, heldout=12, micro=12))
    settings = FEW.model_copy(update={"memory_mb": 6})
    steps = ",".join(f"{t / 4}-{(t + 1) / 4}x{1 + 0.02 * (t % 12)}" for t in range(1, 80))
    result = run(tmp_path, fake_target(session_mb=1, slow=steps), settings)
    assert result.stable, result.reason
    assert result.bad["a"] + result.bad["b"] < 10


def test_groups_are_visited_alike_on_a_device_that_becomes_slower(tmp_path):
    fake_kit(tmp_path / "kit", plan(covering=3, heldout=6, micro=6))
    settings = FEW.model_copy(update={"memory_mb": 4, "rounds": 60, "budget_s": 2})
    result = run(tmp_path, fake_target(session_mb=1, slow="0.8-100x1.24"), settings)
    assert result.stable, result.reason
    assert result.device_s <= 2
    _, records = records_of(result)
    found = Counter(r["id"][3] for r in records if r["id"][1] == "a" and r["role"] != "anchor")
    assert min(found.values()) >= 3 * 3  # three visits of three rounds at least
    assert max(found.values()) <= min(found.values()) + 3
    assert result.good["a"] == result.good["b"]


COUNTING = """
from pathlib import Path

open_now = []

class Session:
    def time(self, loops):
        return 1.0 * loops

    def profile(self, loops):
        return None

    def info(self):
        return {"memory_bytes": 1 << 20}

    def close(self):
        open_now.remove(self)

class RUNTIME:
    @staticmethod
    def version():
        return "1"

    @staticmethod
    def load(model_path, target):
        open_now.append(Session())
        with Path("LOG").open("a") as log:
            log.write(f"{len(open_now)}\\n")
        return open_now[-1]
"""


def test_a_memory_limit_is_for_the_models_of_both_sessions_together(tmp_path):
    fake_kit(tmp_path / "kit", plan(covering=6, heldout=12, micro=12))
    log = tmp_path / "open.log"
    (tmp_path / "counting.py").write_text(COUNTING.replace("LOG", str(log)))
    target = Target("fake", "counting:RUNTIME", plugins=(str(tmp_path / "counting.py"),))
    assert run(tmp_path, target, FEW.model_copy(update={"memory_mb": 9})).stable
    most = max(int(line) for line in log.read_text().split())
    assert 6 <= most <= 8  # of 1 MiB


def test_items_are_mixed_so_that_every_part_of_a_course_holds_some_of_all(kit):
    first, again = campaign.session_plans(kit, 0)
    names = [name for name in first.items if "heldout" in name]
    assert names == list(again.items)
    half = len(first.items) // 2 + 1
    for role in ("covering", "heldout", "micro"):
        share = sum(role in n for n in first.items[:half]) / sum(role in n for n in first.items)
        assert 0.3 < share < 0.7


def test_no_part_of_the_connection_is_written(tmp_path, kit):
    header, _ = records_of(run(tmp_path, fake_target(noise=0.001)))
    assert header["target"]["connection"] == {"kind": "local"}


def test_progress_is_told_with_what_is_left(tmp_path, kit):
    told = []
    run(tmp_path, say=lambda text, share: told.append(text))
    assert any("session a: 0 of 3 rounds, 600 s of the budget left" in text for text in told)
    assert any("session b" in text for text in told)


def test_a_machine_that_got_slower_between_the_sessions_is_told(tmp_path, finished):
    header, *records = map(json.loads, finished.path.read_text().splitlines())
    assert abs(finished.drift) < 0.01
    slower = [{**r, "ms": 1.1 * r["ms"]} if "ms" in r and r["id"][1] == "b" else r for r in records]
    finished.path.write_text("".join(json.dumps(r) + "\n" for r in [header, *slower]))
    result = run(tmp_path)
    assert result.stable
    assert result.drift == pytest.approx(0.1, abs=0.01)
    assert "anchor +10" in result.reason or "anchor +9" in result.reason


# ---- the budget --------------------------------------------------------------------------------


def test_a_small_budget_gives_fewer_rounds_and_both_sessions_the_same(tmp_path, kit):
    settings = ProfileConfig(budget_s=2, rounds=100)
    result = run(tmp_path, settings=settings)
    assert result.stable
    assert campaign.MIN_ROUNDS <= result.good["a"] < 100
    assert result.good["b"] == result.good["a"]
    assert 1 < result.device_s < 2.2


def test_a_budget_that_is_too_small_is_unstable_and_says_so(tmp_path, kit):
    settings = FEW.model_copy(update={"budget_s": 0.5, "rounds": 100})
    result = run(tmp_path, fake_target(open_s=0.05), settings=settings)
    assert not result.stable
    assert f"{campaign.MIN_ROUNDS} undisturbed ones of each are needed" in result.reason
    assert "opened models for" in result.reason
    assert result.device_s < 2.2


def test_an_engine_that_compiles_for_seconds_leaves_half_of_the_budget_to_samples(tmp_path, kit):
    settings = ProfileConfig(budget_s=4, rounds=1000)
    result = run(tmp_path, fake_target(open_s=1), settings=settings)
    assert result.stable
    assert result.device_s > 20
    records = records_of(result)[1]
    runs = [r["ms"] * (r["loops"] + r["warm"]) / 1000 for r in records if "ms" in r]
    assert 1.4 < sum(runs) < 2.4


def test_each_resolution_brings_its_own_budget(tmp_path):
    kit = fake_kit(tmp_path / "kit")
    kit["items"][1]["resolution"] = 16
    write_json(tmp_path / "kit" / "kit.json", kit)
    settings = ProfileConfig(budget_s=1.5, rounds=1000)
    result = run(tmp_path, settings=settings)
    assert 2 < result.device_s < 3.3


# ---- disturbances ------------------------------------------------------------------------------


def test_disturbed_rounds_are_kept_and_repeated(tmp_path, kit, whole):
    quiet = whole
    disturbed = run(tmp_path, fake_target(slow="0.03-0.06x1.5"))
    _, records = records_of(disturbed)
    assert quiet.bad == {"a": 0, "b": 0}
    assert sum(disturbed.bad.values()) > 0
    assert disturbed.good == quiet.good
    worst = max(record["ms"] for record in records if record["role"] == "anchor")
    best = min(record["ms"] for record in records if record["role"] == "anchor")
    assert worst > 1.4 * best
    for session in "ab":
        for item, found in samples(records, session).items():
            expected = stats.low_quantile(samples(records_of(quiet)[1], session)[item])
            assert stats.low_quantile(found) == pytest.approx(expected, rel=0.02)


def test_a_machine_that_never_settles_is_unstable(tmp_path, kit):
    factors = 10 ** np.random.default_rng(0).uniform(0, 1, 400)
    slow = ",".join(f"{i / 50}-{(i + 1) / 50}x{factor}" for i, factor in enumerate(factors))
    settings = ProfileConfig(budget_s=3, rounds=20)
    result = run(tmp_path, fake_target(slow=slow, noise=0.5), settings=settings)
    assert not result.stable
    assert result.bad["a"] > 0


# ---- cut and resumed ---------------------------------------------------------------------------


@pytest.mark.parametrize("samples_before", [0, 5, 10, 20, 30])
def test_a_killed_worker_loses_one_round_and_the_same_command_resumes(
    tmp_path, kit, samples_before
):
    with pytest.raises(DeviceError, match=r"signal 9 \(SIGKILL\)"):
        run(tmp_path, fake_target(die_after=samples_before))
    before = (tmp_path / "out.jsonl").read_bytes()
    result = run(tmp_path)
    assert result.path.read_bytes().startswith(before)
    assert result.stable
    assert result.good == {"a": 6, "b": 6}
    assert not list(tmp_path.glob("*.old"))


def test_a_worker_killed_in_session_b_resumes_there(tmp_path, finished):
    header, records = records_of(finished)
    first = [r for r in records if r["id"][1] == "a"]
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [header, *first]))
    with pytest.raises(DeviceError, match="signal 9"):
        run(tmp_path, fake_target(die_after=40))
    cut = records_of(run(tmp_path))[1]
    assert {r["id"][1] for r in cut} == {"a", "b"}
    assert [r for r in cut if r["id"][1] == "a"] == first


def test_the_sessions_keep_pace_round_by_round(kit, whole):
    sessions = [r["id"][1] for r in records_of(whole)[1]]
    assert [session for session, _ in itertools.groupby(sessions)] == ["a", "b"] * FEW.rounds


def test_sessions_that_do_not_fit_in_memory_keep_pace_too(tmp_path, kit):
    records = records_of(run(tmp_path, fake_target(session_mb=100)))[1]
    ahead, total = 0.0, Counter(r["id"][1] for r in records if "ms" in r)
    share = dict.fromkeys("ab", 0.0)
    for record in records:
        if "ms" in record:
            share[record["id"][1]] += 1 / total[record["id"][1]]
            ahead = max(ahead, abs(share["a"] - share["b"]))
    assert ahead < 0.35


def test_a_finished_campaign_is_not_measured_again(tmp_path, finished):
    before = finished.path.read_bytes()
    again = run(tmp_path)
    assert again.path.read_bytes() == before
    assert (again.stable, again.device_s, again.good) == (True, 0, finished.good)


def test_a_campaign_cut_by_its_budget_goes_on_with_a_new_one(tmp_path, kit):
    settings = ProfileConfig(budget_s=2, rounds=100)
    first = run(tmp_path, settings=settings)
    again = run(tmp_path, settings=settings)
    assert first.good["a"] < again.good["a"]
    assert again.good["a"] == again.good["b"]


def test_a_broken_line_costs_one_sample_and_is_reported(tmp_path, finished):
    path = finished.path
    lines = path.read_text().splitlines()
    lines[5] = lines[5][:30]
    lines[40] = '{"id": ["another kit", "a", 0, "x"]}'
    path.write_text("\n".join(lines)[:-20])
    result = run(tmp_path)
    assert result.broken_lines == (6, len(lines))
    assert result.stable
    assert result.good == {"a": 6, "b": 6}


def test_half_a_last_line_of_a_killed_host_is_no_obstacle(tmp_path, finished):
    path = finished.path
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    assert run(tmp_path).good == {"a": 6, "b": 6}


def test_a_first_round_that_was_cut_makes_no_groups(tmp_path, kit, finished):
    lines = finished.path.read_text().splitlines(keepends=True)
    finished.path.write_text("".join(lines[:6]))
    result = run(tmp_path)
    records = records_of(result)[1]
    assert not any(rounds.is_grouped(records, plan) for plan in campaign.session_plans(kit, 0))
    assert result.good == {"a": 6, "b": 6}
    eight_needed = campaign.unsettled(kit, [r for r in records if r["id"][2] < 6])
    assert "8 of each are needed" in eight_needed


@pytest.mark.parametrize("change", ["kit", "environment", "target", "header", "empty"])
def test_measurements_of_something_else_are_kept_aside(tmp_path, finished, change):
    header, *rest = finished.path.read_text().splitlines()
    value = json.loads(header)
    kit_hash, environment = value["kit"], dict(value["environment"])
    if change == "kit":
        value["kit"] = "0" * 64
    elif change == "environment":
        value["environment"]["fingerprint"] = "0" * 64
    elif change == "target":
        value["target"]["name"] = "fake.fake.fp32.b8.t1"
    text = {"header": "no json", "empty": ""}.get(change, json.dumps(value))
    old = "\n".join([text, *rest]) + "\n"
    finished.path.write_text(old)
    (tmp_path / "out.jsonl.1.old").write_text("older still")
    log = open_log(finished.path, fake_target(), environment, kit_hash)
    assert log.records == []
    assert read_lines(finished.path)[0][0]["kit"] == kit_hash
    assert (tmp_path / "out.jsonl.2.old").read_text() == old
    assert (tmp_path / "out.jsonl.1.old").read_text() == "older still"


def test_a_campaign_starts_anew_beside_measurements_of_another_kit(tmp_path, finished):
    fake_kit(tmp_path / "kit", seed=5)
    before = finished.path.read_bytes()
    assert run(tmp_path).good == {"a": 6, "b": 6}
    assert (tmp_path / "out.jsonl.1.old").read_bytes() == before


# ---- what is refused ---------------------------------------------------------------------------


def test_a_folder_without_a_kit_and_a_kit_without_an_anchor_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match=r"kit\.json does not exist"):
        run(tmp_path)
    fake_kit(tmp_path / "kit", plan()[1:])
    with pytest.raises(ConfigError, match="no item with role anchor"):
        run(tmp_path)


def test_a_kit_edited_after_it_was_made_is_noticed_on_the_device(tmp_path, kit, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    (tmp_path / "kit" / kit["items"][2]["file"]).write_bytes(b"edited")
    with pytest.raises(FileFormatError, match="damaged"):
        run(tmp_path)


# ---- orders, records, costs --------------------------------------------------------------------


@given(st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_an_order_holds_every_item_once_with_anchors_at_both_ends_and_between(count, seed):
    items = [f"item{i}" for i in range(count)]
    order = shuffled(items, "anchor", np.random.default_rng(seed))
    assert sorted(name for name in order if name != "anchor") == sorted(items)
    places = [i for i, name in enumerate(order) if name == "anchor"]
    assert (places[0], places[-1]) == (0, len(order) - 1)
    fewest, most = rounds.ANCHORS
    assert fewest <= len(places) <= most
    gaps = np.diff(places)
    assert gaps.max() - gaps.min() <= 1


def test_nothing_to_measure_was_measured_in_no_round():
    assert rounds.good_rounds([], SessionPlan("a", "x", (), frozenset(), 0)) == 0


def test_what_a_round_costs_counts_warm_runs_and_guesses_what_is_unknown():
    found = [{"id": ["k", "a", 0, "x"], "ms": 2.0, "loops": 3, "warm": 2}]
    assert rounds.sample_costs(found) == {"x": 0.01}
    plan = SessionPlan("a", "x", ("x", "y"), frozenset(), 0)
    assert rounds.rounds_cost([plan, plan], [{**found[0], "role": "micro"}]) == 0.04
    anchor = {**found[0], "id": ["k", "a", 0, "z"], "role": "anchor"}
    both = [{**found[0], "role": "micro"}, anchor]
    assert rounds.rounds_cost([plan], both) == pytest.approx(2 * 0.02)  # half is the anchor's
    assert rounds.rounds_cost([plan], []) == 0


@pytest.mark.parametrize(
    "change",
    [{"ms": 0}, {"ms": float("nan")}, {"ms": "1"}, {"loops": 0}, {"role": None}, {"order": "1"},
     {"id": ["k", "a", 0]}, {"id": ["other", "a", 0, "x"]}, {"id": ["k", "a", "0", "x"]},
     {"energy_mj": 1.0}, {"profile": []}, {"failed": {"code": "", "text": ""}}, {"extra": 1}],
)  # fmt: skip
def test_a_line_that_is_no_whole_record_does_not_count(change):
    whole = {"id": ["k", "a", 0, "x"], "role": "micro", "order": 1, "t_s": 0.5, "warm": 2}
    whole |= {"loops": 3, "ms": 1.0}
    assert is_record(whole, "k")
    assert not is_record({**whole, **change}, "k")


def test_models_of_a_plan_that_names_no_limit_are_open_together(tmp_path):
    fake_kit(tmp_path / "kit")
    info = load_kit(tmp_path / "kit")
    files = {item["sha256"]: info.folder / item["file"] for item in info.kit["items"]}
    anchor, *others = (item["name"] for item in info.kit["items"])
    plan, log = SessionPlan("a", anchor, tuple(others), frozenset(), 0), Log(info.hash)
    with connect(fake_target(session_mb=1)) as worker:
        worker.send_kit(info.kit, files)
        rounds.Runner(worker, log, plan, rounds.Budget(60), silent).round(2, False)
    assert {record["id"][3] for record in log.records} == {anchor, *others}
    assert not rounds.is_grouped(log.records, plan)


def test_rounds_are_numbered_on_and_loops_stay_those_of_the_first_sample(tmp_path):
    log = Log("k", tmp_path / "log")
    assert log.next_round("a") == 0
    entry = {"item": "x", "role": "micro", "order": 0, "t_s": 0.0, "ms": 1.0}
    log.append("a", 0, [{**entry, "loops": 5}])
    log.append("a", 4, [{**entry, "loops": 9}])
    assert log.next_round("a") == 5
    assert log.next_round("b") == 0
    assert log.loops() == {"x": 5}
    assert read_lines(tmp_path / "log")[0] == log.records


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot"):
        open_log(tmp_path / "file" / "out.jsonl", fake_target(), {"fingerprint": "x"}, "k")
