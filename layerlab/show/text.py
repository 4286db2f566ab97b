"""A description as plain text, for terminals and for nbval to compare."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from layerlab.show.alphabet import ALARM, NOTICE
from layerlab.show.page import Cell, Column, Description, Fold, Table, Warn
from layerlab.show.words import blocks, cut, some, width

COLUMNS = 100
_NARROWEST = 24
_GAP = "  "


def text(description: Description) -> str:
    """Render a description for a terminal: aligned, the same every time, no colour codes.

    Lines keep within 100 columns where the names allow: long names are cut in the middle, but never so
    short that two rows would look alike.
    """
    parts = ["\n".join(line for warn in description.alarms for line in _alarm(warn))]
    parts += ["\n".join(_table(table)) for table in description.tables]
    parts.append("\n".join(_wrap(description.note)))
    return "\n\n".join(part for part in parts if part)


def _wrap(words: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        words,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _alarm(warn: Warn) -> Iterator[str]:
    mark = ALARM if warn.level == "alarm" else NOTICE
    yield from _wrap(f"{some(warn.names)}: {warn.what} ({warn.when})", f"{mark} ", "  ")
    if warn.cause.strip():
        yield from _wrap(warn.cause, "    why:  ", "          ")
    for i, line in enumerate(warn.cure.splitlines() if warn.cure.strip() else ()):
        yield ("          " if i else "    cure: ") + line


def _table(table: Table) -> Iterator[str]:
    yield from _wrap(table.title)
    if table.rows:
        yield from _grid(table)
    for fold in table.folds:
        yield from _fold(fold)
    yield from _wrap("; ".join(table.notes), "  ", "  ")


def _fold(fold: Fold) -> list[str]:
    return _wrap(
        f"{fold.summary} ({some(_cut_apart(fold.names[:3], 60) + list(fold.names[3:]))})", "  ", "    "
    )


def _grid(table: Table) -> Iterator[str]:
    body = [_column(column, [row.cells[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    heads = [c.title for c in table.columns]
    heads[0] = " " * _gutter(row.cells[0] for row in table.rows) + heads[0]
    widths = [max(width(s) for s in [head, *cells]) for head, cells in zip(heads, body, strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - COLUMNS
    for i, column in enumerate(table.columns):
        if column.names and over > 0:
            body[i] = _cut_apart(body[i], max(_NARROWEST, widths[i] - over))
            widths[i] = max(width(s) for s in [heads[i], *body[i]])
    for cells in (heads, *zip(*body, strict=True)):
        aligned = map(_align, cells, table.columns, widths)
        yield _GAP.join(aligned).rstrip()


def _column(column: Column, cells: Sequence[Cell]) -> list[str]:
    gutter = _gutter(cells)
    texts = [cell.text if cell.bar is None else blocks(cell.bar) for cell in cells]
    return [
        cell.mark.rjust(gutter - 1) + " " + s if gutter else s for cell, s in zip(cells, texts, strict=True)
    ]


def _gutter(cells: Sequence[Cell] | Iterator[Cell]) -> int:
    """Width of the marks before a column's texts, so that the texts stay aligned."""
    widest = max(len(cell.mark) for cell in cells)
    return widest + 1 if widest else 0


def _align(cell: str, column: Column, columns: int) -> str:
    space = " " * (columns - width(cell))
    return space + cell if column.align == "right" else cell + space


def _cut_apart(texts: Sequence[str], columns: int) -> list[str]:
    """Cut to the given width, or as little wider as keeps different texts different."""
    while True:
        short = [cut(s, columns) for s in texts]
        if len(set(short)) == len(set(texts)):
            return short
        columns *= 2
