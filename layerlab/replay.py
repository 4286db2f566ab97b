"""Counterfactual steps: the same optimizer, stepped on clones with something taken away.

Nothing here knows any optimizer's update rule. A clone of the optimizer object, holding clones of (a sample
of) some parameters, their gradients and their stored state, is stepped with its own ``step()``.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from layerlab.compare import memory_order

_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


class NeedsClosure(TypeError):
    """The optimizer evaluates the model itself, so its steps cannot be replayed."""


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One parameter, and which of its elements are replayed: all (``block`` None) or a run of them."""

    parameter: Tensor
    block: slice | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The sampled elements of a tensor of the parameter's shape: a copy, never a view."""
        tensor = tensor.detach()
        if self.block is None or tensor.shape != self.parameter.shape:
            return tensor.clone(memory_format=torch.preserve_format)
        if tensor.is_contiguous() and self.parameter.is_contiguous():
            return tensor.view(-1)[self.block].clone()
        # In memory order, so that sampling a channels-last tensor does not copy all of it.
        flat = tensor.permute(memory_order(self.parameter)).reshape(-1)
        return flat[self.block].clone()


@dataclass(frozen=True, slots=True)
class Without:
    """What a counterfactual step takes away."""

    gradient: bool = False
    weight_decay: bool = False
    state: bool = False


def step_without(
    optimizer: Optimizer,
    samples: Sequence[Sample],
    without: Without = Without(),
    *,
    double: bool = False,
    at_zero: bool = False,
    lr: float | None = None,
) -> list[Tensor]:
    """Step a clone of ``optimizer`` on clones of the samples; return the stepped clones.

    Parameters
    ----------
    optimizer
        As it is just before its own ``step()``: gradients present, state not yet updated. Not changed.
    samples
        Parameters of this optimizer that have a gradient, and which of their elements to step.
    without
        What to take away: gradients (zeroed, not None), weight decay (the groups' ``weight_decay`` set to
        0), stored state (emptied).
    double
        Step clones in double precision (single on a device that has no double).
    at_zero
        Step from parameters of zero, where no update is too small to show.
    lr
        Step with this learning rate in place of the groups' own.

    Returns
    -------
    list of Tensor
        The values after the step, in the order of ``samples``.

    Raises
    ------
    NeedsClosure
        If the optimizer steps with a closure alone (LBFGS).
    Exception
        Whatever else the optimizer's ``step()`` raises when it cannot be run so.
    """
    change = widen if double else _same
    clones: dict[int, torch.nn.Parameter] = {}
    for sample in samples:
        parameter = sample.parameter
        start = change(sample.of(parameter))
        if at_zero:
            start = torch.zeros_like(start)
        clone = torch.nn.Parameter(start, requires_grad=parameter.requires_grad)
        gradient = parameter.grad
        if gradient is None:
            raise ValueError("a parameter without a gradient takes no part in a step: nothing to replay")
        sampled = gradient.detach().clone() if gradient.is_sparse else sample.of(gradient)
        clone.grad = _zeroed(change(sampled)) if without.gradient else change(sampled)
        clones[id(parameter)] = clone
    twin = _twin(optimizer, samples, clones, without, change, lr)
    step = type(twin).step
    if getattr(step, "hooked", False):  # the bare step: a replay fires nobody's hooks
        step = step.__wrapped__  # type: ignore[attr-defined]
    closure = inspect.signature(step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise NeedsClosure(f"{type(twin).__name__} cannot step without a closure, and that runs the model")
    devices = sorted({s.parameter.device.index for s in samples if s.parameter.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real step gives the learner its warnings, once
        step(twin)
    return [clones[id(s.parameter)].detach() for s in samples]


def widen(tensor: Tensor) -> Tensor:
    """The same values in double precision (single on a device that has no double)."""
    narrow = tensor.device.type == "mps"
    if tensor.is_complex():
        return tensor.to(torch.complex64 if narrow else torch.complex128)
    return tensor.to(torch.float32 if narrow else torch.float64) if tensor.is_floating_point() else tensor


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _zeroed(gradient: Tensor) -> Tensor:
    """A gradient of zeros; a sparse one keeps its indices, since they say which rows are stepped."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        zeros = torch.zeros_like(gradient.values())
        return torch.sparse_coo_tensor(
            gradient.indices(), zeros, gradient.shape, is_coalesced=True, check_invariants=False
        )
    return torch.zeros_like(gradient)


def _twin(
    optimizer: Optimizer,
    samples: Sequence[Sample],
    clones: dict[int, torch.nn.Parameter],
    without: Without,
    change: Callable[[Tensor], Tensor],
    lr: float | None,
) -> Optimizer:
    """An optimizer of the same class, options and attributes that holds the clones."""
    memo: dict[int, Any] = dict(clones)  # deepcopy turns references to the parameters into their clones
    groups = []
    for group in optimizer.param_groups:
        held = [clones[id(p)] for p in group["params"] if id(p) in clones]
        if held:
            options = {k: v for k, v in group.items() if k not in ("params", "param_names")}
            twin_group = copy.deepcopy(options, memo)
            if without.weight_decay and "weight_decay" in twin_group:
                twin_group["weight_decay"] = 0.0
            if lr is not None:
                twin_group["lr"] = lr
            groups.append({"params": held, **twin_group})
    state: defaultdict[Any, Any] = defaultdict(dict)
    if not without.state:
        for sample in samples:
            stored = optimizer.state.get(sample.parameter)
            if stored:
                state[clones[id(sample.parameter)]] = {
                    key: _sampled_state(sample, value, change, memo) for key, value in stored.items()
                }
    skip = {"state", "param_groups", "step", *_HOOKS}  # a scheduler patches ``step`` on the instance
    own = {key: value for key, value in vars(optimizer).items() if key not in skip}
    twin = type(optimizer).__new__(type(optimizer))
    vars(twin).update(copy.deepcopy(own, memo), state=state, param_groups=groups)
    vars(twin).update({name: OrderedDict() for name in _HOOKS})
    return twin


def _sampled_state(
    sample: Sample, value: Any, change: Callable[[Tensor], Tensor], memo: dict[int, Any]
) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value, memo)
    if value.shape == sample.parameter.shape:
        return change(sample.of(value))
    # Accumulators of another shape (Adafactor's rows) go along; a step count stays as the optimizer made it.
    return change(value.detach().clone()) if value.dim() else value.detach().clone()
