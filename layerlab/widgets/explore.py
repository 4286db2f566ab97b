"""`Explore`: change a setting, and see the ledger of a fresh run at once."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, Protocol

import ipywidgets

from layerlab.ledger import Ledger
from layerlab.widgets.base import shown_errors
from layerlab.widgets.settings import INTERRUPTED, RUNNING, Options, Settings, Values
from layerlab.widgets.step_view import StepView


class _Shown(Protocol):
    def _repr_html_(self) -> str: ...


class Explore(Settings):
    """Controls for the settings of a run; each change runs it anew and shows what it returns.

    What is set can be copied as a short text (``state``) and pasted by somebody else.

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
        Without settings; for a setting with fewer than two values, or with two values of one label.

    Examples
    --------
    >>> Explore(two_steps, optimizer=["SGD", "Adam"], set_to_none=[True, False])  # doctest: +SKIP
    """

    def __init__(self, run: Callable[..., _Shown], **settings: Values) -> None:
        self._run = run
        self.result: _Shown | None = None
        self._live = ipywidgets.VBox()
        super().__init__(settings, [""])
        self.controls = self._sides[""]
        self.add_class("layerlab-explore")
        self._fill(*self.controls.values(), self._view, self._live, self._share, self._keys)
        self._changed()

    @property
    def settings(self) -> dict[str, Any]:
        """The value of every setting."""
        return self._values("")

    def choose(self, **labels: str) -> None:
        """Set controls by the labels that they show; one run for all of them.

        Raises
        ------
        ValueError
            For a setting or a label that there is not; then nothing is changed.
        """
        for name, label in labels.items():
            if name not in self.controls:
                raise ValueError(f"no setting {name!r}; the settings are {', '.join(self.controls)}")
            known = [known for known, _ in self._options[name]]
            if label not in known:
                raise ValueError(f"{name}={label!r}: the labels are {', '.join(map(repr, known))}")
        with shown_errors(self):
            self._set({name: [label] for name, label in labels.items()})

    def _redraw(self) -> None:
        self.result = None
        try:
            self._view.value = RUNNING  # an old result beside new settings would be a false one
            opened = self._close_live()
            result = self._run(**self.settings)
            if not hasattr(result, "_repr_html_"):
                name = getattr(self._run, "__name__", "run")
                raise TypeError(
                    f"{name} must return a ledger, or something that shows itself as HTML, "
                    f"not {type(result).__name__}: is its return missing?"
                )
            if isinstance(result, Ledger):
                there = len(result) and opened in result[-1].tensors
                self._live.children = [StepView(result, tensor=opened if there else "")]
                self._view.value = ""
            else:
                self._view.value = result._repr_html_()
            self.result = result
        except BaseException as error:
            self._view.value = INTERRUPTED if isinstance(error, KeyboardInterrupt) else ""
            raise

    def _close_live(self) -> str:
        """Take the view of the last ledger away; returns the tensor that was opened in it."""
        views, self._live.children = self._live.children, ()
        for view in views:
            view.close()
        return views[0].tensor if views else ""

    def _as_text(self) -> str:
        chosen = ", ".join(f"{name}: {label}" for name, (label,) in self._chosen().items())
        return f"Explore. {chosen}\n{self.result!r}"

    def _as_html(self) -> str:
        labels = self._chosen().items()
        chosen = ", ".join(f"{escape(name)}: <code>{escape(label)}</code>" for name, (label,) in labels)
        return f"<p>Explore. {chosen}</p>" + (self.result._repr_html_() if self.result is not None else "")

    def _control(self, name: str, choices: Options, side: str) -> ipywidgets.Widget:
        """Buttons for a few values, a menu for many; the label beside it either way."""
        few = len(choices) < 4
        control = (ipywidgets.ToggleButtons if few else ipywidgets.Dropdown)(
            options=choices,
            value=choices[0][1],
            description=name,
            tooltip=name,
            style={"description_width": self._label_width, **({"button_width": "auto"} if few else {})},
            layout=ipywidgets.Layout(width="98%" if few else "min(36em, 98%)"),
        )
        if few:
            control.add_class("widget-inline-hbox")  # as a menu has it: the label stands beside
        return control
