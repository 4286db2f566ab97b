"""What a notebook displays: text, and HTML beside it, of one description."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence

from layerlab.printable import printable
from layerlab.record import Reason
from layerlab.show.alphabet import ALARM, ALPHABET, FROZEN, NOTICE, symbol_and_word
from layerlab.show.html import html
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.text import text
from layerlab.show.words import MISSING, precise, short


class Shown:
    """A description that Jupyter shows as HTML and a terminal as text, the same every time."""

    def __init__(self, description: Description) -> None:
        self.description = description

    def __repr__(self) -> str:
        return text(self.description)

    def _repr_html_(self) -> str:
        return html(self.description)


def table(
    rows: Sequence[Mapping[str, object]],
    *,
    title: str | None = None,
    columns: Sequence[str] | None = None,
    digits: int = 2,
    folded: bool = False,
) -> Shown:
    """Show a small table of any facts, with the alphabet's symbols and the ledger's way to write numbers.

    Parameters
    ----------
    rows
        One mapping a row. Floats are written with ``digits`` significant figures and with five on hover;
        True and False become yes and no, None a dash, a `Reason` its symbol and word.
    title
        The caption.
    columns
        Which keys to show, in which order; all of them, in the order they first appear, when None.
    digits
        Significant figures of a float.
    folded
        Whether a notebook shows the title alone until it is opened; a terminal shows the rows.

    Raises
    ------
    ValueError
        When a key in ``columns`` is in no row.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if columns is not None and rows:
        absent = [column for column in columns if column not in keys]
        if absent:
            raise ValueError(f"no row has a column {absent[0]!r}; the rows have: {', '.join(keys)}")
    keys = keys if columns is None else list(columns)
    kinds = {key: _is_numeric([row[key] for row in rows if key in row]) for key in keys}
    page = Table(
        title=printable(title or ""),
        columns=tuple(
            Column(printable(key), align="right" if kinds[key] else "left", code=kinds[key]) for key in keys
        ),
        rows=tuple(Row(tuple(_cell(row.get(key), digits) for key in keys)) for row in rows) if keys else (),
        notes=() if rows and keys else ("no rows",),
        folded=folded,
    )
    return Shown(Description(tables=(page,)))


def legend() -> Shown:
    """Show the alphabet: every symbol, its word, and what it means."""
    rows = [
        (Cell(letter.symbol, reason=reason), Cell(letter.word), Cell(letter.sentence))
        for reason, letter in ALPHABET.items()
    ]
    signs = {
        FROZEN: ("frozen", "stands before the name of a frozen tensor"),
        ALARM: ("alarm", "not what was meant: its cause and its cure stand above the table"),
        NOTICE: ("notice", "true, and easy to overlook"),
    }
    rows += [(Cell(sign), Cell(word), Cell(means)) for sign, (word, means) in signs.items()]
    page = Table(
        title="how to read a row",
        columns=(Column("symbol"), Column("word"), Column("means")),
        rows=tuple(map(Row, rows)),
    )
    return Shown(Description(tables=(page,)))


def _is_numeric(values: Sequence[object]) -> bool:
    known = [_plain(value) for value in values if value is not None]
    return bool(known) and all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in known)


def _plain(value: object) -> object:
    """Turn a NumPy or torch scalar into Python's own, without importing either."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def _cell(value: object, digits: int) -> Cell:
    value = _plain(value)
    if value is None:
        return Cell(MISSING)
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, Reason):
        return Cell(symbol_and_word(value), ALPHABET[value].sentence, reason=value)
    if isinstance(value, float):
        return Cell(short(value, digits), hover=precise(value))
    return Cell(printable(str(value)))
