"""`TrainLab`: start, pause and compare training runs of the five settings, and see each as it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import traitlets

from layerlab.experiments.settings import RESNET_BODY, SETTINGS, Setting
from layerlab.printable import printable
from layerlab.show import Shown
from layerlab.widgets import cells
from layerlab.widgets.base import shown_errors
from layerlab.widgets.drawn import Drawn, front_end
from layerlab.widgets.in_turns import InTurns, running_loop
from layerlab.widgets.train_choices import Choice, Choices
from layerlab.widgets.train_page import describe_runs, for_the_page
from layerlab.widgets.train_run import LabRun
from layerlab.widgets.train_runs import Begin, Runs

QUIET = 0.25
"""Seconds between two updates of the page while a run goes, at least."""

_open: WeakSet[TrainLab] = WeakSet()


class TrainLab(Drawn):
    """Menus for a setting, buttons that start, pause and stop its training, and all runs in one picture.

    A run is trained in the background, between cells and messages, a step of the optimizer at a time; a cell
    that runs delays it. One run at a time is live (running or paused).

    Parameters
    ----------
    begin
        ``begin(setting, frozen_up_to, lr, per_class, seed)`` gets one run ready: a fresh model with its data
        in a `layerlab.experiments.transfer.Transfer`. ``frozen_up_to`` is None for settings that hold nothing
        still.
    settings
        Which of `layerlab.experiments.settings.SETTINGS` to offer; all by default.
    layers
        The layers to freeze up to, from the input on; the last of them means the whole backbone. Empty: no
        choice, and ``frozen_up_to`` is None.
    lrs, per_class, seeds
        What else to offer: learning rates of the head, numbers of labelled images, seeds.
    each
        What those images are counted by, to label the menu: images of each *class*.
    on_threads
        With how many threads to compute; a small model is quicker with 1. None leaves them alone.
    figures
        Whether text and HTML, which stand in where no kernel runs, give accuracies and losses. These differ
        a little between machines.

    Raises
    ------
    ValueError
        There is nothing to choose from, something twice, or an unknown setting.
    TypeError
        ``begin`` cannot be called.

    Examples
    --------
    >>> lab = TrainLab(odd_or_even_lab(weights), each="digit")  # doctest: +SKIP
    >>> lab.train(setting="frozen", frozen_up_to="layer2")  # doctest: +SKIP
    """

    _esm = front_end("dom.js", "train_curves.js", "train_ratios.js", "train_table.js", "train_lab.js")
    _css = front_end("train_lab.css")

    asked = traitlets.Dict().tag(sync=True)
    """What the page draws once: the menus."""
    picks = traitlets.Dict().tag(sync=True)
    """Of each menu the position that is chosen."""
    ended: traitlets.List[Any] = traitlets.List().tag(sync=True)
    """What the page draws of the runs that have ended."""
    going = traitlets.Dict().tag(sync=True)
    """The same of the one that is live; empty when none is."""

    def __init__(
        self,
        begin: Begin,
        settings: Sequence[Setting] = tuple(SETTINGS),
        *,
        layers: Sequence[str] = RESNET_BODY,
        lrs: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1),
        per_class: Sequence[int] = (1, 2, 4, 10),
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
        each: str = "class",
        on_threads: int | None = None,
        figures: bool = False,
    ) -> None:
        self._runs = Runs(begin, on_threads)  # first, for `close` after an error below
        if not callable(begin):
            raise TypeError(f"begin must be a function, not {type(begin).__name__}")
        offered = {"setting": settings, "frozen_up_to": layers, "lr": lrs, "per_class": per_class}
        self._choices = Choices({**offered, "seed": seeds})
        self._each, self._figures = each, figures
        self._in_turns = InTurns(self._step, self._rest)
        self._told = -math.inf
        super().__init__(
            asked={"menus": self._choices.menus(each), "each": printable(each)},
            picks=self._choices.at_first(),
        )
        self._cell = cells.this_cell()
        for other in list(_open):
            if cells.ran_anew(other._cell, self._cell):  # nobody could stop a lab from there
                other.close()
        _open.add(self)

    # -- what is chosen ----------------------------------------------------------------------------------

    @property
    def chosen(self) -> Choice:
        """What the next run will be started with."""
        return self._choices.chosen(self.picks)

    def choose(self, **values: Any) -> None:
        """Set menus by their values: ``choose(setting="frozen", frozen_up_to="layer2", lr=0.01)``.

        Raises
        ------
        ValueError
            There is no such menu or value; or a layer to freeze up to with a setting that holds nothing
            still. Then nothing is changed.
        """
        with shown_errors(self):
            self.picks = self._choices.after(self.picks, values)

    # -- the runs ----------------------------------------------------------------------------------------

    @property
    def runs(self) -> tuple[LabRun, ...]:
        """All runs, the oldest first: each with its ``setting``, ``epochs``, ``ratios`` and ``state``."""
        return tuple(self._runs.all)

    def start(self, **values: Any) -> LabRun:
        """Start a run with what is chosen, and train it in the background.

        Parameters
        ----------
        **values
            As for `choose`, which is called first.

        Raises
        ------
        RuntimeError
            A run is live already; or no event loop runs here: then `train` is what you need.
        ValueError
            As `choose` does.
        """
        with shown_errors(self):
            running_loop()
            run = self._add(values)
            self._in_turns.go()
            if run.live:
                run.state = "running"
            self._tell()
            return run

    def pause(self) -> None:
        """Hold the running run after the step that it takes. RuntimeError if none runs."""
        with shown_errors(self):
            self._runs.in_state("running").state = "paused"
            self._tell()

    def go_on(self) -> None:
        """Let the paused run go on, where it was held. RuntimeError if none is paused."""
        with shown_errors(self):
            run = self._runs.in_state("paused")
            self._in_turns.go()
            run.state = "running"
            self._tell()

    def stop(self) -> None:
        """End the live run; the epoch that has not ended is undone. RuntimeError if none is live."""
        with shown_errors(self):
            self._runs.in_state("running", "paused").stop()
            self._tell()

    def train(self, **values: Any) -> LabRun:
        """Train to the end and return the run: the live one, or else a new one with what is chosen.

        Its error is raised; an interrupt pauses it.

        Parameters
        ----------
        **values
            As for `choose`, which is called first; only for a new run.

        Raises
        ------
        RuntimeError
            Values are given, and a run is live.
        """
        with shown_errors(self):
            try:
                run = self._runs.live if self._runs.live is not None and not values else self._add(values)
                if run.live:
                    run.state = "running"
                self._tell()
                while run.live:
                    run.advance()
                    self._tell_now_and_then()
                self._tell()
            except Exception:
                self._tell()
                raise
            except BaseException:  # an interrupt comes when it likes, not only within a step
                self._rest()
                raise
            return run

    async def done(self) -> LabRun | None:
        """Wait until no run is running, and return the newest; raises its error if it failed."""
        await self._in_turns.done()
        run = self._runs.all[-1] if self._runs.all else None
        if run is not None and run.error is not None:
            raise run.error
        return run

    def remove(self, number: int) -> None:
        """Take a run that has ended out of the picture. ValueError for one that is live or not there."""
        with shown_errors(self):
            self._runs.remove(number)
            self._tell()

    def clear(self) -> None:
        """Take all runs that have ended out of the picture."""
        with shown_errors(self):
            self._runs.clear()
            self._tell()

    def close(self) -> None:
        """End the live run, and take the widget out of every page."""
        if (run := self._runs.live) is not None:
            run.stop()
        _open.discard(self)
        super().close()

    # -- at work -----------------------------------------------------------------------------------------

    def _add(self, values: dict[str, Any]) -> LabRun:
        if self.comm is None:
            raise RuntimeError("this lab is closed: make another")
        picks = self._choices.after(self.picks, values)
        run = self._runs.add(self._choices.chosen(picks))
        self.picks = picks
        return run

    def _step(self) -> bool:
        """Take the next step of what is running, in the background."""
        run = self._runs.live
        if run is None or run.state != "running":
            return False
        try:
            run.advance()
        except Exception as error:  # the run keeps it, and `done` raises it
            self.show_error(error)
        self._tell_now_and_then(at_once=not run.live)
        return True

    def _rest(self) -> None:
        """Nothing trains any more: what runs is paused."""
        if (run := self._runs.live) is not None and run.state == "running":
            run.state = "paused"
        self._tell()

    def _heard(self, message: dict[str, Any]) -> None:
        """What the page asks for; a click that comes too late (the run has ended meanwhile) does nothing."""
        if message.get("do") == "are you there":
            return  # that it could be sent is all that the page wants to know
        live, number = self._runs.live, message.get("run")
        state = live.state if live is not None and live.number == number else None
        does: dict[Any, tuple[bool, Callable[[], Any]]] = {
            "choose": (True, lambda: self.choose(**self._choices.values(message["name"], message["at"]))),
            "start": (live is None, self.start),
            "pause": (state == "running", self.pause),
            "go on": (state == "paused", self.go_on),
            "stop": (state is not None, self.stop),
            "remove": (any(run.number == number for run in self.runs), lambda: self.remove(message["run"])),
            "clear": (True, self.clear),
        }
        if message.get("do") not in does:
            raise ValueError(f"{message!r}: TrainLab knows {', '.join(does)}")
        in_time, act = does[message["do"]]
        if in_time:
            act()

    # -- what it shows -----------------------------------------------------------------------------------

    def _tell_now_and_then(self, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._told >= QUIET:
            self._tell()

    def _tell(self) -> None:
        """Send what is new to the page."""
        sent = for_the_page(self._runs.all)
        with self.hold_sync():
            self.ended = [page for page, run in zip(sent, self.runs, strict=True) if not run.live]
            self.going = next((page for page, run in zip(sent, self.runs, strict=True) if run.live), {})
        self._told = time.monotonic()

    def _shown(self) -> Shown:
        return Shown(
            describe_runs(self._runs.all, self._choices.offered["setting"], self._each, self._figures)
        )

    def _as_text(self) -> str:
        return repr(self._shown())

    def _as_html(self) -> str:
        return self._shown()._repr_html_()
