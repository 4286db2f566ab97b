"""Freezing by the gradient: the flag (``requires_grad``) and the thrown-away gradient (``grad_none``).

This is also the register of which parameter is held by which handles, in whichever way. It knows
parameters by identity and keeps none alive. What was there before the first handle took hold returns when
the last one that needs it changed lets go, so handles may overlap and be released in any order. Only a
gradient does not return once an optimizer that holds its parameter has stepped: it was meant for that step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

How = Literal["requires_grad", "grad_none", "lr_zero"]

_UNTOUCHED = object()  # told apart from None, which is a gradient that was not there


@dataclass
class _Hold:
    """What the active handles hold of one parameter, and what was there before them."""

    handles: dict[object, How] = field(default_factory=dict)
    """From each handle's token to its way of freezing, oldest first."""
    requires_grad: bool = True
    grad: Any = _UNTOUCHED
    hook: RemovableHandle | None = None

    def has(self, *ways: How) -> bool:
        return any(how in ways for how in self.handles.values())

    @property
    def keeps_grad(self) -> bool:
        return isinstance(self.grad, torch.Tensor)


_holds: Any = WeakTensorKeyDictionary()  # parameter -> _Hold
_step_hook: RemovableHandle | None = None


def how_frozen(parameter: torch.Tensor) -> How | None:
    """How the newest active `freeze` that holds a parameter froze it.

    Parameters
    ----------
    parameter
        Any tensor; identity decides.

    Returns
    -------
    str or None
        ``"requires_grad"``, ``"grad_none"`` or ``"lr_zero"``; None when no active handle holds it. The
        parameter's own flag is not looked at.
    """
    hold: _Hold | None = _holds.get(parameter)
    return None if hold is None else list(hold.handles.values())[-1]


def ways(parameter: torch.Tensor, besides: object = None) -> tuple[How, ...]:
    """How each active handle froze a parameter, oldest first; leave out the one that a token stands for."""
    held: _Hold | None = _holds.get(parameter)
    return () if held is None else tuple(how for token, how in held.handles.items() if token is not besides)


def flag_at_release(parameter: torch.Tensor) -> bool:
    """The flag that a parameter will have once no handle holds it."""
    held: _Hold | None = _holds.get(parameter)
    return held.requires_grad if held is not None and held.has("requires_grad") else parameter.requires_grad


def grad_at_release(parameter: torch.Tensor) -> torch.Tensor | None:
    """The gradient that a parameter will have once no handle holds it: the object itself."""
    held: _Hold | None = _holds.get(parameter)
    kept: torch.Tensor | None = parameter.grad if held is None or held.grad is _UNTOUCHED else held.grad
    return kept


def hold(parameters: Iterable[torch.Tensor], token: object, how: How, *, clear_grad: bool) -> None:
    """Hold parameters for the handle that `token` stands for."""
    for parameter in parameters:
        held: _Hold = _holds.setdefault(parameter, _Hold())
        if how == "requires_grad" and not held.has(how):
            held.requires_grad = parameter.requires_grad
        held.handles[token] = how
        if how == "requires_grad":
            parameter.requires_grad = False
        if how == "grad_none" or (how == "requires_grad" and clear_grad):
            if held.grad is _UNTOUCHED:
                held.grad = parameter.grad
            parameter.grad = None
        _sync_parameter_hook(parameter, held)
    _sync_step_hook()


def release(parameters: Iterable[torch.Tensor], token: object) -> None:
    """Let go of parameters; what no other handle needs changed is put back. Harmless when not held."""
    for parameter in parameters:
        held: _Hold | None = _holds.get(parameter)
        if held is None or token not in held.handles:
            continue
        how = held.handles.pop(token)
        if how == "requires_grad" and not held.has(how):
            parameter.requires_grad = held.requires_grad
        if held.grad is not _UNTOUCHED and not held.has("requires_grad", "grad_none"):
            put_back(parameter, held.grad)
            held.grad = _UNTOUCHED
        _sync_parameter_hook(parameter, held)
        if not held.handles:
            del _holds[parameter]
    _sync_step_hook()


def put_back(parameter: torch.Tensor, grad: torch.Tensor | None) -> None:
    """Give a parameter this gradient again, brought to where and what the parameter is by now."""
    try:
        parameter.grad = grad
    except RuntimeError:  # the model was moved or cast meanwhile, and its gradients would have been too
        assert grad is not None
        parameter.grad = grad.to(parameter) if grad.shape == parameter.shape else None


def _sync_parameter_hook(parameter: torch.Tensor, held: _Hold) -> None:
    """Throw the gradient away as soon as it is there, which also works inside a closure.

    A tensor takes such a hook only while its flag is True; while it is False no gradient comes.
    """
    if not held.has("grad_none"):
        if held.hook is not None:
            held.hook.remove()
            held.hook = None
    elif held.hook is None and parameter.requires_grad:
        held.hook = parameter.register_post_accumulate_grad_hook(_throw_away)


def _throw_away(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _sync_step_hook() -> None:
    """Be told before any optimizer steps, for as long as a gradient is thrown away or kept to be put back."""
    global _step_hook
    needed = any(held.has("grad_none") or held.keeps_grad for held in _holds.values())
    if needed and _step_hook is None:
        _step_hook = register_optimizer_step_pre_hook(_before_step)
    elif not needed and _step_hook is not None:
        _step_hook.remove()
        _step_hook = None


def _before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Forget the gradients that this step would have applied; and throw away what came after our own hook.

    DistributedDataParallel writes its averaged gradient, here zeros, after the parameter's own hook ran; with
    momentum or weight decay those zeros would move the parameter.
    """
    for parameter in in_groups(optimizer):
        held: _Hold | None = _holds.get(parameter)
        if held is not None:
            held.grad = _UNTOUCHED
            if held.has("grad_none"):
                parameter.grad = None


def in_groups(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """The parameters that an optimizer holds."""
    for group in optimizer.param_groups:
        yield from group["params"]
