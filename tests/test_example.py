"""example.py of a package prepares images with the code of the evaluation, and needs no hwnas."""

from __future__ import annotations

import ast
import itertools
import os
import re
import runpy
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_package import MANIFEST
from test_runtimes import OPTIONAL

from hwnas.images import tensors
from hwnas.images.pixels import read_image
from hwnas.networks import spaces
from hwnas.run import model, package
from hwnas.settings.config import DataConfig
from hwnas.supernet.network import Subnet, folded_weights
from profilers import runtimes
from profilers.schema import Target

CLASSES = ("cat", "dog")
TARGET = Target("host", "ort-cpu", batch=4)


def pattern(width, height, channels=3, seed=0):
    """Pixels in which every crop and every filter shows: coarse waves and noise."""
    rng = np.random.default_rng([width, height, seed])
    y, x = np.mgrid[:height, :width]
    waves = 120 + 100 * np.sin(x / (3 + seed) + y / 5)
    noise = rng.integers(-20, 20, (height, width, channels))
    return np.clip(waves[..., None] + noise, 0, 255).astype(np.uint8)


def colour(width=31, height=20, seed=0):
    return Image.fromarray(pattern(width, height, seed=seed))


def palette_with_transparency(form):
    image = colour(27, 18).quantize(16)
    image.info["transparency"] = form
    return image


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def cmyk():
    return Image.fromarray(pattern(22, 34, 4), "CMYK")


# name of the file: (image, how it is saved)
COLOURED = {
    "wide.png": (colour(50, 20), {}),
    "tall.png": (colour(20, 53), {}),
    "square.png": (colour(24, 24), {}),
    "odd.jpg": (colour(37, 23), {"quality": 90}),
    "huge.jpg": (colour(1600, 1100), {}),
    "tiny.png": (colour(1, 1), {}),
    "line.png": (colour(3, 1), {}),
    "palette.png": (colour(27, 18).quantize(16), {}),
    "palette.gif": (colour(27, 19).quantize(16), {}),
    "palette-one-clear.png": (palette_with_transparency(3), {}),
    "palette-alphas.png": (palette_with_transparency(bytes(range(0, 256, 16))), {}),
    "rgba.png": (Image.fromarray(pattern(21, 30, 4)), {}),
    "cmyk.jpg": (cmyk(), {"quality": 90}),
    "cmyk.tif": (cmyk(), {}),
    "ycbcr.tif": (colour(25, 36).convert("YCbCr"), {}),
    "grey.png": (colour(33, 21).convert("L"), {}),
    **{f"turned-{n}.jpg": (colour(30, 19, n), rotated(n)) for n in range(2, 9)},
}
GREY = {
    "grey.png": (colour(33, 21).convert("L"), {}),
    "grey-alpha.png": (colour(18, 40).convert("LA"), {}),
    "one-bit.png": (colour(29, 22).convert("1"), {}),
    "one-bit.tif": (colour(22, 29).convert("1"), {}),
    "turned.jpg": (colour(30, 19).convert("L"), rotated(6)),
    "huge.pgm": (colour(900, 1300).convert("L"), {}),
}
KINDS = {
    "coloured": (COLOURED, {"image_size": 12}),
    "grey": (GREY, {"image_size": 12}),
    "mixed": (COLOURED | GREY, {"image_size": 10, "normalise": "imagenet"}),
    "streamed": (COLOURED | GREY, {"stream": True}),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A package of an untrained network, and the test images of its data set by file."""
    given, settings = KINDS[request.param]
    root = tmp_path_factory.mktemp(request.param)
    for part, copies in (("train", 3), ("test", 1)):
        for k, (name, (image, options)) in enumerate(given.items()):
            folder = root / part / CLASSES[k % 2]
            folder.mkdir(parents=True, exist_ok=True)
            for n in range(copies):
                image.save(folder / f"{n}-{name}", **options)
    images = tensors.load(DataConfig(kind="image_folder", root=str(root), **settings))
    paths = [path for name in CLASSES for path in sorted((root / "test" / name).iterdir())]
    assert len(paths) == len(images.test) == len(given)
    return SimpleNamespace(folder=build(root, images), images=images, paths=paths)


def build(root, images, target=TARGET):
    """A package for images, of an untrained network at 16 px."""
    torch.manual_seed(0)
    space = spaces.load("tiny").restricted([16]).for_data(images.in_channels, 2)
    about = {name: getattr(images, name) for name in ("size", "preparation", "mean", "std")}
    net = Subnet(space.largest).eval()
    folder = root / "package"
    package.write_model(folder, net.arch, folded_weights(net), target.batch, {})
    given = package.input_of(net.arch, {**about, "channels": images.in_channels})
    told = {"model": package.write_engine_file(folder, target), "target": target.to_json()}
    about = {**MANIFEST, **told, "classes": list(CLASSES), "input": given}
    package.write_manifest(folder, about)
    return folder


def evaluated(made):
    """Inputs of the network as the evaluation makes them, (n, c, 16, 16)."""
    pixels = made.images.test.pixels(0, len(made.images.test), 16)
    return tensors.prepare(pixels, 16, made.images).numpy()


def run(folder, *paths, python=sys.executable):
    """What example.py prints, in a process that knows nothing of hwnas."""
    command = [python, "-I", "-W", "error", str(folder / "example.py"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_the_pixels_that_go_into_the_network_are_those_of_the_evaluation(made):
    module = runpy.run_path(str(made.folder / "example.py"))
    stored = made.images.test.pixels(0, len(made.paths), 16).numpy()
    for path, pixels, expected in zip(made.paths, stored, evaluated(made), strict=True):
        found = module["read"](str(path), module["MANIFEST"]["input"])
        assert np.array_equal(found, pixels), path.name
        limit = 1e-6 * max(1.0, np.abs(expected).max())
        assert np.abs(module["prepare"](str(path)) - expected).max() <= limit, path.name


def test_the_classes_that_are_printed_are_those_of_the_evaluation(made):
    logits = model.run_model(made.folder / package.MODEL, TARGET, evaluated(made))
    done = run(made.folder, *made.paths)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for path, line, row in zip(made.paths, lines, logits, strict=True):
        share = np.exp(row - row.max())
        share /= share.sum()
        assert line == f"{path}: {CLASSES[row.argmax()]} ({share.max():.1%})"
    assert len({line.rsplit(": ")[1] for line in lines}) > 2  # the images differ


@pytest.mark.parametrize("runtime", OPTIONAL)
def test_another_engine_prints_the_same_classes_from_the_file_that_it_loads(
    made, tmp_path, runtime
):
    engine = runtimes.engine(runtime)
    pytest.importorskip(engine.module)
    (tmp_path / "package").mkdir()
    folder = build(tmp_path, made.images, Target("host", runtime, batch=4, threads=2))
    assert {path.name for path in folder.iterdir()} == {
        *package.FILES, package.MANIFEST, engine.file,
    }  # fmt: skip
    card = (folder / package.CARD).read_text()
    assert engine.pip in card
    assert f"library_name: {engine.file.rpartition('.')[2]}" in card
    (folder / package.MODEL).rename(folder / "aside") if engine.file != package.MODEL else None
    assert run(folder, *made.paths).stdout == run(made.folder, *made.paths).stdout


def test_arrays_are_prepared_as_the_same_images_in_files(made, tmp_path):
    module = runpy.run_path(str(made.folder / "example.py"))
    wide, size = pattern(40, 24), made.images.size or 16
    for n, array in enumerate((wide, wide[..., 0], wide[:size, :size], wide[:size, :size, 0])):
        Image.fromarray(array).save(tmp_path / f"{n}.png")
        np.save(tmp_path / f"{n}.npy", array)
        given = module["MANIFEST"]["input"]
        ways = [module["read"](str(tmp_path / f"{n}.{kind}"), given) for kind in ("png", "npy")]
        assert np.array_equal(*ways)
        assert ways[0].shape == (made.images.in_channels, size, size)


def test_a_network_of_other_channels_reads_arrays_only(tmp_path):
    pixels = torch.arange(4 * 64).reshape(1, 4, 8, 8).to(torch.uint8).repeat(2, 1, 1, 1)
    split = tensors.Split(pixels, torch.arange(2))
    images = tensors.Dataset(split, split, split, CLASSES, (0.5,) * 4, (0.25,) * 4, "")
    folder = build(tmp_path, images)
    np.save(tmp_path / "0.npy", pixels[0].permute(1, 2, 0).numpy())
    module = runpy.run_path(str(folder / "example.py"))
    given = module["MANIFEST"]["input"]
    assert np.array_equal(module["read"](str(tmp_path / "0.npy"), given), pixels[0].numpy())
    colour().save(tmp_path / "0.png")
    np.save(tmp_path / "1.npy", np.zeros((8, 8, 3), np.uint8))
    for name, words in (
        ("0.png", "reads 4 channels; give a .npy"),
        ("1.npy", "expected uint8 (8, 8, 4)"),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
            module["read"](str(tmp_path / name), given)
        assert words in str(refused.value)


@pytest.mark.parametrize("tag", [282, 0x213, 700])
def test_a_photo_is_turned_whatever_else_its_tags_say(tmp_path, tag):
    entries = struct.pack("<HHIHxx", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", tag, 2, 4, b"abc")
    tags = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    colour().save(tmp_path / "odd.jpg", exif=tags)  # a text where a number belongs
    colour().save(tmp_path / "plain.jpg", **rotated(6))
    odd, plain = (read_image(tmp_path / f"{name}.jpg") for name in ("odd", "plain"))
    assert odd.size == plain.size == colour().size[::-1]
    assert odd.tobytes() == plain.tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A package for small coloured images."""
    pixels = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    split = tensors.Split(pixels, torch.arange(2))
    mean, std = (0.5,) * 3, (0.25,) * 3
    images = tensors.Dataset(split, split, split, CLASSES, mean, std, "")
    return build(tmp_path_factory.mktemp("plain"), images)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "none.png cannot be read: No such file or directory"),
        ("none.npy", None, "none.npy cannot be read as .npy: [Errno 2] No such file"),
        ("text.png", b"no image", "text.png cannot be read as an image: cannot identify"),
        ("cut.png", "cut", "cut.png cannot be read as an image: "),
        ("text.npy", b"no array", "text.npy cannot be read as .npy: "),
        ("empty.npy", b"", "empty.npy cannot be read as .npy: "),
        ("deep.png", np.full((9, 9), 40_000, np.uint16), "deep.png has pixel mode I;16; save it"),
        ("float.npy", np.zeros((9, 9), np.float32), "float.npy holds float32 (9, 9); expected"),
        ("batch.npy", np.zeros((2, 9, 9, 3), np.uint8), "batch.npy holds uint8 (2, 9, 9, 3); exp"),
        ("planes.npy", np.zeros((3, 9, 9), np.uint8), "planes.npy holds uint8 (3, 9, 9); expect"),
        ("void.npy", np.zeros((0, 9), np.uint8), "void.npy holds uint8 (0, 9); expected"),
        (".", None, "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(
    folder, tmp_path, monkeypatch, name, content, message
):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content) if name.endswith(".npy") else Image.fromarray(content).save(path)
    elif content == "cut":
        colour().save(path)
        path.write_bytes(path.read_bytes()[:200])
    elif content is not None:
        path.write_bytes(content)
    made = runpy.run_path(str(folder / "example.py"))
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        made["read"](str(path), made["MANIFEST"]["input"])
    assert message in str(refused.value)


def test_each_refused_file_is_a_line_of_its_own_and_the_others_are_classified(folder, tmp_path):
    odd = tmp_path / "caf\udce9.png"
    colour().save(odd)
    (tmp_path / "text.png").write_bytes(b"no image")
    done = run(folder, tmp_path / "none.png", odd, tmp_path / "text.png")
    assert done.returncode == 1
    none, text = done.stderr.splitlines()
    assert none == f"{tmp_path / 'none.png'} cannot be read: No such file or directory"
    assert text.startswith(f"{tmp_path / 'text.png'} cannot be read as an image: ")
    assert done.stdout.startswith(f"{tmp_path}/caf\\udce9.png: ")


def test_the_example_says_how_it_is_used_and_prints_as_many_classes_as_asked(folder, tmp_path):
    said = run(folder, "--help").stdout
    assert "--top N" in said
    assert "FILE is an image of any size" in said
    colour().save(tmp_path / "one.png")
    for top, n in ((1, 1), (2, 2), (5, 2)):
        line = run(folder, "--top", top, tmp_path / "one.png").stdout
        shares = [float(share) for share in re.findall(r"\((\d+\.\d)%\)", line)]
        assert len(shares) == n
        assert shares == sorted(shares, reverse=True)
    wrong = run(folder, "--top", "0", tmp_path / "one.png")
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("--top must be at least 1\n")


def test_the_example_is_one_file_for_python_3_8_that_names_no_module_of_ours():
    engines, inputs = ("ort-cpu", *OPTIONAL, "tensorrt"), [(False, "segmentation")]
    inputs += [(serial, "classification") for serial in (False, True)]
    for (serial, task), runtime in itertools.product(inputs, engines):
        text = package.example(serial, runtime, task)
        nodes = list(ast.walk(ast.parse(text, feature_version=(3, 8))))
        named = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
        named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        engine = {runtimes.engine(runtime).module}
        engine |= {"ctypes"} if runtimes.engine(runtime).gpu else set()
        pillow = set() if serial else {"struct", "PIL"}
        named = {name.partition(".")[0] for name in named}
        assert named == {"argparse", "json", "pathlib", "sys", "typing", "numpy", *engine, *pillow}


def test_the_evaluation_sees_palettes_with_transparency_without_a_warning(made):
    names = [os.fspath(path) for path in made.paths if "palette" in path.name]
    if made.images.in_channels == 1:
        assert not names
    else:
        assert len(names) == 4  # warnings are errors here
