"""What a parameter group of an optimizer says, beside which parameters it holds."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from torch.optim import Optimizer

Group: TypeAlias = dict[str, Any]

MEMBERS: Final = ("params", "param_names")
"""The keys of a group that say which parameters are in it, and what they are called."""


def options_of(group: Group) -> Group:
    """All that a group says but which parameters it holds."""
    return {name: value for name, value in group.items() if name not in MEMBERS}


def lr_of(group: Group) -> float | None:
    """A group's learning rate as a number, or None if it has none."""
    lr = group.get("lr")
    return None if lr is None else float(lr)


def has_scheduler(optimizer: Optimizer) -> bool:
    """Whether a scheduler was built on an optimizer: each group keeps the lr that it began with then."""
    return any("initial_lr" in group for group in optimizer.param_groups)
