"""The worker's kit cache: content-addressed, checked, one worker at a time."""

import hashlib
import os
from types import SimpleNamespace

import pytest
from worker_kits import fake_kit, real_kit

from profilers import kitcache
from profilers.errors import ConfigError, DeviceError, FileFormatError
from profilers.kitcache import KitCache
from profilers.schema import Target, canonical_json, sha256_file, sha256_text, write_json
from profilers.worker import Worker


@pytest.fixture
def cache(tmp_path):
    return KitCache(tmp_path / "cache", "fake")


def put(cache, data, piece=None):
    name = hashlib.sha256(data).hexdigest()
    for start in range(0, len(data), piece or len(data)):
        cache.put(name, start, len(data), data[start : start + (piece or len(data))])
    return name


def bring(cache, kit, folder):
    """Send whatever the cache says is missing; how many files that were."""
    text = canonical_json(kit).encode()
    files = {item["sha256"]: (folder / item["file"]).read_bytes() for item in kit["items"]}
    files[sha256_text(text.decode())] = text
    sent = 0
    while missing := cache.missing(sha256_text(text.decode())):
        sent += len([put(cache, files[name]) for name in missing])
    return sent, cache.open(sha256_text(text.decode()))


def test_a_file_in_pieces_is_put_together(cache):
    name = put(cache, b"0123456789", piece=3)
    assert cache.blob(name).read_bytes() == b"0123456789"


def test_a_damaged_file_and_a_piece_out_of_order_are_refused(cache):
    name = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(FileFormatError, match="damaged on the way"):
        cache.put(name, 0, 5, b"wrong")
    with pytest.raises(ConfigError, match="was not sent"):
        cache.blob(name)
    cache.put(name, 0, 5, b"ri")
    with pytest.raises(FileFormatError, match="does not follow"):
        cache.put(name, 3, 5, b"ht")


def test_a_name_that_is_no_hash_never_becomes_a_path(cache):
    with pytest.raises(FileFormatError, match="not a sha256"):
        cache.put("../../etc/passwd", 0, 1, b"x")


def test_only_what_is_missing_is_sent_and_nothing_twice(cache, tmp_path):
    kit = fake_kit(tmp_path / "kit")
    sent, found = bring(cache, kit, tmp_path / "kit")
    assert sent == 1 + len(kit["items"])
    assert bring(cache, kit, tmp_path / "kit")[0] == 0
    (found.folder / kit["items"][2]["file"]).write_bytes(b"half")
    assert bring(cache, kit, tmp_path / "kit")[0] == 1
    assert not (found.folder.parent.parent / "blobs").exists()


def test_models_with_equal_bytes_are_sent_once(cache, tmp_path):
    kit = fake_kit(tmp_path / "kit")
    first, second = kit["items"][:2]
    (tmp_path / "kit" / second["file"]).write_bytes((tmp_path / "kit" / first["file"]).read_bytes())
    second["sha256"] = first["sha256"]
    assert bring(cache, kit, tmp_path / "kit")[0] == len(kit["items"])


def test_weights_are_made_here_and_must_be_those_of_the_kit(cache, tmp_path):
    kit = real_kit(tmp_path / "kit")
    _, found = bring(cache, kit, tmp_path / "kit")
    assert sha256_file(found.folder / "weights.bin") == kit["weights"]["sha256"]
    kit["weights"]["sha256"] = "0" * 64
    with pytest.raises(FileFormatError, match="another version or edited"):
        bring(cache, kit, tmp_path / "kit")


@pytest.mark.parametrize("name", ["../up.onnx", "/abs.onnx", ".hidden.onnx", "a/b.onnx", "a.txt"])
def test_a_kit_cannot_write_outside_its_folder(cache, tmp_path, name):
    kit = fake_kit(tmp_path / "kit")
    kit["items"][0]["file"] = name
    text = canonical_json(kit)
    put(cache, text.encode())
    with pytest.raises(FileFormatError, match=r"expected a plain \*\.onnx name"):
        cache.missing(sha256_text(text))


@pytest.mark.parametrize("field", ["items", "weights", "seed"])
def test_a_kit_that_lacks_a_field_is_refused(cache, tmp_path, field):
    kit = fake_kit(tmp_path / "kit")
    del kit[field]
    put(cache, canonical_json(kit).encode())
    with pytest.raises(FileFormatError, match=f"lacks '{field}'"):
        cache.missing(sha256_text(canonical_json(kit)))


def test_items_that_are_not_in_the_kit_are_named(cache, tmp_path):
    _, found = bring(cache, fake_kit(tmp_path / "kit"), tmp_path / "kit")
    with pytest.raises(ConfigError, match="no item 'nothing'"):
        found.models(["anchor-000", "nothing"])


def test_an_edited_kit_file_is_sent_again(cache, tmp_path):
    kit = fake_kit(tmp_path / "kit")
    _, found = bring(cache, kit, tmp_path / "kit")
    write_json(found.folder / "kit.json", {**kit, "seed": 9})
    assert bring(cache, kit, tmp_path / "kit")[0] == 1


def kits(cache, tmp_path, seeds, fields=None):
    """Kits that were brought one after the other."""
    for seed in seeds:
        folder = tmp_path / f"kit{seed}"
        kit = fake_kit(folder, seed=seed)
        yield bring(cache, {name: kit[name] for name in fields or kit}, folder)[1].folder


def test_kits_that_were_used_longest_ago_go_whatever_the_clock_says(cache, tmp_path):
    found = []
    for folder in kits(cache, tmp_path, range(kitcache.KITS_KEPT)):
        os.utime(folder / "kit.json", (4e9 - len(found), 4e9 - len(found)))  # the year 2096
        found.append(folder)
    (found[0] / "kit.json.0123456789abcdef.plan").write_text("what the engine built")
    bring(cache, fake_kit(tmp_path / "kit3", seed=3), tmp_path / "kit3")
    found += kits(cache, tmp_path, [7, 8])
    left = {folder.name for folder in found[0].parent.iterdir()}
    assert left == {found[at].name for at in (0, 3, 4, 5)}


def test_kits_of_single_models_push_out_no_kit_of_a_space(cache, tmp_path):
    (space,) = kits(cache, tmp_path, [0])
    fields = ("format", "seed", "items", "weights")
    single = list(kits(cache, tmp_path, range(1, 9), fields))
    assert (space / "kit.json").is_file()
    assert len(list(single[0].parent.iterdir())) == kitcache.KITS_KEPT


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"{", b"[]", b'{"format": "other"}', None])
def test_a_damaged_kit_file_heals(cache, tmp_path, damage):
    kit = fake_kit(tmp_path / "kit")
    _, found = bring(cache, kit, tmp_path / "kit")
    path = found.folder / "kit.json"
    path.unlink()
    if damage is None:
        path.symlink_to(tmp_path / "kit" / "kit.json")
    else:
        path.write_bytes(damage)
    assert bring(cache, kit, tmp_path / "kit")[0] == 1
    assert not path.is_symlink()


def test_nothing_is_written_through_a_link_and_nothing_of_others_is_removed(cache, tmp_path):
    kit = fake_kit(tmp_path / "kit")
    _, found = bring(cache, kit, tmp_path / "kit")
    precious = tmp_path / "precious"
    precious.write_text("x")
    name = kit["items"][0]["file"]
    for place in (found.folder / name, cache.root / "bin", cache.root / "devices" / "other"):
        place.unlink(missing_ok=True)
        place.symlink_to(precious)
    foreign = found.folder / "diary.txt"
    foreign.write_text("x")
    assert bring(cache, kit, tmp_path / "kit")[0] == 1
    blob = hashlib.sha256(b"new").hexdigest()
    (cache.root / "devices" / "fake" / "blobs").mkdir()
    (cache.root / "devices" / "fake" / "blobs" / f"{blob}.part").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot write"):
        put(cache, b"new")
    assert cache.clean() > 0
    left = {path.name for path in cache.root.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert left == {".hwnas", "bin", "other", "diary.txt", f"{blob}.part"}
    assert precious.read_text() == "x"


def test_a_lock_that_is_a_link_is_not_written(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("x")
    one = KitCache(tmp_path / "cache", "bin", shared_lock=True)
    one.lock("a test")
    one.unlock()
    (one.root / "lock").unlink()
    (one.root / "lock").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot write"):
        one.lock("a test")
    assert precious.read_text() == "x"


@pytest.mark.parametrize("name", ["bin", "lock", "kits", "devices", "blobs"])
def test_a_device_may_be_called_as_one_of_our_folders(tmp_path, name):
    cache = KitCache(tmp_path / "cache", name, shared_lock=True)
    cache.lock("a test")
    bring(cache, fake_kit(tmp_path / "kit"), tmp_path / "kit")
    cache.clean()
    cache.unlock()
    assert not list((tmp_path / "cache").iterdir())


def test_a_second_campaign_is_told_who_holds_the_device(tmp_path):
    one, two = KitCache(tmp_path, "fake"), KitCache(tmp_path, "fake")
    one.lock("profiling of tiny")
    with pytest.raises(DeviceError, match=rf"profiling of tiny \(process {os.getpid()}, since "):
        two.lock("another")
    elsewhere = KitCache(tmp_path, "host")
    elsewhere.lock("another device")
    elsewhere.unlock()
    one.unlock()
    two.lock("another")
    two.unlock()


def test_what_an_engine_keeps_beside_a_model_that_is_only_run_is_dropped_with_it(cache):
    name = put(cache, b"model")
    folder = cache.blob(name).parent
    ours = (
        f"{name}.{'0' * 16}.plan",
        f".{name}.{'0' * 16}.plan.abcd_123",
        f"tensorrt.{'f' * 16}.timing",
    )
    for kept in (*ours, "notes.plan"):
        (folder / kept).write_bytes(b"x")
    cache.drop_blobs()
    assert [path.name for path in folder.iterdir()] == ["notes.plan"]


def test_a_session_that_ends_keeps_what_it_was_sent_of_a_kit(tmp_path):
    """A line that is cut in the middle of a kit goes on with it."""
    cache, name = KitCache(tmp_path, "host"), hashlib.sha256(b"half a kit").hexdigest()
    no_channel = SimpleNamespace()  # a real one ends its process with its line
    worker = Worker(no_channel, Target("host", "ort-cpu"), tmp_path)
    worker.lock("a test")
    assert put(cache, b"half a kit") == name
    worker.close()
    assert cache.blob(name).read_bytes() == b"half a kit"
