"""What exercises try a learner's function on, and the optimizer that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerlab.lessons_support.checks import Check
from layerlab.record import Step
from layerlab.training.machine import Chance


def resnet_and_images(side: int, classes: int = 2) -> tuple[nn.Module, Tensor, Tensor]:
    """A ResNet18 with random weights, four random images of so many pixels a side, and their labels.

    The same every time; the caller's random state is left as it was.
    """
    from torchvision.models import resnet18  # slow to import

    with Chance(0):
        return resnet18(num_classes=classes), torch.randn(4, 3, side, side), torch.tensor([0, 1, 0, 1])


def optimizer_of(
    check: Check, make: Callable[[nn.Module], Optimizer], net: nn.Module, name: str
) -> Optimizer | None:
    """The optimizer that the learner's function makes for the model; None, and a requirement missed, if none.

    Parameters
    ----------
    name
        What the exercise calls the function.
    """
    optimizer: object = check.run(make, net)
    if isinstance(optimizer, Optimizer):
        return optimizer
    hint = ": is its return missing?" if optimizer is None else ", which is none"
    got = type(optimizer).__name__
    check.that(False, "", f"{name} must return the optimizer, but returned {got}{hint}")
    return None


def without_gradient(ledger: Sequence[Step], names: Iterable[str], steps: int) -> bool:
    """Whether none of these tensors had a gradient in any of so many steps."""
    return len(ledger) == steps and all(step[name].grad == "none" for step in ledger for name in names)
