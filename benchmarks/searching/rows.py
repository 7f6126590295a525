"""What benchmarks/against.py times, with the code of the checkout that this process is given.

    python benchmarks/searching/rows.py CHECKOUT

A line of JSON is a request: a part (the answer names its rows), or a part, a row and a seed (the
answer is CPU seconds and what the work gave). Rows are those of benchmarks/search.py and
benchmarks/ofa.py; problems come from the checkout's own copies of these, in its own words.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy and torch are loaded

N_PRICED, N_SPACES, N_TAUGHT = 100_000, 20, 300
LEAST_S = 0.1  # of a visit: what is shorter is repeated
SUPERNET = {"batch": 8, "imports": 1}

# Given a seed; what it gave, for both sides to agree on, and CPU seconds where it counts itself.
Work = Callable[[int], float | tuple[float, float]]


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    sys.path[:1] = [str(checkout), str(checkout / "tests")]
    os.chdir(checkout)
    parts: dict[str, dict[str, Work]] = {}
    with tempfile.TemporaryDirectory(prefix="hwnas-bench-") as folder:
        for line in sys.stdin:
            part, *row = json.loads(line)
            with contextlib.redirect_stdout(sys.stderr):
                if part not in parts:
                    parts[part] = {"search": search_rows, "ofa": ofa_rows}[part](
                        checkout / "benchmarks", Path(folder)
                    )
                answer = timed(parts[part][row[0]], row[1]) if row else list(parts[part])
            print(json.dumps(answer), flush=True)


def timed(work: Work, seed: int) -> tuple[float, float]:
    """CPU time in s of one run, its processes included, and what it gave."""
    gc.collect()
    started, runs = cpu_s(), 0
    while not runs or cpu_s() < started + LEAST_S:
        given, runs = work(seed), runs + 1
    if isinstance(given, tuple):
        return given[1], given[0]
    return (cpu_s() - started) / runs, given


def cpu_s() -> float:
    """CPU time so far of this process and those that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


# ---- search -------------------------------------------------------------------------------------


def search_rows(benchmarks: Path, folder: Path) -> dict[str, Work]:
    """Pricing, exact fronts and every searcher on the problems of benchmarks/search.py."""
    import numpy as np

    sys.path.insert(0, str(benchmarks))
    from searching import parts

    sys.path.pop(0)  # its ofa.py would hide once-for-all's package
    space = parts.spaces.load("ofa-mbv3-w10")
    additive, mlp = parts.additive_problem(space), parts.mlp_problem(space)
    resnet = fitted_problem(parts.spaces.load("ofa-resnet50d").restricted([224]))
    random = [problem for seed in range(N_SPACES) for problem in random_problems(parts, seed)]

    def price(case: Any) -> Work:
        genome = case.space.sample(N_PRICED, np.random.default_rng(0)).astype(np.uint8)
        return lambda seed: float(case.evaluate(genome).sum())

    def front(*cases: Any) -> Work:
        dp = parts.SearchConfig(algorithm="dp")
        return lambda seed: sum(len(parts.searchers.search(case, dp).front) for case in cases)

    def ours(case: Any, **settings: Any) -> Work:
        return lambda seed: parts.ours(case, seed, **settings)[1].evaluations

    plain, equal = parts.PLAIN, {**parts.EQUAL_BUDGET, "start_from_dp": False}
    return {
        "price 100,000": price(additive),
        "price 100,000, ofa-resnet50d": price(resnet),
        "exact front, one resolution": front(parts._at_resolutions(additive, 1)),
        "exact front, five resolutions": front(parts._at_resolutions(additive, 5)),
        "exact front, ofa-resnet50d, one resolution": front(resnet),
        f"exact fronts of {N_SPACES} random spaces": front(*random),
        "nsga2, 1,000 x 50": ours(additive, population=1000, generations=50, **plain),
        "nsga2, 100 x 100": ours(additive, population=100, generations=100, **plain),
        "nsga2, predictor, 100 x 300": ours(mlp, generations=300, **plain),
        "default search, 100 generations": ours(additive, generations=100),
        "default search, predictor, 100 generations": ours(mlp, generations=100),
        **{
            f"{name}, 2,000 evaluations": ours(additive, algorithm=name, **equal)
            for name in parts.searchers.names()
        },
    }


def fitted_problem(space: Any) -> Any:
    """Error by a ridge predictor against modelled latency: a space of any family.

    The predictor is fitted to an error that falls with the logarithm of MACs, and noise.
    """
    import numpy as np

    try:
        fit = importlib.import_module("hwnas.predictors.fit")
    except ImportError:  # its name before
        fit = importlib.import_module("hwnas.accuracy.predictor_fit")
    problems = importlib.import_module("searching.problems")
    rng = np.random.default_rng(0)
    genome = space.sample(N_TAUGHT, rng)
    log_macs = np.log(problems.metrics_of(space)["macs"].evaluate(genome))
    noise = rng.normal(scale=0.003, size=len(genome))
    top1 = 0.7 + 0.05 * (log_macs - log_macs.mean()) + noise
    rows = zip(space.architectures(genome), top1.tolist(), strict=True)
    error = fit.fit_predictor(space, rows, 0, "")
    metrics = problems.metrics_of(space, problems.price, problems.intercept, error)
    return problems.make_problem(space, problems.SearchConfig(), metrics)


def random_problems(parts: ModuleType, seed: int) -> list[Any]:
    """Random terms of one and of two costs on a random small space."""
    import numpy as np

    cases = importlib.import_module("search_cases")
    if hasattr(parts, "random_terms"):
        space, terms = cases.random_blocks(np.random.default_rng(seed)), parts.random_terms
    else:  # their names before
        space, terms = parts.random_space(seed, parts.spaces.load("tiny")), parts._random_terms
    out = []
    for names in (("error", "latency_ms"), ("error", "latency_ms", "macs")):
        rng = np.random.default_rng([seed, len(names) - 1])
        made = {name: terms(space, rng) for name in names}
        out.append(parts.Problem(space, names, {**parts.metrics_of(space), **made}, {}))
    return out


# ---- public supernets ---------------------------------------------------------------------------


def ofa_rows(benchmarks: Path, folder: Path) -> dict[str, Work]:
    """Supernet, import, export and front of benchmarks/ofa.py."""
    found = importlib.util.spec_from_file_location("bench_ofa", benchmarks / "ofa.py")
    assert found is not None
    assert found.loader is not None
    sys.path.insert(0, "")  # the script replaces the first folder
    bench = importlib.util.module_from_spec(found)
    found.loader.exec_module(bench)
    bench.torch.set_num_threads(1)
    _, ours = bench.pair(folder, bench.NAME)
    steps = {
        f"{mode} {size}": step(bench, ours, arch, mode == "forward")
        for size, arch in bench.ends().items()
        for mode in ("forward", "forward and backward")
    }
    counted: list[float] = []
    bench.print_cpu = lambda what, seconds: counted.append(seconds)
    (folder / "front").mkdir()

    @bench.torch.no_grad()
    def export(seed: int) -> float:
        with tempfile.TemporaryDirectory() as package:
            arch = bench.spaces.load(bench.NAME).restricted([224]).largest
            return float(bench.export_one(Path(package) / "package", ours, arch) < 1e-4)

    def imported(seed: int) -> tuple[float, float]:
        return len(bench.importing(folder, SUPERNET)), counted.pop()

    def front(seed: int) -> tuple[float, float]:
        return bench.front(folder / "front", bench.FULL)[1]["value"], counted.pop()

    return {
        **steps,
        "import of a supernet": imported,
        "export of a package": export,
        "imported table and predictor to a front": front,
    }


def step(bench: ModuleType, supernet: Any, arch: Any, forward: bool) -> Work:
    """One step of a supernet as one subnet."""
    images = bench.ofa_oracle.images(arch, SUPERNET["batch"])
    images = images.contiguous(memory_format=bench.torch.channels_last)

    def work(seed: int) -> float:
        supernet.train(not forward)
        supernet.zero_grad(set_to_none=True)
        with bench.torch.set_grad_enabled(not forward):
            logits = supernet(images, arch)
            if not forward:
                logits.square().mean().backward()
        supernet.eval()
        return float(logits.shape[0])

    return work


if __name__ == "__main__":
    main()
