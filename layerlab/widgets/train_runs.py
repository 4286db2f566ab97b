"""The runs of a `TrainLab`: those that have ended, and at most one that is live."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakSet

from torch import nn

from layerlab.experiments.transfer import Transfer
from layerlab.names import listing
from layerlab.widgets.train_choices import Choice
from layerlab.widgets.train_run import LabRun, State

Begin: TypeAlias = Callable[..., Transfer]
"""Called with a `Choice`'s fields, gets one run ready."""


class Runs:
    """All runs, the oldest first.

    Parameters
    ----------
    begin
        Must make a fresh model each time.
    on_threads
        With how many threads to compute; None leaves them alone.
    """

    def __init__(self, begin: Begin, on_threads: int | None) -> None:
        self.all: list[LabRun] = []
        self._begin, self._on_threads = begin, on_threads
        self._count = 0
        self._models: WeakSet[nn.Module] = WeakSet()

    @property
    def live(self) -> LabRun | None:
        """The one that runs or is paused."""
        return next((run for run in self.all if run.live), None)

    def in_state(self, *states: State) -> LabRun:
        """The live one; RuntimeError if there is none, or it is in none of these states."""
        run = self.live
        if run is None or run.state not in states:
            now = f"run {run.number} is {run.state}" if run is not None else "no run is live"
            raise RuntimeError(f"there is no run that is {' or '.join(states)}: {now}")
        return run

    def add(self, choice: Choice) -> LabRun:
        """Begin a run; it takes no step yet.

        Raises
        ------
        RuntimeError
            Another is live.
        TypeError, ValueError
            ``begin`` returned something else than a transfer, or the model of an earlier run.
        """
        if (live := self.live) is not None:
            said = f"run {live.number} is {live.state}"
            raise RuntimeError(f"{said}: let it end, or stop it, before another starts")
        work = self._begin(**vars(choice))
        if not isinstance(work, Transfer):
            raise TypeError(
                f"begin must return a Transfer, not {type(work).__name__}: is its return missing?"
            )
        if work.model in self._models:
            work.close()
            raise ValueError(
                "begin gave the model of an earlier run again: it must make a fresh one each time"
            )
        self._models.add(work.model)
        self._count += 1
        run = LabRun(self._count, choice, work, self._on_threads)
        self.all.append(run)
        return run

    def remove(self, number: int) -> None:
        """Forget a run that has ended; ValueError for one that is live or not there."""
        run = next((run for run in self.all if run.number == number), None)
        if run is None:
            raise ValueError(
                f"no run {number}: there are {listing(str(one.number) for one in self.all) or 'none'}"
            )
        if run.live:
            raise ValueError(f"run {number} is {run.state}: stop it first")
        self.all.remove(run)

    def clear(self) -> None:
        """Forget all that have ended."""
        self.all = [run for run in self.all if run.live]
