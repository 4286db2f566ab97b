"""`KeepKeys`: put into a box of ipywidgets' controls, it lets them have their keys in JupyterLab."""

from __future__ import annotations

import ipywidgets

from layerlab.widgets.drawn import Drawn, front_end


class KeepKeys(Drawn):
    """Shows nothing; marks every control in the vertical box that holds it, so that it keeps its keys.

    JupyterLab takes arrows, Enter and letters away from a control in an output unless the control itself
    carries ``data-lm-suppress-shortcuts``, and those of ipywidgets (a menu, say) do not.
    """

    _esm = front_end("keep_keys.js")

    def __init__(self) -> None:
        super().__init__(layout=ipywidgets.Layout(display="none"))

    def _as_text(self) -> str:
        return ""

    def _as_html(self) -> str:
        return ""
