"""Temporal convolutional networks: the whole job on series by the normal commands, and the family.

The data are scikit-learn's digits as series of 8 channels (rows) and 8 steps (columns): a
substitute, for want of real series in the packages that tests need. `benchmarks/tcn.py` has real
ones.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from hwnas import cli
from hwnas.networks import spaces
from hwnas.networks.families.tcn import Stage, Tcn
from hwnas.networks.slots import check_family
from hwnas.networks.space import SearchSpace
from hwnas.supernet.network import Supernet, extract

TARGET = "host.ort-cpu.fp32.b1.t1"
SPACE = SearchSpace(
    name="tcn-small",
    resolutions=(8, 12),
    profiled=(8, 12),
    family=Tcn(
        stages=(
            Stage((8, 12), depths=(1, 2), kernel_sizes=(2, 3), dilations=(1, 2)),
            Stage((16, 24), depths=(1,), kernel_sizes=(2, 3), dilations=(1,), stride=2),
        )
    ),
)
SETTINGS = f"""
run: run
data: {{kind: npz, root: digits.npz}}
space: {{name: "{__name__}:SPACE", resolutions: [12]}}
train: {{epochs: 6, threads: 1}}
accuracy: {{measure: 16, bn_images: 256, training_free: 8}}
targets: [{TARGET}]
profile: {{budget_s: 30, heldout: 5, rounds: 5}}
search: {{algorithm: dp}}
pick: [{{rule: best}}, {{rule: cheapest}}]
check: {{min_accuracy: 0.6}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, and the series of its data."""
    folder = tmp_path_factory.mktemp("tcn")
    digits = load_digits()
    series = digits.images.astype(np.float32)
    np.savez(folder / "digits.npz", train_series=series, train_labels=digits.target)
    (folder / "hwnas.yaml").write_text(SETTINGS)
    accepted = "unreliable,gap,budget,untimed"  # how quiet the machine is, is not tested here
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", str(folder / "hwnas.yaml"), "--accept", accepted])
    assert not ended.value.code
    return folder, series


def test_series_go_through_every_stage_and_end_in_measured_packages(finished):
    folder, _ = finished
    manifests = [json.loads(p.read_text()) for p in folder.glob("run/packages/*/*/manifest.json")]
    assert {manifest["name"] for manifest in manifests} == {"best", "cheapest-0.01"}
    for manifest in manifests:
        assert manifest["input"]["shape"] == [8, manifest["input"]["size"]]
        assert manifest["parity"]["max_relative_difference"] <= 1e-4
        assert manifest["parity"]["same_top1"] == 1
        assert manifest["measured"]["test_images"] == 359
        assert manifest["measured"]["accuracy_on"] == "target"
    best, cheapest = sorted(manifests, key=lambda manifest: manifest["name"])
    assert best["measured"]["test_accuracy"] > 0.6  # guessing: 0.1
    assert cheapest["predicted"]["macs"] < best["predicted"]["macs"]
    report = (folder / "run/report.html").read_text()
    assert "test series of 8 steps, 10 classes" in report


def test_the_example_of_a_package_classifies_a_series(finished, tmp_path):
    folder, series = finished
    package = folder / f"run/packages/{TARGET}/best"
    paths = [tmp_path / f"{n}.npy" for n in range(20)]
    for path, one in zip(paths, series, strict=False):
        np.save(path, one)
    command = [sys.executable, "-I", "-W", "error", package / "example.py", *paths]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [int(line.rsplit(": ")[1].split()[0]) for line in said.splitlines()]
    assert np.mean(np.array(found) == load_digits().target[:20]) > 0.5


@pytest.mark.parametrize("space", [SPACE, spaces.load("tcn-128")], ids=lambda space: space.name)
def test_what_a_slot_depends_on_is_what_the_family_says(space):
    check_family(space, 200, np.random.default_rng(0))


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return Supernet(SPACE).eval()


def test_a_shorter_kernel_keeps_the_last_taps_and_a_narrower_layer_the_first_channels(supernet):
    wide, narrow = SPACE.largest, SPACE.smallest
    assert (wide["stage1.block1.kernel_size"], narrow["stage1.block1.kernel_size"]) == (3, 2)
    whole, part = (extract(supernet, a).state_dict() for a in (wide, narrow))
    name = "slots.stage1_block1.conv1.weight"
    assert torch.equal(part[name], whole[name][: narrow["stage1.width"], :, -2:])


def test_blocks_see_no_later_step(supernet):
    """A change of the series at a step leaves every output before it as it was."""
    x = torch.randn(1, 1, 12)
    changed = x.clone()
    changed[..., 7:] += 1
    arch = SPACE.architecture([12, *SPACE.largest.values[1:]])
    blocks = [placed for placed in arch.ops if placed.slot.startswith("stage1")]
    with torch.no_grad():
        before, after = (supernet.through(tuple(blocks), series) for series in (x, changed))
    assert torch.equal(before[..., :7], after[..., :7])
    assert not torch.equal(before, after)


def test_a_dilation_spreads_the_taps_and_costs_no_macs():
    near = dict(zip(SPACE.columns, SPACE.largest.values, strict=True))
    far = {**near, **{name: 1 for name in near if name.endswith("dilation")}}
    first, other = (SPACE.architecture(v.values()) for v in (near, far))
    assert [p.op.macs for p in first.ops] == [p.op.macs for p in other.ops]
    assert first != other
    dilated = first.ops[0].op.graph.primitives[0]
    assert (dilated.args["dilation"], dilated.args["pads"]) == ((2,), ((4, 0),))


def test_the_space_of_series_has_the_networks_that_its_choices_say():
    blocks = 2 * 2  # kernels, dilations
    assert SPACE.size == 2 * (2 * (blocks + blocks**2)) * (2 * 2)
    genomes = np.array(np.meshgrid(*map(np.arange, SPACE.n_options), indexing="ij"))
    rows = genomes.reshape(len(SPACE.n_options), -1).T
    assert len(set(SPACE.architectures(rows))) == SPACE.size
