"""A slider for the learning rate of each parameter group, as the optimizer has it now."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

import ipywidgets
import traitlets

from layerlab.freezing.learning_rates import OwnGroup
from layerlab.show.words import plural, short
from layerlab.widgets.drawn import Drawn, front_end

LABEL_WIDTH = "11em"
LOWEST, HIGHEST = -60, 10
"""A slider's ends: its position is the lr's decimal logarithm in tenths."""


class LrSlider(Drawn):
    """A slider on a log scale from 1e-6 to 10, and behind it the lr as it is: it may lie between the stops.

    The page tells what the learner does, and nothing else: a slider of ipywidgets would also send back each
    lr that it is told to show, snapped to its nearest stop.

    Parameters
    ----------
    label
        What stands before it.
    """

    _esm = front_end("dom.js", "lr_slider.js")
    _css = front_end("lr_slider.css")

    label = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    """What stands behind it: the lr, and where it is held at 0 the one that returns."""
    hint = traitlets.Unicode().tag(sync=True)
    position = traitlets.Int().tag(sync=True)
    """The stop that is nearest to the lr."""
    disabled = traitlets.Bool().tag(sync=True)
    ends = traitlets.List(traitlets.Int(), [LOWEST, HIGHEST]).tag(sync=True)
    value = traitlets.Float()
    """The lr; to set it is as if the learner had moved the slider, and need not be one of its stops."""

    def __init__(self, label: str, **kwargs: Any) -> None:
        super().__init__(label=label, **kwargs)

    def show(self, lr: float, said: str) -> None:
        """Show this lr."""
        self.value, self.said = lr, said
        self.position = nearest(lr)

    def _heard(self, message: dict[str, Any]) -> None:
        try:
            to = message.get("to")
            if message.get("kind") != "moved" or not isinstance(to, int) or not LOWEST <= to <= HIGHEST:
                raise ValueError(f"{message!r}: a move says to which stop, from {LOWEST} to {HIGHEST}")
            self.value = 10 ** (to / 10)
        finally:
            self.send({"kind": "answered", "number": message.get("number")})

    def _as_text(self) -> str:
        return f"{self.label}: {self.said}"

    def _as_html(self) -> str:
        return f"<p>{escape(self._as_text())}</p>"


class LrSliders(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """One `LrSlider` for each parameter group.

    Parameters
    ----------
    changed
        Called with the index of a group and its new lr, when its slider was moved or its value set; also by
        `show`, where the lr is another than before.
    """

    def __init__(self, changed: Callable[[tuple[int, float]], None]) -> None:
        self._changed = changed
        self._all: list[LrSlider] = []  # a group may go and come: its slider stays
        super().__init__()

    def show(self, groups: Sequence[OwnGroup]) -> None:
        """Show these groups."""
        while len(self._all) < len(groups):
            index = len(self._all)
            slider = LrSlider(f"lr, group {index}")
            slider.observe(partial(self._moved, index), "value")
            self._all.append(slider)
        for slider, group in zip(self._all, groups, strict=False):
            slider.disabled = group.lr is None
            slider.hint = plural(len(group.parameters), "tensor")
            slider.show(float(group.lr) if group.lr is not None else 0.0, lr_in_words(group, _five_figures))
        self.children = self._all[: len(groups)]

    def close(self) -> None:
        """Take all sliders away, also those of groups that are gone."""
        for slider in self._all:
            slider.unobserve_all()
            slider.close()
        super().close()

    def _moved(self, index: int, change: Any) -> None:
        self._changed((index, change.new))


def nearest(lr: float) -> int:
    """The stop that is nearest to an lr; the lowest for 0 and for what has no logarithm."""
    if not lr > 0:
        return LOWEST
    return min(max(round(10 * math.log10(lr)), LOWEST), HIGHEST) if math.isfinite(lr) else HIGHEST


def _five_figures(lr: float) -> str:
    return f"{lr:.5g}"


def lr_in_words(group: OwnGroup, number: Callable[[float], str] = short) -> str:
    """``0.1``; for a group that is held at 0 ``0 (frozen; 0.1 returns)``."""
    if group.lr is None:
        return "none"
    lr = number(float(group.lr))
    return f"0 (frozen; {lr} returns)" if group.zeroed else lr
