"""Targets by name."""

import pytest

from hwnas.measuring import remote
from hwnas.settings.errors import ConfigError
from hwnas.settings.targets import load_target


def write(folder, name, text):
    (folder / "targets").mkdir(exist_ok=True)
    (folder / "targets" / f"{name}.yaml").write_text(text)


def test_a_bare_name_is_this_machine_or_the_modelled_one(tmp_path):
    for name in ("host.ort-cpu.fp32.b1.t2", "fake.fake.fp32.b4.t1"):
        assert load_target(name, tmp_path).name == name
    with pytest.raises(ConfigError, match="device 'note10' is not this machine"):
        load_target("note10.ort-cpu.fp32.b1.t1", tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'ort-cpu'"):
        load_target("host.ortcpu.fp32.b1.t1", tmp_path)


def test_a_file_describes_the_target_it_is_named_after(tmp_path):
    name = "board.ort-cpu.fp32.b1.t1"
    write(tmp_path, name, "device: board\nruntime: ort-cpu\n")
    assert load_target(name, tmp_path).device == "board"
    write(tmp_path, "board", "device: board\nruntime: ort-cpu\n")
    with pytest.raises(ConfigError, match=f"describes the target {name}"):
        load_target("board", tmp_path)


def test_a_target_that_is_only_a_table_may_have_any_runtime_and_cannot_be_measured(tmp_path):
    name = "note10.tflite.fp32.b1.t1"
    text = "device: note10\nruntime: tflite\n"
    write(tmp_path, name, text)
    with pytest.raises(ConfigError, match="unknown runtime 'tflite'"):
        load_target(name, tmp_path)
    write(tmp_path, name, text + "connection: {kind: none}\n")
    found = load_target(name, tmp_path)
    assert found.name == name
    with pytest.raises(ConfigError, match="has no device, its table came from elsewhere"):
        remote.probe(found)


def test_a_precision_that_an_engine_lacks_is_refused(tmp_path):
    name = "host.ort-cpu.fp16.b1.t1"
    with pytest.raises(ConfigError, match="precision fp16 is not built yet; use fp32 or int8"):
        load_target(name, tmp_path)
    write(tmp_path, name, "device: host\nruntime: ort-cpu\nprecision: fp16\n")
    with pytest.raises(ConfigError, match="precision fp16 is not built yet; use fp32 or int8"):
        load_target(name, tmp_path)


def test_spinning_is_part_of_a_name_and_refused_where_an_engine_has_no_such_threads(tmp_path):
    name = "host.ort-cpu.fp32.b1.t2.spin"
    assert load_target(name, tmp_path).spinning
    write(tmp_path, name, "device: host\nruntime: ort-cpu\nthreads: 2\nspinning: true\n")
    assert load_target(name, tmp_path).spinning
    with pytest.raises(ConfigError, match="2 threads or more"):
        load_target("host.ort-cpu.fp32.b1.t1.spin", tmp_path)
    with pytest.raises(ConfigError, match="leave spinning out"):
        load_target("host.openvino.fp32.b1.t2.spin", tmp_path)


def test_tensorrt_builds_every_precision_of_the_same_graphs_and_has_one_thread(tmp_path):
    for precision in ("fp32", "fp16", "int8"):
        name = f"host.tensorrt.{precision}.b1.t1"
        assert load_target(name, tmp_path).precision == precision
    with pytest.raises(ConfigError, match="fp16 is not built yet; use fp32"):
        load_target("host.ort-cuda.fp16.b1.t1", tmp_path)
    with pytest.raises(ConfigError, match="one thread; use t1"):
        load_target("host.tensorrt.fp32.b1.t4", tmp_path)


def test_a_broken_file_is_named_once(tmp_path):
    write(tmp_path, "board", "device: [\n")
    with pytest.raises(ConfigError, match="is not YAML") as refused:
        load_target("board", tmp_path)
    assert str(refused.value).count("board.yaml") == 1
