"""What the panels of one model do to it, together: one grip, one history, and no word of how it looks."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef

from layerlab.called import Called, by_the_user
from layerlab.freezing import WAYS, How, learning_rates
from layerlab.names import Named, bare, tensors
from layerlab.widgets import freeze_state as state
from layerlab.widgets import freeze_warnings as warnings
from layerlab.widgets.freeze_grip import Grip
from layerlab.widgets.freeze_history import History, Key
from layerlab.wrappers import trains

_boards: Any = WeakIdKeyDictionary()  # bare model -> Switchboard


class Switchboard:
    """Freezes and releases parameters of one model, and undoes that; get it by `switchboard`.

    It holds the model weakly. What keeps parts of the model alive (the handle, the optimizer) goes when the
    model does.
    """

    def __init__(self, model: nn.Module) -> None:
        self.grip = Grip(model)
        self.history = History()
        self.panels: WeakSet[Any] = WeakSet()
        """Who shows it: each has a ``show`` to be called after a change."""
        self._notice = ""
        self._released: list[tuple[WeakIdRef, int]] = []  # by the last action, and its version then
        self._awake: set[int] = set()  # what was said to have another lr than the 0 that it is held at
        self._end = finalize(bare(model), self._forget)
        self._end.atexit = False

    # -- what it does, each one step to undo ---------------------------------------------------------------

    def freeze(self, wanted: Iterable[torch.Tensor]) -> None:
        """Freeze these too."""
        self._change(list(wanted), [])

    def release(self, wanted: Iterable[torch.Tensor]) -> None:
        """Release these, also from a flag that code set to False.

        If a handle of others holds any of them, nothing is changed, and `warning` says so.
        """
        unwanted = list(wanted)
        foreign = self._foreign(unwanted)
        if foreign:
            self._notice = warnings.held_by_others(foreign)
            self._tell()
        else:
            self._change([], unwanted)

    def slide(self, on: Iterable[torch.Tensor], off: Iterable[torch.Tensor]) -> None:
        """Freeze these, release those as far as no others hold them: a move of the slider."""
        unwanted = list(off)
        foreign = self._foreign(unwanted)
        held = {id(fact.named.tensor) for fact in foreign}
        self._change(list(on), [p for p in unwanted if id(p) not in held], slider="depth")
        if foreign:
            self._notice = warnings.held_by_others(foreign)
            self._tell()

    def release_own(self) -> None:
        """Release everything that was frozen here, and only that."""
        with self._step():
            self.grip.hold({})

    def set_how(self, how: How) -> None:
        """Choose the way; what is held already is held that way from now on."""
        with self._step():
            self.grip.hold(self.grip.held, how)

    def set_clear_grad(self, clear_grad: bool) -> None:
        """Choose whether freezing by the flag takes away gradients that are there already."""
        with self._step():
            self.grip.hold(self.grip.held, clear_grad=clear_grad)

    def set_lr(self, index: int, lr: float) -> None:
        """Set the lr of one of the optimizer's own groups; while it is held at 0, the one that returns."""
        if not 0 <= lr < math.inf:
            raise ValueError(f"lr={lr}: it must be a finite number, 0 or more")
        optimizer = self.grip.optimizer
        assert optimizer is not None
        with self._step(slider=("lr", index)):
            old = self.grip.own_groups()[index].lr
            new = torch.full_like(old, lr) if isinstance(old, torch.Tensor) else lr
            learning_rates.set_lr(optimizer, index, new)

    def clear_gradients(self) -> None:
        """Throw the gradients away that came before the freeze."""
        with self._step():
            for fact in state.too_late(self.grip.facts()):
                fact.named.tensor.grad = None

    def undo(self) -> None:
        """Put back what the last step changed; where code has changed that since, only say so."""
        self.grip.settle()
        now = self.grip.snapshot()
        step = self.history.pop(now)
        self._notice, self._released = "", []
        try:
            if step is None:
                self._notice = warnings.NOTHING_TO_UNDO
            elif changed := step.changed_since(now):
                self.history.leave(step)
                self._notice = warnings.not_undone([self._in_words(key) for key in changed])
            else:
                self.grip.go_to(step.before)
                self.grip.settle()
        except BaseException:
            assert step is not None
            self.grip.go_to(step.after)
            self.history.put_back(step)
            raise
        finally:
            self._tell()

    def use(self, optimizer: Optimizer) -> None:
        """Take this optimizer for the learning rates; what is held by lr = 0 is held in it from now on."""
        grip = self.grip
        if optimizer is grip.optimizer:
            return
        before, grip.optimizer = grip.optimizer, optimizer
        try:
            if grip.how == "lr_zero":
                grip.hold(grip.held, again=grip.held.keys())
        except BaseException:
            grip.optimizer = before
            raise
        self.history.clear()  # it knows the groups of the other one
        self._tell()

    def settle(self) -> None:
        """Let go of what code woke; say so once of what it woke by its lr, for that may be a scheduler."""
        awake = self.grip.woken_by_lr()
        new = [n for n in tensors(self.grip.model) if id(n.tensor) in awake.keys() - self._awake]
        if new:
            self._notice = warnings.woken(new, awake[id(new[0].tensor)])
        self._awake = set(awake)
        self.grip.settle()

    def close(self) -> None:
        """Release everything and forget the model."""
        self._end.detach()
        if self.grip.alive and _boards.get(self.grip.model) is self:
            del _boards[self.grip.model]
        self._forget()

    # -- what it says --------------------------------------------------------------------------------------

    @property
    def can_undo(self) -> bool:
        """Whether there is a step whose undo would change anything."""
        return self.grip.alive and self.history.can_undo(self.grip.snapshot())

    @property
    def called(self) -> Called:
        """What the notebook's variables call the model and the optimizer."""
        optimizer = self.grip.optimizer
        return by_the_user(self.grip.model, [optimizer] if optimizer is not None else [])

    @property
    def warning(self) -> str:
        """What to know about the last action, or else about the model as it is now."""
        if self._notice or not self.grip.alive:
            return self._notice
        return self.called.in_their_words(self._warning())

    def _warning(self) -> str:
        facts = self.grip.facts()
        nothing_left = bool(facts) and not any(fact.named.tensor.requires_grad for fact in facts)
        if late := state.too_late(facts):
            said = warnings.too_late(self.grip.model, [fact.named for fact in late])
            return f"{warnings.NOTHING_LEFT} Also {said}" if nothing_left else said
        if nothing_left:
            return warnings.NOTHING_LEFT
        stored = self._old_momentum()
        return warnings.old_momentum(self.grip.model, stored) if stored else ""

    def _old_momentum(self) -> list[Named]:
        """What the last action released, has not moved since, and is still known to the optimizer."""
        known = self.grip.optimizer.state if self.grip.optimizer is not None else {}
        still = {id(p) for reference, version in self._released if _is_at(p := reference(), version)}
        return [n for n in tensors(self.grip.model) if id(n.tensor) in still and known.get(n.tensor)]

    def _in_words(self, key: Key) -> str:
        what, *where = key
        if what in ("how", "clear"):
            return "the method" if what == "how" else "“also clear gradients”"
        if what == "lr":
            return f"the lr of group {where[0]}"
        name = next((n.name for n in tensors(self.grip.model) if WeakIdRef(n.tensor) == where[0]), None)
        if name is None:
            return "a layer (replaced)"
        if what != "lr now":
            return f"{name}.{_ATTRIBUTES.get(str(what), what)}"
        groups = enumerate(self.grip.own_groups())
        whole = {id(p): index for index, group in groups if not group.split for p in group.parameters}
        index = whole.get(id(where[0]()))
        return f"the lr of {name}" if index is None else f"the lr of group {index}"

    # -- how it does it ------------------------------------------------------------------------------------

    def _foreign(self, wanted: Iterable[torch.Tensor]) -> list[state.Fact]:
        ids = {id(parameter) for parameter in wanted}
        return [fact for fact in self.grip.facts() if fact.foreign and id(fact.named.tensor) in ids]

    def _change(
        self, on: Sequence[torch.Tensor], off: Sequence[torch.Tensor], slider: Hashable = None
    ) -> None:
        wanted = {id(p): p for p in on}
        unwanted = {id(p): p for p in off if id(p) not in wanted}
        with self._step(slider):
            held = {key: p for key, p in self.grip.held.items() if key not in unwanted}
            self.grip.hold(held | wanted, again=wanted)
            for parameter in unwanted.values():
                if not parameter.requires_grad and (parameter.is_floating_point() or parameter.is_complex()):
                    parameter.requires_grad = True
            stay = [f for f in self.grip.facts() if id(f.named.tensor) in unwanted and f.frozen]
            self._notice = warnings.stays(stay, self.grip.own_groups()) if stay else ""

    @contextmanager
    def _step(self, slider: Hashable = None) -> Iterator[None]:
        """Note what the block changes as one step; every panel shows it, also after an error."""
        self.grip.settle()
        before, frozen = self.grip.snapshot(), self._frozen()
        self._notice = ""
        try:
            yield
            self.grip.settle()
            self.history.record(before, self.grip.snapshot(), slider)
            now = self._frozen()
            self._released = [(WeakIdRef(p), p._version) for key, p in frozen.items() if key not in now]
        finally:
            self._tell()

    def _frozen(self) -> dict[int, torch.Tensor]:
        return {id(fact.named.tensor): fact.named.tensor for fact in self.grip.facts() if fact.frozen}

    def _tell(self) -> None:
        for panel in list(self.panels):
            panel.show()

    def _forget(self) -> None:
        self.grip.let_go()
        self.history.clear()
        self._notice, self._released = "", []


_ATTRIBUTES = {"flag": "requires_grad", "flag now": "requires_grad"}


def _is_at(parameter: torch.Tensor | None, version: int) -> bool:
    return parameter is not None and parameter._version == version


def ways(optimizer: Optimizer | None) -> tuple[How, ...]:
    """The ways to freeze: one of them needs the optimizer."""
    return tuple(way for way in WAYS if optimizer is not None or way != "lr_zero")


def switchboard(model: nn.Module, optimizer: Optimizer | None = None, how: str | None = None) -> Switchboard:
    """The one switchboard of a model, made when it is first asked for.

    Parameters
    ----------
    optimizer, how
        What it is to use from now on; by default what it used before.

    Raises
    ------
    TypeError
        `model` is not a ``torch.nn.Module``, or `optimizer` is no optimizer.
    ValueError
        An unknown way to freeze; an optimizer that holds no parameter of this model; or what is frozen
        already cannot be frozen that way, or not in that optimizer. Nothing has been changed then.
    """
    found: Switchboard | None = _boards.get(bare(model))
    board = found or Switchboard(model)
    optimizer = None if optimizer is None else trains(optimizer, model)
    known = ways(optimizer or board.grip.optimizer)
    if how is not None and how not in known:
        hint = "; lr_zero needs the optimizer: FreezePanel(model, optimizer)" if how in WAYS else ""
        raise ValueError(f"method={how!r}: choose one of {', '.join(known)}{hint}")
    if optimizer is not None:
        board.use(optimizer)
    if how is not None and how != board.grip.how:
        board.set_how(next(way for way in WAYS if way == how))
    _boards[bare(model)] = board
    return board
