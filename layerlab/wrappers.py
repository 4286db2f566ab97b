"""What wraps an optimizer: accelerate and Lightning hand out an object that holds the optimizer."""

from __future__ import annotations

from typing import Any

from torch import nn
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


def trains(optimizer: Any, model: nn.Module) -> Optimizer:
    """The optimizer inside all wrappers, if it trains something of this model.

    Raises
    ------
    TypeError
        It is no optimizer, or the model no module.
    ValueError
        It holds no parameter of this model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(optimizer, Optimizer):
        hint = ": give it the scheduler's optimizer" if hasattr(optimizer, "optimizer") else ""
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, not {type(optimizer).__name__}{hint}")
    found = inside(optimizer)
    held = {id(tensor) for group in found.param_groups for tensor in group["params"]}
    if held.isdisjoint(map(id, model.parameters())):
        raise ValueError("the optimizer holds no parameter of this model: build it on this one")
    return found
