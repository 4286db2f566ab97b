"""The embedded tasks: a ResNet18 that knows ten digits learns odd from even, from 20 labelled images.

And one whose source is too narrow: it knows 0 to 4, and learns to tell 5 to 9 apart. The images are
scikit-learn's ``load_digits``; see `layerlab.data.digits`. The recipe was chosen on the test images of the
first task: that scratch stays below the pretrained settings holds for others too, the order among those does
not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from layerlab.data.digits import source, target
from layerlab.experiments.outcome import Outcome
from layerlab.experiments.settings import HEAD, Recipe, Setting
from layerlab.experiments.transfer import Transfer, transfer
from layerlab.training import Epoch, Run
from layerlab.training.machine import Chance

PER_DIGIT: Final = 2
"""Labelled images of each digit."""

RECIPE: Final = Recipe(epochs=40, batch_size=20, lr=0.01, schedule="cosine", test_every=40)
"""40 steps, each on all 20 images."""

PRETRAINING_EPOCHS: Final = 6


def pretrained(
    seed: int = 0,
    after_epoch: Callable[[Epoch], None] | None = None,
    *,
    digits: Sequence[int] = range(10),
) -> dict[str, Tensor]:
    """Train a ResNet18 on nine tenths of the source images, and measure on the others; some 20 s, one thread.

    Parameters
    ----------
    after_epoch
        Called with each of the epochs as it ends.
    digits
        The digits of the source.

    Returns
    -------
    dict
        The state dict of `torchvision.models.resnet18`, its head for so many classes.
    """
    model = resnet18(len(digits), seed)
    images = source(digits)
    tenth = torch.arange(len(images)) % 10 == 0
    train, held_out = (images.take(where.nonzero().squeeze(1)) for where in (~tenth, tenth))
    steps = PRETRAINING_EPOCHS * -(-len(train) // 32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    schedule = OneCycleLR(optimizer, max_lr=0.02, total_steps=steps)
    run = Run(
        model,
        optimizer,
        train,
        held_out,
        batch_size=32,
        seed=seed,
        scheduler=schedule,
        schedule="step",
        test_every=PRETRAINING_EPOCHS,
    )
    for epoch in run.epochs(PRETRAINING_EPOCHS):
        if after_epoch is not None:
            after_epoch(epoch)
    return model.state_dict()


def resnet18(classes: int, seed: int, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """Torchvision's ResNet18 with a head for so many classes.

    Parameters
    ----------
    seed
        Of the random weights: of all, or with ``weights`` of the head.
    weights
        From `pretrained`; their own head is left out.
    """
    with Chance(seed):
        model: nn.Module = torchvision.models.resnet18(num_classes=classes)
    if weights is not None:
        body = {name: tensor for name, tensor in weights.items() if name.partition(".")[0] != HEAD}
        model.load_state_dict(body, strict=False)
    return model


def odd_or_even(
    setting: Setting,
    weights: dict[str, Tensor] | None,
    *,
    seed: int = 0,
    per_digit: int = PER_DIGIT,
    recipe: Recipe = RECIPE,
    **options: Any,
) -> Outcome:
    """Train one setting on the target task.

    Parameters
    ----------
    weights
        From `pretrained`; not used for ``scratch``.
    seed
        Of the labelled images, of the random weights and of the order of training.
    per_digit
        Labelled images of each digit; with other than 2 take a ``recipe`` whose batches fit.
    options
        As for `layerlab.experiments.transfer.Transfer`.

    Raises
    ------
    ValueError
        A pretrained setting without weights.
    """
    train, test = target(per_digit, seed)
    return transfer(setting, _learner(setting, weights, seed), train, test, recipe, seed=seed, **options)


def five_to_nine(
    setting: Setting,
    weights: dict[str, Tensor] | None,
    *,
    seed: int = 0,
    per_digit: int = 5,
    recipe: Recipe = RECIPE,
    **options: Any,
) -> Outcome:
    """Train one setting to tell the digits 5 to 9 apart.

    Parameters
    ----------
    weights
        From ``pretrained(digits=range(5))``: of a network that never saw one of these digits. Not used for
        ``scratch``.
    seed, per_digit, recipe, options
        As for `odd_or_even`.

    Raises
    ------
    ValueError
        A pretrained setting without weights.
    """
    train, test = target(per_digit, seed, task="digit", digits=range(5, 10))
    learner = _learner(setting, weights, seed, classes=5)
    return transfer(setting, learner, train, test, recipe, seed=seed, **options)


def odd_or_even_lab(weights: dict[str, Tensor] | None) -> Callable[..., Transfer]:
    """The same task for `layerlab.TrainLab`: a function that gets one run ready.

    Each run takes some 40 steps, of 20 images or of all where there are fewer, and measures five times or
    more.

    Parameters
    ----------
    weights
        From `pretrained`; None if only ``scratch`` will be run.
    """

    def begin(setting: Setting, frozen_up_to: str | None, lr: float, per_class: int, seed: int) -> Transfer:
        train, test = target(per_class, seed)
        batch = min(len(train), RECIPE.batch_size)
        epochs = RECIPE.epochs * batch // len(train)
        recipe = replace(RECIPE, epochs=epochs, batch_size=batch, lr=lr, test_every=max(1, epochs // 5))
        model = _learner(setting, weights, seed)
        return Transfer(setting, model, train, test, recipe, seed=seed, frozen_up_to=frozen_up_to)

    return begin


def _learner(setting: Setting, weights: dict[str, Tensor] | None, seed: int, classes: int = 2) -> nn.Module:
    if setting != "scratch" and weights is None:
        raise ValueError(f"setting={setting!r} starts from pretrained weights: pass weights=pretrained()")
    return resnet18(classes, seed, None if setting == "scratch" else weights)
