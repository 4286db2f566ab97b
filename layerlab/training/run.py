"""A training run that can be stopped after any epoch and goes on bitwise as if it had not been."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from layerlab.training.evaluating import Batches, evaluate, in_batches
from layerlab.training.machine import Chance, repeatable
from layerlab.training.saving import copied, load, save

Schedule: TypeAlias = Literal["epoch", "step"]


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training data came to.

    Attributes
    ----------
    number
        From 1 on.
    train_loss, train_accuracy
        Over the batches as they were met, each before its step: mean cross-entropy in nats, and share of
        right answers from 0 to 1.
    test_loss, test_accuracy
        In eval mode after the epoch; None where it was not measured.
    lrs
        The learning rate of each parameter group during the epoch.
    seconds
        Wall time of the training, without the measuring.
    """

    number: int
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    lrs: tuple[float, ...]
    seconds: float


class Run:
    """Trains a model, epoch by epoch.

    All chance in an epoch (the order of examples, Dropout) follows from ``seed`` and the epoch's number
    alone. So a run that is stopped and resumed is bitwise the run that was not, on the same machine with the
    same number of threads; the caller's random state is left as it was.

    Parameters
    ----------
    model
        Gives one output for each class; it is trained where it is: on ``device``.
    optimizer, scheduler
        The scheduler steps once after each epoch, without a metric; or after each step of the optimizer.
    schedule
        ``"epoch"`` or ``"step"``: which of the two.
    train, test
        The data; without ``test`` nothing is measured but the training loss.
    batch_size
        Examples a step. A single example that is left joins the last batch.
    seed
        What all chance in the run follows from.
    device
        Where each batch is brought; the model must be there already.
    test_every
        Measure after every so many epochs, and after the last one of each call.
    save_to
        File in which the run is saved after every epoch: whole or not at all.
    about
        What else makes this run what it is (plain values). `resume` refuses another run's file by it.

    Attributes
    ----------
    history : list of Epoch
        The epochs so far.

    Raises
    ------
    ValueError
        There is nothing to train on; ``batch_size`` or ``test_every`` is under 1; ``schedule`` is neither.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        train: Batches,
        test: Batches | None = None,
        *,
        batch_size: int = 16,
        seed: int = 0,
        scheduler: LRScheduler | None = None,
        schedule: Schedule = "epoch",
        test_every: int = 1,
        device: torch.device | str = "cpu",
        save_to: Path | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if not len(train):
            raise ValueError("no example to train on")
        for name, number in (("batch_size", batch_size), ("test_every", test_every)):
            if number < 1:
                raise ValueError(f"{name}={number}: it must be at least 1")
        if schedule not in get_args(Schedule):
            raise ValueError(f"schedule={schedule!r} is neither 'epoch' nor 'step'")
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.schedule = schedule
        self.train, self.test = train, test
        self.batch_size, self.seed, self.test_every = batch_size, seed, test_every
        self.device, self.save_to = torch.device(device), save_to
        self.about = {"seed": seed, "batch size": batch_size, "test every": test_every, **(about or {})}
        self.history: list[Epoch] = []
        self._before: dict[str, Any] = {}

    def epochs(self, until: int) -> Iterator[Epoch]:
        """Train up to an epoch, and give each one as it ends; nothing if it was reached already.

        Stop by leaving the loop over it, or by an interrupt: an epoch that does not end (an error in it,
        too) leaves everything as it was before that epoch. Call it again to go on.

        Parameters
        ----------
        until
            The number of the last epoch.
        """
        return (epoch for epoch in self.steps(until) if epoch is not None)

    def steps(self, until: int) -> Generator[Epoch | None, None, None]:
        """The same, a step of the optimizer at a time: None for each, then the epoch once it has ended.

        Between two of them other code may run, draw random numbers, or wait as long as it likes; it may not
        change the model or the optimizer.
        """
        while len(self.history) < until:
            yield from self._epoch(last=len(self.history) + 1 == until)

    def resume(self) -> bool:
        """Go on from the file ``save_to``, if it is there.

        Returns
        -------
        bool
            Whether it was there.

        Raises
        ------
        ValueError
            The file is of another run (the message names what differs), or is none of ours. The run is as it
            was before then, and so is the file.
        """
        if self.save_to is None or not self.save_to.exists():
            return False
        saved = load(self.save_to, self._state(), self.device)
        self._go_to(saved)
        self.history = [Epoch(**{**epoch, "lrs": tuple(epoch["lrs"])}) for epoch in saved["history"]]
        return True

    def _go_to(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])

    def _state(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "history": [asdict(epoch) for epoch in self.history],
        }

    def _epoch(self, *, last: bool) -> Iterator[Epoch | None]:
        before = self._before = copied(self._state(), self._before)
        number = len(self.history) + 1
        lrs = tuple(float(group["lr"]) for group in self.optimizer.param_groups)
        try:
            tally = _Tally(self.device)
            for seconds in self._pass(number, tally):
                tally.seconds += seconds
                yield None
            if self.scheduler is not None and self.schedule == "epoch":
                self.scheduler.step()
            test_loss = test_accuracy = None
            if self.test is not None and (last or number % self.test_every == 0):
                score = evaluate(self.model, self.test, device=self.device)
                test_loss, test_accuracy = score.loss, score.accuracy
            loss, accuracy = tally.means(len(self.train))
            epoch = Epoch(number, loss, accuracy, test_loss, test_accuracy, lrs, tally.seconds)
            self.history.append(epoch)
        except BaseException:
            self._go_to(before)
            del self.history[number - 1 :]
            raise
        if self.save_to is not None:
            save(self.save_to, self._state())
        yield epoch

    def _pass(self, number: int, tally: _Tally) -> Iterator[float]:
        """Take a step for each batch, and give the seconds that each took."""
        seed = self.seed * 1_000_003 + number
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        chance = Chance(seed)
        for index in in_batches(order, self.batch_size):
            began = time.perf_counter()
            with chance, repeatable():
                self.model.train()
                inputs, labels = (t.to(self.device) for t in self.train.batch(index))
                self.optimizer.zero_grad()
                outputs = self.model(inputs)
                loss = cross_entropy(outputs, labels)
                loss.backward()
                self.optimizer.step()
                if self.scheduler is not None and self.schedule == "step":
                    self.scheduler.step()
                tally.add(loss.detach(), outputs.detach(), labels)
            yield time.perf_counter() - began


class _Tally:
    """Sums over the batches of an epoch; they stay on the device until they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._loss, self._right = torch.zeros((), device=device), torch.zeros((), device=device)

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        self._loss += loss * len(labels)
        self._right += (outputs.argmax(1) == labels).sum()

    def means(self, examples: int) -> tuple[float, float]:
        """Mean loss, and share of right answers."""
        return self._loss.item() / examples, self._right.item() / examples
