"""What is frozen in a model, how, and by whom: read from the model itself, nothing remembered beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from layerlab.freezing import Freeze, How, ways_held
from layerlab.names import Named, bare, find, tensors, unwrapped
from layerlab.show.words import plural

BY_HANDLE = "by ll.freeze"
BY_CODE = "by code"


@dataclass(frozen=True)
class Fact:
    """What is true of one parameter now."""

    named: Named
    frozen: bool
    """Its next step cannot move it by a gradient that is still to come: its flag is False, or its gradient
    is thrown away, or its lr is 0."""
    note: str
    """How it is frozen, where the panel did not do it."""
    foreign: tuple[How, ...]
    """How other active handles hold it: these the panel cannot release."""


@dataclass(frozen=True)
class Row:
    """One module or parameter of the tree."""

    name: str
    level: int
    """1 for what stands at the top."""
    is_module: bool
    facts: tuple[Fact, ...]
    """Of all parameters below it, each once."""

    @property
    def frozen(self) -> int:
        """How many of its tensors are frozen."""
        return sum(fact.frozen for fact in self.facts)

    @property
    def checked(self) -> str:
        """``"true"``, ``"false"`` or ``"mixed"``, as ``aria-checked`` wants it."""
        return "true" if self.frozen == len(self.facts) else "mixed" if self.frozen else "false"

    @property
    def note(self) -> str:
        """How it is frozen, where the panel did not do it."""
        notes = list(dict.fromkeys(fact.note for fact in self.facts if fact.frozen))
        return notes[0] if len(notes) == 1 else "in several ways" if notes else ""


def read(
    model: nn.Module, optimizer: Optimizer | None, handle: Freeze | None, ours: Collection[int]
) -> list[Fact]:
    """Read every parameter of a model: is it frozen, how, and by whom.

    Parameters
    ----------
    optimizer
        The one whose learning rates count.
    handle, ours
        The panel's own handle, and the ids of the parameters that it holds.
    """
    lrs = lr_now(optimizer)
    return [_read(n, lrs.get(id(n.tensor)), handle, ours) for n in tensors(model) if n.kind == "parameter"]


def lr_now(optimizer: Optimizer | None) -> dict[int, float]:
    """The learning rate of each parameter that the optimizer holds, by its id."""
    groups = optimizer.param_groups if optimizer is not None else []
    return {id(p): float(group["lr"]) for group in groups if "lr" in group for p in group["params"]}


def _read(named: Named, lr: float | None, handle: Freeze | None, ours: Collection[int]) -> Fact:
    parameter = named.tensor
    foreign = ways_held(parameter, besides=handle)
    everyone = ways_held(parameter)
    holds = {
        "requires_grad": not parameter.requires_grad,
        "grad_none": "grad_none" in everyone,
        "lr_zero": lr == 0 if lr is not None else "lr_zero" in everyone,
    }
    frozen = any(holds.values())
    note = ""
    if frozen and not (handle is not None and id(parameter) in ours and holds[handle.how]):
        note = _by_others(foreign, holds)
    return Fact(named, frozen, note, tuple(how for how in foreign if holds[how]))


def _by_others(foreign: Sequence[How], holds: dict[str, bool]) -> str:
    for how in reversed(foreign):
        if holds[how]:
            return f"{'lr = 0' if how == 'lr_zero' else how} {BY_HANDLE}"
    return f"{'requires_grad' if holds['requires_grad'] else 'lr = 0'} {BY_CODE}"


def rows(model: nn.Module, facts: Iterable[Fact]) -> list[Row]:
    """The tree of modules and parameters, from the top down, in the model's order.

    A tied parameter stands under each of its names; modules without parameters are left out.
    """
    by_id = {id(fact.named.tensor): fact for fact in facts}
    below: dict[str, dict[int, Fact]] = {}
    order: list[str] = []
    leaves = set()
    for full, parameter in bare(model).named_parameters(remove_duplicate=False):
        parts = unwrapped(full).split(".")
        leaves.add(".".join(parts))
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in below:
                order.append(name)
            below.setdefault(name, {})[id(parameter)] = by_id[id(parameter)]
    return [Row(n, n.count(".") + 1, n not in leaves, tuple(below[n].values())) for n in _nested(order)]


def _nested(order: list[str]) -> list[str]:
    """Each name after its parent's, siblings in the order they first came in."""
    children: dict[str, list[str]] = {}
    for name in order:
        children.setdefault(name.rpartition(".")[0], []).append(name)
    found: list[str] = []
    waiting = children.get("", [])[::-1]
    while waiting:
        name = waiting.pop()
        found.append(name)
        waiting += children.get(name, [])[::-1]
    return found


def largest_frozen(tree: Sequence[Row]) -> tuple[str, ...]:
    """The names of the largest wholly frozen modules and parameters."""
    found: list[str] = []
    for row in tree:
        inside = bool(found) and row.name.startswith(found[-1] + ".")
        if row.checked == "true" and not inside:
            found.append(row.name)
    return tuple(found)


def layers(model: nn.Module, facts: Iterable[Fact], patterns: Iterable[str] | None) -> dict[str, list[Fact]]:
    """What the layers that these patterns mean are made of; by default the top-level modules.

    A pattern that means nothing, for code has taken the layer away, is left out.
    """
    by_id = {id(fact.named.tensor): fact for fact in facts}
    found = {}
    for name in patterns if patterns is not None else top_level(model):
        try:
            found[name] = [by_id[id(n.tensor)] for n in find(model, name, buffers=False)]
        except ValueError:
            continue
    return found


def top_level(model: nn.Module) -> list[str]:
    """The modules that a learner would call the layers: look into a wrapper that has only one."""
    named = [n for n in tensors(model) if n.kind == "parameter"]
    prefix = ""
    while True:
        below = [n.name.removeprefix(prefix) for n in named if n.name.startswith(prefix)]
        heads = list(dict.fromkeys(name.partition(".")[0] for name in below))
        if len(heads) != 1 or all("." not in name.partition(".")[2] for name in below):
            return [prefix + head for head in heads]
        prefix += heads[0] + "."


def too_late(facts: Iterable[Fact]) -> list[Fact]:
    """What is frozen by its flag and has a gradient all the same, which the next step applies."""
    return [fact for fact in facts if not fact.named.tensor.requires_grad and _has_grad(fact.named.tensor)]


def _has_grad(parameter: torch.Tensor) -> bool:
    return parameter.grad is not None


def size(facts: Sequence[Fact]) -> str:
    """``147,968 parameters``."""
    count = sum(fact.named.tensor.numel() for fact in facts)
    return f"{count:,} {plural(count, 'parameter').partition(' ')[2]}"
