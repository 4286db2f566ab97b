"""A slider for the learning rate of each parameter group, as the optimizer has it now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ipywidgets

from layerlab.freezing.learning_rates import OwnGroup
from layerlab.show.words import plural, short

LABEL_WIDTH = "11em"
_DECADES = (-6, 1)


class LrSliders(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Log sliders from 1e-6 to 10; what lies outside, 0 above all, is said beside them.

    Parameters
    ----------
    listen
        Called once for each slider with it and what is to be called at a change.
    changed
        Called with the index of a group, and what its slider was moved to.
    """

    def __init__(
        self,
        listen: Callable[[ipywidgets.Widget, Callable[[Any], None]], None],
        changed: Callable[[tuple[int, float]], None],
    ) -> None:
        self._listen, self._changed = listen, changed
        self._all: list[ipywidgets.FloatLogSlider] = []  # a group may go and come: its slider stays
        super().__init__()

    def show(self, groups: Sequence[OwnGroup]) -> None:
        """Show these groups: a group that is held at lr 0 by the lr that will return."""
        while len(self._all) < len(groups):
            self._all.append(self._new(len(self._all)))
        for index, (slider, group) in enumerate(zip(self._all, groups, strict=False)):
            lr = float(group.lr) if group.lr is not None else 0.0
            slider.disabled = group.lr is None
            slider.value = min(max(lr, 10.0 ** _DECADES[0]), 10.0 ** _DECADES[1])
            now = 0.0 if group.zeroed else lr
            slider.description = f"lr, group {index}" + (
                "" if slider.value == now else f" (now {short(now)})"
            )
            slider.readout = slider.value == lr  # else it would say what is not so
            slider.tooltip = f"group {index}: {plural(len(group.parameters), 'tensor')}"
        self.children = self._all[: len(groups)]

    def close(self) -> None:
        """Take all sliders away, also those of groups that are gone."""
        for slider in self._all:
            slider.close()
        super().close()

    def _new(self, index: int) -> ipywidgets.FloatLogSlider:
        slider = ipywidgets.FloatLogSlider(
            min=_DECADES[0],
            max=_DECADES[1],
            step=0.1,
            readout_format=".1e",
            layout=ipywidgets.Layout(width="min(36em, 98%)"),
            style={"description_width": LABEL_WIDTH},
        )
        self._listen(slider, partial(self._moved, index))
        return slider

    def _moved(self, index: int, change: Any) -> None:
        self._changed((index, change.new))
