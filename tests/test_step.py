"""One step of training against plain torch: losses, gradients and update written out once more.

The oracle shares the forward pass, the plan of a step (which networks, which images, both tested in
test_train.py) and nothing else: it has weights of its own, takes one gradient of one sum, and
updates by the formula. What a network computes is tested in test_supernet.py; activations are
smooth here, since a rounding error at a kink grows within a step.
"""

from __future__ import annotations

import copy
import functools
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import ends, together
from torch import Tensor, nn

from hwnas.images import tensors
from hwnas.networks import spaces
from hwnas.settings.config import AccuracyConfig, DataConfig, TrainConfig
from hwnas.supernet import forward, training
from hwnas.supernet.evaluation import Evaluator
from hwnas.supernet.files import save_checkpoint
from hwnas.supernet.network import Subnet, Supernet, calibrate, extract
from hwnas.supernet.recipes import Recipe, Stage
from hwnas.supernet.state import State
from profilers.errors import ConfigError

SPACE = spaces.load("tiny").restricted([8, 12])
BATCH, MOMENTUM = 32, 0.9
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def _quiet(share: float, text: str) -> None:
    """Progress that nobody reads."""


def smooth() -> None:
    """Every activation becomes one without a kink."""
    for name in ("relu", "relu6", "h_swish"):
        forward.FORWARD[name] = lambda p, x, w: nn.functional.silu(x[0])


@pytest.fixture(scope="module", autouse=True)
def _smooth():
    before, count = dict(forward.FORWARD), torch.get_num_threads()
    smooth()
    torch.set_num_threads(1)  # as training here: sums of another number differ
    yield
    torch.set_num_threads(count)
    forward.FORWARD.update(before)


@pytest.fixture(scope="module")
def digits() -> tensors.Dataset:
    return tensors.load(DataConfig(kind="digits"))


def _job(
    digits: tensors.Dataset, folder: Path, steps: int, augment="shift", recipe=None, **settings
) -> training.Job:
    """A run of one epoch of some steps."""
    few = tensors.Split(digits.train.images[: steps * BATCH], digits.train.labels[: steps * BATCH])
    given = {"epochs": 1, "batch_size": BATCH, "threads": 1, "max_only": 0, "warmup": 0}
    config = TrainConfig(**{**given, "weight_decay": 0.5, "learning_rate": 0.01, **settings})
    images = replace(digits, train=few)
    return training.Job(config, SPACE, images, augment, folder, own_recipe=recipe)


def _supernet() -> Supernet:
    """Fresh weights, with a classifier so large that gradients are clipped."""
    torch.manual_seed(5)
    net = Supernet(SPACE)
    with torch.no_grad():
        net.slots["classifier"]["linear"].weight.mul_(200)
    return net


class Oracle:
    """Training once more, on weights of its own, one step after the other.

    Attributes:
        clipped: gradients that were cut at 1 so far.
    """

    def __init__(self, job: training.Job, net: nn.Module, teacher: training.Teacher | None = None):
        self.job, self.net, self.teacher = job, copy.deepcopy(net).train(), teacher
        self.velocity: dict[str, Tensor] = {}
        self.clipped = 0
        self.frozen: nn.Module | None = None
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}

    def step(self, step: int) -> None:
        """Update the weights once."""
        recipe, config = self.job.recipe, self.job.config
        if recipe.frozen and step == round((config.max_only or 0) * self.job.plan.steps):
            self.frozen = copy.deepcopy(self.net)
        rate, parameters = self._rate(step), dict(self.net.named_parameters())
        found = torch.autograd.grad(self._loss(step), list(parameters.values()), allow_unused=True)
        gradients = self._clipped(found)
        with torch.no_grad():
            for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
                if gradient is not None:  # of weights that the step's networks do not use
                    self._update(name, weight, gradient, rate)
        stays = min(recipe.ema, (1 + step) / (10 + step))
        for name, value in self.net.state_dict().items():
            self.average[name] = stays * self.average[name] + (1 - stays) * value

    def _clipped(self, gradients: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        """Each value cut at 1, or all of them shrunk together."""
        limit = self.job.recipe.clip_norm
        if not limit:
            self.clipped += sum(int((g.abs() > 1).sum()) for g in gradients if g is not None)
            return [g if g is None else g.clamp(-1, 1) for g in gradients]
        length = math.sqrt(sum(float((g**2).sum()) for g in gradients if g is not None))
        self.clipped += 100 * (length > limit)
        return [g if g is None else g * min(1.0, limit / length) for g in gradients]

    def _loss(self, step: int) -> Tensor:
        images, labels = self._images(step)
        if isinstance(self.net, Subnet):
            logits = self.net(self._input(images, self.net.arch.resolution))
            loss = self._cross_entropy(logits, self._smoothed(labels))
            if self.teacher:
                with torch.no_grad():
                    x = self._input(images, self.teacher.net.arch.resolution)
                    answers = self.teacher.net(x).softmax(1)
                loss = loss + self.teacher.weight * self._cross_entropy(logits, answers)
            return loss
        roles = training.sampled_architectures(self.job, step)
        others = [arch for role in ("min", "random") for arch in roles.get(role, [])]
        loss = torch.zeros(())
        if self.frozen:
            arch = SPACE.architecture([others[0].resolution, *SPACE.largest.values[1:]])
            answers = self.frozen(self._input(images, arch.resolution), arch).detach().softmax(1)
        else:
            (largest,) = roles["max"]
            logits = self.net(self._input(images, largest.resolution), largest)
            loss = self._cross_entropy(logits, self._smoothed(labels))
            answers = logits.detach().softmax(1)
        if self.teacher:
            with torch.no_grad():
                x = self._input(images, self.teacher.net.arch.resolution)
                answers = self.teacher.net(x).softmax(1)
            loss = loss + self.teacher.weight * self._cross_entropy(logits, answers)
        for arch in others:
            student = self.net(self._input(images, arch.resolution), arch)
            loss = loss + self._share(step) * self._students(student, answers, labels)
        return loss

    def _students(self, logits: Tensor, answers: Tensor, labels: Tensor) -> Tensor:
        """Part labels, part what the teacher answers, all classes raised alike."""
        recipe = self.job.recipe
        wanted = answers * (1 - recipe.smoothing) + recipe.smoothing / 10
        wanted = wanted * (1 - recipe.labels) + recipe.labels * self._smoothed(labels)
        return self._cross_entropy(logits, wanted)

    @staticmethod
    def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
        rows = wanted * (logits - logits.logsumexp(1, keepdim=True))
        return -rows.sum() / len(rows)

    def _smoothed(self, labels: Tensor) -> Tensor:
        """Of ten classes each gets a tenth of the smoothing, the right one the rest as well."""
        smoothing = self.job.config.label_smoothing
        wanted = torch.full((len(labels), 10), smoothing / 10)
        wanted[torch.arange(len(labels)), labels] += 1 - smoothing
        return wanted

    def _share(self, step: int) -> float:
        """Weight of a subnet's loss: 1/4 to 1 over the first fifth of the steps with subnets."""
        alone = round(self.job.config.max_only * self.job.plan.steps)
        ramp = (self.job.plan.steps - alone) * self.job.recipe.ramp
        return min(1.0, 0.25 + 0.75 * (step - alone) / ramp) if ramp else 1.0

    def _rate(self, step: int) -> float:
        config, steps = self.job.config, self.job.plan.steps
        rising = max(1, round(config.warmup * steps))
        if step < rising:
            return config.learning_rate * (step + 1) / rising
        falling = (step - rising) / (steps - rising)
        return config.learning_rate * (1 + math.cos(math.pi * falling)) / 2

    def _update(self, name: str, weight: Tensor, gradient: Tensor, rate: float) -> None:
        """Decay weights (no bias, norm or transform), Nesterov momentum."""
        force = gradient
        if name.endswith(".weight") and weight.ndim > 1:
            force = force + self.job.config.weight_decay * weight
        before = self.velocity.get(name)
        self.velocity[name] = force if before is None else MOMENTUM * before + force
        weight -= rate * (force + MOMENTUM * self.velocity[name])

    def _images(self, step: int) -> tuple[Tensor, Tensor]:
        """uint8 images of a step, each shifted by up to a pixel with zeros behind, and labels."""
        seed, split = self.job.config.seed, self.job.dataset.train
        order = np.random.default_rng([seed, 0, 2]).permutation(len(split))
        chosen = order[step * BATCH : (step + 1) * BATCH]
        images, labels = split.images[chosen], split.labels[chosen]
        if self.job.augment == "none":
            return images, labels
        drawn = np.random.default_rng([seed, step, 3, 0]).integers(2**62)
        source = torch.Generator().manual_seed(int(drawn))
        y, x = (torch.randint(3, (len(images),), generator=source).tolist() for _ in "yx")
        padded = np.pad(images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
        moved = [p[:, a : a + 8, b : b + 8] for p, a, b in zip(padded, y, x, strict=True)]
        return torch.from_numpy(np.stack(moved)), labels

    def _input(self, images: Tensor, resolution: int) -> Tensor:
        scaled = (images / 255 - self.job.dataset.mean[0]) / self.job.dataset.std[0]
        size = (resolution, resolution)
        return nn.functional.interpolate(scaled, size, mode="bilinear", align_corners=False)


def _check_equal(trained: nn.Module, expected: nn.Module) -> None:
    pairs = zip(trained.state_dict().items(), expected.state_dict().items(), strict=True)
    for (name, value), (_, wanted) in pairs:
        torch.testing.assert_close(value, wanted, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


def _check_untouched(teacher: training.Teacher, before: dict[str, Tensor]) -> None:
    """A teacher learns nothing."""
    after = teacher.net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(weight.grad is None for weight in teacher.net.parameters())


@pytest.mark.parametrize(
    ("steps", "settings", "taught"),
    [
        (1, {}, False),
        (3, {"random_subnets": 2, "label_smoothing": 0.2}, False),
        (12, {"max_only": 0.34, "warmup": 0.3, "seed": 3, "learning_rate": 0.002}, False),
        (3, {"random_subnets": 2}, True),
    ],
    ids=["one", "three", "the max network alone, then the ramp", "a teacher"],
)
def test_steps_are_those_of_plain_torch(digits, tmp_path, steps, settings, taught):
    job, net = _job(digits, tmp_path, steps, **settings), _supernet()
    teacher = training.Teacher(Subnet(SPACE.largest).eval(), 0.5) if taught else None
    before = copy.deepcopy(teacher.net.state_dict()) if teacher else {}
    oracle = Oracle(job, net, teacher)
    for step in range(steps):
        oracle.step(step)
    assert oracle.clipped > 20
    _check_equal(training.train(job, _quiet, net, teacher), oracle.net)
    if teacher:
        _check_untouched(teacher, before)


SUBNETS = Stage(share=1, smallest=True, random=2)


@pytest.mark.parametrize(
    "options",
    [
        {
            "labels": 0.5,
            "smoothing": 0.05,
            "ramp": 0.0,
            "resolutions": "own",
            "tilt": 2.0,
            "clip_norm": 3.0,
        },
        {
            "stages": (Stage(share=1), replace(SUBNETS, largest=False)),
            "frozen": True,
            "labels": 0.3,
            "ema": 0.7,
        },
    ],
    ids=["all at once", "a frozen teacher"],
)
def test_steps_of_a_recipe_are_those_of_plain_torch(digits, tmp_path, options):
    recipe = Recipe(**{"stages": (Stage(share=0), SUBNETS), **options})
    only = 0.34 if recipe.frozen else 0.0
    job, net = _job(digits, tmp_path, 3, recipe=recipe, max_only=only, warmup=0.4), _supernet()
    oracle = Oracle(job, net)
    for step in range(3):
        oracle.step(step)
    assert oracle.clipped > 20
    trained = training.train(job, _quiet, net).state_dict()
    expected = oracle.average if recipe.ema else oracle.net.state_dict()
    for name, wanted in expected.items():
        torch.testing.assert_close(trained[name], wanted, **CLOSE, msg=name)


@pytest.mark.parametrize("taught", [False, True], ids=["labels", "labels and a teacher"])
def test_steps_of_one_network_are_those_of_plain_torch(digits, tmp_path, taught):
    torch.manual_seed(5)
    arch = SPACE.architecture([12, *SPACE.smallest.values[1:]])
    job, net = _job(digits, tmp_path, 3), Subnet(arch)
    largest = SPACE.architecture([12, *SPACE.largest.values[1:]])
    teacher = training.Teacher(Subnet(largest).eval(), 0.5) if taught else None
    before = copy.deepcopy(teacher.net.state_dict()) if teacher else {}
    oracle = Oracle(job, net, teacher)
    for step in range(3):
        oracle.step(step)
    _check_equal(training.train(job, _quiet, net, teacher), oracle.net)
    if teacher:
        _check_untouched(teacher, before)


def test_steps_may_be_taken_one_by_one(digits, tmp_path):
    job, net = _job(digits, tmp_path, 3), _supernet().train()
    lost = list(training.steps(job, net))
    assert [sorted(names) for names in lost] == 3 * [
        ["labels_max", "labels_min", "labels_random", "loss_max", "loss_min", "loss_random"]
    ]
    _check_equal(net, training.train(job, _quiet, _supernet()))


# ---- processes that train together --------------------------------------------------------------

# Kernel transforms of random subnets that the first step uses and a later one does not must rest.
TOGETHER = {"random_subnets": 2, "learning_rate": 0.2}
HALF = """
import os
import sys
import time
from pathlib import Path
import torch
from hwnas.images import tensors
from hwnas.settings.config import DataConfig
from hwnas.supernet import training
sys.path.append(sys.argv[2])
import test_step
torch.set_num_threads(1)
test_step.smooth()
digits = tensors.load(DataConfig(kind="digits"))
job = test_step._job(digits, Path(sys.argv[1]), 3, "none", **test_step.TOGETHER)
aside = training.set_aside
training.set_aside = lambda *given: time.sleep(1) or aside(*given)  # the other one waits for it
net = training.train(job, test_step._quiet, test_step._without_batchnorm())
torch.save(net.state_dict(), Path(sys.argv[1]) / f"rank{os.environ['RANK']}.pt")
"""


def _add_bias(layer: nn.Module, x: list[Tensor], p, cuts) -> Tensor:
    return x[0] + layer.bias[: p.shape[0], None, None]


def _without_batchnorm() -> Supernet:
    """A supernet of convolutions with biases: what an image gives depends on it alone."""
    net = _supernet()
    for layers in net.slots.values():
        for layer in layers.values():
            if layer.kind == "batch_norm":
                layer.forward = functools.partial(_add_bias, layer)
    return net


@pytest.mark.parametrize("taught", [False, True])
def test_a_step_in_parts_is_the_whole_step(digits, tmp_path, taught):
    """Where BatchNorm does not tell the parts apart."""
    teacher = training.Teacher(Subnet(SPACE.largest).eval(), 0.5) if taught else None
    found = []
    for parts in (1, 4):
        job = _job(digits, tmp_path / str(parts), 3, **TOGETHER, accumulate=parts)
        found.append(training.train(job, _quiet, _without_batchnorm(), teacher).state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, **CLOSE, msg=name)


def test_batchnorm_normalises_by_the_part(digits, tmp_path):
    job = _job(digits, tmp_path, 1, "none", accumulate=4)
    net, shown = Subnet(SPACE.largest), []
    net.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
    training.train(job, _quiet, net)
    assert shown == [BATCH // 4] * (1 + 4)  # one rehearses


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(digits, tmp_path):
    """Though a checkpoint of other settings lies there."""
    other = _job(digits, tmp_path, 3, "none", learning_rate=0.1)
    net = _without_batchnorm()
    save_checkpoint(other, State.fresh(other, net), 2)
    codes, said = ends(
        together([sys.executable, "-c", HALF, str(tmp_path), str(Path(__file__).parent)])
    )
    assert codes == [0, 0], said
    job = _job(digits, tmp_path / "one", 3, "none", **TOGETHER)
    alone = training.train(job, _quiet, _without_batchnorm()).state_dict()
    for rank in range(2):
        half = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for name, value in alone.items():
            torch.testing.assert_close(half[name], value, **CLOSE, msg=name)


def test_a_batch_that_the_processes_cannot_share_evenly_is_refused(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "join_processes", lambda: (0, 3))
    with pytest.raises(ConfigError, match=r"batch_size 32 .* 3 processes.*multiple of 3"):
        training.train(_job(digits, tmp_path, 1), _quiet)


# ---- augmentation -------------------------------------------------------------------------------


def test_calibration_takes_the_mean_over_batches_of_what_a_batchnorm_gets():
    torch.manual_seed(0)
    subnet = extract(_supernet(), SPACE.smallest)
    batches = [3 * torch.randn(5, 1, 8, 8) + 1, torch.randn(3, 1, 8, 8)]
    norms = [layer for layer in subnet.modules() if getattr(layer, "kind", "") == "batch_norm"]
    seen: list[list[Tensor]] = [[] for _ in norms]
    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs, kept=kept: kept.append(inputs[0][0]))
        for norm, kept in zip(norms, seen, strict=True)
    ]
    calibrate(subnet, batches)
    for hook in hooks:
        hook.remove()
    for norm, (first, second) in zip(norms, seen, strict=True):
        for name, statistic in (("mean", np.mean), ("var", np.var)):
            each = [statistic(x.double().numpy(), axis=(0, 2, 3)) for x in (first, second)]
            found = getattr(norm, f"running_{name}").numpy()
            np.testing.assert_allclose(found, (5 * each[0] + 3 * each[1]) / 8, 1e-5, 1e-6)
    before = copy.deepcopy(norms[0].running_mean)
    subnet.train()(batches[0])  # a training that follows counts a batch as a tenth, as before
    step = 0.1 * (np.mean(seen[0][0].numpy(), axis=(0, 2, 3)) - before.numpy())
    np.testing.assert_allclose(norms[0].running_mean.numpy(), before.numpy() + step, 1e-5, 1e-6)


def test_subnets_are_calibrated_and_measured_on_images_as_they_are(digits):
    config = AccuracyConfig(bn_images=64, images=200)
    evaluator = Evaluator(_supernet().eval(), digits, config, "hash")
    subnet = evaluator.subnet(SPACE.smallest)
    order = np.random.default_rng([0, 1]).permutation(len(digits.train))[:64]
    expected = extract(evaluator.supernet, SPACE.smallest)

    def plain(images: Tensor) -> Tensor:
        return (images / 255 - digits.mean[0]) / digits.std[0]

    calibrate(expected, [plain(digits.train.images[order])])
    _check_equal(subnet, expected)
    chosen = np.random.default_rng(0).permutation(len(digits.val))[:200]
    answers = expected(plain(digits.val.images[chosen])).argmax(1)
    right = (answers == digits.val.labels[chosen]).float().mean()
    assert evaluator.measure(SPACE.smallest) == pytest.approx(float(right))
