"""The methods of `layerlab.experiments.spot_tune` over eight seeds and three learning rates, recorded.

``python -m layerlab.experiments.spot_tune_sweep`` makes ``results/spot_tune.json`` anew: move the old one
away first, or it only adds what is missing. Half an hour on one thread, beside other work.

The learning rate of each method is the one with the best mean accuracy on the development images; what is
reported is that on the test images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from layerlab.experiments.recorded import recorded
from layerlab.experiments.spot_tune import METHODS, TASKS, Method, Task, learn, parts, pretrained
from layerlab.experiments.sweep_file import so_far
from layerlab.training import threads

SEEDS: Final = tuple(range(8))
"""Each with its own pretraining, labelled images, halves of the others, and random weights."""
LRS: Final = (1e-3, 3e-3, 1e-2)

Found = Mapping[str, Mapping[str, Any]]


def key(task: Task, method: Method, lr: float, seed: int) -> str:
    """A name for one run."""
    return f"{task}, {method}, lr {lr:g}, seed {seed}"


def sweep(
    path: Path,
    seeds: Sequence[int] = SEEDS,
    tasks: Sequence[Task] = tuple(TASKS),
    methods: Sequence[Method] = tuple(METHODS),
) -> Iterator[str]:
    """Train what the file does not have yet, writing it anew after each task and seed; gives their names.

    Raises
    ------
    ValueError
        There is a file of that name that holds something else.
    """
    found = so_far(path)
    for seed in seeds:
        for task in tasks:
            runs = [(m, lr) for m in methods for lr in LRS if key(task, m, lr, seed) not in found.results]
            if not runs:
                continue
            with threads(1):
                weights, some = pretrained(task, seed), parts(task, seed)
                for method, lr in runs:
                    result = learn(method, some, weights, seed=seed, lr=lr)
                    found.add(key(task, method, lr, seed), asdict(result))
                found.write(path)
            yield f"{task}, seed {seed}"


def chosen_lr(found: Found, task: Task, method: Method, seeds: Sequence[int] = SEEDS) -> float:
    """The learning rate with the best mean accuracy on the development images."""
    return max(LRS, key=lambda lr: mean(figures(found, task, method, "development", lr, seeds)))


def figures(
    found: Found, task: Task, method: Method, what: str, lr: float, seeds: Sequence[int] = SEEDS
) -> list[Any]:
    """One figure of `layerlab.experiments.spot_tune.Result` for each seed.

    Raises
    ------
    KeyError
        A run is missing.
    """
    return [found[key(task, method, lr, seed)][what] for seed in seeds]


def over_seeds(
    found: Found, task: Task, method: Method, what: str = "test", seeds: Sequence[int] = SEEDS
) -> tuple[float, float]:
    """Mean and standard deviation (of the sample) of a figure at the chosen learning rate.

    Parameters
    ----------
    what
        ``"test"``, ``"familiar"`` or ``"foreign"``.
    """
    some = figures(found, task, method, what, chosen_lr(found, task, method, seeds), seeds)
    return mean(some), stdev(some)


def ahead_of(
    found: Found, task: Task, method: Method, other: Method, seeds: Sequence[int] = SEEDS
) -> tuple[float, float, int]:
    """By how much a method is ahead of another on the test images, seed by seed.

    Returns
    -------
    mean, deviation, wins
        Of the differences; and with how many seeds it is ahead.
    """
    one, two = (
        figures(found, task, m, "test", chosen_lr(found, task, m, seeds), seeds) for m in (method, other)
    )
    gaps = [a - b for a, b in zip(one, two, strict=True)]
    return mean(gaps), stdev(gaps), sum(gap > 0 for gap in gaps)


def tuned(
    found: Found, task: Task, method: Method = "spot_tune", seeds: Sequence[int] = SEEDS
) -> list[list[float]]:
    """Mean share of familiar, and of foreign, test images that go through each block's tuned copy."""
    some = figures(found, task, method, "tuned", chosen_lr(found, task, method, seeds), seeds)
    return [[mean(shares) for shares in zip(*(one[kind] for one in some), strict=True)] for kind in (0, 1)]


if __name__ == "__main__":
    for name in sweep(recorded() / "spot_tune.json"):
        print(name, "done", flush=True)
