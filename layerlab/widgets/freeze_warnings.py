"""What `FreezePanel` says: a line of words and, below it, the lines of PyTorch that are its cure."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from layerlab.freezing.learning_rates import OwnGroup
from layerlab.freezing.plain_code import bracketed, expressions
from layerlab.names import Named, listing
from layerlab.printable import printable
from layerlab.widgets.freeze_state import Fact

NOTHING_LEFT = "everything is frozen: backward() will raise, for nothing requires a gradient."
NOTHING_TO_UNDO = "nothing to undo."


def too_late(model: nn.Module, late: Sequence[Named]) -> str:
    """These were frozen by their flag and have a gradient already."""
    return (
        f"too late if step() comes next: {_first(late)} already has a gradient, and step() applies every "
        "gradient that is not None. No harm if a zero_grad() that leaves None comes first. "
        f"Cure:\n{cure(model, late)}"
    )


def cure(model: nn.Module, late: Sequence[Named]) -> str:
    """The line of PyTorch that throws these gradients away."""
    paths = expressions(model, late)
    if len(late) == 1 and not paths[0].startswith("*"):
        return f"{paths[0]}.grad = None"
    return f"for p in {_each(paths)}: p.grad = None"


def old_momentum(model: nn.Module, stored: Sequence[Named]) -> str:
    """These were released, and the optimizer still has state of them."""
    return (
        f"released with old momentum: the next steps of {_first(stored)} also follow the momentum from "
        f"before the freeze. To start afresh:\nfor p in {_each(expressions(model, stored))}: "
        "optimizer.state.pop(p, None)"
    )


def held_by_others(foreign: Sequence[Fact]) -> str:
    """These the panel did not freeze and cannot release."""
    ways = ", ".join(dict.fromkeys(way for fact in foreign for way in fact.foreign))
    return (
        f"not released: {_first([fact.named for fact in foreign])} is held by a handle of ll.freeze "
        f"({ways}). Call that handle's release()."
    )


def stays(frozen: Sequence[Fact], groups: Sequence[OwnGroup]) -> str:
    """These stay frozen although the panel let go of them."""
    ids = {id(fact.named.tensor) for fact in frozen}
    asleep = [i for i, group in enumerate(groups) if ids & set(map(id, group.parameters)) and not group.lr]
    name = _first([fact.named for fact in frozen])
    if not asleep:
        return f"{name} stays frozen: only numbers with a fraction can have a gradient."
    sliders = " and ".join(f"“lr, group {index}”" for index in asleep)
    return f"{name} stays frozen: its parameter group has lr = 0. Its slider {sliders} wakes it."


def woken(awake: Sequence[Named], lr: float) -> str:
    """These were held at lr 0, and code gave them another."""
    return (
        f"woken: {_first(awake)} was frozen by lr = 0 and has lr {lr:.3g} by now. Code set it, or a "
        "scheduler, which knows of no freeze; it cannot wake what is frozen by requires_grad."
    )


def not_undone(changed: Sequence[str]) -> str:
    """Undoing the step would destroy what code did since: it is not undone."""
    return f"not undone: code has changed {listing(dict.fromkeys(changed))} since, and that stays."


def _first(several: Sequence[Named]) -> str:
    more = f" (and {len(several) - 1} more)" if len(several) > 1 else ""
    return printable(several[0].name) + more


def _each(paths: Sequence[str]) -> str:
    """What a loop runs over: one module's parameters as they are, anything else in a list."""
    return paths[0][1:] if len(paths) == 1 and paths[0].startswith("*") else bracketed(paths)
