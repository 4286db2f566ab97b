"""A description as plain semantic HTML, which GitHub keeps: no script, and no style needed to read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from layerlab.show.alphabet import ALARM, ALARM_COLOUR, ALPHABET, NOTICE, ink
from layerlab.show.page import Cell, Column, Description, Fold, Row, Table, Warn
from layerlab.show.words import blocks, some

# JupyterLab aligns cells to the right by style, GitHub strips styles but keeps `align`: say it both ways.
_LEFT = 'align="left" style="text-align:left"'
_HEAD = 'align="left" style="text-align:left;font-weight:normal"'
_CAPTION = 'align="left" style="text-align:left;white-space:nowrap"'
_LONG = 90  # signs: a caption that is no wider than most tables need not break, a longer one must be able to
_RIGHT = 'align="right" style="text-align:right"'
_TABLE = 'style="margin-left:0"'  # JupyterLab centres a table in a widget

_INKS = {letter.symbol: ink(letter.colour) for letter in ALPHABET.values()}
_SYMBOL = re.compile("[●▲◆■✱○](?= |$)")


def html(description: Description) -> str:
    """Render a description as HTML: one ``<table>`` each, folded names in ``<details>``, all text escaped.

    Colours and alignment are extras that a sanitizer may strip; symbols, words and bars of block characters
    carry everything. Full precision is in the ``title`` attributes.
    """
    parts = ["<div>"]
    for warn in description.alarms:
        parts += _alarm(warn)
    for table in description.tables:
        parts += _table(table)
    if description.note:
        parts.append(f"<p>{escape(description.note)}</p>")
    return "\n".join([*parts, "</div>"])


def _alarm(warn: Warn) -> Iterator[str]:
    mark = _marks(ALARM if warn.level == "alarm" else NOTICE)
    names = f"<code>{escape(some(warn.names))}</code>"
    lines = [f"{mark} {names}: {escape(warn.what)} ({escape(warn.when)})"]
    if warn.cause.strip():
        lines.append(f"why: {escape(warn.cause)}")
    if warn.cure.strip():
        lines.append(f"cure: <code>{'<br>'.join(map(escape, warn.cure.splitlines()))}</code>")
    yield f"<p>{'<br>'.join(lines)}</p>"
    if len(warn.names) > 3:
        yield _details(f"all {len(warn.names)} names", warn.names)


def _table(table: Table) -> Iterator[str]:
    if table.rows:
        if table.folded:
            yield f"<details><summary>{escape(table.title)}</summary>"
        yield f"<table {_TABLE}>"
        if not table.folded:
            style = _CAPTION if len(table.title) <= _LONG else _LEFT
            yield f"<caption {style}>{escape(table.title)}</caption>"
        yield f"<thead><tr>{''.join(map(_heading, table.columns))}</tr></thead>"
        yield "<tbody>"
        yield from (_row(row, table.columns) for row in table.rows)
        yield "</tbody>"
        yield "</table>"
        if table.folded:
            yield "</details>"
    else:
        yield f"<p>{escape(table.title)}</p>"
    yield from map(_fold, table.folds)
    if table.notes:
        yield f"<p><small>{_coloured('; '.join(table.notes))}</small></p>"


def _heading(column: Column) -> str:
    return f'<th scope="col"{_title(column.hover)} {_side(column)}>{escape(column.title)}</th>'


def _row(row: Row, columns: tuple[Column, ...]) -> str:
    first, *others = zip(row.cells, columns, strict=True)
    cell, column = first
    content = _content(cell, column)
    if len(row.names) > 1:
        content = _details(content, row.names)
    head = f'<th scope="row"{_title(cell.hover)} {_HEAD}>{content}</th>'
    cells = (f"<td{_title(c.hover)} {_side(col)}>{_content(c, col)}</td>" for c, col in others)
    return f"<tr>{head}{''.join(cells)}</tr>"


def _content(cell: Cell, column: Column) -> str:
    mark = f"{_marks(cell.mark)} " if cell.mark else ""
    if cell.bar is not None:
        return f'<samp aria-hidden="true"{_colour(cell)}>{blocks(cell.bar)}</samp>'
    said = escape(cell.text) if column.names else _coloured(cell.text)
    if cell.reason and cell.text.startswith(ALPHABET[cell.reason].symbol):
        symbol = ALPHABET[cell.reason].symbol
        said = f"<span{_colour(cell)}>{symbol}</span>{escape(cell.text[len(symbol) :])}"
    if column.code and said:
        tag = "code" if column.names else "samp"
        said = f"<{tag}>{said}</{tag}>"
    return mark + said


def _coloured(text: str) -> str:
    """Escape a text, and give the alphabet's symbols in it their colours; a row of them stays in one line."""
    coloured = _SYMBOL.sub(lambda m: f'<span style="color:{_INKS[m[0]]}">{m[0]}</span>', escape(text))
    return coloured.replace("</span> <span", "</span>&nbsp;<span")


def _marks(marks: str) -> str:
    loud = f'<strong style="color:{ink(ALARM_COLOUR)}">{ALARM}</strong>'
    return escape(marks).replace(ALARM, loud)


def _fold(fold: Fold) -> str:
    summary = escape(f"{fold.summary} ({some(fold.names)})")
    return _details(summary, fold.names) if len(fold.names) > 3 else f"<p>{summary}</p>"


def _details(summary: str, names: tuple[str, ...]) -> str:
    inside = ", ".join(f"<code>{escape(name)}</code>" for name in names)
    return f"<details><summary>{summary}</summary>{inside}</details>"


def _side(column: Column) -> str:
    return _RIGHT if column.align == "right" else _LEFT


def _title(hover: str) -> str:
    return f' title="{escape(hover)}"' if hover else ""


def _colour(cell: Cell) -> str:
    return f' style="color:{ink(ALPHABET[cell.reason].colour)}"' if cell.reason else ""
