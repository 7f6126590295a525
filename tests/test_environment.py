"""What numbers were taken on, read from recorded /proc and /sys trees."""

import ctypes
import json
from types import SimpleNamespace

import pytest
from board_trees import grow
from board_trees import names as recorded_boards

from profilers import devices, environment, protocol, throttling
from profilers.devices import host, jetson, nvidia, raspberry_pi
from profilers.energy import meters
from profilers.energy.meters import none
from profilers.errors import ConfigError
from profilers.schema import Target, target_from_name


def test_a_raspberry_is_recognised_without_its_serial_number(tmp_path):
    found = host.hardware(grow(tmp_path, "raspberry-pi-5"))
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["cpu"] == "Cortex-A76"
    assert found["cpu_id"] == "0x41-0x4-0xd0b-1"
    assert found["cpu_features"] == ["asimd", "asimdhp", "asimddp"]
    assert found["memory_bytes"] == 8255648 * 1024
    assert found["virtual"] is None  # processors of Arm do not say
    assert "abcdef01" not in json.dumps(found)


def test_the_state_of_a_raspberry_has_governor_clock_temperature_and_throttling(tmp_path):
    assert raspberry_pi.state(grow(tmp_path, "raspberry-pi-5")) == {
        "governor": "ondemand",
        "clock_mhz": 2400.0,
        "temperature_c": 51.2,
        "throttled": {"now": [], "since_boot": [], "events": {}},
        "load_average": [0.08, 0.12, 0.09],
        "memory_free_bytes": 7000000 * 1024,
        "power_mode": None,
        "clocks_locked": False,
        "gpu_clock_mhz": None,
    }


def test_a_raspberry_held_back_by_supply_and_heat_says_so_in_words(tmp_path):
    found = raspberry_pi.state(grow(tmp_path, "raspberry-pi-4-throttled"))
    assert found["throttled"] == {
        "now": ["under-voltage", "throttled", "thermal-cap"],
        "since_boot": ["under-voltage", "throttled"],
        "events": {},
    }
    assert found["clock_mhz"] == 1500.0


def test_every_bit_of_the_firmware_has_its_word():
    words = ["under-voltage", "frequency-capped", "throttled", "soft-temperature-limit"]
    for bit, word in enumerate(words):
        assert throttling.decode(1 << bit) == {"now": [word], "since_boot": []}
        assert throttling.decode(1 << (bit + 16)) == {"now": [], "since_boot": [word]}
    assert throttling.decode(0xF000F) == {"now": words, "since_boot": words}


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("throttled=0x50005\n", 0x50005),
        ("50005", 0x50005),
        ("throttled=0x0", 0),
        ("VCHI initialization failed", None),
        ("throttled=", None),
        ("0x123456789", None),
        ("", None),
    ],
)
def test_flags_are_hexadecimal_however_they_are_written(text, flags):
    assert throttling.parse_flags(text) == flags


def test_the_firmware_is_asked_only_where_the_kernel_hides_its_flags(tmp_path):
    def ask():
        return "throttled=0x80008\n"

    (tmp_path / "hidden").mkdir()
    hidden = raspberry_pi.state(grow(tmp_path / "hidden", "raspberry-pi-3"), ask)
    assert hidden["throttled"]["now"] == ["soft-temperature-limit"]
    shown = raspberry_pi.state(grow(tmp_path / "shown", "raspberry-pi-5"), ask)
    assert shown["throttled"]["now"] == []
    denied = raspberry_pi.state(tmp_path / "hidden", lambda: "VCHI initialization failed")
    assert denied["throttled"] is None


def test_a_jetson_tells_power_mode_locked_clocks_and_over_current(tmp_path):
    found = jetson.state(grow(tmp_path, "jetson-orin-nano"))
    assert found["power_mode"] == "0 15W"
    assert found["clocks_locked"] is True
    assert found["gpu_clock_mhz"] == 624.75
    assert found["temperature_c"] == 52.218
    assert found["throttled"]["now"] == []
    assert found["throttled"]["events"] == {
        "under-voltage": 1,
        "average-over-current": 0,
        "instantaneous-over-current": 27,
    }


def test_clocks_of_a_jetson_are_locked_only_with_its_gpu(tmp_path):
    root = grow(tmp_path, "jetson-orin-nano")
    (root / "sys/class/devfreq/17000000.gpu/min_freq").write_text("306000000\n")
    assert jetson.state(root)["clocks_locked"] is False
    xavier = jetson.state(grow(tmp_path / "xavier", "jetson-xavier-nx"))
    assert xavier["power_mode"] == "8 MODE_20W_6CORE"
    assert xavier["clocks_locked"] is False
    assert xavier["gpu_clock_mhz"] == 114.75


class Nvml:
    """libnvidia-ml with the functions that are used, called as C functions are."""

    def __init__(self, reasons=0, old=False, missing=()):
        self.reasons, self.missing = reasons, missing
        name = "ThrottleReasons" if old else "EventReasons"
        setattr(self, f"nvmlDeviceGetCurrentClocks{name}", self._reasons)

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        assert isinstance(index, ctypes.c_uint)
        handle._obj.value = 7
        return 6 if "card" in self.missing else 0

    def nvmlDeviceGetTemperature(self, gpu, sensor, value):
        assert (gpu.value, sensor.value) == (7, 0)
        value._obj.value = 61
        return 3 if "heat" in self.missing else 0

    def nvmlDeviceGetClockInfo(self, gpu, kind, value):
        assert (gpu.value, kind.value) == (7, 1)
        value._obj.value = 2040
        return 0

    def nvmlDeviceGetViolationStatus(self, gpu, policy, value):
        assert gpu.value == 7
        value._obj.reference_us, value._obj.violation_ns = 10**15, 3_500_000 * policy.value
        return 3 if policy.value == 0 and "power" in self.missing else 0

    def _reasons(self, gpu, value):
        assert isinstance(value._obj, ctypes.c_ulonglong)
        value._obj.value = self.reasons
        return 0


@pytest.mark.parametrize("old", [False, True])
def test_a_card_tells_its_clock_its_heat_and_what_holds_it_back(tmp_path, old):
    root = grow(tmp_path, "x86-gpu")
    found = nvidia.state(root, Nvml(0x1 | 0x4 | 0x40, old))
    assert (found["gpu_clock_mhz"], found["temperature_c"]) == (2040.0, 61.0)
    assert found["throttled"]["now"] == ["power-cap", "thermal-slowdown"]
    assert found["throttled"]["events"] == {"thermal": 7, "power-cap": 0, "thermal-cap": 3}
    assert nvidia.state(root, Nvml(0x1 | 0x2))["throttled"]["now"] == []
    uncounted = nvidia.state(root, Nvml(missing=("power",)))["throttled"]["events"]
    assert uncounted == {"thermal": 7, "thermal-cap": 3}


def test_a_card_that_does_not_answer_leaves_what_the_host_knows(tmp_path):
    root = grow(tmp_path, "x86-gpu")
    assert nvidia.state(root, Nvml(missing=("card",))) == host.state(root)
    assert nvidia.state(root, Nvml(missing=("heat",)))["temperature_c"] is None
    assert nvidia.start() is None or nvidia.state()["gpu_clock_mhz"] is not None


def test_the_model_and_driver_of_a_card_are_told_without_its_number(tmp_path):
    found = host.hardware(grow(tmp_path, "x86-gpu"))
    assert (found["gpu"], found["gpu_driver"]) == ("NVIDIA L4", "550.54.15")
    assert "GPU-" not in json.dumps(found)


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (["NVIDIA A100-SXM4-40GB"] * 16, "16 x NVIDIA A100-SXM4-40GB"),
        (["NVIDIA L4", "NVIDIA T4", "NVIDIA L4"], "2 x NVIDIA L4, NVIDIA T4"),
        ([], None),
    ],
)
def test_cards_of_one_model_are_counted(tmp_path, models, told):
    for number, model in enumerate(models):
        folder = tmp_path / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\n")
    found = host.hardware(tmp_path)["gpu"]
    assert found == told
    assert not protocol.HARDWARE["gpu"](found)


def test_another_card_is_another_device_for_what_runs_on_it():
    facts = environment.describe(Target("fake", "fake"))
    for tf32, same in ((None, True), (False, False), (True, False)):
        told = [environment.fingerprint({**facts, "tf32": tf32, "gpu": g}) for g in "ab"]
        assert (told[0] == told[1]) is same


def test_a_mode_that_the_settings_do_not_name_is_its_number(tmp_path):
    root = grow(tmp_path, "jetson-orin-nano")
    (root / "var/lib/nvpmodel/status").write_text("pmode:0007 fmode:quiet\n")
    assert jetson.power_mode(root) == "7"
    (root / "var/lib/nvpmodel/status").write_text("garbage\n")
    assert jetson.power_mode(root) is None


@pytest.mark.parametrize("name", recorded_boards())
def test_no_probe_of_a_recorded_board_tells_its_serial_number(tmp_path, name):
    root = grow(tmp_path, name)
    for probe in (host.hardware, host.state, jetson.state):
        assert "abcdef01" not in json.dumps(probe(root))


def test_a_container_has_the_memory_of_its_limit(tmp_path):
    root = grow(tmp_path, "x86-server")
    assert host.hardware(root)["memory_bytes"] == 1 << 30
    assert host.state(root)["memory_free_bytes"] == (1 << 30) - 1073000000
    (root / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert host.hardware(root)["memory_bytes"] == 4 << 30


V1 = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}
NONE_V1 = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/user.slice/app\n", {"user.slice/app/cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),  # a container with its own root
        ("0::/a/b/c\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {}, None),
        ("0::/../../x\n", {"cpu.max": "200000 100000\n"}, 2.0),  # a group above one's own root
        (
            "4:cpu,cpuacct:/docker/1f\n",
            {f"cpu,cpuacct/docker/1f/{n}": t for n, t in V1.items()},
            1.5,
        ),
        # Without a name space of its own a container is told a path that it does not see.
        ("4:cpuacct,cpu:/docker/1f\n0::/x\n", {f"cpu/{n}": t for n, t in V1.items()}, 1.5),
        ("4:cpu:/a\n", {f"cpu/a/{n}": t for n, t in NONE_V1.items()}, None),
        ("5:cpuset:/a\n", {f"cpuset/a/{n}": t for n, t in V1.items()}, None),
        ("garbage\n", {"cpu.max": "x y\n"}, None),
    ],
)
def test_the_quota_of_control_groups_is_the_least_of_all_levels(tmp_path, groups, files, quota):
    for path, content in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{name}": content for name, content in files.items()},
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert host.cpu_quota(tmp_path) == quota
    assert host.hardware(tmp_path)["cpu_quota"] == quota


def test_the_cpus_that_may_be_used_are_named():
    assert host.ranges({3, 0, 1, 2, 8, 10, 11}) == "0-3,8,10-11"
    assert host.ranges({5}) == "5"


def test_a_virtual_server_is_known_by_family_model_and_features(tmp_path):
    root = grow(tmp_path, "x86-server")
    found = host.hardware(root)
    assert found["cpu_id"] == "GenuineIntel-6-143-8"
    assert found["cpu_features"] == ["sse4_2", "avx", "avx2", "avx512f", "amx_int8"]
    assert found["virtual"] is True
    assert host.state(root)["clock_mhz"] == 2100.5
    assert host.state(root)["throttled"] == {"now": [], "since_boot": [], "events": {"thermal": 7}}


def test_what_cannot_be_known_is_none_and_never_invented(tmp_path):
    state, hardware = host.state(tmp_path), host.hardware(tmp_path)
    assert set(state.values()) == {None}
    unknown = ("board", "cpu", "cpu_id", "memory_bytes", "virtual")
    assert {hardware[name] for name in unknown} == {None}
    assert hardware["cpu_features"] == []


def test_every_device_describes_hardware_and_state_alike():
    assert devices.names() == ["fake", "host", "jetson", "nvidia", "raspberry-pi"]
    loaded = [devices.load(name) for name in devices.names()]
    assert [device.name for device in loaded] == devices.names()
    assert len({tuple(device.hardware()) for device in loaded}) == 1
    assert len({tuple(device.state()) for device in loaded}) == 1


SHIPPED = (
    *("board", "clock_mhz", "clocks_locked", "cores", "cpu", "cpu_features", "cpu_id", "cpu_quota"),
    *("cpus", "device"),
    *("emulated", "engine", "engine_version", "fingerprint", "governor", "gpu", "gpu_clock_mhz"),
    *("gpu_driver", "kernel"),
    *("load_average", "machine", "memory_bytes", "memory_free_bytes", "numpy", "os"),
    *("power_mode", "python", "temperature_c", "tf32", "throttled", "virtual"),
)


@pytest.mark.parametrize("name", ["host.ort-cpu.fp32.b1.t1", "fake.fake.fp32.b1.t1"])
def test_an_environment_holds_what_may_be_shipped_and_no_host_or_user(name):
    facts = environment.describe(target_from_name(name))
    assert tuple(sorted(facts)) == SHIPPED
    assert facts["device"] == name.split(".")[0]
    assert facts["engine_version"]


def test_the_fingerprint_holds_what_must_not_change_and_nothing_else():
    facts = environment.describe(Target("fake", "fake"))
    told = facts["fingerprint"]
    assert environment.fingerprint({**facts, "load_average": [9, 9, 9], "kernel": "x"}) == told
    assert environment.fingerprint({**facts, "memory_bytes": (1 << 30) - 5000}) == told
    assert environment.fingerprint({**facts, "power_mode": "2 MAXN"}) != told
    for change in ({"engine_version": "2"}, {"cpu_features": ["avx"]}, {"memory_bytes": 4 << 30}):
        assert environment.fingerprint({**facts, **change}) != told


def test_numbers_of_a_gpu_in_tf32_are_not_those_in_fp32(monkeypatch):
    real, facts = environment.runtimes.load, {}
    there = lambda name: SimpleNamespace(version=lambda: "1", ENGINE=real(name).ENGINE)  # noqa: E731
    monkeypatch.setattr(environment.runtimes, "load", there)
    for name in (
        "host.tensorrt.fp32.b1.t1",
        "host.ort-cuda.fp32.b1.t1",
        "host.tensorrt.fp16.b1.t1",
    ):
        found = environment.describe(target_from_name(name))
        facts[name] = found["tf32"]
        assert environment.fingerprint({**found, "tf32": not found["tf32"]}) != found["fingerprint"]
    assert list(facts.values()) == [False, False, True]
    assert environment.describe(Target("host", "ort-cpu"))["tf32"] is None


def test_a_device_of_its_own_name_is_probed_as_the_hardware_it_is(tmp_path):
    facts = environment.describe(Target("desk", "fake", hardware="raspberry-pi"))
    assert facts["device"] == "desk"
    assert facts["power_mode"] is None
    with pytest.raises(ConfigError, match="unknown device 'raspbery-pi'; did you mean"):
        environment.describe(Target("desk", "fake", hardware="raspbery-pi"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        environment.describe(Target("desk", "fake", hardware="nolab.boards:BOARD7"))
    with pytest.raises(ConfigError, match=r"is no profilers\.devices\.Device"):
        environment.describe(Target("desk", "fake", hardware="os:system"))
    own = environment.describe(Target("desk", "fake", hardware="hwnas.fakes.devices.fake:DEVICE"))
    assert own["board"] == "modelled"


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown device 'hosst'; did you mean 'host'"):
        environment.describe(Target("hosst", "fake"))


def test_the_system_is_called_as_it_calls_itself(tmp_path):
    path = tmp_path / "os-release"
    path.write_text('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    assert environment.system_release(path) == "Debian GNU/Linux 12 (bookworm)"
    assert environment.system_release(tmp_path / "missing") is None


def test_without_a_meter_energy_is_unknown_and_not_zero():
    assert "none" in meters.names()
    with none.open(Target("fake", "fake")) as meter:
        reading = meter.window(0.0, 1.0)
    assert reading.energy_mj is None
    assert not reading.complete
