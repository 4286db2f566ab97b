"""What one training step costs: memory and operations, counted exactly; and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

M = TypeVar("M", bound=nn.Module)
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step took: memory in bytes, work in floating-point operations. Exact: the same every time."""

    activations: int
    """What the forward pass kept for the backward pass, besides the model's own parameters and buffers."""
    gradients: int
    """The parameters' ``.grad`` after ``backward()``."""
    state: int
    """The optimizer's state after ``step()``."""
    forward: int
    backward: int
    """Operations of convolutions and matrix products, as torch counts them."""


def step_cost(net: M, optimizer: Optimizer, loss: Callable[[M], Tensor]) -> Cost:
    """Take one training step, and count what it costs.

    Parameters
    ----------
    net
        The model, frozen as you like. It is trained for one step.
    optimizer
        Its optimizer; gradients are cleared before the step, and left after it.
    loss
        Computes the loss of the model that it is given.

    Notes
    -----
    A tensor that is kept under several views counts once: what is counted is storages.
    """
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}  # the tensors too, or a freed storage's place could be taken by another

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    optimizer.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False) as forward, saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(net)
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    kept.clear()
    with FlopCounterMode(display=False) as backward:
        value.backward()
    gradients = sum(p.grad.nbytes for p in net.parameters() if p.grad is not None)
    optimizer.step()
    stored = [value for values in optimizer.state.values() for value in values.values()]
    return Cost(
        activations=activations,
        gradients=gradients,
        state=sum(value.nbytes for value in stored if isinstance(value, Tensor)),
        forward=forward.get_total_flops(),
        backward=backward.get_total_flops(),
    )


def fastest(runs: Mapping[K, Callable[[], Any]], rounds: int = 5) -> dict[K, float]:
    """Time several functions in turn, a few rounds; return the least processor time of each, in seconds.

    Processor time, for on a busy machine the clock tells little: with other programs on both of two cores it
    gave a step 1.0 to 1.5 times the time of an equal one, processor time 0.94 to 1.04 times. It is the sum
    over this process's threads, so set one thread to compare.

    Raises
    ------
    ValueError
        For fewer rounds than one.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: time each run once or more")
    best = dict.fromkeys(runs, math.inf)
    for run in runs.values():
        run()  # a first run pays for what is set up once
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best
