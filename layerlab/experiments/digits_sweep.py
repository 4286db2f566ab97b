"""The embedded tasks over many seeds: the five settings, depths of freezing, numbers of labelled images.

Each seed has its own pretraining, its own labelled images and its own order of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from torch import Tensor

from layerlab.experiments.digits import PER_DIGIT, RECIPE, five_to_nine, odd_or_even, pretrained
from layerlab.experiments.settings import RESNET_BODY, SETTINGS, Recipe, Setting
from layerlab.experiments.sweep_file import so_far
from layerlab.training import threads

SEEDS: Final = (0, 1, 2, 3, 4)
LABELLED: Final = (1, 2, 5, 10)
NARROW: Final[tuple[Setting, ...]] = ("scratch", "fine_tune", "lr_tenth", "frozen")
"""The settings that are tried with a source that is too narrow."""


@dataclass(frozen=True)
class Trial:
    """One training run of the sweep.

    Attributes
    ----------
    batchnorm
        Whether BatchNorm's statistics of a frozen part stand still, ``"eval"``, or not.
    longer
        How many times the usual number of epochs.
    narrow
        The digits 5 to 9, by a network that learnt on 0 to 4; otherwise odd or even, by one that knows all.
    """

    seed: int
    setting: Setting
    per_digit: int = PER_DIGIT
    frozen_up_to: str | None = None
    batchnorm: str = "eval"
    longer: int = 1
    narrow: bool = False

    @property
    def key(self) -> str:
        """A name for it."""
        parts = [f"seed {self.seed}", self.setting, f"{self.per_digit} per digit"]
        parts += ["5 to 9 after 0 to 4"] if self.narrow else []
        parts += [f"frozen up to {self.frozen_up_to}"] if self.frozen_up_to else []
        parts += [f"BatchNorm in {self.batchnorm}"] if self.batchnorm != "eval" else []
        parts += [f"{self.longer} times the epochs"] if self.longer != 1 else []
        return ", ".join(parts)

    @property
    def recipe(self) -> Recipe:
        """The usual one, in batches of 20 images, or of all where there are fewer (or only five digits)."""
        epochs, batch = RECIPE.epochs * self.longer, min(10 * self.per_digit, RECIPE.batch_size)
        if self.narrow:
            batch = 5 * self.per_digit
        batchnorm: Any = self.batchnorm
        return replace(RECIPE, epochs=epochs, batch_size=batch, test_every=epochs, batchnorm=batchnorm)

    @property
    def cached(self) -> bool:
        """Whether its backbone stands still, so that features can be cached: bitwise the same, and quick."""
        return self.setting == "frozen" and self.batchnorm == "eval" and self.frozen_up_to is None


def trials(seed: int) -> list[Trial]:
    """All runs of one seed, each once."""
    every = [Trial(seed, setting) for setting in SETTINGS]
    every += [Trial(seed, "scratch", longer=3)]
    every += [Trial(seed, setting, batchnorm="train") for setting in ("frozen", "lr_zero")]
    every += [Trial(seed, "frozen", frozen_up_to=layer) for layer in RESNET_BODY[:-1]]
    for number in LABELLED:
        every += [Trial(seed, setting, number) for setting in ("scratch", "fine_tune", "frozen")]
    every += [Trial(seed, setting, per_digit=5, narrow=True) for setting in NARROW]
    return list(dict.fromkeys(every))


def sweep(path: Path, seeds: Sequence[int] = SEEDS, say: Callable[[str], None] = print) -> Iterator[str]:
    """Train what the file does not have yet, writing it anew after each run; gives each run's key.

    On one thread: small models are quicker so, and the figures then depend on less.

    Raises
    ------
    ValueError
        There is a file of that name that holds something else.
    """
    found = so_far(path)
    for seed in seeds:
        missing = [trial for trial in trials(seed) if trial.key not in found.results]
        for narrow, some in groupby(missing, key=lambda trial: trial.narrow):
            with threads(1):
                say(f"seed {seed}: pretraining{' on 0 to 4' if narrow else ''}")
                weights = pretrained(seed, digits=range(5) if narrow else range(10))
                for trial in some:
                    found.add(trial.key, _accuracy(trial, weights))
                    found.write(path)
                    yield trial.key


def _accuracy(trial: Trial, weights: dict[str, Tensor]) -> float:
    task = five_to_nine if trial.narrow else odd_or_even
    return task(
        trial.setting,
        weights,
        seed=trial.seed,
        per_digit=trial.per_digit,
        recipe=trial.recipe,
        frozen_up_to=trial.frozen_up_to,
        cached=trial.cached,
    ).accuracy


def over_seeds(found: dict[str, float], seeds: Sequence[int] = SEEDS, **choice: Any) -> tuple[float, float]:
    """Mean and standard deviation (of the sample) of one choice over the seeds.

    Parameters
    ----------
    choice
        All that `Trial` takes but the seed.

    Raises
    ------
    KeyError
        A run is missing.
    """
    figures = [found[Trial(seed, **choice).key] for seed in seeds]
    return mean(figures), stdev(figures)
