"""What the widgets that the browser draws share: their files, their errors, their text and HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from layerlab.widgets.base import Speaks, in_words, shown_errors
from layerlab.widgets.cells import when_no_cell_runs

_HERE = Path(__file__).parent


def front_end(*names: str) -> str:
    """Read files of this folder as one script (or style sheet), in this order.

    There is no build step: the files hold plain functions, and the last one the ``export default`` that
    anywidget calls. ``dom.js`` comes first.
    """
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


class Drawn(Speaks, anywidget.AnyWidget):  # type: ignore[misc]  # its bundle may be None or a tuple
    """A widget that the browser draws.

    A subclass sets ``_esm`` and ``_css`` with `front_end`, defines `_heard` if its script sends anything, and
    its script shows ``error`` (see ``showErrors`` in ``dom.js``).
    """

    _at_once = False
    """Whether what the page says is heard also while a cell runs, in another thread then."""

    error = traitlets.Unicode().tag(sync=True)
    """What went wrong in answering the page; empty when nothing did."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._turns: dict[str | None, int] = {}
        self._early: dict[tuple[str | None, int], dict[str, Any]] = {}
        self.on_msg(self._receive)

    def _heard(self, message: dict[str, Any]) -> None:
        """React to a message of the widget's script."""
        raise ValueError(f"{message!r}: the script of {type(self).__name__} sends nothing")

    def show_error(self, error: BaseException | None) -> None:
        """Say in the widget what went wrong; None takes it away."""
        self.error = "" if error is None else in_words(error)

    def _receive(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        if self._at_once:
            self._hear_in_turn(message)
        else:
            when_no_cell_runs(lambda: self._hear_in_turn(message))

    def _hear_in_turn(self, message: dict[str, Any]) -> None:
        """Hear the messages of each view in the order in which it sent them: threads may have mixed them."""
        view, number = message.pop("turn", (None, 0))
        self._early[view, number] = message
        while (turn := (view, self._turns.get(view, 0))) in self._early:
            message = self._early.pop(turn)
            if view is not None:
                self._turns[view] = number = turn[1] + 1
            with shown_errors(self):
                self._heard(message)
