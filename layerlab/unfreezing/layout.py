"""The optimizer's side of a release: what is released gets parameter groups of its own, each parameter once.

What fills a group keeps it. What shares a group with others moves to a new one with the same options. What
is in no group is added, with the optimizer's defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from layerlab.group_options import Group, options_of
from layerlab.names import Named


def groups_of(optimizer: Optimizer, parameters: Sequence[Named]) -> list[tuple[int, Group]]:
    """The groups that hold any of these parameters, with their places."""
    wanted = {id(named.tensor) for named in parameters}
    return [
        (position, group)
        for position, group in enumerate(optimizer.param_groups)
        if any(id(tensor) in wanted for tensor in group["params"])
    ]


def parts(optimizer: Optimizer, parameters: Sequence[Named]) -> list[list[str]]:
    """The names in each group that `give_groups` would leave them in, in its order."""
    names = {id(named.tensor): named.name for named in parameters}
    whole: list[list[str]] = []
    split: list[list[str]] = []
    for group in optimizer.param_groups:
        part = [names.pop(id(tensor)) for tensor in group["params"] if id(tensor) in names]
        if part:
            (whole if len(part) == len(group["params"]) else split).append(part)
    return [*whole, *split, *([list(names.values())] if names else [])]


def needs_new_group(optimizer: Optimizer, parameters: Sequence[Named]) -> bool:
    """Whether these parameters do not fill groups of the optimizer already."""
    wanted = {id(named.tensor) for named in parameters}
    groups = [group for _, group in groups_of(optimizer, parameters)]
    members = {id(tensor) for group in groups for tensor in group["params"]}
    return members != wanted


def give_groups(optimizer: Optimizer, parameters: Sequence[Named]) -> list[tuple[int, Group]]:
    """Bring these parameters into groups that hold nothing else.

    Returns
    -------
    list of (int, dict)
        The groups and their places in ``param_groups``.
    """
    wanted = {id(named.tensor): named for named in parameters}
    for _, group in groups_of(optimizer, parameters):
        if any(id(tensor) not in wanted for tensor in group["params"]):
            _split(optimizer, group, wanted)
    held = {id(tensor) for _, group in groups_of(optimizer, parameters) for tensor in group["params"]}
    missing = [named for named in parameters if id(named.tensor) not in held]
    if missing:
        optimizer.add_param_group({"params": _members(optimizer, [(n.name, n.tensor) for n in missing])})
    return groups_of(optimizer, parameters)


def _split(optimizer: Optimizer, group: Group, wanted: dict[int, Named]) -> None:
    names = group.get("param_names") or [None] * len(group["params"])
    pairs = list(zip(names, group["params"], strict=True))
    group["params"][:] = [tensor for _, tensor in pairs if id(tensor) not in wanted]
    if "param_names" in group:
        group["param_names"][:] = [name for name, tensor in pairs if id(tensor) not in wanted]
    meant = [(name, tensor) for name, tensor in pairs if id(tensor) in wanted]
    optimizer.add_param_group({**options_of(group), "params": _members(optimizer, meant)})


def _members(optimizer: Optimizer, pairs: Sequence[tuple[str | None, Tensor]]) -> list[Any]:
    """As ``add_param_group`` wants them: all with names, or all without."""
    if "param_names" in optimizer.param_groups[0]:
        return list(pairs)
    return [tensor for _, tensor in pairs]
