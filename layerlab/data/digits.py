"""The default data, which needs no file: scikit-learn's handwritten digits, cut into a source and a target.

They are 1,797 real scans of 8×8 pixels that come inside the scikit-learn package. Its description says that
13 people wrote them, not who wrote which. So it is not verified that images 0–1028 (the source) and 1029–1796
(the target) come from different people.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from layerlab.data.images import Images

Task = Literal["odd_or_even", "digit"]

FIRST_TARGET = 1029
SIDE = 32
_ORIGIN = "scikit-learn's load_digits, 8×8 scans enlarged to 32×32"


def source(digits: Iterable[int] = range(10)) -> Images:
    """The source task: to tell which digit it is.

    Parameters
    ----------
    digits
        Which digits to keep; ``range(5)`` makes a source that is too narrow for the other five.

    Returns
    -------
    Images
        Of images 0–1028 those of the digits asked for, in their order: float32, three equal channels of
        32×32 in [−1, 1], the same on any machine.

    Raises
    ------
    ValueError
        `digits` has anything but different digits.
    """
    kept = _digits(digits)
    numbers = [n for n in range(FIRST_TARGET) if int(_scans()[1][n]) in kept]
    return _images(numbers, kept, "digit", f"Images 0–{FIRST_TARGET - 1} of {_ORIGIN} ({_named(kept)})")


def target(
    per_digit: int = 2, seed: int = 0, *, task: Task = "odd_or_even", digits: Iterable[int] = range(10)
) -> tuple[Images, Images]:
    """The target task, with few labelled images.

    Parameters
    ----------
    per_digit
        How many labelled images of *each digit* to train with, whatever the task: drawn without regard to the
        digit, a few images differ so much that they decide the result.
    seed
        Decides which ones; the same on any machine. The global random state is left alone.
    task
        ``"odd_or_even"`` (classes ``even``, ``odd``) or ``"digit"`` (a class for each of `digits`).
    digits
        Which digits to keep, ``range(5, 10)`` for instance.

    Returns
    -------
    train, test : Images
        Of images 1029–1796 those drawn, and all the others; both in the images' order.

    Raises
    ------
    ValueError
        For another task, anything but different digits, or a `per_digit` that leaves none to train or to test
        with.
    """
    if task not in ("odd_or_even", "digit"):
        raise ValueError(f"task must be 'odd_or_even' or 'digit', not {task!r}")
    kept = _digits(digits)
    labels = _scans()[1][FIRST_TARGET:]
    generator = torch.Generator().manual_seed(seed)
    train: list[int] = []
    test: list[int] = []
    for digit in kept:
        numbers = FIRST_TARGET + (labels == digit).nonzero().squeeze(1)
        if not 1 <= per_digit < len(numbers):
            raise ValueError(
                f"per_digit={per_digit}: there are {len(numbers)} images of the digit {digit}, "
                f"so from 1 to {len(numbers) - 1} can be labelled"
            )
        mixed = numbers[torch.randperm(len(numbers), generator=generator)].tolist()
        train += mixed[:per_digit]
        test += mixed[per_digit:]
    last = FIRST_TARGET + len(labels) - 1
    whole = f"of images {FIRST_TARGET}–{last} of {_ORIGIN} ({_named(kept)})"
    drawn = f"{per_digit} of each digit (seed {seed})"
    return (
        _images(sorted(train), kept, task, f"{drawn} {whole}"),
        _images(sorted(test), kept, task, f"All but {drawn} {whole}"),
    )


def _digits(digits: Iterable[int]) -> tuple[int, ...]:
    kept = tuple(digits)
    if not kept or len(set(kept)) != len(kept) or not set(kept) <= set(range(10)):
        raise ValueError(f"digits must be different digits from 0 to 9, not {kept}")
    return tuple(sorted(int(digit) for digit in kept))


def _named(kept: tuple[int, ...]) -> str:
    return "all ten digits" if len(kept) == 10 else f"digits {', '.join(map(str, kept))}"


@lru_cache(maxsize=1)
def _scans() -> tuple[Tensor, Tensor]:
    """All scans, whole numbers from 0 to 16 of shape (1797, 8, 8), and the digits they show."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.from_numpy(found.images).float(), torch.from_numpy(found.target).long()


def _images(numbers: list[int], kept: tuple[int, ...], task: Task, came_from: str) -> Images:
    scans, all_digits = _scans()
    # Every weight and every value is a small multiple of a power of two, so no rounding can differ.
    gray = interpolate(scans[numbers][:, None] / 8 - 1, size=SIDE, mode="bilinear", align_corners=False)
    shown = all_digits[numbers]
    if task == "digit":
        classes = tuple(str(digit) for digit in kept)
        labels = torch.tensor([kept.index(digit) for digit in shown.tolist()], dtype=torch.int64)
    else:
        classes = ("even", "odd")
        labels = shown % 2
    return Images(gray.expand(-1, 3, -1, -1).contiguous(), labels, classes, came_from)
