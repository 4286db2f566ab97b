"""The neutral description that every renderer draws: plain frozen data, no display in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from layerlab.record import Level, Reason


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table. All texts are printable already, and not yet escaped for HTML."""

    text: str
    hover: str = ""
    """What a pointer resting on it shows: the whole sentence, or the number in full precision."""
    mark: str = ""
    """Signs that stand before the text, such as `alphabet.FROZEN`."""
    bar: float | None = None
    """Length of a bar between 0 and 1, drawn instead of the text."""
    reason: Reason | None = None
    """Whose colour the symbol or bar takes, where there is colour."""


@dataclass(frozen=True, slots=True)
class Column:
    """Heading and alignment of one column."""

    title: str
    hover: str = ""
    align: Literal["left", "right"] = "left"
    code: bool = False
    """Whether it holds names or numbers, which are set in monospace."""
    names: bool = False
    """Whether the text renderer may cut its cells in the middle."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, and the names of the tensors it stands for: more than one when they are folded."""

    cells: tuple[Cell, ...]
    names: tuple[str, ...] = ()
    level: Level | None = None
    """``alarm`` when an alarm names it."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A line in place of several rows, with the names that it stands for."""

    summary: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a title, lines that stand for folded rows, and notes on how to read it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    folds: tuple[Fold, ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False
    """Whether the rows show only when its title is opened."""


@dataclass(frozen=True, slots=True)
class Warn:
    """One or several alike alarms, as shown above the tables."""

    level: Level
    names: tuple[str, ...]
    what: str
    when: str
    cause: str
    cure: str
    """A line (or lines) of PyTorch."""


@dataclass(frozen=True, slots=True)
class Description:
    """All that one display says: alarms first, then tables, then a closing line."""

    alarms: tuple[Warn, ...] = ()
    tables: tuple[Table, ...] = ()
    note: str = ""
