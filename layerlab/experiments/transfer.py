"""Train a network for a new task in one of the five settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerlab.experiments.outcome import Outcome, made_with
from layerlab.experiments.settings import (
    HEAD,
    Recipe,
    Setting,
    freeze_layers,
    held_layers,
    layers,
    optimizer_for,
    scheduler_for,
)
from layerlab.freezing import Freeze
from layerlab.training import Batches, Epoch, Run, cached_features


class Transfer:
    """One setting, ready to train; ``outcome`` is what it has come to so far.

    Parameters
    ----------
    setting
        One of `SETTINGS`.
    model
        The model to train, with its new head ``fc``: its weights random for ``scratch``, pretrained for the
        others. It is trained in place, and left with its flags as they were after `close`.
    train, test
        The data of the new task.
    recipe
        How long, and with which learning rate, schedule and batch size.
    seed
        What all chance in the training follows from, as in `layerlab.training.Run`.
    device
        Where it is trained; the model is brought there.
    frozen_up_to
        The last layer, counted from the input (a name of `layers`), that ``frozen`` and ``lr_zero`` hold; by
        default all but the head.
    cached
        Compute the frozen backbone's outputs once: bitwise the same head, far quicker. Only for ``frozen``
        with ``batchnorm="eval"``.
    about
        What else the outcome and the saved file are to say: where data and weights came from.
    save_to
        See `layerlab.training.Run`.

    Attributes
    ----------
    run : layerlab.training.Run
        ``for epoch in transfer.run.epochs(25): …``
    model, optimizer
        What trains; ``model`` is the whole also where only its head is run.

    Raises
    ------
    ValueError
        There is no such setting, layer or schedule; ``frozen_up_to`` for a setting that freezes nothing;
        ``cached`` for one whose backbone does not stand still.
    """

    def __init__(
        self,
        setting: Setting,
        model: nn.Module,
        train: Batches,
        test: Batches,
        recipe: Recipe,
        *,
        seed: int = 0,
        frozen_up_to: str | None = None,
        cached: bool = False,
        device: torch.device | str = "cpu",
        save_to: Path | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        held = held_layers(setting, model, frozen_up_to)
        whole = len(held) == len(layers(model))
        if cached and (setting != "frozen" or recipe.batchnorm != "eval"):
            raise ValueError(
                f"cached=True with setting={setting!r} and batchnorm={recipe.batchnorm!r}: only a backbone "
                "that stands still gives the same features again, setting='frozen' with batchnorm='eval'"
            )
        if cached and not whole:
            raise ValueError(
                f"cached=True with frozen_up_to={frozen_up_to!r}: what comes after it still changes"
            )
        self.model = model.to(device)
        self._handle: Freeze | None = None
        if held:
            self._handle = freeze_layers(model, held, setting, recipe.batchnorm)
        try:
            self.optimizer = optimizer_for(setting, model, held, recipe)
            learner = model
            if cached:
                learner = model.get_submodule(HEAD)
                train, test = (cached_features(model, HEAD, data, device=device) for data in (train, test))
            self.run = Run(
                learner,
                self.optimizer,
                train,
                test,
                batch_size=recipe.batch_size,
                seed=seed,
                scheduler=scheduler_for(self.optimizer, recipe),
                test_every=recipe.test_every,
                device=device,
                save_to=save_to,
                about={
                    "setting": setting,
                    "frozen": list(held),
                    "cached": cached,
                    "recipe": asdict(recipe),
                    **(about or {}),
                },
            )
        except BaseException:
            self.close()
            raise
        self.recipe, self._device = recipe, device

    def epochs(self) -> Iterator[Epoch]:
        """Train what is left of the recipe's epochs, and give each as it ends."""
        return self.run.epochs(self.recipe.epochs)

    @property
    def outcome(self) -> Outcome:
        """What it has come to so far."""
        return Outcome(self.run.about, made_with(self._device), tuple(self.run.history))

    def close(self) -> None:
        """Release what was frozen."""
        if self._handle is not None:
            self._handle.release()


def transfer(
    setting: Setting,
    model: nn.Module,
    train: Batches,
    test: Batches,
    recipe: Recipe,
    *,
    after_epoch: Callable[[Epoch], None] | None = None,
    **options: Any,
) -> Outcome:
    """Train one setting to its end, going on from ``save_to`` if that is there; parameters as in `Transfer`.

    Parameters
    ----------
    after_epoch
        Called with each epoch as it ends.
    """
    work = Transfer(setting, model, train, test, recipe, **options)
    try:
        work.run.resume()
        for epoch in work.epochs():
            if after_epoch is not None:
                after_epoch(epoch)
        return work.outcome
    finally:
        work.close()
