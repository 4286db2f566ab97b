"""What wraps an optimizer: accelerate and Lightning hand out an object that holds the optimizer."""

from __future__ import annotations

from torch.optim import Optimizer


def inside(optimizer: Optimizer) -> Optimizer:
    """The optimizer whose ``step()`` runs, inside all wrappers.

    A wrapper passes for an Optimizer, without having been made as one: it has no hooks of its own.

    Raises
    ------
    TypeError
        It was not made as an Optimizer, and holds none.
    """
    while "_optimizer_step_pre_hooks" not in vars(optimizer):
        held = getattr(optimizer, "optimizer", None)
        if not isinstance(held, Optimizer):
            kind = type(optimizer).__name__
            raise TypeError(f"{kind} has no step hooks: its __init__ does not call Optimizer.__init__")
        optimizer = held
    return optimizer
