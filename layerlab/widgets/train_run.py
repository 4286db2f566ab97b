"""One run of a `TrainLab`: a transfer that is trained a step at a time, and the record of what it came to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Literal

from layerlab.experiments.transfer import Transfer
from layerlab.ledger import watch
from layerlab.record import Step, TensorStep
from layerlab.training import Epoch, threads
from layerlab.widgets.train_choices import Choice

State = Literal["running", "paused", "stopped", "finished", "failed"]

LOOKS = 10
"""How many steps of a run are watched at most, besides the first; watching costs about a step."""


@dataclass(frozen=True)
class Ratios:
    """How much each layer moved in the first step of an epoch.

    Attributes
    ----------
    epoch
        From 1 on.
    lr
        The largest learning rate in that step.
    layers
        ‖Δ‖/‖w‖ of all parameters of a layer taken together, the layers in the model's order.
    frozen
        The layers whose parameters are all frozen, by the flag or by lr 0.
    """

    epoch: int
    lr: float
    layers: Mapping[str, float]
    frozen: tuple[str, ...]


class LabRun:
    """One run, and its record.

    Attributes
    ----------
    number : int
        From 1 on; no run of a lab gets the number of another, also when that was removed.
    setting, frozen_up_to, lr, per_class, seed
        What it was started with.
    state : str
        ``"running"``, ``"paused"``, ``"stopped"``, ``"finished"`` or ``"failed"``.
    epochs : tuple of layerlab.training.Epoch
        Those that ended.
    until : int
        How many there are to be.
    step : int
        Steps taken in the epoch that has not ended yet.
    steps_an_epoch : int or None
        Known when the first epoch has ended.
    ratios : tuple of Ratios
        Of at most eleven steps, the first ones of their epochs.
    error : Exception or None
        What ended it, if it failed.
    """

    def __init__(self, number: int, choice: Choice, work: Transfer, on_threads: int | None) -> None:
        self.number, self.choice = number, choice
        self.setting, self.frozen_up_to = choice.setting, choice.frozen_up_to
        self.lr, self.per_class, self.seed = choice.lr, choice.per_class, choice.seed
        self.state: State = "paused"
        self.until = work.recipe.epochs
        self.epochs: tuple[Epoch, ...] = tuple(work.run.history)
        self.step = 0
        self.steps_an_epoch: int | None = None
        self.ratios: tuple[Ratios, ...] = ()
        self.error: Exception | None = None
        self._work: Transfer | None = work
        self._steps: Generator[Epoch | None, None, None] | None = None
        self._threads = on_threads
        self._look_every = max(work.recipe.test_every, -(-self.until // LOOKS))
        if len(self.epochs) >= self.until:
            self._end("finished")

    def __repr__(self) -> str:
        return (
            f"LabRun({self.number}: {self.choice}, {self.state}, {len(self.epochs)} of {self.until} epochs)"
        )

    @property
    def live(self) -> bool:
        """Whether it may still train: it runs or is paused."""
        return self._work is not None

    @property
    def seconds_a_step(self) -> float | None:
        """The usual wall time of a step that was not watched; None before the first epoch has ended."""
        watched = {ratios.epoch for ratios in self.ratios}
        plain = [epoch.seconds for epoch in self.epochs if epoch.number not in watched]
        some = plain or [epoch.seconds for epoch in self.epochs]
        return statistics.median(some) / self.steps_an_epoch if some and self.steps_an_epoch else None

    def advance(self) -> None:
        """Take a step of the optimizer, or measure after the last one of an epoch.

        An error in it ends the run, and is raised. An interrupt pauses it. Either puts the model back to the
        start of the epoch.
        """
        work = self._work
        if work is None:
            raise RuntimeError(f"run {self.number} is {self.state}")
        if len(self.epochs) < self.until:  # else it was interrupted just before its end
            self._advance(work)
        if len(self.epochs) >= self.until:
            self._end("finished")

    def _advance(self, work: Transfer) -> None:
        steps = self._steps = self._steps or work.run.steps(self.until)
        try:
            with threads(self._threads) if self._threads else nullcontext():
                epoch = self._watched(work, steps) if self._to_be_watched() else next(steps)
            if epoch is None:
                self.step += 1
            else:
                self.steps_an_epoch, self.step = self.step, 0
                self.epochs = tuple(work.run.history)
        except Exception as error:
            self.error = error
            self._end("failed")
            raise
        except BaseException:
            steps.close()
            self._steps, self.step, self.state = None, 0, "paused"
            self.epochs = tuple(work.run.history)
            raise

    def stop(self) -> None:
        """End it: the epoch that has not ended is undone, and what was frozen is released."""
        self._end("stopped")

    def _end(self, state: State) -> None:
        if self._work is None:
            return  # it has ended
        try:
            with closing(self._work):
                if self._steps is not None:
                    self._steps.close()  # puts the model back
        except Exception:
            self._mark(state)
            raise
        self._mark(state)  # last: after an interrupt in the lines above it can be ended once more

    def _mark(self, ended: State) -> None:
        self._work, self._steps, self.state, self.step = None, None, ended, 0

    def _to_be_watched(self) -> bool:
        number = len(self.epochs) + 1
        looked = bool(self.ratios) and self.ratios[-1].epoch == number  # before an interrupt
        return self.step == 0 and not looked and (number == 1 or number % self._look_every == 0)

    def _watched(self, work: Transfer, steps: Generator[Epoch | None, None, None]) -> Epoch | None:
        with watch(work.model, work.optimizer, keep="none") as ledger:
            epoch = next(steps)
        if len(ledger):
            self.ratios += (_ratios(len(self.epochs) + 1, ledger[-1]),)
        return epoch


def _ratios(epoch: int, step: Step) -> Ratios:
    layers: dict[str, list[TensorStep]] = {}
    for name, tensor in step.tensors.items():
        if tensor.info.kind == "parameter":
            layers.setdefault(name.partition(".")[0], []).append(tensor)
    frozen = tuple(name for name, those in layers.items() if all(one.frozen for one in those))
    lr = max(one.lr or 0.0 for those in layers.values() for one in those)
    return Ratios(epoch, lr, {name: _ratio(those) for name, those in layers.items()}, frozen)


def _ratio(tensors: list[TensorStep]) -> float:
    moved = math.hypot(*(one.delta_norm for one in tensors))
    whole = math.hypot(*(one.weight_norm for one in tensors))
    if whole:
        return moved / whole
    return math.inf if moved else 0.0
