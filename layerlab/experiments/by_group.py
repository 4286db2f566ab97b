"""The ledger of one step, split by group of examples: which tensors each group would move by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from layerlab.ledger import watch
from layerlab.names import tensors
from layerlab.printable import printable
from layerlab.record import Step
from layerlab.show import Shown
from layerlab.show.alphabet import ALPHABET, symbol_and_word, used_words
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.words import MISSING

TOGETHER = "together"

Loss = Callable[[Any], Tensor]
"""Computes one group's part of the batch's loss, of the model that it is given."""


class MovesByGroup(Shown):
    """What one step does to each tensor, for each group of examples alone and for all together.

    Made by `moves_by_group`; Jupyter shows it as a table.

    Attributes
    ----------
    steps : dict of str to layerlab.record.Step
        By group, and ``"together"``.
    shares : dict of str to dict of str to float or None
        By tensor and group: the norm of the group's gradient as a share of the sum of all groups' norms. None
        where no group has one.
    """

    def __init__(self, steps: dict[str, Step], shares: dict[str, dict[str, float | None]]) -> None:
        self.steps = steps
        self.shares = shares
        super().__init__(_describe(steps, shares))

    def rows(self) -> list[dict[str, Any]]:
        """One plain dict for each tensor and group: tensor, group, moved, reason, grad, share."""
        return [
            {
                "tensor": name,
                "group": group,
                "moved": step[name].moved,
                "reason": step[name].reason.value,
                "grad": step[name].grad,
                "share": self.shares.get(name, {}).get(group),
            }
            for name in _shown_tensors(self.steps)
            for group, step in self.steps.items()
        ]


def moves_by_group(model: nn.Module, optimizer: Optimizer, groups: Mapping[str, Loss]) -> MovesByGroup:
    """Take the optimizer's next step on clones: for each group of examples alone, and for all together.

    The model, the optimizer and the random state stay as they are. Every clone starts without a gradient,
    and with the optimizer's stored state.

    Parameters
    ----------
    groups
        For each group a function that gives its part of the loss of the model it is called with. The parts
        must add up to the batch's loss: for a mean, divide each by the number of *all* examples.

    Raises
    ------
    ValueError
        No group, or one that is called "together"; a loss that is no single number, or that leaves no
        gradient in the model it was given; LBFGS, which evaluates the loss itself.
    TypeError
        A loss that is no function, or returns no tensor.
    """
    if not groups:
        raise ValueError('groups is empty: give at least one, {"A": lambda model: …}')
    if TOGETHER in groups:
        raise ValueError(f"no group can be called {TOGETHER!r}: that is what all of them are")
    for group, loss in groups.items():
        if not callable(loss):
            raise TypeError(f"group {group!r}: its loss must be a function of the model, not {loss!r}")
    if isinstance(optimizer, LBFGS):
        raise ValueError("LBFGS evaluates the loss several times in a step: its steps cannot be split")
    steps: dict[str, Step] = {}
    norms: dict[str, dict[str, float]] = {}
    for group, some in {**{g: {g: loss} for g, loss in groups.items()}, TOGETHER: groups}.items():
        steps[group], norms[group] = _step(model, optimizer, some)
    shares = {name: _shares({group: norms[group][name] for group in groups}) for name in norms[TOGETHER]}
    return MovesByGroup(steps, shares)


def _step(
    model: nn.Module, optimizer: Optimizer, groups: Mapping[str, Loss]
) -> tuple[Step, dict[str, float]]:
    """One step of a clone, and the norm of each gradient in it."""
    # Copied together: the copy of the optimizer then holds the copies of the parameters.
    model, optimizer = copy.deepcopy((model, optimizer))
    model.zero_grad(set_to_none=True)
    optimizer.zero_grad(set_to_none=True)
    parameters = [named for named in tensors(model) if named.kind == "parameter"]
    devices = {named.tensor.device for named in parameters if named.tensor.is_cuda}
    with torch.random.fork_rng(devices=list(devices)), watch(model, optimizer) as ledger:
        for group, loss in groups.items():
            value = loss(model)
            if not isinstance(value, Tensor):
                raise TypeError(f"group {group!r}: its loss must be a tensor, not {type(value).__name__}")
            if value.numel() != 1 or not value.requires_grad:
                raise ValueError(
                    f"group {group!r}: its loss must be one number that depends on the model it was given, "
                    f"not a tensor of shape {tuple(value.shape)} with requires_grad={value.requires_grad}"
                )
            value.backward()
        if all(named.tensor.grad is None for named in parameters):
            raise ValueError(
                f"{' and '.join(map(repr, groups))}: no gradient in the model that the loss was given; "
                "does it use another?"
            )
        optimizer.step()
    norms = {n.name: 0.0 if n.tensor.grad is None else float(n.tensor.grad.norm()) for n in parameters}
    return ledger[0], norms


def _shares(norms: Mapping[str, float]) -> dict[str, float | None]:
    total = sum(norms.values())
    return {group: norm / total if total else None for group, norm in norms.items()}


def _shown_tensors(steps: Mapping[str, Step]) -> list[str]:
    """All parameters, and the buffers that moved."""
    first = steps[TOGETHER]
    return [
        name
        for name, t in first.items()
        if t.info.kind == "parameter" or any(s[name].moved for s in steps.values())
    ]


def _describe(steps: dict[str, Step], shares: dict[str, dict[str, float | None]]) -> Description:
    groups = [group for group in steps if group != TOGETHER]
    columns = [Column("tensor", code=True, names=True)]
    columns += [Column(f"{printable(group)} alone") for group in groups]
    columns += [Column(TOGETHER)]
    columns += [Column(f"gradient from {printable(group)}", align="right", code=True) for group in groups]
    names = _shown_tensors(steps)
    rows = []
    for name in names:
        cells = [Cell(printable(name))]
        for step in steps.values():
            reason = step[name].reason
            cells.append(Cell(symbol_and_word(reason), ALPHABET[reason].sentence, reason=reason))
        for group in groups:
            share = shares.get(name, {}).get(group)
            cells.append(Cell(MISSING if share is None else f"{100 * share:.0f}%"))
        rows.append(Row(tuple(cells), names=(printable(name),)))
    kind = printable(steps[TOGETHER].optimizer_type)
    used = used_words({step[name].reason for step in steps.values() for name in names})
    notes = (used, "gradient from: share of the sum of the groups' gradient norms")
    page = Table(f"one step of {kind}, by group of examples", tuple(columns), tuple(rows), notes=notes)
    return Description(tables=(page,))
