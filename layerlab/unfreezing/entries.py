"""What a plan says, read and checked: which parameters train from which epoch on, and with which options."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

from torch import nn
from torch.optim import Optimizer

from layerlab.freezing import ways_held
from layerlab.names import Named, Pattern, find, listing

Options: TypeAlias = "float | Mapping[str, Any]"
Plan: TypeAlias = "Mapping[int, Mapping[str | re.Pattern[str] | tuple[str, ...], Options]]"
"""From an epoch to what it releases: from a pattern to its lr, or to a dict of options with ``"lr"``."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One line of a plan: these parameters train from this epoch on, with these options."""

    epoch: int
    pattern: Pattern
    parameters: tuple[Named, ...]
    options: dict[str, Any]
    """For the parameter group: ``lr``, and whatever else the plan gives."""

    @property
    def text(self) -> str:
        """The pattern as it was written."""
        several = self.pattern if isinstance(self.pattern, (tuple, list)) else (self.pattern,)
        return ", ".join(one.pattern if isinstance(one, re.Pattern) else str(one) for one in several)

    def said(self) -> dict[str, Any]:
        """The entry as plain data, to be saved and compared."""
        names = [named.name for named in self.parameters]
        return {"epoch": self.epoch, "names": names, "options": dict(self.options)}


def read(model: nn.Module, optimizer: Optimizer, plan: Plan) -> list[Entry]:
    """Read a plan, in the order of its epochs.

    Raises
    ------
    TypeError
        The plan, or what an epoch releases, is no dict.
    ValueError
        It releases nothing; an epoch, a pattern, an lr or another option makes no sense; a parameter stands
        in two entries, or another `freeze` holds it.
    """
    if not isinstance(plan, Mapping):
        raise TypeError(f"a plan is a dict such as {{3: {{'layer4': 1e-3}}}}, not {type(plan).__name__}")
    if not plan:
        raise ValueError("the plan is empty: {3: {'layer4': 1e-3}} releases layer4 from epoch 3 on")
    for epoch, released in plan.items():
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 1:
            raise ValueError(
                f"epoch {epoch!r} of the plan: give a whole number from 1 up. Epoch 0 is the one that comes "
                "now; what is to train in it goes into the optimizer and stands in no plan"
            )
        if not isinstance(released, Mapping):
            raise TypeError(
                f"epoch {epoch} of the plan: give a dict such as {{'layer4': 1e-3}}, "
                f"not {type(released).__name__}"
            )
        if not released:
            raise ValueError(f"epoch {epoch} of the plan releases nothing")
    found = []
    for epoch in sorted(plan):
        for pattern, given in plan[epoch].items():
            options = _options(optimizer, f"epoch {epoch}, {pattern!r}", given)
            found.append(Entry(epoch, pattern, tuple(find(model, pattern, buffers=False)), options))
    _each_once(found)
    for entry in found:
        check_unheld(entry)
    return found


def check_unheld(entry: Entry, besides: Any = None) -> None:
    """Refuse parameters that a `freeze` holds, other than the plan's own: they would stay still.

    Raises
    ------
    ValueError
        There is such a parameter.
    """
    held = [named.name for named in entry.parameters if ways_held(named.tensor, besides)]
    if held:
        raise ValueError(
            f"another freeze holds {listing(held)}, and would do so after epoch {entry.epoch} too: release() "
            "its handle (close() an earlier plan) first"
        )


def _options(optimizer: Optimizer, place: str, given: Options) -> dict[str, Any]:
    options: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"lr": given}
    if "lr" not in options:
        raise ValueError(f"{place}: the options {options} have no 'lr'; say with which it is to train")
    unknown = [name for name in options if name not in optimizer.defaults]
    if unknown:
        known = ", ".join(optimizer.defaults)
        raise ValueError(
            f"{place}: {type(optimizer).__name__} has no option {unknown[0]!r}; its options are {known}"
        )
    lr = options["lr"]
    if isinstance(lr, bool) or not isinstance(lr, Real) or not math.isfinite(lr) or lr <= 0:
        why = ": it would be released, and stay still" if lr == 0 else ""
        raise ValueError(f"{place}: lr={lr!r}{why}; give a number above 0")
    return {**options, "lr": float(lr)}


def _each_once(entries: list[Entry]) -> None:
    first: dict[int, Entry] = {}
    for entry in entries:
        for named in entry.parameters:
            other = first.setdefault(id(named.tensor), entry)
            if other is not entry:
                raise ValueError(
                    f"{named.name} stands in two entries: epoch {other.epoch}, {other.text!r}, and epoch "
                    f"{entry.epoch}, {entry.text!r}. A parameter is released once"
                )
