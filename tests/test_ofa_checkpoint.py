"""Import of once-for-all's supernets, against its own networks with generated weights."""

from __future__ import annotations

import json
import os
import pickle

import ofa_oracle
import pytest
import torch
from safetensors import safe_open

from hwnas.cli import main
from hwnas.networks import spaces
from hwnas.ofa.checkpoint import import_supernet
from hwnas.ofa.dictionaries import SPACES
from hwnas.ofa.names import entries
from hwnas.supernet.files import load_supernet, read_about
from hwnas.supernet.network import Supernet
from profilers.errors import ConfigError, FileFormatError
from profilers.schema import sha256_file

NAME = "ofa-mbv3-w10"


@pytest.fixture(scope="module")
def theirs():
    return ofa_oracle.supernet(NAME)


@pytest.fixture(scope="module")
def released(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("ofa") / "ofa_mbv3_d234_e346_k357_w1.0"
    ofa_oracle.save(theirs, path)
    return path


def _changed(theirs, path, change):
    """A file whose tensors are changed by a function of names to tensors."""
    named = dict(theirs.state_dict())
    change(named)
    torch.save({"state_dict": named}, path)
    return path


@pytest.mark.parametrize("name", SPACES)
def test_names_and_shapes_are_those_of_both_networks(name):
    space = spaces.load(name)
    kind, arguments = ofa_oracle.CLASSES[name]
    options = ofa_oracle.RESNET_OPTIONS if "ResNets" in kind else ofa_oracle.OPTIONS
    with torch.device("meta"):
        ours = Supernet(space).state_dict()
    theirs = getattr(ofa_oracle.package().networks, kind)(**arguments, **options).state_dict()
    found = entries(space)
    assert {e.ours for e in found} == set(ours)
    assert {e.theirs for e in found} == {k for k in theirs if "num_batches" not in k}
    for entry in found:
        assert entry.shape == tuple(theirs[entry.theirs].shape)
        assert entry.shape == tuple(ours[entry.ours].shape)[: len(entry.shape)]


@pytest.mark.parametrize(("style", "legacy"), [("current", False), ("released", True)])
def test_every_style_of_file_gives_the_same_weights(theirs, released, tmp_path, style, legacy):
    other = tmp_path / "other"
    ofa_oracle.save(theirs, other, style, legacy)
    tensors = []
    for path in (released, other):
        import_supernet(path, NAME, tmp_path / "out.safetensors")
        with safe_open(tmp_path / "out.safetensors", framework="pt") as handle:
            tensors.append({key: handle.get_tensor(key) for key in handle.keys()})  # noqa: SIM118
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[1])


def test_names_written_as_static_layers_are_read_too(theirs, released, tmp_path):
    def static(named):
        for key in [k for k in named if ".bn.bn." in k or ".conv.conv.weight" in k]:
            short = key.replace(".bn.bn.", ".bn.").replace(".conv.conv.weight", ".conv.weight")
            named[short] = named.pop(key)

    path = _changed(theirs, tmp_path / "static", static)
    found = []
    for name, given in (("static", path), ("released", released)):
        import_supernet(given, NAME, tmp_path / f"{name}.safetensors")
        found.append(
            load_supernet(tmp_path / f"{name}.safetensors", spaces.load(NAME)).state_dict()
        )
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[1])


def test_the_file_says_where_it_came_from(released, tmp_path):
    out = tmp_path / "supernet.safetensors"
    imported = import_supernet(released, NAME, out)
    about = read_about(out)
    assert about["imported"]["sha256"] == imported.sha256 == sha256_file(released)
    assert about["imported"]["file"] == released.name
    assert (about["mean"][0], about["n_classes"]) == (0.485, 1000)


def test_a_kernel_seven_network_gets_identity_transforms(theirs, tmp_path):
    def teacher(named):
        for key in [k for k in named if k.endswith("_matrix")]:
            del named[key]

    path = _changed(theirs, tmp_path / "ofa_D4_E6_K7", teacher)
    out = tmp_path / "out.safetensors"
    assert import_supernet(path, NAME, out).identity == 40
    net = load_supernet(out, spaces.load(NAME))
    layer = net.slots["stage1_block1"]["depthwise"]
    assert torch.equal(layer.transform_7to5, torch.eye(25))


def test_classes_replace_the_classifier_or_keep_the_files(theirs, released, tmp_path):
    out = tmp_path / "out.safetensors"
    imported = import_supernet(released, NAME, out, classes=10)
    assert imported.new_classifier
    net = load_supernet(out, spaces.load(NAME).for_data(3, 10))
    assert net.slots["classifier"]["linear"].weight.shape == (10, 1280)

    def hundred(named):
        for part in ("weight", "bias"):
            named[f"classifier.linear.{part}"] = named[f"classifier.linear.{part}"][:100].clone()

    path = _changed(theirs, tmp_path / "hundred", hundred)
    with pytest.raises(ConfigError, match=r"has 100 classes.*--classes 100 keeps"):
        import_supernet(path, NAME, out)
    assert not import_supernet(path, NAME, out, classes=100).new_classifier
    load_supernet(out, spaces.load(NAME).for_data(3, 100))


class _Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_does_not_and_is_named(tmp_path, legacy):
    path = tmp_path / "harm.pth"
    content = {"state_dict": {"first_conv.conv.weight": _Harm(tmp_path / "made")}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileFormatError, match=r"wants to run posix\.mkdir; it was not run"):
        import_supernet(path, NAME, tmp_path / "out.safetensors")
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_bare_pickle_that_would_run_code_does_not_and_is_named(tmp_path, protocol):
    path = tmp_path / "harm.pth"
    path.write_bytes(pickle.dumps({"first": _Harm(tmp_path / "made")}, protocol))
    with pytest.raises(FileFormatError, match=r"wants to run posix\.mkdir; it was not run"):
        import_supernet(path, NAME, tmp_path / "out.safetensors")
    assert not (tmp_path / "made").exists()


def _renamed(named):
    named["first_conv.kernel"] = named.pop("first_conv.conv.weight")


def _narrow(named):
    named["first_conv.conv.weight"] = named["first_conv.conv.weight"][:8].clone()


def _broken(named):
    named["first_conv.conv.weight"] = torch.full((16, 3, 3, 3), float("nan"))


def _integer(named):
    named["first_conv.conv.weight"] = torch.zeros((16, 3, 3, 3), dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, r"lacks first_conv\.conv\.weight; it holds unknown first_conv\.kernel"),
        (_narrow, r"first_conv\.conv\.weight has shape \(8, 3, 3, 3\), expected \(16, 3, 3, 3\)"),
        (_broken, "first_conv.conv.weight holds NaN or infinity"),
        (_integer, "first_conv.conv.weight holds torch.int64"),
        (lambda named: named.clear(), "lacks first_conv"),
    ],
)
def test_tensors_that_do_not_fit_are_named(theirs, tmp_path, change, message):
    path = _changed(theirs, tmp_path / "changed", change)
    with pytest.raises(FileFormatError, match=message):
        import_supernet(path, NAME, tmp_path / "out.safetensors")


@pytest.mark.parametrize("name", ["ofa-mbv3-w12", "ofa-proxyless-w13", "ofa-resnet50d"])
def test_a_supernet_of_another_space_or_width_is_refused_with_the_right_name(
    released, tmp_path, name
):
    with pytest.raises(FileFormatError, match=f"is a supernet of space {NAME}, not of {name}"):
        import_supernet(released, name, tmp_path / "out.safetensors")


def test_a_half_downloaded_file_is_refused(released, tmp_path):
    half = tmp_path / "half"
    half.write_bytes(released.read_bytes()[: released.stat().st_size // 2])
    with pytest.raises(FileFormatError, match="cut short"):
        import_supernet(half, NAME, tmp_path / "out.safetensors")


@pytest.mark.parametrize("content", [b"", b"# no weights\n", b"\x80\x02}q\x00.", b"PK\x03\x04rest"])
def test_a_file_that_is_no_checkpoint_is_refused_and_no_unsafe_loading_advised(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as refused:
        import_supernet(path, NAME, tmp_path / "out.safetensors")
    assert str(path) in str(refused.value)
    assert "weights_only" not in str(refused.value)


def test_a_space_that_is_not_once_for_alls_is_refused(released, tmp_path):
    with pytest.raises(ConfigError, match="ofa-mbv3-w10"):
        import_supernet(released, "tiny", tmp_path / "out.safetensors")


def test_the_command_says_what_it_made_and_how_to_go_on(released, tmp_path, capsys):
    out = tmp_path / "run" / "supernet.safetensors"
    arguments = ["import", "supernet", str(released), "--space", NAME, "--out", str(out)]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert not done.value.code
    assert "training is skipped" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out)["checkpoint_sha256"] == sha256_file(released)
