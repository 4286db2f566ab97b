"""What becomes of a parameter group that is added after the scheduler was built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from layerlab.experiments.schedules import LR, STEPS, MakeScheduler

ADDED_IN = 3
"""The epoch in which the group is added."""


@dataclass(frozen=True, slots=True)
class LateGroup:
    """The learning rates of a group that was there, and of one that came later, until the end or an error."""

    old: tuple[float, ...]
    """In each epoch."""
    new: tuple[float, ...]
    """From `ADDED_IN` on."""
    error: str
    """What the scheduler raised; empty if nothing."""

    @property
    def raised_to(self) -> float | None:
        """The highest lr of the new group, if it rose above what it was given; None if not."""
        return max(self.new) if max(self.new) > self.new[0] * (1 + 1e-9) else None

    @property
    def failed_in(self) -> int | None:
        """The epoch at whose end the scheduler raised an error; None if it did not."""
        return ADDED_IN + len(self.new) - 1 if self.error else None


def late_group(make: MakeScheduler, lr: float = LR, epochs: int = STEPS + 5) -> LateGroup:
    """Run a scheduler on one group, add a second one in an epoch, and run on.

    Parameters
    ----------
    make
        Given the optimizer, returns its scheduler, which steps after each epoch (on a loss that no longer
        falls, if it asks).
    lr
        What the new group is given; the old one begins with `layerlab.experiments.schedules.LR`.
    epochs
        How many epochs: by default five more than the schedules are made for.

    Raises
    ------
    ValueError
        There are too few epochs for a group to be added.
    """
    if epochs <= ADDED_IN:
        raise ValueError(
            f"epochs={epochs}: take more than {ADDED_IN}, for the group is added in epoch {ADDED_IN}"
        )
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([first], lr=LR, momentum=0.9)
    scheduler: Any = make(optimizer)
    rates: list[list[float]] = [[], []]
    error = ""
    for epoch in range(epochs):
        if epoch == ADDED_IN:
            optimizer.add_param_group({"params": [second], "lr": lr})
        for known, group in zip(rates, optimizer.param_groups, strict=False):
            known.append(float(group["lr"]))
        optimizer.step()
        try:
            scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
        except (ValueError, KeyError, IndexError) as raised:
            error = f"{type(raised).__name__}: {raised}"
            break
    return LateGroup(tuple(rates[0]), tuple(rates[1]), error)
