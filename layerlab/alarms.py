"""The alarms of a run: `layerlab.rules` applied to every step, each told once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

from layerlab.called import Called
from layerlab.record import Alarm, Reason, Step
from layerlab.rules import NOISE, RULES, Past, buffers_of_frozen_modules, never_moved


class AlarmBook:
    """Collects alarms over a run, each (code, name) once, with the first step and the count.

    What they say of ``model`` and ``optimizer`` they say in the words of `called`.
    """

    def __init__(self, called: Called | None = None) -> None:
        self._called = called or Called()
        self._past: dict[str, Past] = {}
        self._alarms: dict[tuple[str, str], Alarm] = {}

    def note_lr_zero(self, names: Collection[str], held: Collection[str] = ()) -> None:
        """Take note of tensors that lr = 0 froze before the first step: some schedulers wake them at once."""
        for name in names:
            past = self._past.setdefault(name, Past())
            past.lr_was_zero_alone, past.held = True, name in held

    def read(self, step: Step, held: Collection[str] = ()) -> list[Alarm]:
        """Apply every rule to a step; return its alarms, the gravest first.

        ``held`` names the tensors that a `layerlab.freezing.Freeze` handle holds: nobody forgot to release
        those.
        """
        for name, past in self._past.items():
            if past.held and name not in held:
                past.lr_was_zero_alone = False  # released: nobody woke it behind anyone's back
        found = [a for a in self._apply(step) if not (a.code == "left-frozen" and a.name in held)]
        self._remember(step, held)
        return self.add(found, step.optimizer)

    def add(self, found: list[Alarm], optimizer: int | None = None, *, in_a_step: bool = True) -> list[Alarm]:
        """Enter alarms about an optimizer; return them, the gravest first. Only steps are counted."""
        found = [self._in_their_words(alarm, optimizer) for alarm in found]
        for alarm in found:
            key = (alarm.code, alarm.name)
            known = self._alarms.get(key)
            if known is None:
                self._alarms[key] = alarm
            elif in_a_step and known.step >= 0:
                self._alarms[key] = replace(known, count=known.count + 1)
        return by_gravity(found)

    def all(self) -> list[Alarm]:
        """Every alarm so far, the gravest first, then by step; with the tensors that never moved."""
        still = [
            self._in_their_words(alarm, past.before.optimizer if past.before else None)
            for name, past in self._past.items()
            if (alarm := never_moved(name, past))
        ]
        return by_gravity([*self._alarms.values(), *still])

    def _in_their_words(self, alarm: Alarm, optimizer: int | None) -> Alarm:
        what, cure = (self._called.in_their_words(text, optimizer) for text in (alarm.what, alarm.cure))
        return replace(alarm, what=what, cure=cure)

    def _apply(self, step: Step) -> Iterator[Alarm]:
        for tensor in step.tensors.values():
            past = self._past.setdefault(tensor.name, Past())
            for rule in RULES:
                alarm = rule(step, tensor, past)
                if alarm is not None:
                    yield alarm
        yield from buffers_of_frozen_modules(step)

    def _remember(self, step: Step, held: Collection[str]) -> None:
        others_learn = {t.group for t in step.tensors.values() if t.optimizer == step.optimizer and t.lr}
        beside: dict[str, float] = {}  # the largest finite gradient in each module
        for t in step.tensors.values():
            if math.isfinite(t.grad_max):
                beside[t.info.module] = max(beside.get(t.info.module, 0.0), t.grad_max)
        for tensor in step.tensors.values():
            past = self._past[tensor.name]
            past.ever_moved |= tensor.moved
            past.held = tensor.name in held
            if tensor.optimizer != step.optimizer:
                continue
            past.before = tensor
            past.trained |= tensor.reason is Reason.GRADIENT
            past.only_noise &= tensor.grad_max <= NOISE * beside.get(tensor.info.module, 0.0)
            past.still_steps = 0 if tensor.moved else past.still_steps + 1
            if tensor.lr == 0 and others_learn:
                past.lr_was_zero_alone = True


def by_gravity(alarms: list[Alarm]) -> list[Alarm]:
    """Alarms before notices, then in the order they came."""
    return sorted(alarms, key=lambda a: (a.level != "alarm", a.step))
