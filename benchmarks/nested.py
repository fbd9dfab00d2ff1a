"""Results and cost of nested learning, without reinforcement learning.

    python benchmarks/nested.py cleaning cost

cleaning: half of 600 handwritten digits have random labels. A weight for each digit is learned through the training of
a logistic classifier, from 100 clean digits. cost: time and memory of an outer gradient after an inner training of a
perceptron with 85k parameters, compared with torchopt's estimators of the same kind.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from running import RESULTS, processor
from torch import Tensor, nn
from torch.func import functional_call

from hrl.nested import SGD, ConjugateGradient, Descent, Implicit, Neumann, Outer, Unrolled, parameters

OUTER_STEPS = 60
"""More steps overfit the 100 clean digits, and detect wrong labels less well."""
TRAIN, VALIDATION, TEST = slice(0, 600), slice(600, 700), slice(800, None)


@dataclass
class Options:
    """Run these benchmarks, and print the results."""

    what: tyro.conf.Positional[tuple[str, ...]] = ("cleaning", "cost")
    """Benchmarks: cleaning, cost."""
    seeds: int = 3
    """Seeds of cleaning."""
    repeats: int = 5
    """Number of measurements of each cost."""


def main() -> None:
    """Run the benchmarks, print the results and write them to the file."""
    options = tyro.cli(Options)
    file = RESULTS / "nested.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for what in options.what:
        rows = {"cleaning": cleaning, "cost": cost}[what](options)
        results[what] = {"rows": rows, "machine": processor(), "date": time.strftime("%Y-%m-%d")}
        file.write_text(json.dumps(results, indent=1) + "\n")


# -- hyper-cleaning ------------------------------------------------------------------------------------------


def cleaning(options: Options) -> list[dict[str, float]]:
    """Hyper-cleaning, with one row per seed."""
    print("| seed | test accuracy: noisy + validation | noisy alone | cleaned | AUC of the noisy | seconds |")
    print("|---|---|---|---|---|---|")
    rows = []
    for seed in range(options.seeds):
        rows.append(clean(seed))
        print("| {seed} | {both:.3f} | {noisy:.3f} | {cleaned:.3f} | {auc:.3f} | {seconds:.0f} |".format(**rows[-1]))
    return rows


def clean(seed: int) -> dict[str, float]:
    """Learn the weights, and compare with training on the noisy data."""
    from sklearn.metrics import roc_auc_score

    x, y, truth, wrong = digits(seed)
    started = time.perf_counter()
    weights = torch.zeros(600, dtype=torch.float64, requires_grad=True)

    def inner_loss(p: Any, weights: Tensor, step: int) -> Tensor:
        each = nn.functional.cross_entropy(logits(p, x[TRAIN]), y[TRAIN], reduction="none")
        return (weights.sigmoid() * each).mean() + penalty(p)

    def outer_loss(p: Any, weights: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits(p, x[VALIDATION]), truth[VALIDATION])

    estimator = Implicit(Descent(inner_loss, SGD(1.0, momentum=0.9)), 100, ConjugateGradient(30))
    outer = Outer(estimator, outer_loss, weights, torch.optim.Adam([weights], 0.3))
    state = estimator.begin({"w": torch.zeros(64, 10, dtype=torch.float64), "b": torch.zeros(10, dtype=torch.float64)})
    for _ in range(OUTER_STEPS):
        state, _ = outer.step(state)
    seconds = time.perf_counter() - started
    accuracy = lambda p: float((logits(p, x[TEST]).argmax(-1) == truth[TEST]).double().mean())  # noqa: E731
    noisy, both = (trained(x[rows], y[rows]) for rows in (TRAIN, slice(0, 700)))
    return {
        "seed": seed, "cleaned": accuracy(state.params), "noisy": accuracy(noisy), "both": accuracy(both),
        "auc": float(roc_auc_score(wrong.numpy(), -weights.detach().numpy())), "seconds": seconds,
    }  # fmt: skip


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(images [1797, 64], labels with half of the first 600 random, true labels, mask [600] of wrong labels)"""
    from sklearn.datasets import load_digits

    data, generator = load_digits(), torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(len(data.target), generator=generator)
    x, truth = torch.tensor(data.data / 16.0)[order], torch.tensor(data.target)[order]
    generator.manual_seed(seed)
    changed = torch.randperm(600, generator=generator)[:300]
    noisy = truth.clone()
    noisy[changed] = torch.randint(0, 10, (300,), generator=generator)
    return x, noisy, truth, (noisy != truth)[TRAIN]


def logits(p: Any, x: Tensor) -> Tensor:
    """Class logits [B, 10] of images [B, 64]."""
    return x @ p["w"] + p["b"]


def penalty(p: Any) -> Tensor:
    """The L2 penalty on the weights, with factor 1e-3."""
    return 1e-3 * p["w"].square().sum()


def trained(x: Tensor, y: Tensor) -> Any:
    """Parameters of a logistic regression on these images and labels."""
    inner = Descent(lambda p, _, step: nn.functional.cross_entropy(logits(p, x), y) + penalty(p), SGD(1.0, 0.9))
    state = inner.begin({"w": torch.zeros(64, 10, dtype=torch.float64), "b": torch.zeros(10, dtype=torch.float64)})
    for _ in range(1500):
        state = inner.step(state, ()).detached()
    return state.params


# -- cost ----------------------------------------------------------------------------------------------------

CASES = ("plain", "unrolled", "recomputed", "implicit-cg", "implicit-neumann", "torchopt-cg", "torchopt-neumann")


def cost(options: Options) -> list[dict[str, Any]]:
    """Time and peak memory of each estimator for 100 and 400 inner steps, alternating, each in its own process."""
    rows = []
    print("| inner steps | way | seconds: median (range) | MB above plain |")
    print("|---|---|---|---|")
    for steps in (100, 400):
        runs: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
        for _ in range(options.repeats):
            for case in CASES:
                if not (case in ("unrolled", "recomputed") and steps > 100):
                    runs[case].append(_apart(case, steps))
        plain = statistics.median(m for _, m in runs["plain"])
        for case, measured in runs.items():
            if measured:
                times = sorted(t for t, _ in measured)
                row = {"steps": steps, "way": case, "seconds": statistics.median(times), "range": [times[0], times[-1]]}
                row["megabytes"] = statistics.median(m for _, m in measured) - plain
                rows.append(row)
                print(f"| {steps} | {case} | {row['seconds']:.2f} ({times[0]:.2f} to {times[-1]:.2f}) | "
                      f"{row['megabytes']:.0f} |", flush=True)  # fmt: skip
    return rows


def _apart(case: str, steps: int) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), "--one", case, str(steps)], capture_output=True, text=True, check=True
    )
    seconds, megabytes = done.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def one(case: str, steps: int) -> None:
    """Print one measurement: seconds, and the increase of the process's peak memory in MB."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 10))
    x = torch.randn(256, 64)
    y = (x @ torch.randn(64, 10)).argmax(-1)  # learnable labels, so that there is an optimum
    run = way(case, module, x, y, steps)
    before = _peak()
    started = time.perf_counter()
    run()
    print(time.perf_counter() - started, _peak() - before)


def way(case: str, module: nn.Module, x: Tensor, y: Tensor, steps: int) -> Callable[[], Any]:
    """The measured function: an inner training with L2 penalty e^λ, and a validation loss's gradient for λ."""

    def loss(p: Any, log_penalty: Tensor, step: int = 0) -> Tensor:
        fit = nn.functional.cross_entropy(functional_call(module, p, x), y)
        return fit + log_penalty.exp() * sum(w.square().sum() for w in p.values())

    validation = lambda p, _: nn.functional.cross_entropy(functional_call(module, p, x.flip(0)), y)  # noqa: E731
    meta, start = torch.tensor(-3.0), parameters(module)
    inner = Descent(loss, SGD(RATE))
    state = inner.begin(start)
    for _ in range(300):  # start near the optimum, so that the implicit gradient is valid after 100 steps too
        state = inner.step(state, meta).detached()
    start = state.params
    if case.startswith("torchopt"):
        return _torchopt(case, loss, validation, start, steps)
    estimators: dict[str, Any] = {
        "unrolled": lambda: Unrolled(inner, steps),
        "recomputed": lambda: Unrolled(inner, steps, recompute=True),
        "implicit-cg": lambda: Implicit(inner, steps, ConjugateGradient(20)),
        "implicit-neumann": lambda: Implicit(inner, steps, Neumann(20)),
    }
    if case == "plain":
        return lambda: _plain(inner, inner.begin(start), meta, steps)
    estimator = estimators[case]()
    return lambda: estimator(validation, estimator.begin(start), meta)


RATE = 0.5


def _plain(inner: Descent, state: Any, meta: Tensor, steps: int) -> None:
    for _ in range(steps):
        state = inner.step(state, meta).detached()


def _torchopt(case: str, loss: Any, validation: Any, start: Any, steps: int) -> Callable[[], Any]:
    """The same with torchopt's implicit differentiation of a solver, around our inner loop."""
    from torchopt.diff.implicit import custom_root
    from torchopt.linear_solve import solve_cg, solve_inv

    names, inner = list(start), Descent(loss, SGD(RATE))

    def optimality(p: Any, meta: Tensor) -> Any:
        return tuple(torch.func.grad(loss)(dict(zip(names, p, strict=True)), meta).values())

    solver = solve_cg(maxiter=20, rtol=0.0) if case.endswith("cg") else solve_inv(ns=True, maxiter=20, alpha=RATE)

    @custom_root(optimality, argnums=1, solve=solver)
    def solve(p: Any, meta: Tensor) -> Any:
        state = inner.begin(dict(zip(names, p, strict=True)))
        for _ in range(steps):
            state = inner.step(state, meta.detach()).detached()
        return tuple(state.params.values())

    def run() -> Tensor:
        meta = torch.tensor(-3.0, requires_grad=True)
        at = solve(tuple(start.values()), meta)
        return torch.autograd.grad(validation(dict(zip(names, at, strict=True)), meta), meta)[0]

    return run


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]))
    else:
        main()
