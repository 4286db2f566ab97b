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

from layerlab.bundles import bundles
from layerlab.compare import memory_order
from layerlab.group_options import options_of

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


class Replay:
    """Steps clones of some samples with a clone of their optimizer, as often as asked.

    Parameters
    ----------
    optimizer
        As it is just before its own ``step()``: gradients present, state not yet updated. Not changed.
    samples
        Parameters of this optimizer that have a gradient, and which of their elements to step.
    together
        Step samples that go together as one long tensor (see `layerlab.bundles`): faster, and the same for
        an optimizer that works element by element.
    """

    def __init__(self, optimizer: Optimizer, samples: Sequence[Sample], together: bool = False) -> None:
        self._optimizer = optimizer
        self._count = len(samples)
        places = [[i] for i in range(len(samples))]
        if together:
            places = bundles(optimizer, [sample.parameter for sample in samples])
        self._drawn = [_draw(optimizer, bundle, [samples[i] for i in bundle]) for bundle in places]

    def step(
        self,
        without: Without = Without(),
        *,
        double: bool = False,
        at_zero: bool = False,
        lr: float | None = None,
    ) -> list[Tensor]:
        """Step fresh clones.

        Parameters
        ----------
        without
            What to take away: gradients (zeroed, not None), weight decay (the groups' ``weight_decay`` set
            to 0), stored state (emptied).
        double
            Step clones in double precision (single on a device that has no double).
        at_zero
            Step from parameters of zero, where no update is too small to show.
        lr
            Step with this learning rate in place of the groups' own.

        Returns
        -------
        list of Tensor
            The values after the step, in the order of the samples.

        Raises
        ------
        NeedsClosure
            If the optimizer steps with a closure alone (LBFGS).
        Exception
            Whatever else the optimizer's ``step()`` raises when it cannot be run so.
        """
        fresh = _widened if double else torch.clone
        clones = {}
        for drawn in self._drawn:
            start = fresh(drawn.start)
            clone = torch.nn.Parameter(
                start.zero_() if at_zero else start, requires_grad=drawn.lead.requires_grad
            )
            clone.grad = _zeroed(drawn.gradient, fresh) if without.gradient else fresh(drawn.gradient)
            clones[id(drawn.lead)] = clone
        twin = _twin(self._optimizer, [] if without.state else self._drawn, clones, fresh)
        for group in twin.param_groups:
            if without.weight_decay and "weight_decay" in group:
                group["weight_decay"] = 0.0
            if lr is not None:
                group["lr"] = lr
        _bare_step(twin)
        ends = {}
        for drawn in self._drawn:
            end = clones[id(drawn.lead)].detach()
            pieces = end.split([shape.numel() for shape in drawn.shapes]) if len(drawn.shapes) > 1 else [end]
            for place, shape, piece in zip(drawn.places, drawn.shapes, pieces, strict=True):
                ends[place] = piece.view(shape)
        return [ends[place] for place in range(self._count)]


@dataclass(frozen=True, eq=False, slots=True)
class _Drawn:
    """The sampled values of the parameters that are stepped as one tensor."""

    places: list[int]
    lead: Tensor
    """The first of the parameters."""
    shapes: list[torch.Size]
    start: Tensor
    gradient: Tensor
    stored: dict[str, tuple[Any, bool]]
    """What the optimizer keeps by name, and whether it has the parameter's own shape."""


def _draw(optimizer: Optimizer, places: list[int], members: list[Sample]) -> _Drawn:
    lead = members[0].parameter
    starts = [sample.of(sample.parameter) for sample in members]
    gradient = _joined([sampled_grad(sample) for sample in members])
    stored: dict[str, tuple[Any, bool]] = {}
    for name, value in optimizer.state.get(lead, {}).items():
        own = isinstance(value, Tensor) and value.shape == lead.shape
        if own:
            value = _joined([sample.of(optimizer.state[sample.parameter][name]) for sample in members])
        stored[name] = value, own
    return _Drawn(places, lead, [start.shape for start in starts], _joined(starts), gradient, stored)


def sampled_grad(sample: Sample) -> Tensor:
    """The sampled elements of a parameter's gradient; all of a sparse one.

    Raises
    ------
    ValueError
        If there is no gradient.
    """
    gradient = sample.parameter.grad
    if gradient is None:
        raise ValueError("a parameter without a gradient takes no part in a step: nothing to replay")
    return gradient.detach().clone() if gradient.is_sparse else sample.of(gradient)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat([tensor.reshape(-1) for tensor in tensors])


def _bare_step(optimizer: Optimizer) -> None:
    """Step without anybody's hooks, and without a trace in the global random state."""
    step = type(optimizer).step
    if getattr(step, "hooked", False):
        step = step.__wrapped__  # type: ignore[attr-defined]
    closure = inspect.signature(step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        kind = type(optimizer).__name__
        raise NeedsClosure(f"{kind} cannot step without a closure, and that runs the model")
    held = [p for group in optimizer.param_groups for p in group["params"]]
    devices = sorted({p.device.index for p in held if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real step gives the learner its warnings, once
        step(optimizer)


def widen(tensor: Tensor) -> Tensor:
    """The same values in double precision (single on a device that has no double)."""
    narrow = tensor.device.type == "mps"
    if tensor.is_complex():
        return tensor.to(torch.complex64 if narrow else torch.complex128)
    return tensor.to(torch.float32 if narrow else torch.float64) if tensor.is_floating_point() else tensor


def _widened(tensor: Tensor) -> Tensor:
    return widen(tensor).clone()


def _zeroed(gradient: Tensor, fresh: Callable[[Tensor], Tensor]) -> Tensor:
    """A gradient of zeros; a sparse one keeps its indices, since they say which rows are stepped."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        zeros = fresh(gradient.values()).zero_()
        return torch.sparse_coo_tensor(
            gradient.indices(), zeros, gradient.shape, is_coalesced=True, check_invariants=False
        )
    return fresh(gradient).zero_()


def _twin(
    optimizer: Optimizer,
    drawn: Sequence[_Drawn],
    clones: dict[int, torch.nn.Parameter],
    fresh: Callable[[Tensor], Tensor],
) -> Optimizer:
    """An optimizer of the same class, options and attributes that holds the clones, and the drawn state."""
    memo: dict[int, Any] = dict(clones)  # deepcopy turns references to the parameters into their clones
    groups = []
    for group in optimizer.param_groups:
        held = [clones[id(p)] for p in group["params"] if id(p) in clones]
        if held:
            groups.append({"params": held, **copy.deepcopy(options_of(group), memo)})
    state: defaultdict[Any, Any] = defaultdict(dict)
    for one in drawn:
        if one.stored:
            state[clones[id(one.lead)]] = {
                name: _copied(value, own, fresh, memo) for name, (value, own) in one.stored.items()
            }
    skip = {"state", "param_groups", "step", *_HOOKS}  # a scheduler patches ``step`` on the instance
    own = {key: value for key, value in vars(optimizer).items() if key not in skip}
    twin = type(optimizer).__new__(type(optimizer))
    vars(twin).update(copy.deepcopy(own, memo), state=state, param_groups=groups)
    vars(twin).update({name: OrderedDict() for name in _HOOKS})
    return twin


def _copied(value: Any, own: bool, fresh: Callable[[Tensor], Tensor], memo: dict[int, Any]) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value, memo)
    # Accumulators of another shape (Adafactor's rows) go along; a step count stays as the optimizer made it.
    return fresh(value.detach()) if own or value.dim() else value.detach().clone()
