"""How sure an accuracy is: intervals, networks on the same images, what a spread leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hwnas.run import accuracy, results
from hwnas.run.results import Result
from hwnas.tasks import classification

N = 200


def result(right: np.ndarray, ms: float = 1.0, verdict: str = "good") -> Result:
    measured = {
        "test_accuracy": float(right.mean()),
        "test_images": len(right),
        "latency_ms": ms,
        "verdict": verdict,
        "reason": "",
    }
    return Result("model", "", "data", {}, measured, np.packbits(right).tobytes().hex())


def wrong_on(*images: int) -> np.ndarray:
    right = np.ones(N, bool)
    right[list(images)] = False
    return right


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (352, 360), (1, 40), (9000, 10_000)])
def test_an_interval_is_that_of_wilson(right, n):
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert classification.interval(right / n, n) == pytest.approx(
        (expected.low, expected.high), abs=2e-5
    )


def test_an_accuracy_is_told_with_its_interval():
    assert accuracy.in_words(0.9, classification.interval(0.9, 1000)) == "90.00% (88.0 to 91.7)"
    assert accuracy.in_words(None, None) == ""
    assert accuracy.in_words(0.9, None) == "90.00%"


@pytest.mark.parametrize("b", [0, 1, 4, 12, 700])
@pytest.mark.parametrize("c", [0, 1, 5, 6, 30, 720])
def test_two_networks_differ_as_the_exact_test_of_mcnemar_says(b, c):
    p = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert accuracy.differ((b, c)) == (p < 0.05)


def test_networks_are_compared_on_the_images_where_only_one_is_right():
    found = {
        "best": result(wrong_on(0, 1, 2)),
        "near": result(wrong_on(0, 1, 2, 3, 4)),  # two images apart
        "same": result(wrong_on(0, 1, 2)),
        "far": result(wrong_on(*range(20))),
        "other": result(np.ones(N // 2, bool) & False),  # tested on fewer images
    }
    assert results.as_accurate(found) == ["near", "best"]  # best and same are equal
    assert results.as_accurate({}) == []
    assert results.as_accurate({"one": result(wrong_on(1))}) == []


def test_a_network_is_beaten_where_it_is_slower_and_less_accurate_undisturbed():
    good, poor = wrong_on(0), wrong_on(0, 1)
    assert results.beaten(result(poor, 2.0), result(good, 1.0))
    for pair in (
        (result(good, 2.0), result(good, 1.0)),  # as accurate
        (result(poor, 1.0), result(good, 1.0)),  # as fast
        (result(good, 1.0), result(poor, 2.0)),
        (result(poor, 2.0, "disturbed"), result(good, 1.0)),
        (result(poor, 2.0), result(good, 1.0, "disturbed")),
    ):
        assert not results.beaten(*pair)


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [("", "ff", False), ("ff", "", False), ("ff", "fe", True), ("0", "ff", False)],
)
def test_networks_that_were_not_tested_are_not_called_alike(a, b, alike):
    assert accuracy.alike(a, b) is alike
