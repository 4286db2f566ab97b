"""`StepView`: a ledger in the browser, step by step, also while it is being recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import traitlets

from layerlab.keeping import Values
from layerlab.ledger import Ledger
from layerlab.printable import printable
from layerlab.record import Reason, TensorStep
from layerlab.show import Shown, describe_steps
from layerlab.show.closeup import Moment, closeup
from layerlab.show.overview import Overview
from layerlab.show.words import plural, precise
from layerlab.widgets.base import shown_errors
from layerlab.widgets.drawn import Drawn, front_end

QUIET = 0.25
"""Seconds between two updates of a view that follows a running loop, at least."""
SHARE = 0.02
"""Share of a running loop's time that following it may take."""
NEAR = 40
"""Steps around the shown one of which numbers are sent at most."""
PARTS = {
    "gradient": "gradient part of Δ",
    "momentum": "momentum part of Δ",
    "weight_decay": "weight decay part of Δ",
}


class StepView(Drawn):
    """A ledger with a step slider: which tensors moved in each step, why, and what is inside them.

    Rows and pictures are drawn by the browser: the slider needs no kernel for the steps that were sent. While
    the ledger's ``with`` block runs, the view follows it, a few times a second. To see that from the first
    step on, show the view in a cell before the loop's:

    >>> ledger = ll.watch(net, optimizer)  # doctest: +SKIP
    >>> ll.StepView(ledger)  # doctest: +SKIP
    >>> with ledger:  # in the next cell  # doctest: +SKIP
    ...     train()

    Parameters
    ----------
    ledger
        What `layerlab.watch` gave, empty, running or done.
    step
        The step to show first; −1 is the newest, also when more come.
    tensor
        Name of the tensor to show in pictures; none when empty.

    Attributes
    ----------
    step, tensor
        What is shown; assign them from code.

    Raises
    ------
    TypeError
        For anything but a ledger.
    IndexError, KeyError
        For a step or tensor that is not there; what was shown stays.

    Notes
    -----
    An overview takes at most 64 KiB, besides the tensors' names: the newest steps that fit, others are sent
    when the slider asks for them. So do the pictures of a tensor, whatever its size: those of the step shown
    and of its neighbours; the page asks for the other steps by and by, and keeps up to 2 MiB of them.
    """

    _esm = front_end("dom.js", "step_data.js", "step_rows.js", "step_picture.js", "step_view.js")
    _css = front_end("step_view.css")

    _at_once = True  # it only reads: rows can be opened while a loop runs

    tensors: traitlets.List[Any] = traitlets.List().tag(sync=True)
    overview = traitlets.Dict().tag(sync=True)
    closeup = traitlets.Dict().tag(sync=True)
    recording = traitlets.Bool().tag(sync=True)
    step = traitlets.Int(-1).tag(sync=True)
    tensor = traitlets.Unicode().tag(sync=True)

    _leave: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, ledger: Ledger, *, step: int = -1, tensor: str = "") -> None:
        if not isinstance(ledger, Ledger):
            raise TypeError(f"StepView needs the ledger that watch() gives, not {type(ledger).__name__}")
        self._ledger = ledger
        self._encoder = Overview()
        self._lock = threading.RLock()  # the loop and the page may ask at the same time
        self._next_look = self._cost = 0.0
        super().__init__()
        self._send_overview()
        with self.hold_trait_notifications():
            self.step, self.tensor = step, tensor
        self._send_closeup()
        self.observe(self._on_choice, ["step", "tensor"])
        self._leave = ledger.follow(self._on_step)

    def close(self) -> None:
        """Stop following the ledger and take the view out of every page."""
        self._leave()
        self.unobserve_all()
        super().close()

    @traitlets.validate("step")
    def _valid_step(self, proposal: dict[str, Any]) -> int:
        step: int = proposal["value"]
        if not -1 <= step < max(len(self._ledger), 1):
            raise IndexError(f"no step {step}: {len(self._ledger)} recorded; −1 is the newest")
        return step

    @traitlets.validate("tensor")
    def _valid_tensor(self, proposal: dict[str, Any]) -> str:
        name: str = proposal["value"]
        if name and len(self._ledger):
            return self._ledger[self.step][name].name
        return name

    # -- reactions ---------------------------------------------------------------------------------------

    def _on_step(self) -> None:
        """After a step of a running loop: send what is new, but seldom enough to cost next to nothing."""
        now = time.perf_counter()
        if self._ledger.recording and now < self._next_look:
            return
        with self._lock:
            self._send_overview(self.step if self.step >= 0 else None)  # what is looked at stays in the page
            self._send_closeup()
        done = time.perf_counter()
        usual = min(done - now, self._cost)  # a single slow one is no reason to stay away
        self._cost = done - now
        self._next_look = done + max(QUIET, usual / SHARE)

    def _on_choice(self, change: Any) -> None:
        with shown_errors(self), self._lock:
            first, count, shown = self.overview["first"], len(self.overview["steps"]), self._shown_step()
            if not first <= shown < first + count:
                self._send_overview(shown)
            if change.name == "tensor":
                self._send_closeup()

    def _heard(self, message: dict[str, Any]) -> None:
        """The page asks for what it has not: ``{"more": step}`` of the tensor that it shows."""
        step = message.get("more")
        if not isinstance(step, int) or not 0 <= step < len(self._ledger):
            raise IndexError(f"no step {step!r}: {len(self._ledger)} recorded")
        with self._lock:
            self._send_closeup(step)

    def _shown_step(self) -> int:
        return self.step if self.step >= 0 else len(self._ledger) - 1

    def _send_overview(self, around: int | None = None) -> None:
        self._encoder.read(self._ledger)
        with self.hold_sync():
            self.tensors = self._encoder.tensors()
            self.overview = self._encoder.window(around)
            self.recording = self._ledger.recording

    def _send_closeup(self, step: int | None = None) -> None:
        if not self.tensor or not len(self._ledger):
            self.closeup = {}
            return
        name = self.tensor
        step = self._shown_step() if step is None else step
        first = self.overview["first"]
        window = range(first, first + len(self.overview["steps"]))
        reach = 0 if self._ledger.recording else NEAR // 2  # in a running loop the newest step is enough
        near = [i for i in window if name in self._ledger[i].tensors and abs(i - step) <= reach]
        if near:  # a layer replaced midway keeps its name: pictures side by side have one shape
            asked = self._ledger[min(near, key=lambda i: abs(i - step))][name].info.shape
            near = [i for i in near if self._ledger[i][name].info.shape == asked]
        moments = [m for i in near if (m := self._moment(i, name))]
        pictures: dict[str, Any] = {}
        why_not = "" if moments else "values not kept"
        if moments:
            try:
                pictures = closeup(moments, step)
            except ValueError as error:  # complex numbers, say
                why_not = str(error)
        if len(pictures.get("steps", moments)) < len(moments):  # not all fitted: send what belongs to those
            ends = (step, pictures["steps"][0], pictures["steps"][-1])
            near = [i for i in near if min(ends) <= i <= max(ends)]
        numbers = {str(i): _numbers(self._ledger[i][name]) for i in near}
        self.closeup = {"tensor": name, "numbers": numbers, "pictures": pictures, "why_not": why_not}

    def _moment(self, step: int, name: str) -> Moment | None:
        try:
            values = self._ledger.values(step, name)
        except KeyError:
            return None
        return Moment(step, values.before, values.after, _others(values))

    # -- without a browser -------------------------------------------------------------------------------

    def _shown(self) -> Shown:
        return Shown(describe_steps(self._ledger[:], self._ledger.alarms))

    def _as_text(self) -> str:
        return repr(self._shown())

    def _as_html(self) -> str:
        return self._shown()._repr_html_()


def _numbers(t: TensorStep) -> dict[str, str]:
    """What a closeup writes out of one step, each with its unit or what it is relative to."""
    said = {"‖Δ‖": precise(t.delta_norm), "‖w‖ before": precise(t.weight_norm)}
    if t.moved:
        said["largest |Δ|"] = precise(t.delta_max)
    if t.grad in ("nonzero", "nonfinite"):
        said["largest |gradient|"] = precise(t.grad_max)
    if t.state_steps is not None:
        said["optimizer's step count"] = str(t.state_steps)
    if t.parts is not None:
        norms = (t.parts.gradient, t.parts.momentum, t.parts.weight_decay)
        words = (Reason.GRADIENT, Reason.MOMENTUM, Reason.WEIGHT_DECAY)
        pairs = zip(words, norms, strict=True)
        said |= {f"‖{word.value} part‖": precise(norm) for word, norm in pairs if norm}
        if t.parts.gradient:
            said["cosine of Δ and its gradient part"] = precise(t.parts.agreement)
        if t.parts.sampled:
            said["parts measured on"] = f"{t.parts.elements} of {plural(t.parts.total, 'element')}"
    return said


def _others(values: Values) -> dict[str, Any]:
    """What there is to draw beside before, after and Δ: whatever has the tensor's own shape."""
    found: dict[str, Any] = {} if values.gradient is None else {"gradient": values.gradient}
    found |= {printable(name): state for name, state in values.state.items()}
    found |= {PARTS[name]: part for name, part in values.parts.items()}
    return {name: value for name, value in found.items() if value.shape == values.before.shape}
