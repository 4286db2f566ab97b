"""`Explore`: change a setting, and see the ledger of a fresh run at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Protocol

import ipywidgets

from layerlab.widgets.base import Shows


class _Shown(Protocol):
    def _repr_html_(self) -> str: ...


class Explore(Shows):
    """Controls for the settings of a run; each change runs it anew and shows what it returns.

    Parameters
    ----------
    run
        Called with one keyword argument for each setting; returns a ledger, or anything that shows itself as
        HTML. It must start from fresh weights, so that settings compare.
    **settings
        For each argument of ``run`` the values to choose from, the first one being set at the start. Two
        values or more; a dict maps labels to values.

    Attributes
    ----------
    controls : dict of str to widget
        The control of each setting: assign its ``value`` from code.
    result
        What the last run returned.

    Raises
    ------
    ValueError
        For a setting without values to choose from.

    Examples
    --------
    >>> Explore(two_steps, optimizer=["SGD", "Adam"], set_to_none=[True, False])  # doctest: +SKIP
    """

    def __init__(self, run: Callable[..., _Shown], **settings: Sequence[Any] | dict[str, Any]) -> None:
        self._run = run
        self.result: _Shown | None = None
        self.controls: dict[str, ipywidgets.Widget] = {}
        for name, values in settings.items():
            options = list(values.items()) if isinstance(values, dict) else [(str(v), v) for v in values]
            if len(options) < 2:
                raise ValueError(f"{name}={values!r}: give two values or more to choose from")
            self.controls[name] = _control(name, options)
        self._view = ipywidgets.HTML()
        self._view.add_class("jp-RenderedHTMLCommon")  # its tables look like those in a cell's output
        super().__init__()
        self._fill(*self.controls.values(), self._view)
        for control in self.controls.values():
            self._listen(control, lambda change: self._redraw())
        self._redraw()

    @property
    def settings(self) -> dict[str, Any]:
        """The value of every setting."""
        return {name: control.value for name, control in self.controls.items()}

    def choose(self, **labels: str) -> None:
        """Set controls by the labels that they show, as clicks would; one run for each that changes.

        Raises
        ------
        ValueError
            For a setting or a label that there is not; then nothing is changed.
        """
        for name, label in labels.items():
            if name not in self.controls:
                raise ValueError(f"no setting {name!r}; the settings are {', '.join(self.controls)}")
            known = [known for known, _ in self.controls[name].options]
            if label not in known:
                raise ValueError(f"{name}={label!r}: the labels are {', '.join(map(repr, known))}")
        for name, label in labels.items():
            self.controls[name].label = label

    def _redraw(self) -> None:
        self._view.value = ""  # an old result beside new settings would be a false one
        self.result = None
        result = self._run(**self.settings)
        if not hasattr(result, "_repr_html_"):
            name = getattr(self._run, "__name__", "run")
            raise TypeError(
                f"{name} must return a ledger, not {type(result).__name__}: is its return missing?"
            )
        self.result = result
        self._view.value = self.result._repr_html_()

    def _labels(self) -> list[tuple[str, str]]:
        return [(name, str(control.label)) for name, control in self.controls.items()]

    def _as_text(self) -> str:
        chosen = ", ".join(f"{name}: {label}" for name, label in self._labels())
        return f"Explore. {chosen}\n{self.result!r}"

    def _as_html(self) -> str:
        chosen = ", ".join(f"{escape(n)}: <code>{escape(v)}</code>" for n, v in self._labels())
        return f"<p>Explore. {chosen}</p>" + (self.result._repr_html_() if self.result else "")


def _control(name: str, options: list[tuple[str, Any]]) -> ipywidgets.Widget:
    """Buttons for a few values, a menu for many; the label beside it either way."""
    few = len(options) < 4
    side_by_side = {"display": "flex", "flex_flow": "row wrap", "align_items": "baseline"} if few else {}
    return (ipywidgets.ToggleButtons if few else ipywidgets.Dropdown)(
        options=options,
        value=options[0][1],
        description=name,
        tooltip=name,
        style={"description_width": "9em", "button_width": "auto"} if few else {"description_width": "9em"},
        layout=ipywidgets.Layout(width="98%" if few else "min(36em, 98%)", **side_by_side),
    )
