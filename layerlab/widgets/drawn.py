"""What the widgets that the browser draws share: their files, their errors, their text and HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from layerlab.widgets.base import Speaks, in_words, shown_errors

_HERE = Path(__file__).parent


def front_end(*names: str) -> str:
    """Read files of this folder as one script (or style sheet), in this order.

    There is no build step: the files hold plain functions, and the last one the ``export default`` that
    anywidget calls. ``dom.js`` comes first.
    """
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


class Drawn(Speaks, anywidget.AnyWidget):  # type: ignore[misc]  # its bundle may be None or a tuple
    """A widget that the browser draws.

    A subclass sets ``_esm`` and ``_css`` with `front_end`, defines `_heard` for what its script sends, and
    its script shows ``error`` (see ``showErrors`` in ``dom.js``).
    """

    error = traitlets.Unicode().tag(sync=True)
    """What went wrong in answering the page; empty when nothing did."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_msg(self._receive)

    def _heard(self, message: dict[str, Any]) -> None:
        """React to a message of the widget's script."""
        raise NotImplementedError(f"{type(self).__name__} does not define _heard")

    def show_error(self, error: BaseException | None) -> None:
        """Say in the widget what went wrong; None takes it away."""
        self.error = "" if error is None else in_words(error)

    def _receive(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        with shown_errors(self):
            self._heard(message)
