"""Gradual unfreezing: a plan of which part of a model trains from which epoch on, and with which lr.

`Unfreeze` is the front door. ``entries`` reads the plan, ``checks`` looks at what it is to work on,
``layout`` gives what is released its parameter groups, ``rates`` its learning rate under a scheduler.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from layerlab import names
from layerlab.freezing import Freeze, freeze
from layerlab.group_options import options_of
from layerlab.printable import printable
from layerlab.show import Shown, table
from layerlab.show.words import plural, some
from layerlab.unfreezing import checks, entries, layout, rates
from layerlab.unfreezing.entries import Entry, Plan
from layerlab.unfreezing.rates import Scheduler

__all__ = ["Plan", "Unfreeze"]


class Unfreeze:
    """Freeze what a plan names, and release each part at its epoch with its learning rate.

    >>> plan = Unfreeze(net, optimizer, {3: {"layer4": 1e-3}, 6: {"layer3": 5e-4}})  # doctest: +SKIP
    >>> for epoch in range(9):  # doctest: +SKIP
    ...     ...  # train one epoch
    ...     scheduler.step()  # if there is one: before the plan
    ...     plan.step()

    A part is frozen by ``requires_grad = False``, its BatchNorm modules in eval mode (see
    `layerlab.freezing.freeze`), until its epoch begins. What no entry names stays as it is. At its release a
    part begins anew: no old gradient, nothing stored by the optimizer, parameter groups that hold nothing
    else, and the plan's lr, which follows the schedule from there.

    Parameters
    ----------
    model
        Any module.
    optimizer
        Holds what trains in epoch 0. What the plan names may be in it from the start, in groups of its own or
        among others, or not yet: then it is added once, with the optimizer's defaults.
    plan
        From an epoch, 1 or later, to what trains from then on: ``{pattern: lr}``, the pattern as in
        `layerlab.names.find` (several in a tuple). In place of the lr a dict may give more options of the
        group: ``{"layer4": {"lr": 1e-3, "weight_decay": 0.0}}``.
    scheduler
        The optimizer's scheduler, if it has one; build it before the plan.

    Attributes
    ----------
    epoch : int
        The epoch that comes now: how often `step` was called, here and before the state that was loaded.
    entries : tuple
        The plan as it was read: each with its ``epoch``, ``parameters`` and ``options``.

    Raises
    ------
    TypeError
        An argument is of the wrong type.
    ValueError
        For a plan after which something would stay still in silence, or that cannot be carried out: a pattern
        that matches nothing, an epoch below 1, an lr of 0, a parameter in two entries or held by another
        `freeze`, nothing to train in epoch 0, an optimizer of another model, LBFGS, a scheduler of another
        optimizer or one that cannot take the groups that would be added, a DistributedDataParallel that would
        average other parameters. Nothing has been changed then.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, plan: Plan, scheduler: Scheduler | None = None
    ) -> None:
        optimizer = checks.check_optimizer(model, optimizer)
        self.entries = tuple(entries.read(model, optimizer, plan))
        checks.check_first_epoch(model, optimizer, self.entries, scheduler)
        rates.check(optimizer, scheduler, _newcomers(optimizer, self.entries))
        checks.check_parallel(model, self.entries)

        self.epoch = 0
        self._closed = False
        self._model, self._optimizer, self._scheduler = model, optimizer, scheduler
        self._scheduled = getattr(scheduler, "last_epoch", None)
        self._handle: Freeze | None = freeze(model, _patterns(self.entries))

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the parameters that are still to be released."""
        return self._handle.names if self._handle is not None else ()

    def step(self) -> None:
        """End an epoch: release what the plan says for the next one. Call it after ``scheduler.step()``.

        Raises
        ------
        RuntimeError
            The scheduler has not stepped in the first epoch, so it would scale a released lr at once; a
            parameter is no longer in the model, because its layer was replaced; or the plan was closed.
        ValueError
            A scheduler was built that the plan does not know; a cosine is at its lowest; or another `freeze`
            holds what is to be released.
        """
        self._check_open()
        if self._scheduler is None:
            rates.check_unscheduled(self._optimizer)
        elif self.epoch == 0 and self._scheduler.last_epoch == self._scheduled:
            raise RuntimeError(
                "the scheduler has not stepped yet: call scheduler.step() before plan.step(), or it would "
                "change the lr of what the plan has just released"
            )
        due = [entry for entry in self.entries if entry.epoch == self.epoch + 1]
        self._check(due)
        if due:
            rates.check_now(self._scheduler)
        self._let_train(due)
        for entry in due:
            for named in entry.parameters:
                named.tensor.grad = None
                self._optimizer.state.pop(named.tensor, None)
            for place, group in layout.give_groups(self._optimizer, entry.parameters):
                group.update({name: value for name, value in entry.options.items() if name != "lr"})
                rates.set_lr(self._scheduler, place, group, entry.options["lr"])
        self.epoch += 1

    def close(self) -> None:
        """Give the plan up: what it still holds is as it was before, and it cannot step any more."""
        if self._handle is not None:
            self._handle.release()
        self._handle, self._closed = None, True

    def state_dict(self) -> dict[str, Any]:
        """Where the plan stands, as plain data for ``torch.save``."""
        done = [layout.groups_of(self._optimizer, entry.parameters) for entry in self._released()]
        return {
            "epoch": self.epoch,
            "entries": [entry.said() for entry in self.entries],
            "groups": [[copy.deepcopy(options_of(group)) for _, group in groups] for groups in done],
            "names": [layout.parts(self._optimizer, entry.parameters) for entry in self._released()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another plan stood, with a model, an optimizer and a scheduler built as for that one.

        Load the plan first, then the optimizer: its groups must be there before it loads. The model and the
        scheduler may be loaded at any time. Where the groups were all there from the start, any order does.

        Raises
        ------
        ValueError
            The state is of another plan, or of an optimizer built in another way; or this plan has gone
            further. Nothing has been changed then.
        RuntimeError
            The plan was closed, or a layer that it holds has been replaced in the model since.
        """
        self._check_open()
        missing = [key for key in ("epoch", "entries", "groups", "names") if key not in state]
        if missing:
            raise ValueError(f"this is no state of an Unfreeze: it has no {missing[0]!r}")
        if list(state["entries"]) != [entry.said() for entry in self.entries]:
            raise ValueError(
                "the state is of another plan: build this one with the same epochs, names and lrs"
            )
        epoch = int(state["epoch"])
        if epoch < self.epoch:
            raise ValueError(
                f"the state is of epoch {epoch}, and this plan is at {self.epoch} already: what is released "
                "is not frozen again. Build model, optimizer and plan anew"
            )
        done = [entry for entry in self.entries if entry.epoch <= epoch]
        if [layout.parts(self._optimizer, entry.parameters) for entry in done] != list(state["names"]):
            raise ValueError("the state is of an optimizer with other groups: build it as the saved one was")
        due = [entry for entry in done if entry.epoch > self.epoch]
        self._check(due)
        self._let_train(due)
        for entry, saved in zip(done, state["groups"], strict=True):
            groups = layout.give_groups(self._optimizer, entry.parameters)
            for (_, group), options in zip(groups, saved, strict=True):
                group.update(copy.deepcopy(options))
        self.epoch = epoch

    def __repr__(self) -> str:
        return repr(self._shown())

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()

    def _shown(self) -> Shown:
        rows = []
        for entry in self.entries:
            rows.append(
                {
                    "from epoch": entry.epoch,
                    "trains": printable(entry.text),
                    "tensors": len(entry.parameters),
                    "which": some([printable(named.name) for named in entry.parameters], 2),
                    "lr at its release": entry.options["lr"],
                    "now": "released" if entry.epoch <= self.epoch else "frozen",
                }
            )
        left = len(self.frozen)
        still = f"{plural(left, 'tensor')} still frozen" if left else "all released"
        return table(rows, title=f"gradual unfreezing, at epoch {self.epoch}: {still}")

    def _released(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.epoch <= self.epoch)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this plan was closed and releases nothing: make another")

    def _check(self, due: Sequence[Entry]) -> None:
        """Refuse a release that would let nothing train; nothing has been changed yet."""
        if not due:
            return
        own = {id(named.tensor) for named in names.tensors(self._model)}
        for entry in due:
            gone = [named.name for named in entry.parameters if id(named.tensor) not in own]
            if gone:
                raise RuntimeError(
                    f"{names.listing(gone)}: replaced in the model since the plan was made, so to release "
                    "what the plan holds would train nothing. Make it after the last change to the model"
                )
            entries.check_unheld(entry, self._handle)
        rates.check(self._optimizer, self._scheduler, _newcomers(self._optimizer, due))

    def _let_train(self, due: Sequence[Entry]) -> None:
        """Hold what is still to come, then let go of the rest; one handle at any time."""
        if not due:
            return
        rest = [entry for entry in self.entries if entry.epoch > due[-1].epoch]
        before, self._handle = self._handle, freeze(self._model, _patterns(rest)) if rest else None
        if before is not None:
            before.release()
        for entry in due:
            for named in entry.parameters:
                named.tensor.requires_grad = True


def _patterns(entries: Sequence[Entry]) -> list[Any]:
    found: list[Any] = []
    for entry in entries:
        found += entry.pattern if isinstance(entry.pattern, (tuple, list)) else [entry.pattern]
    return found


def _newcomers(optimizer: Optimizer, entries: Sequence[Entry]) -> list[str]:
    """What would come into a new parameter group."""
    return [
        named.name
        for entry in entries
        if layout.needs_new_group(optimizer, entry.parameters)
        for named in entry.parameters
    ]
