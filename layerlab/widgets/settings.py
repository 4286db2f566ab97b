"""What `Explore` and `Compare` share: controls for the settings of a run, and their state as a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import ipywidgets

from layerlab.widgets.base import Shows, shown_errors
from layerlab.widgets.copy_text import CopyText
from layerlab.widgets.keep_keys import KeepKeys
from layerlab.widgets.sharing import read_state, write_state

Values: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""The values of a setting to choose from; a mapping gives them labels."""
Options: TypeAlias = list[tuple[str, Any]]

LONGEST = 32
"""Characters of a setting's name that are shown at most."""
RUNNING = '<p role="status">running …</p>'
INTERRUPTED = '<p role="status">interrupted: change a setting to run again</p>'


class Settings(Shows):
    """Controls for the settings of a run, once for each side; every change runs it anew.

    A subclass makes the controls with `_control`, puts `_share` and `_keys` in, and runs in `_redraw`.

    Raises
    ------
    ValueError
        Without settings; for a setting with fewer than two values, or with two values of one label; for a
        `start` that names what does not exist.
    """

    def __init__(self, settings: Mapping[str, Values], sides: Sequence[str], start: str = "") -> None:
        self._options = {name: options(name, values) for name, values in settings.items()}
        if not self._options:
            raise ValueError("give the settings to choose from, such as optimizer=['SGD', 'Adam']")
        self._label_width = f"{min(max(10, *map(len, self._options)), LONGEST) + 2}ch"  # an m is wider
        self._sides = {
            side: {name: self._control(name, these, side) for name, these in self._options.items()}
            for side in sides
        }
        self._view = ipywidgets.HTML()
        self._view.add_class("jp-RenderedHTMLCommon")  # its tables look like those in a cell's output
        self._copy = CopyText(label="copy the state")
        self._paste = ipywidgets.Text(
            placeholder="paste a state here, then Enter",
            description="set all to",
            tooltip="a state that somebody copied: sets all controls at once",
            continuous_update=False,
            style={"description_width": self._label_width},
            layout=ipywidgets.Layout(width="min(36em, 98%)"),
        )
        self._share = ipywidgets.VBox([self._copy, self._paste])
        self._keys = KeepKeys()
        self._quiet = False
        if start:
            self._set(self._read(start))
        super().__init__()
        for controls in self._sides.values():
            for control in controls.values():
                self._listen(control, lambda _: self._changed())
        self._listen(self._paste, lambda _: self._pasted())

    @property
    def state(self) -> str:
        """All that is set, as a short text; assigned to another such widget, it sets that one alike.

        It may leave settings out, which then stay as they are. Assigning makes one run, however many controls
        it moves; ValueError for a setting or value that does not exist, and then nothing is changed.
        """
        return write_state({name: list(labels) for name, labels in self._chosen().items()})

    @state.setter
    def state(self, state: str) -> None:
        with shown_errors(self):
            self._set(self._read(state))

    def _chosen(self) -> dict[str, tuple[str, ...]]:
        """The label of each setting on each side."""
        return {
            name: tuple(str(controls[name].label) for controls in self._sides.values())
            for name in self._options
        }

    def _values(self, side: str) -> dict[str, Any]:
        return {name: control.value for name, control in self._sides[side].items()}

    def _read(self, state: str) -> dict[str, tuple[str, ...]]:
        known = {name: [label for label, _ in these] for name, these in self._options.items()}
        return read_state(state, known, len(self._sides))

    def _set(self, chosen: Mapping[str, Sequence[str]]) -> None:
        """Set controls by their labels, one for each side, and then run once."""
        before, self._quiet = self._chosen(), True
        try:
            for name, labels in chosen.items():
                for controls, label in zip(self._sides.values(), labels, strict=True):
                    controls[name].label = label
        finally:
            self._quiet = False
        if self.comm is not None and self._chosen() != before:
            self._changed()

    def _pasted(self) -> None:
        if self._paste.value.strip():
            self._set(self._read(self._paste.value))
            self._paste.value = ""

    def _changed(self) -> None:
        if not self._quiet:
            self._copy.text = self.state
            self._redraw()

    def _control(self, name: str, choices: Options, side: str) -> ipywidgets.Widget:
        raise NotImplementedError(f"{type(self).__name__} does not define _control")

    def _redraw(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define _redraw")


def options(name: str, values: Values) -> Options:
    """Give each value of a setting its label."""
    pairs = list(values.items()) if isinstance(values, Mapping) else [(value, value) for value in values]
    found = [(str(label), value) for label, value in pairs]
    if len(found) < 2:
        raise ValueError(f"{name}={values!r}: give two values or more to choose from")
    labels = [label for label, _ in found]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ValueError(f"{name}: two values are called {twice[0]!r}; give labels: {{label: value, …}}")
    return found
