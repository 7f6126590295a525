"""Boards: recognised by what they say, told what they lack, written as target files."""

import json
import os
import stat
import sys

import pytest
from board_trees import grow
from emulated import need_emulated_board
from fake_boards import ORT, FakeBoard
from ssh_server import need_sshd, server

from hwnas.boards import advice, catalog, script, target_files
from hwnas.boards.ask import ask
from hwnas.cli import main
from hwnas.measuring import openssh, remote
from hwnas.settings.targets import load_target
from profilers import runtimes, survey
from profilers.errors import DeviceError
from profilers.runtimes import ort_cuda

WAY = openssh.Ssh("pi@board")
TRT = {"version": "10.3.0", "providers": []}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project to work in."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Makes a fake board that answers instead of ssh."""

    def make(name, **changes):
        fake = FakeBoard(tmp_path / "tree", name, **changes)
        monkeypatch.setattr(openssh, "run_remote", fake)
        return fake

    return make


def run(capsys, *words):
    """Exit code, output and error output of `hwnas devices`."""
    with pytest.raises(SystemExit) as ended:
        main(["devices", *words])
    return ended.value.code, *capsys.readouterr()


def fixes(found):
    return {finding.what: finding.fix for finding in found if not finding.ok}


# ---- recognised --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", "pi5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "pi5"),
        ("Raspberry Pi 500 Rev 1.0", "pi5"),
        ("Raspberry Pi 4 Model B Rev 1.4", "pi4"),
        ("Raspberry Pi 400 Rev 1.0", "pi4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "pi4"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "pi3"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "pi3"),
        ("Raspberry Pi Model B Plus Rev 1.2", "pi"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "agx-orin"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "orin-nx"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "orin-nano"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "orin-nano"),
        ("Jetson-AGX", "agx-xavier"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "xavier-nx"),
        ("NVIDIA Jetson TX2 Developer Kit", "tx2"),
        ("NVIDIA Jetson Nano Developer Kit", "jetson-nano"),
        ("Radxa ROCK 5B", "arm64"),
        (None, "arm64"),
    ],
)
def test_boards_are_recognised_by_what_they_call_themselves(model, name):
    assert catalog.recognise(model, "aarch64").name == name


def test_other_linux_machines_go_by_their_processor():
    assert catalog.recognise(None, "x86_64").name == "x86-64"
    assert catalog.recognise("", "riscv64").name == "riscv64"


@pytest.mark.parametrize(
    ("name", "hardware", "l4t"),
    [
        ("raspberry-pi-5", "raspberry-pi", None),
        ("jetson-orin-nano", "jetson", "36.4.0"),
        ("jetson-xavier-nx", "jetson", "35.4.1"),
        ("jetson-nano", "jetson", "32.7.1"),
        ("x86-server", "host", None),
        ("x86-gpu", "nvidia", None),
    ],
)
def test_the_survey_chooses_the_probes_and_reads_the_release(tmp_path, name, hardware, l4t):
    root = grow(tmp_path, name)
    assert survey.hardware_kind(root) == hardware
    assert survey.l4t(root) == l4t


@pytest.mark.parametrize(
    ("name", "meters"),
    [
        ("jetson-orin-nano", [("hwmon", None, "VDD_IN, VDD_CPU_GPU_CV, VDD_SOC")]),
        ("x86-server", [("rapl", None, "package-0")]),
        ("x86-gpu", [("rapl", None, "package-0"), ("nvml", "no permission", "NVIDIA L4")]),
        ("raspberry-pi-4-throttled", []),
        ("raspberry-pi-5", [("pi5-pmic", "no vcgencmd", "")]),
    ],
)
def test_the_survey_finds_meters_by_their_sensors(tmp_path, monkeypatch, name, meters):
    monkeypatch.setenv("PATH", str(tmp_path))
    root = grow(tmp_path / "tree", name)
    found = survey.meters(root, survey.hardware_kind(root))
    assert [tuple(meter.values()) for meter in found] == meters


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("printf ' VDD_CORE_A current(7)=0.5A\\n VDD_CORE_V volt(15)=0.8V\\n'", None),
        ("echo 'VCHI initialization failed'; exit 255", "no permission"),
        ("exit 0", "no rails"),
    ],
)
def test_the_power_chip_of_a_raspberry_pi_5_is_tried(tmp_path, monkeypatch, output, problem):
    tool = tmp_path / "vcgencmd"
    tool.write_text(f"#!/bin/sh\n{output}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    root = grow(tmp_path / "tree", "raspberry-pi-5")
    assert [meter["problem"] for meter in survey.meters(root, "raspberry-pi")] == [problem]


def test_fast_cores_are_counted_once_each(tmp_path):
    for number, (core, capacity) in enumerate([(0, 400), (1, 400), (2, 1024), (2, 1024)]):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology/core_id").write_text(f"{core}\n")
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
    assert survey.big_cores(tmp_path) == 1
    assert survey.big_cores(tmp_path / "nothing") is None


def test_cores_are_numbered_anew_in_each_cluster(tmp_path):
    """A Rockchip RK3588 under Linux 6.0 or newer: one package, two clusters of fast cores."""
    cores = [(0, core, 530) for core in range(4)] + [(c, n, 1024) for c in (1, 2) for n in (0, 1)]
    for number, (cluster, core, capacity) in enumerate(cores):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}"
        (folder / "topology").mkdir(parents=True)
        for name, value in (("physical_package_id", 0), ("cluster_id", cluster), ("core_id", core)):
            (folder / "topology" / name).write_text(f"{value}\n")
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
    assert survey.big_cores(tmp_path) == 4


# ---- what is missing ---------------------------------------------------------------------------


def test_a_board_that_lacks_nothing_has_nothing_to_fix(board):
    board("jetson-orin-nano", python="3.10.12", engines={"onnxruntime": ORT, "tensorrt": TRT})
    found = advice.findings(ask(WAY))
    assert set(fixes(found)) == {"onnxruntime on the GPU"}  # TensorRT is there
    states = {finding.what: finding.state for finding in found}
    assert states["power mode"] == "0 15W"
    assert states["clocks"] == "governor schedutil, 1510 MHz, clocks locked"
    assert "since boot: 27 × instantaneous-over-current, 1 × under-voltage" in states["throttling"]


@pytest.mark.parametrize(
    ("python", "line"),
    [
        ("3.8.10", "python3 -m pip install --upgrade pip && python3 -m pip install numpy "
         "onnxruntime==1.19.2"),
        ("3.9.2", "onnxruntime==1.19.2"),
        ("3.10.12", "python3 -m pip install numpy onnxruntime==1.23.2"),
        ("3.11.2", "python3 -m pip install numpy onnxruntime"),
        ("3.14.0", "python3 -m pip install numpy onnxruntime"),
    ],
)  # fmt: skip
def test_a_missing_engine_comes_with_the_newest_that_the_python_takes(board, python, line):
    board("raspberry-pi-5", python=python, engines={}, managed=False)
    found = fixes(advice.findings(ask(WAY)))
    assert found["onnxruntime"].endswith(line)
    assert found["numpy"] == found["onnxruntime"]


def test_where_the_system_refuses_pip_an_environment_is_advised(board):
    board("raspberry-pi-5", engines={}, managed=True)
    found = fixes(advice.findings(ask(WAY)))["onnxruntime"]
    assert "python3 -m venv --system-site-packages hwnas-env" in found
    assert "hwnas devices add pi@board --python hwnas-env/bin/python" in found


def test_a_board_without_pip_is_told_how_to_get_it(board):
    board("raspberry-pi-5", engines={}, pip=False)
    assert "apt-get install python3-pip" in fixes(advice.findings(ask(WAY)))["onnxruntime"]


def test_a_jetson_without_tensorrt_gets_the_package_of_its_system(board):
    board("jetson-xavier-nx", python="3.8.10", engines={})
    assert "python3-libnvinfer" in fixes(advice.findings(ask(WAY)))["tensorrt"]
    board("jetson-xavier-nx", python="3.8.10", engines={}).answer["environment"] = True
    assert "--system-site-packages" in fixes(advice.findings(ask(WAY)))["tensorrt"]


def test_a_raspberry_that_is_held_back_is_told_why_and_what_helps(board):
    board("raspberry-pi-4-throttled")
    found = advice.findings(ask(WAY))
    assert fixes(found)["temperature"].startswith("cool it")
    assert "power supply" in fixes(found)["throttling"]
    assert "scaling_governor" in fixes(found)["clocks"]
    state = next(f.state for f in found if f.what == "throttling")
    assert state.startswith("under-voltage, throttled, thermal-cap now")


@pytest.mark.parametrize(
    ("changes", "what", "words"),
    [
        ({"bits": 32}, "python", "install the 64-bit system"),
        ({"disk_problem": "is on a read-only file system"}, "cache folder", "--cache"),
        ({"disk_problem": "may not be written"}, "cache folder", "--cache"),
        ({"disk_free_bytes": 1000}, "disk", "free 1.0 GiB"),
        ({"time_s": 86_400.0}, "clock", "timedatectl set-ntp true"),
        ({"memory_free_bytes": 1000}, "memory", "stop other programs"),
        ({"meters": [{"name": "rapl", "problem": "no permission", "detail": "x"}]},
         "meter rapl", "sudo chmod a+r"),
        ({"meters": [{"name": "pi5-pmic", "problem": "no permission", "detail": "x"}]},
         "meter pi5-pmic", "usermod -aG video"),
        ({"meters": []}, "meters", "external meter"),
        ({"engines": {"onnxruntime": {**ORT, "version": "1.16.3"}}}, "onnxruntime",
         "pip install numpy onnxruntime"),
        ({"engines": {"onnxruntime": {**ORT, "version": None, "problem": "ImportError: libx"}}},
         "onnxruntime", "install it again"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(board, changes, what, words):
    board("raspberry-pi-5", managed=False, **changes)
    assert words in fixes(advice.findings(ask(WAY)))[what]


def test_a_machine_with_a_graphics_card_is_told_of_the_engines_for_it(board):
    meters = [{"name": "nvml", "problem": None, "detail": "NVIDIA L4"}]
    board("x86-gpu", meters=meters)
    found = fixes(advice.findings(ask(WAY)))
    assert "tensorrt-cu13" in found["tensorrt"]
    assert "onnxruntime-gpu" in found["onnxruntime on the GPU"]
    with_cuda = {**ORT, "providers": [ort_cuda.PROVIDER, "CPUExecutionProvider"]}
    board("x86-gpu", meters=meters, engines={"onnxruntime": with_cuda})
    assert "onnxruntime on the GPU" not in fixes(advice.findings(ask(WAY)))
    found = target_files.targets_of(ask(WAY), "x")
    assert [(target.runtime, target.hardware, target.meter) for target in found] == [
        ("ort-cpu", "host", "none"),
        ("ort-cuda", "nvidia", "nvml"),
    ]


def test_a_cache_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    assert survey.disk(str(tmp_path / "file" / "below"))["disk_problem"] == "is no folder"
    assert survey.disk(str(tmp_path / "new" / "below"))["disk_problem"] is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert survey.disk(str(tmp_path / "new"))["disk_problem"] == "may not be written"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (139, "ended by signal 11 (SIGSEGV)"),
        (
            132,
            "ended by signal 4 (SIGILL): it wants instructions that this processor lacks; install",
        ),
    ],
)
def test_an_engine_that_ends_its_process_does_not_end_the_survey(board, monkeypatch, status, told):
    fake = board("jetson-orin-nano", engines={"onnxruntime": ORT, "tensorrt": TRT})

    def crash(address, argv, *rest):
        done = fake(address, argv, *rest)
        done.returncode = status if argv[-2:] == ["engine", "tensorrt"] else 0
        return done

    monkeypatch.setattr(openssh, "run_remote", crash)
    found = ask(WAY)
    assert told in found.engines["tensorrt"]["problem"]
    assert advice.usable(found, catalog.modules()["onnxruntime"])


# ---- refused -----------------------------------------------------------------------------------


def test_a_jetson_nano_is_recognised_and_refused_because_its_python_is_too_old(board):
    board("jetson-nano", python="3.6.9")
    with pytest.raises(
        DeviceError, match=r"Jetson Nano.*Python 3.6.9 is too old.*no newer JetPack"
    ):
        ask(WAY)


def test_a_xavier_on_jetpack_4_is_told_to_update(board):
    fake = board("jetson-xavier-nx", python="3.6.9")
    fake.look["l4t"] = "# R32 (release), REVISION: 7.1, GCID: 1, BOARD: t186ref"
    with pytest.raises(DeviceError, match="install JetPack 5 or newer"):
        ask(WAY)


def test_an_old_python_beside_a_newer_one_is_refused_with_the_newer_one(board):
    board("raspberry-pi-3", python="3.7.3").look["other"] = "python3.11"
    with pytest.raises(DeviceError, match=r"too old.*add --python python3.11"):
        ask(WAY)


def test_a_board_without_python_is_told_what_to_install(board):
    board("raspberry-pi-5").look["python"] = "sh: 1: python3: not found"
    with pytest.raises(DeviceError, match=r"no python3 that runs.*apt-get install python3"):
        ask(WAY)


def test_a_32_bit_system_is_refused_with_what_to_install(board):
    board("raspberry-pi-3").look["machine"] = "armv7l"
    with pytest.raises(DeviceError, match=r"armv7l.*install a 64-bit system"):
        ask(WAY)


# ---- target files ------------------------------------------------------------------------------


def test_a_target_file_is_written_for_each_engine_and_can_be_loaded(
    board, project, capsys, monkeypatch
):
    monkeypatch.setattr(runtimes, "names", lambda: ["fake", "ort-cpu", "tensorrt"])
    board("jetson-orin-nano", engines={"onnxruntime": ORT, "tensorrt": TRT})
    code, out, _ = run(capsys, "add", "me@orin", "--json")
    assert code == 0
    names = ["orin-nano.ort-cpu.fp32.b1.t4", "orin-nano.tensorrt.fp32.b1.t1"]
    assert [entry["target"] for entry in json.loads(out)["targets"]] == names
    for name in names:
        target = load_target(name, project)
        assert (target.device, target.hardware) == ("orin-nano", "jetson")
        assert openssh.of_target(target) == openssh.Ssh("me@orin")


def test_the_way_to_a_board_is_kept_in_its_target_file(board, project, capsys):
    board("raspberry-pi-5")
    options = ["--python", "env/bin/python", "--ssh-config", "cfg", "--cache", "/tmp/x"]
    assert run(capsys, "add", "pi@raspberrypi.local", *options)[0] == 0
    target = load_target("pi5.ort-cpu.fp32.b1.t4", project)
    assert openssh.of_target(target) == openssh.Ssh(
        "pi@raspberrypi.local", str(project / "cfg"), "env/bin/python", "/tmp/x"
    )


def test_a_file_of_the_user_is_kept_and_what_differs_is_said(board, project, capsys):
    board("raspberry-pi-5")
    assert run(capsys, "add", "pi@a", "--name", "desk")[0] == 0
    path = project / "targets" / "desk.ort-cpu.fp32.b1.t4.yaml"
    assert "unchanged" in run(capsys, "add", "pi@a", "--name", "desk")[1]
    own = path.read_text().replace("meter: none", "meter: csv") + "# mine\n"
    path.write_text(own)
    code, out, err = run(capsys, "add", "pi@a", "--name", "desk")
    assert code == 2
    assert "meter: 'csv' there, 'none' now" in out
    assert "was kept; --force replaces it" in err
    assert path.read_text() == own
    code, out, _ = run(capsys, "add", "pi@a", "--name", "desk", "--force")
    assert code == 0
    assert "replaced" in out
    assert "meter: none" in path.read_text()


def test_a_broken_file_of_the_user_is_kept_too(board, project, capsys):
    board("raspberry-pi-5")
    path = project / "targets" / "pi5.ort-cpu.fp32.b1.t4.yaml"
    path.parent.mkdir()
    path.write_text("device: [\n")
    code, out, _ = run(capsys, "add", "pi@a")
    assert code == 2
    assert "cannot be read as a target" in out
    assert path.read_text() == "device: [\n"


def test_two_boards_of_a_kind_need_two_names(board, project, capsys):
    board("raspberry-pi-5")
    assert run(capsys, "add", "pi@a")[0] == 0
    code, _, err = run(capsys, "add", "pi@b")
    assert code == 2
    assert "give this one another name with --name" in err
    assert run(capsys, "add", "pi@b", "--name", "pi5-b")[0] == 0
    code, out, _ = run(capsys, "list", "--json")
    assert [(row["device"], row["connection"]) for row in json.loads(out)] == [
        ("pi5", "pi@a"),
        ("pi5-b", "pi@b"),
    ]


def test_settings_of_the_user_are_never_rewritten(board, project, capsys):
    (project / "hwnas.yaml").write_text("run: runs/x  # mine\n")
    board("raspberry-pi-5")
    run(capsys, "add", "pi@a")
    assert (project / "hwnas.yaml").read_text() == "run: runs/x  # mine\n"
    assert {path.name for path in project.iterdir()} == {"hwnas.yaml", "targets"}


def test_a_meter_that_would_work_is_put_into_the_target(board, project, capsys):
    meters = [{"name": "hwmon", "problem": None, "detail": "VDD_IN"}]
    board("jetson-orin-nano", meters=meters)
    run(capsys, "add", "me@orin")
    assert load_target("orin-nano.ort-cpu.fp32.b1.t4", project).meter == "hwmon"


def test_without_an_engine_no_file_is_written_and_the_exit_code_is_4(board, project, capsys):
    board("raspberry-pi-5", engines={})
    code, out, err = run(capsys, "add", "pi@a")
    assert code == 4
    assert "missing  onnxruntime: not installed" in out
    assert err.startswith("hwnas: pi@a: numpy: not installed; ")
    assert not (project / "targets").exists()


def test_a_device_that_is_shown_is_asked_again(board, project, capsys):
    board("raspberry-pi-5")
    run(capsys, "add", "pi@a")
    code, out, _ = run(capsys, "show", "pi5")
    assert code == 0
    assert "works    pi5.ort-cpu.fp32.b1.t4" in out
    board("raspberry-pi-5", engines={})
    code, out, _ = run(capsys, "show", "pi5")
    assert code == 4
    assert "missing  pi5.ort-cpu.fp32.b1.t4" in out
    code, _, err = run(capsys, "show", "pi55")
    assert code == 2
    assert "did you mean 'pi5'" in err


def test_a_table_from_elsewhere_has_no_device_to_ask(project, capsys):
    (project / "targets").mkdir()
    text = "device: note10\nruntime: tflite\nconnection: {kind: none}\n"
    (project / "targets" / "note10.tflite.fp32.b1.t1.yaml").write_text(text)
    code, _, err = run(capsys, "show", "note10")
    assert code == 2
    assert "there is no device to ask" in err


def test_without_target_files_the_list_says_what_to_do(project, capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert "hwnas devices add user@host" in out


# ---- this machine, and a real server -----------------------------------------------------------


def test_this_machine_is_asked_by_the_same_program(project, capsys):
    code, out, _ = run(capsys, "add", "local", "--threads", "1", "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["survey"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {row["state"] for row in answer["targets"]} == {"written"}
    assert load_target("host.ort-cpu.fp32.b1.t1", project).connection == {"kind": "local"}


def test_the_program_is_one_ascii_text_that_old_terminals_cannot_break():
    assert script.program().isascii()
    assert script.SHELL.isascii()


def test_a_board_behind_a_real_server_becomes_a_target_that_answers(project, tmp_path, capsys):
    need_sshd()
    with server(tmp_path / "ssh") as config:
        words = ["board-a", "--ssh-config", str(config), "--python", sys.executable]
        code, out, err = run(capsys, "add", *words, "--name", "desk", "--threads", "1", "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["engines"]["onnxruntime"]["problem"] is None
        target = load_target("desk.ort-cpu.fp32.b1.t1", project)
        facts = remote.probe(target)
    assert facts["device"] == "desk"
    assert facts["cpu"] == json.loads(out)["survey"]["cpu"]


def test_ssh_says_why_a_server_is_not_trusted_and_we_say_what_to_do(project, tmp_path, capsys):
    need_sshd()
    with server(tmp_path / "ssh") as config:
        known = tmp_path / "ssh" / "known_hosts"
        true_key = known.read_text()
        words = ["add", "board-a", "--ssh-config", str(config)]
        known.write_text("")
        code, _, err = run(capsys, *words)
        assert code == 4
        assert "Host key verification failed" in err
        assert "connect once by hand" in err
        kind = true_key.split()[1]
        other = "AAAAC3NzaC1lZDI1NTE5AAAAIE" + "A" * 42
        known.write_text(f"{true_key.split()[0]} {kind} {other}\n")
        code, _, err = run(capsys, *words)
        assert code == 4
        assert "ssh-keygen -R" in err
        known.write_text(true_key)
        (tmp_path / "ssh" / "user.pub").write_text("")
        code, _, err = run(capsys, *words)
        assert code == 4
        assert "ssh-copy-id board-a" in err
    assert not (project / "targets").exists()


def test_words_for_a_board_never_reach_a_shell_unquoted(project, tmp_path, capsys):
    need_sshd()
    mark = tmp_path / "owned"
    with server(tmp_path / "ssh") as config:
        for python in (
            f"python3; touch {mark}",
            f"$(touch {mark})",
            f"`touch {mark}`",
            f"a'b;touch {mark}",
        ):
            words = ["add", "board-a", "--ssh-config", str(config), "--python", python]
            code, _, err = run(capsys, *words)
            assert code == 4
            assert "that runs" in err
            assert not mark.exists()


def test_the_name_of_another_board_is_not_taken_by_one_that_has_no_engine(board, project, capsys):
    board("raspberry-pi-5")
    run(capsys, "add", "pi@a")
    board("raspberry-pi-5", engines={})
    assert run(capsys, "add", "pi@b")[0] == 4


def test_a_file_that_is_not_a_target_is_left_out_of_the_list(project):
    (project / "targets").mkdir()
    (project / "targets" / "note.yaml").write_text("- 1\n")
    assert target_files.known_devices(project) == {}


@pytest.mark.slow
def test_an_emulated_arm_board_becomes_a_target_and_is_said_to_be_emulated(
    project, tmp_path, capsys
):
    need_sshd()
    python = need_emulated_board()
    with server(tmp_path / "ssh") as config:
        words = ["board-a", "--ssh-config", str(config), "--python", str(python), "--json"]
        code, out, err = run(capsys, "add", *words)
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["device"] == "arm64"
    assert answer["survey"]["emulated"]
    assert answer["survey"]["machine"] == "aarch64"
    assert "onnxruntime" in answer["engines"]
    found = {finding["what"]: finding for finding in answer["findings"]}
    assert found["processor"]["fix"].endswith("--accept emulated")
    assert load_target(answer["targets"][0]["target"], project).device == "arm64"


@pytest.mark.parametrize("command", ["show", "clean"])
def test_where_no_device_was_added_the_command_that_adds_one_is_said(project, capsys, command):
    code, _, err = run(capsys, command, "pi5")
    assert code == 2
    assert "describes no device yet; `hwnas devices add` does" in err
