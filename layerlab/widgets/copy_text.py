"""`CopyText`: lines of code with a button that copies them."""

from __future__ import annotations

from html import escape
from typing import Any

import traitlets

from layerlab.widgets.drawn import Drawn, front_end


class CopyText(Drawn):
    """Text in monospace, and a button that puts it on the clipboard.

    Where the browser refuses the clipboard (a page that is not secure), the button selects the text, so that
    Ctrl+C copies it.

    Parameters
    ----------
    text
        The text; assign ``text`` to change it.
    label
        What the button says.
    """

    _esm = front_end("dom.js", "copy_text.js")
    _css = front_end("copy_text.css")

    text = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, text: str = "", label: str = "copy as PyTorch", **kwargs: Any) -> None:
        super().__init__(text=text, label=label, **kwargs)

    def _as_text(self) -> str:
        return self.text

    def _as_html(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"
