"""`FreezeTree`: a model's modules and parameters as a tree of switches, on, off or mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import traitlets

from layerlab.printable import printable
from layerlab.show.alphabet import FROZEN
from layerlab.show.words import plural
from layerlab.widgets.drawn import Drawn, front_end
from layerlab.widgets.freeze_state import Row, size

WHOLE = 12
"""A tree with at most so many rows is open at the start."""


class FreezeTree(Drawn):
    """A tree of switches. It shows what it is told by `show`, and reports what the learner flips.

    Nothing turns in the page before the kernel has said so: the model's state is the truth.

    Parameters
    ----------
    flip
        Called with a row's name and whether to freeze it.
    """

    _esm = front_end("dom.js", "freeze_tree.js")
    _css = front_end("freeze_tree.css")

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    """What is shown, from the top down: name, label, level, fold (may it be folded), checked, size, note."""
    unfolded = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Names of the modules whose rows below are seen."""

    def __init__(self, flip: Callable[[str, bool], None], **kwargs: Any) -> None:
        self._flip: Callable[[str, bool], None] | None = flip
        self._rows: tuple[Row, ...] | None = None
        super().__init__(**kwargs)

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows."""
        first, self._rows = self._rows is None, tuple(rows)
        if first and len(rows) <= WHOLE:
            self.unfolded = [row.name for row in rows if row.is_module]
        self.rows = [_drawn(row) for row in rows]

    def close(self) -> None:
        """Take the tree out of every page."""
        self._flip = None
        super().close()

    def _heard(self, message: dict[str, Any]) -> None:
        try:
            name, on = message.get("name"), message.get("on")
            if message.get("kind") != "flip" or not isinstance(name, str) or not isinstance(on, bool):
                raise ValueError(f"{message!r}: a flip has a name and says whether on")
            if self._flip is not None:
                self._flip(name, on)
        finally:
            self.send({"kind": "answered", "number": message.get("number")})

    def _as_text(self) -> str:
        return "\n".join(f"{'  ' * (row.level - 1)}{in_words(row)}" for row in self._rows or ())

    def _as_html(self) -> str:
        return as_table(self._rows or ())


def as_table(rows: Sequence[Row], caption: str = "") -> str:
    """Write rows as an HTML table; the caption is HTML already."""
    body = "".join(
        f"<tr><td>{FROZEN if row.checked == 'true' else ''}</td><th scope='row'>"
        f"<code>{escape(printable(row.name))}</code></th><td>{escape(details(row))}</td></tr>"
        for row in rows
    )
    head = "<th scope='col'>frozen</th><th scope='col'>layer</th><th scope='col'>size</th>"
    said = f"<caption>{caption}</caption>" if caption else ""
    return f"<table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def in_words(row: Row) -> str:
    """``  ❄ layer1 (147,968 parameters)``, or without its sign ``    layer1 (…; 3 of 20 tensors frozen)``."""
    return f"  {FROZEN if row.checked == 'true' else ' '} {printable(row.name)} ({details(row)})"


def details(row: Row) -> str:
    """How large a row is, how much of it is frozen where that is not all or nothing, and how."""
    return "; ".join(filter(None, [size(row.facts), _part(row), row.note]))


def _part(row: Row) -> str:
    if row.checked != "mixed":
        return ""
    return f"{row.frozen} of {plural(len(row.facts), 'tensor')} frozen"


def _drawn(row: Row) -> dict[str, Any]:
    others = () if row.is_module else tuple(n for n in row.facts[0].named.names if n != row.name)
    tied = f"tied: {', '.join(map(printable, others))}" if others else ""
    return {
        "name": row.name,
        "label": printable(row.name.rpartition(".")[2]),
        "level": row.level,
        "fold": row.is_module,
        "checked": row.checked,
        "size": size(row.facts),
        "note": "; ".join(filter(None, [_part(row), row.note, tied])),
    }
