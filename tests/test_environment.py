"""What numbers were taken on, read from recorded /proc and /sys trees."""

import json

import pytest

from profilers import devices, environment, meters
from profilers.devices import host
from profilers.errors import ConfigError
from profilers.meters import none
from profilers.schema import Target, target_from_name

RASPBERRY = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 asimddp asimdhp\n"
    "CPU implementer\t: 0x41\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"
    "\nprocessor\t: 1\n\nSerial\t\t: 10000000abcdef01\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/meminfo": "MemTotal:        8255648 kB\nMemFree: 1 kB\nMemAvailable:    7000000 kB\n",
    "proc/loadavg": "0.10 0.20 0.30 1/100 4242\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51200\n",
    "sys/class/thermal/thermal_zone1/type": "nvme\n",
    "sys/class/thermal/thermal_zone1/temp": "80000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}
SERVER = {
    "proc/cpuinfo": "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
    "model name\t: Intel(R) Xeon(R)\nstepping\t: 8\ncpu MHz\t\t: 2100.5\n"
    "flags\t\t: fpu sse4_2 avx avx2 avx512f hypervisor amx_int8\n",
    "proc/meminfo": "MemTotal: 4194304 kB\nMemAvailable: 4000000 kB\n",
    "sys/fs/cgroup/memory.max": "1073741824\n",
    "sys/fs/cgroup/memory.current": "1073000000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
}


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_raspberry_is_recognised_without_its_serial_number(tmp_path):
    found = host.hardware(tree(tmp_path, RASPBERRY))
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["cpu"] == "Cortex-A76"
    assert found["cpu_id"] == "0x41-0x4-0xd0b-1"
    assert found["cpu_features"] == ["asimd", "asimdhp", "asimddp"]
    assert found["memory_bytes"] == 8255648 * 1024
    assert found["virtual"] is False
    assert "abcdef01" not in json.dumps(found)


def test_the_state_of_a_raspberry_has_governor_clock_temperature_and_throttling(tmp_path):
    assert host.state(tree(tmp_path, RASPBERRY)) == {
        "governor": "ondemand",
        "clock_mhz": 2400.0,
        "temperature_c": 51.2,
        "throttled": {"firmware": "50005"},
        "load_average": [0.1, 0.2, 0.3],
        "memory_free_bytes": 7000000 * 1024,
    }


def test_a_container_has_the_memory_of_its_limit(tmp_path):
    root = tree(tmp_path, SERVER)
    assert host.hardware(root)["memory_bytes"] == 1 << 30
    assert host.state(root)["memory_free_bytes"] == (1 << 30) - 1073000000
    (root / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert host.hardware(root)["memory_bytes"] == 4 << 30


def test_a_virtual_server_is_known_by_family_model_and_features(tmp_path):
    root = tree(tmp_path, SERVER)
    found = host.hardware(root)
    assert found["cpu_id"] == "GenuineIntel-6-143-8"
    assert found["cpu_features"] == ["sse4_2", "avx", "avx2", "avx512f", "amx_int8"]
    assert found["virtual"] is True
    assert host.state(root)["clock_mhz"] == 2100.5
    assert host.state(root)["throttled"] == {"events": 7}


def test_what_cannot_be_known_is_none_and_never_invented(tmp_path):
    state, hardware = host.state(tmp_path), host.hardware(tmp_path)
    assert set(state.values()) == {None}
    unknown = ("board", "cpu", "cpu_id", "memory_bytes", "virtual")
    assert {hardware[name] for name in unknown} == {None}
    assert hardware["cpu_features"] == []


def test_every_device_describes_hardware_and_state_alike():
    assert devices.names() == ["fake", "host"]
    loaded = [devices.load(name) for name in devices.names()]
    assert [device.name for device in loaded] == devices.names()
    assert len({tuple(device.hardware()) for device in loaded}) == 1
    assert len({tuple(device.state()) for device in loaded}) == 1


SHIPPED = (
    *("board", "clock_mhz", "cores", "cpu", "cpu_features", "cpu_id", "device", "engine"),
    *("engine_version", "fingerprint", "governor", "kernel", "load_average", "machine"),
    *("memory_bytes", "memory_free_bytes", "numpy", "os", "python", "temperature_c", "throttled"),
    "virtual",
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
    for change in ({"engine_version": "2"}, {"cpu_features": ["avx"]}, {"memory_bytes": 4 << 30}):
        assert environment.fingerprint({**facts, **change}) != told


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown device 'hosst'; did you mean 'host'"):
        environment.describe(Target("hosst", "fake"))


def test_the_system_is_called_as_it_calls_itself(tmp_path):
    path = tmp_path / "os-release"
    path.write_text('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    assert environment.system_release(path) == "Debian GNU/Linux 12 (bookworm)"
    assert environment.system_release(tmp_path / "missing") is None


def test_without_a_meter_energy_is_unknown_and_not_zero():
    assert meters.names() == ["none"]
    with none.open(Target("fake", "fake")) as meter:
        reading = meter.window(0.0, 1.0)
    assert reading.energy_mj is None
    assert not reading.complete
