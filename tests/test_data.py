import dataclasses
import gzip
import os
import pickle
import struct
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.images.arrays import from_arrays
from hwnas.images.readers.idx import FASHION_MNIST
from hwnas.images.tensors import augment, fingerprint_source, load, prepare
from hwnas.settings.config import DataConfig
from profilers.errors import ConfigError


def _rng():
    return np.random.default_rng(0)


def _arrays(n=40, shape=(8, 8), classes=4):
    images = _rng().integers(0, 256, size=(n, *shape), dtype=np.uint8)
    return {"train_images": images, "train_labels": np.arange(n) % classes}


def _npz(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return DataConfig(kind="npz", root=str(path))


def _refusal(config):
    with pytest.raises(ConfigError) as caught:
        load(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- digits and splits --------------------------------------------------------------------------


def test_digits_keep_every_image_once_and_every_class_in_its_share():
    data = load(DataConfig())
    parts = (data.train, data.val, data.test)
    assert sum(len(part) for part in parts) == 1797
    assert (data.in_channels, data.n_classes, data.size) == (1, 10, 8)
    whole = Counter(torch.cat([part.labels for part in parts]).tolist())
    for label, n in whole.items():
        taken = int((data.test.labels == label).sum())
        assert taken == round(0.2 * n)
        assert int((data.val.labels == label).sum()) == round(0.15 * (n - taken))


def test_digits_are_scaled_to_the_whole_range_of_a_byte():
    data = load(DataConfig())
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert set(data.train.images.unique().tolist()) == {round(n * 255 / 16) for n in range(17)}


def test_the_same_seed_gives_the_same_splits_and_another_seed_others():
    first, again = load(DataConfig()), load(DataConfig())
    other = load(DataConfig(seed=1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert torch.equal(first.val.images, again.val.images)


def test_splits_do_not_depend_on_the_random_streams_of_this_numpy():
    """Golden: raw PCG64 bits are the same in every version of numpy, permutations are not."""
    images = np.arange(12, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    data = _load_arrays({"train_images": images, "train_labels": np.arange(12) % 2})
    assert data.test.images[:, 0, 0, 0].tolist() == [2, 11]


_FACTORY: dict[str, np.ndarray] = {}


def factory():
    return _FACTORY


def _load_arrays(arrays, **settings):
    _FACTORY.clear()
    _FACTORY.update(arrays)
    return load(DataConfig(kind="factory", root=f"{__name__}:factory", **settings))


def test_mean_and_std_are_those_of_the_training_images_only():
    data = _load_arrays(_arrays(shape=(8, 8, 3)))
    train = data.train.images.double().div(255)
    np.testing.assert_allclose(data.mean, train.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, train.std((0, 2, 3), correction=0), rtol=1e-9)


def test_the_fingerprint_sees_a_normalisation_that_the_images_do_not_say():
    said = ("auto", "data", [[0.5], [0.25]], [[0.5], [0.5]])
    seen = [load(DataConfig(normalise=words)).fingerprint for words in said]
    assert seen[0] == seen[1]  # what `auto` is for stored images
    assert len(set(seen)) == 3


def test_the_fingerprint_sees_one_pixel_one_label_and_one_class_name():
    arrays = _arrays()
    names = np.array(["a", "b", "c", "d"])
    seen = {_load_arrays({**arrays, "class_names": names}).fingerprint}
    pixel = arrays["train_images"].copy()
    pixel[3, 0, 0] ^= 1
    label = arrays["train_labels"].copy()
    label[[0, 1]] = label[[1, 0]]
    seen.add(_load_arrays({**arrays, "train_images": pixel, "class_names": names}).fingerprint)
    seen.add(_load_arrays({**arrays, "train_labels": label, "class_names": names}).fingerprint)
    seen.add(_load_arrays({**arrays, "class_names": names[::-1]}).fingerprint)
    assert len(seen) == 4


def test_a_class_too_small_to_split_is_named():
    labels = np.array([0] * 10 + [1] * 2)
    arrays = {"train_images": np.zeros((12, 8, 8), np.uint8), "train_labels": labels}
    with pytest.raises(ConfigError, match="class '1' has too few images to split 15% off: 1 left"):
        _load_arrays(arrays)


@pytest.mark.parametrize(("part", "name"), [("train", "training"), ("test", "test")])
def test_a_class_that_a_split_lacks_is_named(tmp_path, part, name):
    arrays = {f"{p}_images": np.zeros((12, 8, 8), np.uint8) for p in ("train", "test")}
    arrays |= {f"{p}_labels": np.arange(12) % 3 for p in ("train", "test")}
    arrays[f"{part}_labels"] = np.arange(12) % 3 // 2 * 2  # none of class 1
    np.savez(tmp_path / "d.npz", class_names=["a", "b", "c"], **arrays)
    with pytest.raises(ConfigError, match=rf"class 'b' has no {name} image"):
        load(DataConfig(kind="npz", root=str(tmp_path / "d.npz")))


def test_a_class_of_three_images_has_one_in_every_split():
    labels = np.array([0] * 10 + [1] * 3)
    data = _load_arrays(
        {"train_images": np.zeros((13, 8, 8), np.uint8), "train_labels": labels},
        test=0.01,
        validation=0.89,
    )
    for part in (data.train, data.val, data.test):
        assert set(part.labels.tolist()) == {0, 1}


# ---- prepare and augment ------------------------------------------------------------------------


def test_prepared_training_images_have_mean_zero_and_deviation_one():
    data = load(DataConfig())
    images = prepare(data.train.images, 8, data)
    assert images.dtype == torch.float32
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std(correction=0)) - 1) < 1e-4


def test_mean_and_deviation_may_be_those_of_ones_own_training():
    data = load(DataConfig(normalise=[[0.5], [0.25]]))
    pixels = data.train.images[:4]
    assert torch.allclose(prepare(pixels, 8, data), (pixels / 255 - 0.5) / 0.25)
    assert "normalise names 3 channels, the data have 1" in _refusal(
        DataConfig(normalise=[[0.5] * 3, [0.25] * 3])
    )


def test_prepare_resizes_like_bilinear_interpolation_written_out():
    data = load(DataConfig())
    images = data.train.images[:3]
    got = prepare(images, 12, data).numpy()
    pixels = ((images.numpy() / 255.0) - data.mean[0]) / data.std[0]
    at = np.clip((np.arange(12) + 0.5) * 8 / 12 - 0.5, 0, 7)  # align_corners=False
    low = np.minimum(at.astype(int), 6)
    share = at - low
    rows = pixels[:, :, low] * (1 - share)[:, None] + pixels[:, :, low + 1] * share[:, None]
    expected = rows[..., low] * (1 - share) + rows[..., low + 1] * share
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_constant_channel_does_not_divide_by_zero():
    arrays = _arrays(shape=(8, 8, 3))
    arrays["train_images"][..., 1] = 7
    data = _load_arrays(arrays)
    assert torch.isfinite(prepare(data.train.images, 8, data)).all()


@pytest.mark.parametrize("kind", ["none", "shift", "flip"])
def test_augmentation_repeats_with_its_generator_and_leaves_its_input_alone(kind):
    images = torch.from_numpy(_rng().integers(0, 256, (20, 3, 16, 16), dtype=np.uint8))
    before = images.clone()
    first = augment(images, kind, torch.Generator().manual_seed(3))
    again = augment(images, kind, torch.Generator().manual_seed(3))
    other = augment(images, kind, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (kind == "none")
    assert torch.equal(images, before)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8


@pytest.mark.parametrize(("size", "most"), [(8, 1), (28, 2), (7, 1)])
def test_a_shift_is_a_translation_by_at_most_a_sixteenth_with_zeros_behind(size, most):
    images = torch.from_numpy(_rng().integers(1, 256, (200, 1, size, size), dtype=np.uint8))
    moved = augment(images, "shift", torch.Generator().manual_seed(0))
    seen = set()
    for image, result in zip(images[:, 0].numpy(), moved[:, 0].numpy(), strict=True):
        padded = np.pad(image, most)
        windows = {
            (y, x): padded[y : y + size, x : x + size]
            for y in range(2 * most + 1)
            for x in range(2 * most + 1)
        }
        matching = [place for place, window in windows.items() if np.array_equal(window, result)]
        assert len(matching) == 1
        seen.update(matching)
    assert len(seen) == (2 * most + 1) ** 2


def test_flip_mirrors_about_half_of_the_images():
    ramp = torch.arange(16, dtype=torch.uint8).expand(400, 1, 16, 16) + 1
    moved = augment(ramp, "flip", torch.Generator().manual_seed(0))
    mirrored = (moved[:, 0, 8, 4].int() > moved[:, 0, 8, 10].int()).float().mean()
    assert 0.4 < float(mirrored) < 0.6


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ConfigError, match="'rotate' is not one of none, shift, flip"):
        augment(torch.zeros((1, 1, 8, 8), dtype=torch.uint8), "rotate", torch.Generator())


# ---- idx ----------------------------------------------------------------------------------------


def _write_idx(path, array):
    magic = struct.pack(">I", 0x800 + array.ndim)
    data = magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _idx_folder(folder, suffix="", prefixes=("train", "t10k")):
    arrays = _arrays()
    for prefix in prefixes:
        _write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", arrays["train_images"])
        labels = arrays["train_labels"].astype(np.uint8)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
    return arrays


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_back_gzipped_or_not(tmp_path, suffix):
    arrays = _idx_folder(tmp_path, suffix)
    data = load(DataConfig(kind="idx", root=str(tmp_path)))
    assert np.array_equal(data.test.images[:, 0], arrays["train_images"])
    assert data.test.labels.tolist() == arrays["train_labels"].tolist()
    assert data.class_names == ("0", "1", "2", "3")


def test_idx_without_test_files_splits_its_own_test_set_off(tmp_path):
    _idx_folder(tmp_path, prefixes=("train",))
    assert len(load(DataConfig(kind="idx", root=str(tmp_path))).test) == 8


def test_a_missing_idx_file_is_named(tmp_path):
    _idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert "neither train-labels-idx1-ubyte nor" in _refusal(
        DataConfig(kind="idx", root=str(tmp_path))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-1], "holds 2559 bytes of data, its header says 2560"),
        (lambda d: d + b"x", "holds more bytes of data, its header says 2560"),
        (lambda d: b"\0\0\x0d\x03" + d[4:], "starts with 00000d03, expected the idx magic"),
        (lambda d: b"", "starts with nothing"),
        (lambda d: d[:4] + b"\xff" * 12 + d[16:], "its header says 79228162458924105385300197375"),
    ],
)
def test_a_damaged_idx_file_is_named_with_what_is_wrong(tmp_path, change, message):
    _idx_folder(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    text = _refusal(DataConfig(kind="idx", root=str(tmp_path)))
    assert str(path) in text
    assert message in text


@pytest.mark.parametrize("change", [lambda d: d[: len(d) // 2], lambda d: b"no gzip" + d])
def test_a_damaged_gzip_file_is_named(tmp_path, change):
    _idx_folder(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    assert f"{path} cannot be read" in _refusal(DataConfig(kind="idx", root=str(tmp_path)))


def test_a_missing_default_folder_names_the_package_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("hwnas.images.readers.idx.FASHION_MNIST", tmp_path / "absent")
    assert "install Debian's dataset-fashion-mnist" in _refusal(DataConfig(kind="idx"))


@pytest.mark.dataset
def test_fashion_mnist_has_its_known_sizes_names_and_statistics():
    if not FASHION_MNIST.is_dir() and os.environ.get("CI") != "true":
        pytest.skip(f"{FASHION_MNIST} is missing: apt-get install dataset-fashion-mnist")
    data = load(DataConfig(kind="idx"))
    assert (len(data.train), len(data.val), len(data.test)) == (51_000, 9_000, 10_000)
    assert data.train.images.shape[1:] == (1, 28, 28)
    assert data.class_names[8:] == ("bag", "ankle-boot")
    assert Counter(data.test.labels.tolist()) == dict.fromkeys(range(10), 1000)
    # 0.2860 and 0.3530 over all 60,000 training images are the widely published values.
    assert data.mean[0] == pytest.approx(0.2860, abs=0.001)
    assert data.std[0] == pytest.approx(0.3530, abs=0.001)


# ---- image_folder -------------------------------------------------------------------------------


def _image_folder(root, size=(8, 8), mode="L", n=6, classes=("cat", "dog")):
    for index, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True)
        for image in range(n):
            shape = size[::-1] if mode == "L" else (*size[::-1], 3)
            pixels = _rng().integers(0, 256, shape, dtype=np.uint8) // 2 + 100 * index
            Image.fromarray(pixels).save(folder / f"{image}.png")
    return DataConfig(kind="image_folder", root=str(root))


def test_grey_images_keep_one_channel_and_folders_name_the_classes(tmp_path):
    data = load(_image_folder(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert (data.in_channels, data.size) == (1, 8)
    for part in (data.train, data.val, data.test):
        bright = part.images.flatten(1).float().mean(1) > 120
        assert torch.equal(bright.long(), part.labels)


def test_one_colour_image_among_grey_ones_makes_all_three_channels(tmp_path):
    config = _image_folder(tmp_path)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "cat" / "7.png")
    data = load(config)
    assert data.in_channels == 3
    everything = torch.cat([part.images for part in (data.train, data.val, data.test)])
    grey = (everything[:, 0] == everything[:, 1]).all(-1).all(-1)
    assert int((~grey).sum()) == 1


def test_train_and_test_folders_are_used_as_they_are(tmp_path):
    config = _image_folder(tmp_path / "train", n=10)
    _image_folder(tmp_path / "test", n=3)
    data = load(config.model_copy(update={"root": str(tmp_path)}))
    assert (len(data.train) + len(data.val), len(data.test)) == (20, 6)


def test_a_lone_val_folder_is_the_test_set_and_beside_test_it_is_validation(tmp_path):
    config = _image_folder(tmp_path / "train", n=10).model_copy(update={"root": str(tmp_path)})
    _image_folder(tmp_path / "val", n=3)
    assert len(load(config).test) == 6
    _image_folder(tmp_path / "test", n=4)
    data = load(config)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 6, 8)


def test_mixed_sizes_name_the_first_odd_file_and_the_setting(tmp_path):
    config = _image_folder(tmp_path)
    odd = tmp_path / "cat" / "3.png"
    Image.new("L", (9, 8)).save(odd)
    text = _refusal(config)
    assert f"{odd} is 9x8 px" in text
    assert "data.image_size" in text


def test_image_size_cuts_the_centre_of_wide_and_tall_images(tmp_path):
    for name, shape in (("wide", (10, 30)), ("tall", (30, 10))):
        (tmp_path / name).mkdir()
        pixels = np.zeros(shape, np.uint8)
        pixels[shape[0] // 2 - 5 : shape[0] // 2 + 5, shape[1] // 2 - 5 : shape[1] // 2 + 5] = 200
        for image in range(4):
            Image.fromarray(pixels).save(tmp_path / name / f"{image}.png")
    data = load(DataConfig(kind="image_folder", root=str(tmp_path), image_size=10))
    assert data.size == 10
    assert data.train.images.unique().tolist() == [200]


def test_images_that_are_not_square_are_refused_with_the_setting_that_cuts_them(tmp_path):
    text = _refusal(_image_folder(tmp_path, size=(12, 8)))
    assert "12x8 px" in text
    assert "data.image_size" in text


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
@pytest.mark.parametrize("keep", [0.6, 0.0])
def test_a_truncated_image_is_named(tmp_path, suffix, keep):
    config = _image_folder(tmp_path)
    broken = tmp_path / "dog" / f"a.{suffix}"
    Image.fromarray(_rng().integers(0, 256, (8, 8), dtype=np.uint8)).save(broken)
    data = broken.read_bytes()
    broken.write_bytes(data[: int(len(data) * keep)])
    assert f"{broken} cannot be read as an image" in _refusal(config)


def test_sixteen_bit_images_are_refused_rather_than_clipped(tmp_path):
    config = _image_folder(tmp_path)
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "cat" / "9.png")
    assert "9.png has pixel mode I;16; save it with 8 bits a channel" in _refusal(config)


def test_an_empty_class_and_a_class_without_training_images_are_named(tmp_path):
    config = _image_folder(tmp_path / "train").model_copy(update={"root": str(tmp_path)})
    _image_folder(tmp_path / "test", classes=("cat", "horse"))
    assert "class 'horse' has no training images" in _refusal(config)
    (tmp_path / "train" / "bird").mkdir()
    assert "bird holds no image" in _refusal(config)


def test_a_folder_without_class_folders_is_refused(tmp_path):
    config = DataConfig(kind="image_folder", root=str(tmp_path))
    assert "one folder of images for each class" in _refusal(config)


# ---- cifar --------------------------------------------------------------------------------------


def _cifar_batch(path, n=20, label_bytes=1, classes=4):
    rows = _rng().integers(0, 256, (n, label_bytes + 3072), dtype=np.uint8)
    rows[:, :label_bytes] = 99
    rows[:, label_bytes - 1] = np.arange(n) % classes
    path.write_bytes(rows.tobytes())
    return rows


def test_cifar10_batches_are_read_in_order_with_channels_first(tmp_path):
    for batch in range(1, 6):
        _cifar_batch(tmp_path / f"data_batch_{batch}.bin")
    rows = _cifar_batch(tmp_path / "test_batch.bin", n=8)
    (tmp_path / "batches.meta.txt").write_text("plane\ncar\nbird\ncat\n\n")
    data = load(DataConfig(kind="cifar", root=str(tmp_path)))
    assert (len(data.train) + len(data.val), len(data.test)) == (100, 8)
    assert data.class_names == ("plane", "car", "bird", "cat")
    assert data.test.images[3, 1, 0, 5] == rows[3, 1 + 1024 + 5]


def test_cifar100_uses_the_fine_labels(tmp_path):
    _cifar_batch(tmp_path / "train.bin", label_bytes=2)
    _cifar_batch(tmp_path / "test.bin", label_bytes=2)
    data = load(DataConfig(kind="cifar", root=str(tmp_path)))
    assert data.test.labels.tolist() == [n % 4 for n in range(20)]


@pytest.mark.parametrize("missing", ["data_batch_3.bin", "test_batch.bin", "test.bin"])
def test_a_cifar_file_that_is_missing_is_named(tmp_path, missing):
    names = [f"data_batch_{batch}.bin" for batch in range(1, 6)] + ["test_batch.bin"]
    for name in names if missing in names else ["train.bin"]:
        _cifar_batch(tmp_path / name, label_bytes=1 + (name == "train.bin"))
    (tmp_path / missing).unlink(missing_ok=True)
    assert f"{tmp_path / missing} " in _refusal(DataConfig(kind="cifar", root=str(tmp_path)))


def test_a_truncated_cifar_batch_is_named(tmp_path):
    _cifar_batch(tmp_path / "data_batch_1.bin")
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-5])
    text = _refusal(DataConfig(kind="cifar", root=str(tmp_path)))
    assert f"{path} has 61455 bytes, expected a multiple of 3073" in text


def test_the_pickled_version_of_cifar_is_never_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "unpickled"),))

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Bomb()))
    assert "get the binary version" in _refusal(DataConfig(kind="cifar", root=str(tmp_path)))
    assert not (tmp_path / "unpickled").exists()


# ---- npz and factory ----------------------------------------------------------------------------


def test_npz_arrays_are_read_with_channels_last(tmp_path):
    arrays = _arrays(shape=(8, 8, 3))
    test = {f"test_{k[6:]}": v[:8] for k, v in arrays.items()}
    data = load(_npz(tmp_path, **arrays, **test, class_names=np.array(["a", "b", "c", "d"])))
    assert data.class_names == ("a", "b", "c", "d")
    assert np.array_equal(data.test.images, arrays["train_images"][:8].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["val_images", "x_test"])
def test_an_array_of_another_name_in_an_npz_is_refused(tmp_path, name):
    found = _refusal(_npz(tmp_path, **_arrays(), **{name: np.zeros((4, 8, 8), np.uint8)}))
    assert name in found


def test_a_file_that_is_no_npz_gets_no_advice_to_unpickle_it(tmp_path):
    path = tmp_path / "data.npz"
    path.write_bytes(pickle.dumps({"train_images": [1, 2]}))
    text = _refusal(DataConfig(kind="npz", root=str(path)))
    assert "numpy.savez" in text
    assert "allow_pickle" not in text


def test_an_npz_with_pickled_objects_is_refused(tmp_path):
    arrays = _arrays()
    names = np.array([{"a": 1}], dtype=object)
    text = _refusal(_npz(tmp_path, **arrays, class_names=names))
    assert "cannot be read as .npz of plain arrays" in text
    assert "numpy.savez" in text
    assert "allow_pickle" not in text


@pytest.mark.parametrize("keep", [0, 10, 1000, -30])
def test_a_truncated_npz_is_named(tmp_path, keep):
    config = _npz(tmp_path, **_arrays())
    data = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(data[:keep])
    assert f"{config.root} cannot be read as .npz" in _refusal(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.full(40, -1)}, "train: label -1 is out of range; expected 0 to"),
        ({"class_names": ["a", "b"]}, "train: label 3 is out of range; expected 0 to 1"),
        ({"class_names": ["a", "b", "c", "d", "e"]}, "class 'e' has no training image"),
        ({"train_labels": np.zeros(39, int)}, "train: 40 images and 39 labels"),
        ({"train_labels": np.zeros(40)}, "train_labels is float64 of shape (40,)"),
        ({"train_images": np.zeros((40, 8, 8))}, "train_images is float64 of shape (40, 8, 8)"),
        ({"train_images": np.zeros((40, 8), np.uint8)}, "train_images is uint8 of shape (40, 8)"),
        ({"train_images": np.zeros((40, 8, 6), np.uint8)}, "train: images are 6x8 px, the spaces"),
        ({"train_images": np.zeros((0, 8, 8), np.uint8), "train_labels": np.zeros(0, int)},
         "train: 0 images and 0 labels"),
        ({"test_images": np.zeros((4, 8, 8), np.uint8)},
         "test_images given; expected test_labels with test_images or test_series"),
        ({"test_images": np.zeros((4, 9, 9), np.uint8), "test_labels": np.zeros(4, int)},
         "test has 1 channels of 9x9 px, training has 1 channels of 8x8 px"),
        ({"valid_images": np.zeros(1)}, "unknown array 'valid_images'"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_refused_with_what_is_wrong(change, message):
    with pytest.raises(ConfigError) as caught:
        _load_arrays({**_arrays(), **change})
    assert message in str(caught.value)


def test_arrays_without_training_images_are_refused():
    with pytest.raises(
        ConfigError, match=r"train_images \(or train_series\) and train_labels are missing"
    ):
        from_arrays({}, "here")


def returns_a_list():
    return [1, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("returns_a_list", "returned a list, expected a dict of train_images"),
        ("_FACTORY", "is not a function"),
        ("absent", "cannot be loaded"),
    ],
)
def test_a_factory_that_is_something_else_is_refused(name, message):
    assert message in _refusal(DataConfig(kind="factory", root=f"{__name__}:{name}"))


# ---- sources ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["idx", "image_folder", "cifar", "npz"])
def test_a_wrong_path_is_named(kind):
    config = DataConfig(kind=kind, root="no/such/place")
    assert "data.root 'no/such/place' does not exist" in _refusal(config)
    with pytest.raises(ConfigError, match="no/such/place"):
        fingerprint_source(config)


def test_the_source_fingerprint_changes_with_a_file_and_not_by_reading_it(tmp_path):
    config = _image_folder(tmp_path)
    before = fingerprint_source(config)
    load(config)
    assert fingerprint_source(config) == before
    os.utime(tmp_path / "cat" / "0.png", ns=(1, 1))
    touched = fingerprint_source(config)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "00.png")
    assert len({before, touched, fingerprint_source(config)}) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_the_source_fingerprint_sees_folders_of_classes_that_are_links(tmp_path, stream):
    config = _image_folder(tmp_path / "real")
    linked = tmp_path / "linked"
    linked.mkdir()
    for folder in (tmp_path / "real").iterdir():
        (linked / folder.name).symlink_to(folder)
    (tmp_path / "real" / "cat" / "circle").symlink_to(tmp_path / "real")
    config = config.model_copy(update={"root": str(linked), "stream": stream})
    before = fingerprint_source(config)
    (tmp_path / "real" / "cat" / "0.png").rename(tmp_path / "real" / "cat" / "00.png")
    assert fingerprint_source(config) != before


def test_digits_have_a_source_fingerprint_too():
    assert len(fingerprint_source(DataConfig())) == 64
    assert fingerprint_source(DataConfig()) == fingerprint_source(DataConfig())


def test_a_file_changed_in_place_with_its_size_and_time_kept_is_not_the_same_source(tmp_path):
    config = _image_folder(tmp_path)
    before, path = fingerprint_source(config), tmp_path / "cat" / "0.png"
    told = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert fingerprint_source(config) != before


def test_a_factory_of_no_module_is_refused():
    assert "no_such_module" in _refusal(DataConfig(kind="factory", root="no_such_module:f"))


def test_a_factory_that_its_module_lacks_is_named_in_built_in_modules_too():
    config = DataConfig(kind="factory", root="os:nope")
    assert "module 'os' has no attribute 'nope'" in _refusal(config)


def test_the_source_fingerprint_knows_empty_class_folders_and_broken_links(tmp_path):
    config = _image_folder(tmp_path)
    seen = [fingerprint_source(config)]
    (tmp_path / "empty").mkdir()
    seen.append(fingerprint_source(config))
    (tmp_path / "cat" / "9.png").symlink_to(tmp_path / "gone.png")
    seen.append(fingerprint_source(config))
    assert len(set(seen)) == 3


def test_data_of_one_class_is_refused(tmp_path):
    text = _refusal(_npz(tmp_path, **_arrays(classes=1)))
    assert "the only class is '0', expected at least 2 classes" in text


def test_a_dataset_cannot_be_changed_in_place():
    data = load(DataConfig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.mean = (0.0,)


def test_readers_and_the_source_fingerprint_need_no_torch():
    code = "import sys, hwnas.images.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
