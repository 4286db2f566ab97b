"""What torch's learning-rate schedulers do to a frozen parameter group: which of them wake it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs

from layerlab.compare import same_bits
from layerlab.experiments.two_ways import WAYS

LR = 0.1
"""The learning rate of the group that trains."""
FLOOR = 0.01
"""The lr that schedulers with one of their own go down to (or up from)."""
STEPS = 20

MakeScheduler = Callable[[Optimizer], lrs.LRScheduler]

SCHEDULERS: dict[str, MakeScheduler] = {
    "StepLR": partial(lrs.StepLR, step_size=5),
    "MultiStepLR": partial(lrs.MultiStepLR, milestones=[5, 15]),
    "ExponentialLR": partial(lrs.ExponentialLR, gamma=0.9),
    "LinearLR": partial(lrs.LinearLR, total_iters=10),
    "ConstantLR": partial(lrs.ConstantLR, total_iters=10),
    "PolynomialLR": partial(lrs.PolynomialLR, total_iters=STEPS),
    "LambdaLR": partial(lrs.LambdaLR, lr_lambda=lambda epoch: 0.95**epoch),
    "MultiplicativeLR": partial(lrs.MultiplicativeLR, lr_lambda=lambda epoch: 0.95),
    "ReduceLROnPlateau with min_lr": partial(lrs.ReduceLROnPlateau, patience=3, min_lr=FLOOR),
    "CosineAnnealingLR": partial(lrs.CosineAnnealingLR, T_max=STEPS),
    "CosineAnnealingLR with eta_min": partial(lrs.CosineAnnealingLR, T_max=STEPS, eta_min=FLOOR),
    "CosineAnnealingWarmRestarts with eta_min": partial(
        lrs.CosineAnnealingWarmRestarts, T_0=7, eta_min=FLOOR
    ),
    "OneCycleLR": partial(lrs.OneCycleLR, max_lr=LR, total_steps=STEPS + 1),
    "CyclicLR": partial(lrs.CyclicLR, base_lr=FLOOR, max_lr=LR, step_size_up=5),
    "SWALR": partial(torch.optim.swa_utils.SWALR, swa_lr=FLOOR, anneal_epochs=10),
}
"""The schedulers of torch, each with settings of the usual kind; those that combine others are left out."""


@dataclass(frozen=True, slots=True)
class ScheduleRun:
    """The learning rates of two groups over the steps of a run, and when the frozen one moved."""

    frozen: tuple[float, ...]
    """The lr of the frozen group in each step."""
    training: tuple[float, ...]
    moved: tuple[int, ...]
    """The steps in which the parameter of the frozen group moved in any bit."""


def schedule_run(make: MakeScheduler, way: str = WAYS[0], steps: int = STEPS) -> ScheduleRun:
    """Train two parameters, each in a group of its own and the first one frozen, under a scheduler.

    Parameters
    ----------
    make
        Given the optimizer (SGD with momentum, two groups), returns its scheduler.
    way
        How the first parameter is frozen before the scheduler is made: one of
        `layerlab.experiments.two_ways.WAYS`.
    steps
        How many steps; after each the scheduler steps too (on a loss that no longer falls, if it asks).

    Raises
    ------
    ValueError
        For an unknown way, or fewer steps than one.
    """
    if way not in WAYS:
        raise ValueError(f"way={way!r}: choose one of {', '.join(map(repr, WAYS))}")
    if steps < 1:
        raise ValueError(f"steps={steps}: take one step or more")
    frozen, training = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups: list[dict[str, Any]] = [{"params": [frozen]}, {"params": [training]}]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9)
    if way == WAYS[0]:
        optimizer.param_groups[0]["lr"] = 0.0
    else:
        frozen.requires_grad_(False)
    scheduler = make(optimizer)
    rates: list[tuple[float, float]] = []
    moved: list[int] = []
    for step in range(steps):
        rates.append((float(optimizer.param_groups[0]["lr"]), float(optimizer.param_groups[1]["lr"])))
        before = frozen.detach().clone()
        optimizer.zero_grad()
        (frozen + training).sum().backward()
        optimizer.step()
        if not same_bits(frozen.detach(), before):
            moved.append(step)
        _step(scheduler)
    lr_frozen, lr_training = zip(*rates, strict=True)
    return ScheduleRun(lr_frozen, lr_training, tuple(moved))


def _step(scheduler: lrs.LRScheduler) -> None:
    if isinstance(scheduler, lrs.ReduceLROnPlateau):
        scheduler.step(1.0)
    else:
        scheduler.step()
