"""Time series: files of the UCR and UEA archives, arrays, and how they become inputs."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from test_package import MANIFEST

from hwnas.images.sources import fingerprint_source
from hwnas.images.tensors import SERIES, augment, load, prepare
from hwnas.networks import spaces
from hwnas.run import package
from hwnas.run.context import space_for
from hwnas.settings.config import DataConfig, SpaceConfig
from profilers.errors import ConfigError

HEADER = """#A comment, with an accent: caf\u00e9
@problemName Gestures
@timeStamps false
@univariate false
@dimensions 2
@equalLength true
@seriesLength 3
@classLabel true wave circle
@data
"""
WAVE, CIRCLE = "1,2,3:-1,0,1e2:wave\n", "4,5,6:0,0,0.5:circle\n"


def noise(n=60, channels=3, steps=40, seed=0):
    """Random walks, (n, channels, steps) float64, of channels of different size."""
    rng = np.random.default_rng(seed)
    walks = rng.normal(size=(n, channels, steps)).cumsum(axis=2)
    return 5 + walks * 10.0 ** np.arange(channels)[None, :, None]


def as_ts(series, labels, classes):
    """The text of a .ts file."""
    rows = [
        ":".join(",".join(map(repr, channel)) for channel in one.tolist()) + f":{classes[label]}\n"
        for one, label in zip(series, labels, strict=True)
    ]
    return f"@timestamps false\n@classLabel true {' '.join(classes)}\n@data\n" + "".join(rows)


def archive(folder, name="Walks", n=60, test=20):
    """A data set of three classes in an archive's two files; its series and labels."""
    series, labels, classes = noise(n + test), np.arange(n + test) % 3, ("up", "down", "still")
    (folder / f"{name}_TRAIN.ts").write_text(as_ts(series[:n], labels[:n], classes))
    (folder / f"{name}_TEST.ts").write_text(as_ts(series[n:], labels[n:], classes))
    return series, labels


def of(path, **settings):
    return DataConfig(kind="series", root=str(path), **settings)


def refusal(config):
    with pytest.raises(ConfigError) as caught:
        load(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


_ARRAYS: dict[str, np.ndarray] = {}


def factory():
    return _ARRAYS


def load_arrays(arrays, **settings):
    _ARRAYS.clear()
    _ARRAYS.update(arrays)
    return load(DataConfig(kind="factory", root=f"{__name__}:factory", **settings))


def arrays(n=60, **shape):
    return {"train_series": noise(n, **shape), "train_labels": np.arange(n) % 3}


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "Walks_TRAIN.ts"])
def test_an_archives_two_files_are_the_training_and_the_test_set(tmp_path, given):
    series, labels = archive(tmp_path)
    data = load(of(tmp_path / given))
    assert (data.in_channels, data.size, data.preparation) == (3, 40, SERIES)
    assert data.class_names == ("up", "down", "still")
    np.testing.assert_array_equal(data.test.images, series[60:].astype(np.float32))
    np.testing.assert_array_equal(data.test.labels, labels[60:])
    assert len(data.train) + len(data.val) == 60


def test_a_single_file_splits_its_own_test_set_off(tmp_path):
    series, labels = noise(60), np.arange(60) % 3
    (tmp_path / "all.ts").write_text(as_ts(series, labels, ("a", "b", "c")))
    data = load(of(tmp_path))
    assert [len(part) for part in (data.train, data.val, data.test)] == [42, 6, 12]


def test_labels_of_ts_files_are_in_the_order_of_their_header(tmp_path):
    (tmp_path / "x.ts").write_text(HEADER + (CIRCLE + WAVE) * 5)
    data = load(of(tmp_path))
    assert data.class_names == ("wave", "circle")
    whole = torch.cat([part.images[part.labels == 0] for part in (data.train, data.val, data.test)])
    assert whole.tolist() == [[[1, 2, 3], [-1, 0, 100]]] * 5


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("x_TRAIN.tsv", "{}\t{}\t{}\t{}\n"),
        ("x_TRAIN.txt", "  {}.0000000e+00   {}  {}  {}\n"),
        ("x_TRAIN.txt", "{},{},{},{}\n"),
    ],
)
def test_tables_hold_a_class_then_values_and_classes_are_ordered_as_numbers(tmp_path, name, row):
    labels = [10, 2, -1] * 5
    (tmp_path / name).write_text("".join(row.format(n, n + 0.5, 1, 2) for n in labels))
    data = load(of(tmp_path))
    assert data.class_names == ("-1", "2", "10")
    for part in (data.train, data.val, data.test):
        first = part.images[:, 0, 0] - 0.5
        assert first.tolist() == [int(data.class_names[label]) for label in part.labels]


def test_series_of_several_lengths_are_refused_and_cut_or_padded_where_that_is_asked_for(tmp_path):
    short, long = "1,2:3,4:wave\n", "1,2,3,4,5:6,7,8,9,10:circle\n"
    (tmp_path / "x.ts").write_text(HEADER + (WAVE + short + long) * 4)
    assert "x.ts, line 11: 2 steps, the first series has 3; set data.series_length" in refusal(
        of(tmp_path)
    )
    data = load(of(tmp_path, series_length=4))
    whole = torch.cat([part.images for part in (data.train, data.val, data.test)])
    found = {tuple(map(tuple, one)) for one in whole.int().tolist()}
    assert found == {
        ((1, 2, 3, 3), (-1, 0, 100, 100)),
        ((1, 2, 2, 2), (3, 4, 4, 4)),
        ((1, 2, 3, 4), (6, 7, 8, 9)),
    }


def test_nan_behind_a_shorter_series_of_a_table_is_its_end_and_inside_it_a_missing_value(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("1\t1\t2\t3\n" * 5 + "2\t4\t5\tNaN\n" * 5)
    assert "line 6: 2 steps, the first series has 3" in refusal(of(tmp_path))
    data = load(of(tmp_path, series_length=3))
    assert [4, 5, 5] in data.train.images[:, 0].int().tolist()
    for missing in ("NaN", "", " "):  # pandas writes nothing for a missing value
        path.write_text(f"1\t1\t2\t3\n2\t4\t{missing}\t6\n")
        assert "x.tsv, line 2: channel 1, step 2 is missing or not finite" in refusal(of(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.ts has no line @data; it is truncated or no .ts file"),
        (HEADER, "x.ts holds no series; it is empty or truncated"),
        ("1,2,3:wave\n", "x.ts, line 1: '1,2,3:wave' stands before @data; it is no .ts file"),
        ("\0\1\2" * 99, "stands before @data; it is no .ts file"),
        ("@timestamps true\n@data\n", "x.ts holds time stamps; write evenly spaced values alone"),
        ("@data\n1:a\n", "x.ts lists no classes; expected @classLabel true CLASS CLASS ..."),
        ("@targetlabel true\n@classLabel false\n@data\n1:2\n", "x.ts lists no classes; expected"),
        (HEADER + WAVE + "1,2,3:4,5,6:wink\n", "line 11: class 'wink' is none of wave, circle"),
        (HEADER + "1,2,3\n", "line 10: '1,2,3' has no colon before its class"),
        (HEADER + "1,2,3:1,2:wave\n", "line 10: its channels have 3, 2 values, expected as many"),
        (HEADER + WAVE + "1,2,3:wave\n", "line 11: 1 channels, the first series has 2"),
        (
            HEADER + "1,2,3:1,?,3:wave\n",
            "line 10: channel 2, step 2 is missing or not finite; fill",
        ),
        (HEADER + "1,2,inf:1,2,3:wave\n", "line 10: channel 1, step 3 is missing or not finite"),
        (HEADER + "1,2,3:1,two,3:wave\n", "line 10: 'two' is not a number"),
        (HEADER + ":1,2,3:wave\n", "line 10: '' is not a number"),
        (HEADER + f"1,2,3:1,{'x' * 99},3:wave\n", f"line 10: '{'x' * 20}...' is not a number"),
        (HEADER + "1,2,3:1,2,1e39:wave\n", "train: series 0 holds a value that is missing or not"),
        (HEADER + WAVE * 9, "class 'circle' has no training image"),
        (HEADER.replace(" circle", "") + WAVE * 9, "the only class is 'wave'"),
    ],
)
def test_a_file_that_is_damaged_or_something_else_is_named_with_what_is_wrong(
    tmp_path, text, message
):
    (tmp_path / "x.ts").write_text(text)
    found = refusal(of(tmp_path / "x.ts"))
    assert message in found
    assert str(tmp_path / "x.ts") in found


def test_a_file_cut_anywhere_is_refused_or_loses_whole_series_only(tmp_path):
    text = HEADER + (WAVE + CIRCLE) * 6
    whole = {((1, 2, 3), (-1, 0, 100)), ((4, 5, 6), (0, 0, 0.5))}
    refused = 0
    for end in range(len(text)):
        (tmp_path / "x.ts").write_text(text[:end])
        try:
            data = load(of(tmp_path))
        except ConfigError:
            refused += 1
            continue
        parts = (data.train, data.val, data.test)
        found = {tuple(map(tuple, one)) for part in parts for one in part.images.tolist()}
        assert found <= whole, end
    assert len(HEADER) < refused < len(text)


def test_test_series_must_be_like_those_of_training(tmp_path):
    archive(tmp_path)
    other = as_ts(noise(6, channels=2), np.arange(6) % 3, ("up", "down", "still"))
    (tmp_path / "Walks_TEST.ts").write_text(other)
    assert "Walks_TEST.ts, line 4: 2 channels, the first series has 3" in refusal(of(tmp_path))


def test_a_folder_of_several_data_sets_or_none_is_refused_with_what_to_name(tmp_path):
    found = refusal(of(tmp_path))
    assert "holds no file of series; expected NAME_TRAIN.ts and NAME_TEST.ts (or .tsv)" in found
    archive(tmp_path, "One")
    archive(tmp_path, "Two")
    found = refusal(of(tmp_path))
    assert "several data sets (One_TRAIN.ts, Two_TRAIN.ts); give one's file as data.root" in found
    assert len(load(of(tmp_path / "Two_TRAIN.ts")).test) == 20
    (tmp_path / "x.arff").write_text("")
    told = refusal(of(tmp_path / "x.arff"))
    assert "x.arff is not a file of series; known: .ts, .tsv, .txt" in told
    assert "data.root 'nowhere' does not exist" in refusal(of("nowhere"))


def test_the_source_fingerprint_sees_the_two_files_and_no_other(tmp_path):
    archive(tmp_path)
    seen = [fingerprint_source(of(tmp_path))]
    (tmp_path / "Walks.md").write_text("no data")
    assert fingerprint_source(of(tmp_path)) == seen[0]
    for name in ("Walks_TRAIN.ts", "Walks_TEST.ts"):
        os.utime(tmp_path / name, ns=(1, 1))
        seen.append(fingerprint_source(of(tmp_path)))
    assert len(set(seen)) == 3


# ---- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_one_or_several_channels_are_taken(tmp_path, dtype):
    one = {**arrays(), "train_series": noise()[:, 0].astype(dtype)}
    assert tuple(load_arrays(one).train.images.shape[1:]) == (1, 40)
    np.savez(tmp_path / "data.npz", **arrays())
    data = load(DataConfig(kind="npz", root=str(tmp_path / "data.npz")))
    assert (data.in_channels, data.size, data.train.images.dtype) == (3, 40, torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_series": noise().astype(int)}, "train_series is int64 of shape (60, 3, 40), exp"),
        ({"train_series": np.zeros((60, 0))}, "train_series is float64 of shape (60, 0), expected"),
        ({"train_series": np.full((60, 3), np.nan)}, "train: series 0 holds a value that is missi"),
        ({"train_images": np.zeros((60, 8, 8), np.uint8)},
         "train_images and train_series and train_labels given; expected train_labels with"),
        ({"test_series": noise(9, 2), "test_labels": np.arange(9) % 3},
         "test has 2 channels of 40 steps, training has 3 channels of 40 steps"),
        ({"test_images": np.zeros((9, 8, 8), np.uint8), "test_labels": np.arange(9) % 3},
         "test has 1 channels of 8x8 px, training has 3 channels of 40 steps"),
        ({"test_series": noise(9)}, "test_series given; expected test_labels with test_images or"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_refused_with_what_is_wrong(change, message):
    with pytest.raises(ConfigError) as caught:
        load_arrays({**arrays(), **change})
    assert message in str(caught.value)


@pytest.mark.parametrize("settings", [{"augment": "flip"}, {"normalise": "imagenet"}])
def test_what_only_images_can_be_treated_with_is_refused(settings):
    with pytest.raises(ConfigError, match=r"are for images, the data are time series; use shift"):
        load_arrays(arrays(), **settings)


def test_a_length_for_anything_but_files_of_series_is_refused():
    with pytest.raises(ValueError, match="series_length cuts series of files, not of npz"):
        DataConfig(kind="npz", root="x", series_length=3)


def test_a_space_of_images_is_refused_for_series():
    settings, tiny = SpaceConfig(name="tiny"), spaces.load("tiny")
    with pytest.raises(ConfigError, match="space tiny takes images, the data are time series; ch"):
        space_for(settings, tiny, (3, 3), serial=True)
    wanted = tiny.for_data(3, 3).restricted(tiny.profiled)
    assert space_for(settings, tiny, (3, 3), serial=False) == wanted


# ---- inputs -------------------------------------------------------------------------------------


def test_prepared_training_series_have_mean_zero_and_deviation_one_in_each_channel():
    data = load_arrays(arrays())
    before = data.train.images.clone()
    x = prepare(data.train.images, 40, data)
    assert torch.equal(data.train.images, before)  # not changed in place
    np.testing.assert_allclose(x.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 2), correction=0), 1, rtol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 7.0, 1e6, -3e-20])
def test_a_constant_channel_does_not_become_noise(constant):
    given = arrays()
    given["train_series"][:, 1] = constant
    data = load_arrays(given)
    assert prepare(data.train.images, 40, data)[:, 1].abs().max() < 1e-3


def test_a_resolution_resamples_series_by_linear_interpolation():
    data = load_arrays(arrays())
    series = data.test.images
    normalised = (series.double().numpy() - np.array(data.mean)[:, None]) / np.array(data.std)[
        :, None
    ]
    for steps in (16, 40, 64):
        at = (np.arange(steps) + 0.5) * 40 / steps - 0.5
        expected = [[np.interp(at, np.arange(40), row) for row in one] for one in normalised]
        np.testing.assert_allclose(prepare(series, steps, data), expected, atol=1e-5)


def test_a_shift_moves_a_series_in_time_and_repeats_its_ends():
    series = torch.arange(1.0, 33).expand(300, 2, 32)
    moved = augment(series, "shift", torch.Generator().manual_seed(0))
    ways = {n: np.clip(np.arange(1, 33) + n, 1, 32).tolist() for n in range(-2, 3)}
    seen = [next(n for n, way in ways.items() if way == one[0].tolist()) for one in moved]
    assert set(seen) == set(ways)
    assert torch.equal(moved[:, 0], moved[:, 1])  # all channels of a series alike


# ---- packages -----------------------------------------------------------------------------------


def build(folder, data, steps, batch=4, length=0):
    """A package for series; its model takes the mean over time, and each channel is a class."""
    space = spaces.load("tiny")
    about = {name: getattr(data, name) for name in ("size", "preparation", "mean", "std")}
    about |= {"channels": data.in_channels, "series_length": length}
    given = package.input_of(space.largest, about)
    shape = [data.in_channels, steps]
    given |= {"shape": shape, "size": steps}
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *shape])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, data.in_channels])
    node = helper.make_node("ReduceMean", ["image"], ["logits"], axes=[2], keepdims=0)
    graph = helper.make_graph([node], "mean", [image], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir()
    onnx.save(model, folder / package.MODEL)
    package.write_manifest(folder, {**MANIFEST, "classes": ["a", "b", "c"], "input": given})
    return folder


def run(folder, *paths):
    command = [sys.executable, "-I", "-W", "error", str(folder / "example.py"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize("steps", [16, 40])
def test_files_become_inputs_as_in_the_evaluation_and_are_classified_alike(tmp_path, steps):
    data = load_arrays(arrays())
    folder = build(tmp_path / "package", data, steps)
    made = runpy.run_path(str(folder / "example.py"))
    inputs = prepare(data.test.images, steps, data)
    paths = []
    for n, one in enumerate(data.test.images[:3].numpy()):
        np.save(tmp_path / f"{n}.npy", one)
        np.savetxt(tmp_path / f"{n}.csv", one.T, delimiter=",", fmt="%.9g")
        for path in (tmp_path / f"{n}.npy", tmp_path / f"{n}.csv"):
            np.testing.assert_allclose(made["prepare"](str(path)), inputs[n], atol=2e-6)
            paths.append(path)
    done = run(folder, *paths)
    assert done.stderr == ""
    odds = inputs[:3].mean(2).softmax(1)
    shown = [f"{'abc'[int(row.argmax())]} ({float(row.max()):.1%})" for row in odds]
    assert [line.rsplit(": ")[1] for line in done.stdout.splitlines()] == [
        text for text in shown for _ in range(2)
    ]


def test_series_of_another_length_are_refused_unless_the_data_was_cut_or_padded(tmp_path):
    data = load_arrays(arrays())
    np.save(tmp_path / "short.npy", noise(1, steps=30)[0])
    done = run(build(tmp_path / "strict", data, 40), tmp_path / "short.npy")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path / 'short.npy'} holds 30 steps; expected 40: cut or pad it\n"
    assert run(build(tmp_path / "padded", data, 40, length=40), tmp_path / "short.npy").stdout


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "none.csv cannot be read: [Errno 2] No such file"),
        ("none.npy", None, "none.npy cannot be read: [Errno 2] No such file"),
        ("empty.npy", b"", "empty.npy cannot be read: "),
        ("empty.csv", b"", "empty.csv holds float64 (0,); expected 3 channels of finite numbers"),
        ("head.csv", b"x,y,z\n1,2,3\n", "head.csv cannot be read: could not convert string"),
        ("ragged.csv", b"1,2,3\n1,2\n", "ragged.csv cannot be read: "),
        ("binary.csv", b"\xff\xfe\0", "binary.csv cannot be read: "),
        ("narrow.csv", b"1,2\n3,4\n", "narrow.csv holds float64 (2, 2); expected 3 channels"),
        ("nan.csv", b"1,2,nan\n" * 40, "nan.csv holds float64 (3, 40); expected 3 channels of fin"),
        ("turned.npy", np.zeros((40, 3)), "turned.npy holds float64 (40, 3); expected 3 channels"),
        ("text.npy", np.array(["a"] * 3), "text.npy holds <U1 (3,); expected 3 channels"),
    ],
)
def test_what_is_no_series_is_said_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_bytes(content)
    made = runpy.run_path(
        str(build(tmp_path / "package", load_arrays(arrays()), 40) / "example.py")
    )
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        made["read"](str(path), made["MANIFEST"]["input"])
    assert message in str(refused.value)


def test_the_card_and_the_usage_say_what_a_series_is(tmp_path):
    folder = build(tmp_path / "package", load_arrays(arrays()), 16)
    card = (folder / package.CARD).read_text()
    assert "Input: `image`, 3 x 16, value minus mean, over std; resize: " in card
    assert "test series" in card
    assert "image-classification" not in card
    usage = " ".join(run(folder, "--help").stdout.split())
    assert "example.py [-h] [--top N] FILE [FILE ...]" in usage
    assert "a line for each step, a number for each channel" in usage
