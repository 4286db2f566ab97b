"""What the article printed, and how well other numbers agree with it.

The article is “深度学习模型的冻结层 – 正确的方法” (“Freezing layers of a deep learning model: the proper
way”). ``printed.json`` holds each of its numbers as the string it prints, since the last place of that string
says how exactly it is known. ``inputs.json`` holds inputs that were reconstructed: the article prints none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib import resources
from typing import Any, TypeAlias

import torch
from torch import Tensor

Rows: TypeAlias = list[list[str]]
"""A matrix as it was printed: rows of number strings."""
Table: TypeAlias = dict[str, Rows]
"""Parameter name → what was printed of it."""
Batch: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Task name → its inputs (examples × features) and targets (class numbers)."""

MOMENTS = ("initial", "after task 1", "after task 2")

_SLACK = 1e-9  # of one last place: float64 holds a printed decimal only this exactly


@dataclass(frozen=True, slots=True)
class PrintedState:
    """The optimizer state of one parameter, as printed: number strings."""

    parameter: Rows
    """The parameter's value, printed with the state. The article names no tensor there: this tells which."""
    step: str
    exp_avg: Rows
    exp_avg_sq: Rows


@dataclass(frozen=True, slots=True)
class PrintedRun:
    """All that the article prints of one run. The keys are the `MOMENTS`."""

    labels: dict[str, str]
    """The words that the article prints before each table."""
    tables: dict[str, Table]
    """The parameters."""
    states: dict[str, dict[str, PrintedState]]
    """The optimizer states, by parameter name; only at the moments where the article prints them."""


def _load(name: str) -> dict[str, Any]:
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    return dict(json.loads(text))


def printed() -> dict[str, PrintedRun]:
    """Return everything that the article prints of its three runs ``"sgd"``, ``"adam"`` and ``"fix"``.

    Each run has 3 tables of 27 parameter values: 243 in all. ``"adam"`` has the optimizer states after both
    tasks, ``"fix"`` those after task 2, ``"sgd"`` none: 8 states, 150 values of ``exp_avg`` and
    ``exp_avg_sq``, 8 step counts.

    Notes
    -----
    Where the article's words and its numbers differ, the keys here follow the numbers:

    - ``"adam"`` and ``"fix"`` are what the article calls Adam; the numbers are AdamW's (`which_optimizer`).
    - Its listings take the snapshot "after task 1" *before* the first step. What it prints under that label
      differs from the initial values: it was taken after the step, by another listing than the printed one.
    - Both naive runs print the labels "after the hidden layer's update" and the same with a 1: these are the
      tables after task 1 and after task 2. The first table of ``"sgd"`` has no label at all.
    - Its listing of the fix makes an SGD; the numbers printed under it are those of the ``"adam"`` run's
      optimizer.
    """
    return {
        run: PrintedRun(
            labels=entry["labels"],
            tables=entry["tables"],
            states={
                moment: {name: PrintedState(**state) for name, state in states.items()}
                for moment, states in entry["states"].items()
            },
        )
        for run, entry in _load("printed.json")["runs"].items()
    }


def article_batch() -> Batch:
    """Return inputs and targets of ``"task1"`` (10 × 3) and ``"task2"`` (10 × 2), for 4 classes.

    They are reconstructed, not the article's own: see ``about`` in ``inputs.json``.
    """
    data = _load("inputs.json")
    return {
        f"task{i}": (
            torch.tensor(data[f"input{i}"], dtype=torch.float32),
            torch.tensor(data[f"target{i}"], dtype=torch.int64),
        )
        for i in (1, 2)
    }


def numbers(rows: Rows) -> Tensor:
    """Return a printed matrix as a float64 tensor."""
    return torch.tensor([[float(text) for text in row] for row in rows], dtype=torch.float64)


def last_place(text: str) -> float:
    """Return the worth of one unit in the last printed place: 1e-4 of ``0.0010``, 1e-8 of ``5.3374e-04``.

    Raises
    ------
    ValueError
        If `text` is not a finite decimal number.
    """
    try:
        exponent = Decimal(text).as_tuple().exponent
    except InvalidOperation:
        exponent = "n"
    if not isinstance(exponent, int):
        raise ValueError(f"{text!r} is not a finite decimal number such as '0.0010' or '5.3374e-04'")
    return float(f"1e{exponent}")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One number that differs from the printed one."""

    name: str
    row: int
    column: int
    printed: str
    ours: float
    places: float
    """The distance, in units of the last printed place."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many numbers agree with the printed ones. Agreements add up with ``+``."""

    total: int
    within_last_place: int
    """How many lie within one unit in the last printed place."""
    within_rounding: int
    """How many lie within half a unit: they would print the same."""
    worst: Disagreement

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.total + other.total,
            self.within_last_place + other.within_last_place,
            self.within_rounding + other.within_rounding,
            max(self.worst, other.worst, key=_badness),
        )


def _badness(one: Disagreement) -> float:
    return float("inf") if one.places != one.places else one.places  # NaN is the worst of all


def agreement(printed_table: Mapping[str, Rows], tensors: Mapping[str, Tensor]) -> Agreement:
    """Compare tensors with a printed table, number by number, in float64.

    Parameters
    ----------
    printed_table
        Name → printed rows. Every tensor in it is compared.
    tensors
        Name → tensor of the same shape; it may hold more names.

    Raises
    ------
    ValueError
        If a name is missing in `tensors`, a shape differs, or the table is empty.
    """
    found = []
    for name, rows in printed_table.items():
        shape = (len(rows), len(rows[0]))
        if name not in tensors:
            raise ValueError(f"{name!r} is printed, but not among the tensors: {', '.join(tensors)}")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name!r} is printed with shape {shape}, not {tuple(tensors[name].shape)}")
        ours = tensors[name].detach().double().tolist()
        for i, row in enumerate(rows):
            for j, text in enumerate(row):
                places = abs(ours[i][j] - float(text)) / last_place(text)
                found.append(Disagreement(name, i, j, text, ours[i][j], places))
    if not found:
        raise ValueError("the printed table is empty: there is nothing to compare")
    return Agreement(
        total=len(found),
        within_last_place=sum(one.places <= 1 + _SLACK for one in found),
        within_rounding=sum(one.places <= 0.5 + _SLACK for one in found),
        worst=max(found, key=_badness),
    )
