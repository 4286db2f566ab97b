"""The scheduler's side of a release: the lr is what the plan says, and follows the schedule from there.

Most schedulers multiply a group's lr by a factor at each step; some also keep the lr from which each group
began (``base_lrs``, ``initial_lr``) and compute from that. A released group gets the beginning from which the
schedule would have come to the plan's lr by now.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from layerlab.group_options import Group, has_scheduler
from layerlab.names import listing

Scheduler = LRScheduler | ReduceLROnPlateau

_TAKES_GROUPS: Final = (
    StepLR, MultiStepLR, ExponentialLR, PolynomialLR, CosineAnnealingLR, ReduceLROnPlateau,
)  # fmt: skip
_KEEPS_GROUPS: Final = {
    LambdaLR: "it has one function for each group",
    MultiplicativeLR: "it has one function for each group",
    CosineAnnealingWarmRestarts: "it counts the groups once",
    OneCycleLR: "it writes a maximum into each group once",
    LinearLR: "it would raise the new group's lr by what is left of its warm-up",
    ConstantLR: "it would raise the new group's lr when it ends",
}
"""Schedulers that cannot take a group later, and why; a group that was there from the start is fine."""
_FLAT: Final = 1e-9


def check(optimizer: Optimizer, scheduler: Scheduler | None, newcomers: Sequence[str]) -> None:
    """Refuse a scheduler with which a release would fail or go wrong.

    Parameters
    ----------
    newcomers
        The parameters that a release would bring into a new group.

    Raises
    ------
    TypeError
        It is no scheduler.
    ValueError
        It belongs to another optimizer; is of a kind that is not known here; cannot take the groups that the
        plan adds; or there is one, and it was not given.
    """
    if scheduler is None:
        check_unscheduled(optimizer)
        return
    if not isinstance(scheduler, (LRScheduler, ReduceLROnPlateau)):
        raise TypeError(f"scheduler must be one of torch's, not {type(scheduler).__name__}")
    name = type(scheduler).__name__
    if scheduler.optimizer is not optimizer:
        raise ValueError(f"this {name} belongs to another optimizer: build it on the one that the plan gets")
    if type(scheduler) not in (*_TAKES_GROUPS, *_KEEPS_GROUPS):
        known = ", ".join(kind.__name__ for kind in (*_TAKES_GROUPS, *_KEEPS_GROUPS))
        raise ValueError(
            f"how {name} comes to a group's lr is not known here; known are {known}. LambdaLR can follow any "
            "curve"
        )
    if newcomers and type(scheduler) in _KEEPS_GROUPS:
        raise ValueError(_cannot_take(name, _KEEPS_GROUPS[type(scheduler)], newcomers))
    if newcomers and isinstance(scheduler, ReduceLROnPlateau) and scheduler.default_min_lr is None:
        raise ValueError(_cannot_take(name, "its min_lr is a list with a number for each group", newcomers))


def check_unscheduled(optimizer: Optimizer) -> None:
    """Refuse an optimizer that a scheduler was built on that the plan does not know.

    Raises
    ------
    ValueError
        A group carries ``initial_lr``.
    """
    if has_scheduler(optimizer):
        raise ValueError(
            "a scheduler was built on this optimizer (its groups carry 'initial_lr'): give it to the plan, "
            "Unfreeze(model, optimizer, {...}, scheduler=scheduler). If it is no longer used, "
            "group.pop('initial_lr') for each group"
        )


def _cannot_take(name: str, why: str, newcomers: Sequence[str]) -> str:
    return (
        f"{name} cannot take a parameter group later: {why}. {listing(newcomers)} would need one. Give the "
        "optimizer all parameters from the start, each part that the plan releases in a group of its own, "
        "and build the scheduler then"
    )


def check_now(scheduler: Scheduler | None) -> None:
    """Refuse a release at the bottom of a cosine: climbing again, it would multiply the lr many times.

    Raises
    ------
    ValueError
        It is there now.
    """
    if isinstance(scheduler, CosineAnnealingLR) and _slope(scheduler, 0) < _FLAT:
        raise ValueError(
            f"after {scheduler.last_epoch} steps CosineAnnealingLR is at its lowest, where every group has "
            f"eta_min={scheduler.eta_min}, and from where it climbs again: release earlier, or give it a "
            f"longer T_max than {scheduler.T_max}"
        )


def set_lr(scheduler: Scheduler | None, place: int, group: Group, lr: float) -> None:
    """Give the group at this place an lr, and the scheduler the beginning that leads to it."""
    if type(scheduler) is OneCycleLR:  # it computes from the group's own numbers, in proportion to them
        factor = lr / float(group["lr"])
        for name in ("max_lr", "min_lr"):
            group[name] = group[name] * factor
        base = float(group["initial_lr"]) * factor
    else:
        base = lr if scheduler is None else _base(scheduler, place, lr)
    group["lr"] = _like(group["lr"], lr)
    if scheduler is not None:
        if hasattr(scheduler, "base_lrs"):  # ReduceLROnPlateau has none
            group["initial_lr"] = _like(group["lr"], base)
        _remember(scheduler, place, group)


def _remember(scheduler: Scheduler, place: int, group: Group) -> None:
    """Tell the scheduler what a group now says of its lr."""
    for name, value in (("base_lrs", group.get("initial_lr")), ("_last_lr", group["lr"])):
        known = list(getattr(scheduler, name, ()))  # a list of its own: a state_dict may hold the old one
        if value is not None:
            known[place : place + 1] = [value.clone() if isinstance(value, torch.Tensor) else value]
            setattr(scheduler, name, known)


def _base(scheduler: Scheduler, place: int, lr: float) -> float:
    """The lr from which the schedule comes to this one by now; the lr itself where there is none."""
    if isinstance(scheduler, (ReduceLROnPlateau, MultiplicativeLR)):
        return lr
    slope = _slope(scheduler, place)
    if slope < _FLAT:  # the end of a PolynomialLR: what it has it keeps
        return lr
    base = (lr - _scheduled(scheduler, place, 0.0)) / slope
    return base if base > 0 else lr  # an lr far below a cosine's eta_min would have begun below 0


def _slope(scheduler: Scheduler, place: int) -> float:
    """How much of the lr at the start is left by now."""
    return _scheduled(scheduler, place, 1.0) - _scheduled(scheduler, place, 0.0)


def _scheduled(scheduler: Any, place: int, base: float) -> float:
    """The lr of now of a group that began with this one; every schedule here is linear in it."""
    probe = copy.copy(scheduler)
    probe.base_lrs = [base]
    probe._get_lr_called_within_step = True  # else get_lr warns
    if isinstance(probe, LambdaLR):
        probe.lr_lambdas = [scheduler.lr_lambdas[place]]
    return float(getattr(probe, "_get_closed_form_lr", probe.get_lr)()[0])


def _like(old: Any, value: float) -> Any:
    """A number; or, where the optimizer keeps its lr in a tensor, a tensor of its own."""
    return torch.full_like(old, value) if isinstance(old, torch.Tensor) else value
