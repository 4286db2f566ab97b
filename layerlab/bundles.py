"""Which parameters an optimizer that works element by element may step as one long tensor."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor
from torch.optim import Optimizer


def bundles(optimizer: Optimizer, parameters: Sequence[Tensor]) -> list[list[int]]:
    """Sort parameters into bundles whose steps differ in nothing but the elements' values.

    In a bundle all are of one parameter group, dtype and device, and what the optimizer stores of each is
    either of the parameter's own shape or the same number for all (a step count).

    Returns
    -------
    list of list of int
        Places in ``parameters``, each once. A sparse gradient, a 0-dim tensor or state of another shape is a
        bundle of its own.
    """
    groups = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    alike: dict[Hashable, list[int]] = {}
    for index, parameter in enumerate(parameters):
        common = _common(optimizer, parameter)
        key = (groups[id(parameter)], *common) if common else ("alone", index)
        alike.setdefault(key, []).append(index)
    return list(alike.values())


def _common(optimizer: Optimizer, parameter: Tensor) -> tuple[Hashable, ...]:
    """What the members of a bundle must have in common; empty for one that has to step alone."""
    gradient = parameter.grad
    if gradient is None or gradient.is_sparse or not parameter.dim():
        return ()
    common: list[Hashable] = [parameter.dtype, gradient.dtype, parameter.device, parameter.requires_grad]
    for key, value in optimizer.state.get(parameter, {}).items():
        if not isinstance(value, Tensor):
            if not isinstance(value, (bool, int, float, str, type(None))):
                return ()
            common.append((key, type(value), value))
        elif value.shape == parameter.shape:
            common.append((key, value.dtype))
        elif not value.dim():
            common.append((key, value.dtype, value.item()))
        else:
            return ()
    return tuple(common)
