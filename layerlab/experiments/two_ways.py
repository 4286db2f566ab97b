"""lr = 0 beside requires_grad = False: what each leaves alone of the part of a model that it freezes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from layerlab.compare import norm, same_bits
from layerlab.names import Pattern, find
from layerlab.training.machine import Chance

WAYS = ("lr = 0", "requires_grad = False")
"""The two ways to freeze: the learning rate of the part's group, or the flag of its parameters."""


@dataclass(frozen=True)
class Case:
    """A training run, and the part of its model that is to be frozen.

    Each function here works on a copy of the model; model, gradients and random state stay as they are.
    """

    model: nn.Module
    """Where to start: its weights, its flags and its train or eval mode."""
    loss: Callable[[Any], Tensor]
    """Computes the loss of the model that it is given."""
    frozen: Pattern
    """The part: a name, a glob or a list of these; see `layerlab.names.find`."""
    optimizer: Callable[[Any], Optimizer]
    """Given two parameter groups, the rest and the part, returns the optimizer. LBFGS takes only one."""


@dataclass(frozen=True, slots=True)
class FrozenRun:
    """What became of the part in the steps in which it was frozen."""

    parameters: tuple[str, ...]
    """The part's parameters that changed in any bit."""
    buffers: tuple[str, ...]
    """Its buffers that did: BatchNorm's statistics, as a rule."""
    nonfinite: tuple[str, ...]
    """Its parameters that hold inf or NaN at the end."""
    gradient_bytes: int
    state_bytes: int
    """What its gradients, and the optimizer's state for it, take at the end."""


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """The part's first step after its release."""

    norm: float
    """Euclidean norm of Δ, of the whole part."""
    largest: float
    """The largest absolute Δ of one element."""


def frozen_run(case: Case, way: str, *, steps: int = 2, before: int = 0) -> FrozenRun:
    """Train, with the part frozen.

    Parameters
    ----------
    case
        What to train, and what to freeze.
    way
        One of `WAYS`.
    steps
        How many steps to take with the part frozen.
    before
        How many steps, on everything, come before it is frozen.

    Raises
    ------
    ValueError
        For an unknown way, a part that matches nothing or is the whole model, no steps, or a loss that does
        not depend on the part.
    """
    if steps < 1 or before < 0:
        raise ValueError(f"steps={steps}, before={before}: freeze for one step or more, after none or more")
    trial = _Trial(case, way)
    with Chance(0):  # the same dropout for every trial
        trial.train(before)
        trial.freeze()
        start = {name: tensor.detach().clone() for name, tensor in trial.everything.items()}
        trial.train(steps)
    moved = [name for name, tensor in trial.everything.items() if not same_bits(tensor, start[name])]
    part = list(trial.part.values())
    return FrozenRun(
        parameters=tuple(name for name in moved if name in trial.part),
        buffers=tuple(name for name in moved if name not in trial.part),
        nonfinite=tuple(name for name, p in trial.part.items() if not p.isfinite().all()),
        gradient_bytes=sum(p.grad.nbytes for p in part if p.grad is not None),
        state_bytes=state_bytes(trial.optimizer, part),
    )


def first_step_after_release(case: Case, way: str, *, frozen: int = 10) -> ReleaseStep:
    """Freeze the part from the start, release it after some steps, and measure its first own step.

    Parameters
    ----------
    case, way
        See `frozen_run`.
    frozen
        How many steps to take before the release.

    Raises
    ------
    ValueError
        As for `frozen_run`.
    """
    if frozen < 1:
        raise ValueError(f"frozen={frozen}: keep it frozen for one step or more")
    trial = _Trial(case, way)
    with Chance(0):  # the same dropout for every trial
        trial.freeze()
        trial.train(frozen)
        trial.release()
        start = [p.detach().clone() for p in trial.part.values()]
        trial.train(1)
    deltas = [p.detach() - was for p, was in zip(trial.part.values(), start, strict=True)]
    return ReleaseStep(
        norm=sum(norm(delta) ** 2 for delta in deltas) ** 0.5,
        largest=max(float(delta.abs().max()) for delta in deltas if delta.numel()),
    )


def state_bytes(optimizer: Optimizer, parameters: list[Tensor]) -> int:
    """Count the bytes of what the optimizer stores for these parameters: momentum, step counts and so on."""
    stored = [optimizer.state[p].values() for p in parameters if p in optimizer.state]
    return sum(value.nbytes for values in stored for value in values if isinstance(value, Tensor))


class _Trial:
    """A copy of the case's model, its optimizer, and the part of it that can be frozen and released."""

    def __init__(self, case: Case, way: str) -> None:
        if way not in WAYS:
            raise ValueError(f"way={way!r}: choose one of {', '.join(map(repr, WAYS))}")
        self._loss, self._way = case.loss, way
        self.net = copy.deepcopy(case.model)
        self.net.zero_grad(set_to_none=True)
        self.everything = {named.name: named.tensor for named in find(self.net, case.frozen)}
        parameters = find(self.net, case.frozen, buffers=False)
        self.part = {named.name: named.tensor for named in parameters}
        inside = {id(p) for p in self.part.values()}
        rest = [p for p in self.net.parameters() if id(p) not in inside]
        if not any(p.requires_grad for p in rest):
            raise ValueError(f"frozen={case.frozen!r} is all that trains: leave out what shall train on")
        self.optimizer = case.optimizer([{"params": rest}, {"params": list(self.part.values())}])
        self._lr = self.optimizer.param_groups[1]["lr"]

    def freeze(self) -> None:
        self._set(0.0, False)

    def release(self) -> None:
        self._set(self._lr, True)

    def _set(self, lr: float, flag: bool) -> None:
        if self._way == "lr = 0":
            self.optimizer.param_groups[1]["lr"] = lr
        else:
            for parameter in self.part.values():
                parameter.requires_grad_(flag)

    def train(self, steps: int) -> None:
        """Take steps; gradients are cleared to None first, so the flag is never too late."""
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            self._loss(self.net).backward()
            self.optimizer.step()
