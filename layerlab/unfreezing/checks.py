"""What a plan cannot work with: a model and an optimizer with which something would go wrong in silence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import LBFGS, Optimizer

from layerlab.names import find, listing
from layerlab.unfreezing.entries import Entry
from layerlab.unfreezing.rates import Scheduler
from layerlab.wrappers import trains


def check_optimizer(model: nn.Module, optimizer: Optimizer) -> Optimizer:
    """Refuse what is no optimizer, or none of this model; returns the one inside all wrappers.

    Raises
    ------
    TypeError
        It is no optimizer.
    ValueError
        It is LBFGS, or holds no parameter of this model.
    """
    optimizer = trains(optimizer, model)
    if isinstance(optimizer, LBFGS):
        raise ValueError("LBFGS has a single group and moves all of it along one direction: take another")
    return optimizer


def check_first_epoch(
    model: nn.Module, optimizer: Optimizer, entries: Sequence[Entry], scheduler: Scheduler | None
) -> None:
    """Refuse a plan that leaves nothing to train in epoch 0.

    Raises
    ------
    ValueError
        Nothing that the optimizer holds would train in epoch 0.
    """
    own = find(model, "*", buffers=False)
    later = {id(named.tensor) for entry in entries for named in entry.parameters}
    trains = {id(named.tensor) for named in own if named.tensor.requires_grad} - later
    for group in optimizer.param_groups:
        # Under a scheduler an lr of 0 may be the beginning of a warm-up.
        if any(id(tensor) in trains for tensor in group["params"]) and (
            group["lr"] != 0 or scheduler is not None
        ):
            return
    raise ValueError(
        f"nothing would train until epoch {entries[0].epoch}: of what the plan does not name, no parameter "
        "has requires_grad=True, a place in the optimizer and an lr above 0"
    )


def check_parallel(model: nn.Module, entries: Sequence[Entry]) -> None:
    """Refuse a DistributedDataParallel whose processes would part in silence, or stop at the next forward.

    Raises
    ------
    ValueError
        It was built without ``find_unused_parameters=True``, or before what the plan releases was trainable.
    """
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        return
    if not model.find_unused_parameters:
        why = "it was built without find_unused_parameters=True, and would wait for gradients that never come"
        raise ValueError(f"DistributedDataParallel would stop at the second forward pass: {why}")
    late = [n.name for entry in entries for n in entry.parameters if not n.tensor.requires_grad]
    if late:
        raise ValueError(
            f"DistributedDataParallel averages only what requires grad when it is built, and "
            f"{listing(late)} does not: its copies would part in silence. Set the flags to True, wrap "
            "the model, then make the plan"
        )
