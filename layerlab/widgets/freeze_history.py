"""The steps that can be undone: what each changed in the model, from which value to which."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdRef

from layerlab.freezing.gradients import in_groups

Key: TypeAlias = tuple[Any, ...]
Snapshot: TypeAlias = dict[Key, Any]
"""From what can change (the flag of this parameter, …) to what it is now; tensors by identity."""

_GONE = object()
_GRADIENTS = ("grad", "grad now")
_UNSEEN = ("held", "flag", "grad")  # what follows from the rest, or shows only once all is released
MOST, MOST_BYTES = 100, 256 * 2**20
"""So many steps are kept, and fewer if they hold gradients of more bytes than that."""
ONE_DRAG = 1.0
"""Seconds within which changes of one slider count as one drag."""


@dataclass
class Step:
    """What one step of the learner changed."""

    slider: Hashable
    """Which slider was moved; None for what is no slider."""
    ended: float
    before: Snapshot = field(default_factory=dict)
    after: Snapshot = field(default_factory=dict)

    def changed_since(self, now: Snapshot) -> list[Key]:
        """What of all that it changed is no longer as it left it.

        A new gradient comes with every step; and who holds what follows from what code did.
        """
        kept = {key: value for key, value in self.after.items() if key[0] not in ("grad now", *_UNSEEN)}
        kept |= {key: value for key, value in self.after.items() if key[0] == "held" and key not in now}
        return [key for key, value in kept.items() if not _same(now.get(key, _GONE), value)]

    def shows(self, now: Snapshot) -> bool:
        """Whether to undo it would change anything that can be seen."""
        only_gradients = all(key[0] in _GRADIENTS for key in self.before)
        return any(
            not _same(now.get(key, _GONE), value)
            for key, value in self.before.items()
            if only_gradients or key[0] == "held" or key[0] not in ("grad now", *_UNSEEN)
        )

    def forget_gradients(self, parameters: Collection[WeakIdRef]) -> None:
        """Know nothing more of the gradients of these parameters."""
        for key in [key for key in self.before if key[0] in _GRADIENTS and key[1] in parameters]:
            del self.before[key], self.after[key]

    @property
    def keeps_gradients(self) -> bool:
        """Whether it changed any."""
        return any(key[0] in _GRADIENTS for key in self.before)

    def size(self) -> int:
        """Bytes of the gradients that it keeps."""
        values = {id(v): v for v in self.before.values() if isinstance(v, torch.Tensor)}
        return sum(value.nbytes for value in values.values())


class History:
    """The last steps, the newest last; a drag of a slider is one.

    A gradient is for the next step of the optimizer. Once that is taken no undo brings the gradient back: it
    would be applied twice, or after the ``zero_grad()`` that was to clear it.
    """

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=MOST)
        self._sealed = True
        self._hook: RemovableHandle | None = None

    def __len__(self) -> int:
        return len(self._steps)

    def record(self, before: Snapshot, after: Snapshot, slider: Hashable = None) -> None:
        """Note what a step changed; nothing, if nothing did."""
        keys = [k for k in {**before, **after} if not _same(before.get(k, _GONE), after.get(k, _GONE))]
        if not keys:
            return
        now = time.monotonic()
        last = self._steps[-1] if self._steps else None
        goes_on = last is not None and not self._sealed and slider is not None and slider == last.slider
        if last is None or not goes_on or now - last.ended > ONE_DRAG:
            last = Step(slider, now)
            self._steps.append(last)
        for key in keys:
            last.before.setdefault(key, before.get(key, _GONE))
            last.after[key] = after.get(key, _GONE)
        last.ended = now
        self._sealed = False
        for key in [key for key in last.before if _same(last.before[key], last.after[key])]:
            del last.before[key], last.after[key]
        if not last.before:  # dragged there and back
            self._steps.pop()
        while len(self._steps) > 1 and sum(step.size() for step in self._steps) > MOST_BYTES:
            self._steps.popleft()
        self._sync_hook()

    def can_undo(self, now: Snapshot) -> bool:
        """Whether there is a step that can be seen as things are now."""
        return any(step.shows(now) for step in reversed(self._steps))

    def pop(self, now: Snapshot) -> Step | None:
        """Take away the newest step that can be seen, and those after it; None if there is none."""
        self._sealed = True
        while self._steps:
            step = self._steps.pop()
            if step.shows(now):
                self._sync_hook()
                return step
        self._sync_hook()
        return None

    def leave(self, step: Step) -> None:
        """A step that was popped stays: what came before it has to know that it was not code."""
        for key, value in step.after.items():
            before = next((older for older in reversed(self._steps) if key in older.after), None)
            if before is not None and _same(before.after[key], step.before[key]):
                before.after[key] = value

    def put_back(self, step: Step) -> None:
        """Keep a step after all that could not be undone."""
        self._steps.append(step)
        self._sync_hook()

    def seal(self) -> None:
        """Whatever comes next is another step, be it of the same slider."""
        self._sealed = True

    def clear(self) -> None:
        """Forget everything."""
        self._steps.clear()
        self._sync_hook()

    def _sync_hook(self) -> None:
        """Be told before any optimizer steps, for as long as there is a gradient to forget."""
        needed = any(step.keeps_gradients for step in self._steps)
        if needed and self._hook is None:
            self._hook = register_optimizer_step_pre_hook(self._before_step)
        elif not needed and self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        stepping = set(map(WeakIdRef, in_groups(optimizer)))
        for step in self._steps:
            step.forget_gradients(stepping)


def _same(one: Any, other: Any) -> bool:
    """Tensors by identity, whatever else by value."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return one is other
    return bool(one == other)
