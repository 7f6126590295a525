"""Subnets of an imported supernet against once-for-all's own: outputs, counts, calibration."""

from __future__ import annotations

import numpy as np
import ofa_oracle
import pytest
import torch

from hwnas.networks import spaces
from hwnas.networks.counts import exact_costs
from hwnas.ofa.checkpoint import import_supernet
from hwnas.ofa.dictionaries import SPACES
from hwnas.supernet.files import load_supernet
from hwnas.supernet.network import calibrate, extract

RANDOM = 2  # architectures beside the max and the min network; benchmarks/ofa.py takes 100


@pytest.fixture(scope="module", params=SPACES)
def pair(request, tmp_path_factory):
    """Their supernet and ours, imported from its file."""
    folder, name = tmp_path_factory.mktemp("ofa"), request.param
    theirs = ofa_oracle.supernet(name)
    ofa_oracle.save(theirs, folder / "theirs")
    import_supernet(folder / "theirs", name, folder / "ours.safetensors")
    (folder / "theirs").unlink()
    return theirs, load_supernet(folder / "ours.safetensors", spaces.load(name))


def _archs(name):
    rng, space = np.random.default_rng(0), spaces.load(name).restricted([128])
    return [*ofa_oracle.corners(name), *(space.random(rng) for _ in range(RANDOM))]


@torch.no_grad()
def test_outputs_of_supernet_and_subnet_are_theirs(pair):
    theirs, ours = pair
    for arch in _archs(ours.space.name):
        ofa_oracle.activate(theirs, arch)
        images = ofa_oracle.images(arch, 1)
        expected = theirs(images)
        limit = 1e-5 * max(1.0, float(expected.abs().max()))
        assert (ours(images, arch) - expected).abs().max() <= limit
        assert (extract(ours, arch)(images) - expected).abs().max() <= limit


@torch.no_grad()
def test_macs_and_parameters_are_those_of_their_counter_and_static_network(pair):
    theirs, ours = pair
    rng = np.random.default_rng(1)
    archs = ours.space.architectures(ours.space.sample(30, rng))
    for arch in [ours.space.largest, ours.space.smallest, *archs]:
        assert exact_costs(arch)["macs"] == ofa_oracle.macs(theirs, arch)
    for arch in archs[:2]:
        ofa_oracle.activate(theirs, arch)
        assert exact_costs(arch)["params"] == ofa_oracle.parameters(theirs)


@torch.no_grad()
def test_calibration_gives_the_statistics_of_their_procedure(pair):
    theirs, ours = pair
    arch = _archs(ours.space.name)[-1]
    batches = [ofa_oracle.images(arch, n, seed) for n, seed in ((4, 1), (2, 2))]
    subnet = extract(ours, arch)
    calibrate(subnet, batches)
    ofa_oracle.activate(theirs, arch)
    static = theirs.get_active_subnet(preserve_weight=True).eval()
    loader = [(images, torch.zeros(len(images))) for images in batches]
    ofa_oracle.package().utils.set_running_statistics(static, loader)
    images = ofa_oracle.images(arch)
    expected = static(images)
    # Sums in another order differ in the last digits, which fifty layers normalise again.
    limit = 1e-4 * max(1.0, float(expected.abs().max()))
    assert (subnet(images) - expected).abs().max() <= limit
    norms = [m for m in subnet.modules() if getattr(m, "kind", "") == "batch_norm"]
    others = [m for m in static.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for mine, other in zip(norms, others, strict=True):
        assert torch.allclose(mine.running_mean, other.running_mean, rtol=1e-4, atol=1e-4)
        assert torch.allclose(mine.running_var, other.running_var, rtol=1e-4, atol=1e-5)
