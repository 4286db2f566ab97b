"""What an exercise's check is made of: requirements on a run; what is missed is said with its why."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from layerlab.ledger import Ledger
from layerlab.lessons_support.mishaps import said, where
from layerlab.lessons_support.scoring import one_step, what_happened
from layerlab.lessons_support.verdict import Line, Verdict
from layerlab.printable import printable
from layerlab.record import Alarm, Reason, Step, TensorStep
from layerlab.rules import path
from layerlab.show.warn import warnings_of
from layerlab.show.words import NO_STEP, likewise, some, span

T = TypeVar("T")
Steps: TypeAlias = Step | Sequence[Step]


class Check:
    """Collects requirements on what a learner's code did; every one is looked at, also after a failed one.

    >>> check = Check("Freeze hidden_task1")
    >>> with watch(net, optimizer) as ledger:  # doctest: +SKIP
    ...     check.run(train, net, optimizer)  # the learner's function
    >>> check.stayed(ledger, "hidden_task1.weight").no_alarms(ledger).verdict()  # doctest: +SKIP

    Once `run` failed, the later requirements make no sense: they are counted, and not looked at. So that
    nothing between them raises, give `moved`, `stayed` and `reason` the ledger (and ``at``) and not
    ``ledger[1]``, and give `that` a function.

    Parameters
    ----------
    title
        Stands above the verdict.
    called
        What the learner's code calls the things in a cure: ``{"model": "net"}``.
    """

    def __init__(self, title: str, called: Mapping[str, str] | None = None) -> None:
        self.title = title
        self._called = dict(called or {})
        self._lines: list[Line] = []
        self._broken = False
        self._skipped = 0

    def verdict(self) -> Verdict:
        """How the requirements so far were met; show it as the last expression of the cell."""
        lines = (replace(line, cure=self._in_their_words(line.cure)) for line in self._lines)
        return Verdict(self.title, tuple(lines), self._skipped)

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """Call the learner's function; require that it ends without an exception.

        Returns
        -------
        object
            What the function returned; None if it raised. Then the verdict names the exception and the last
            line of the learner's own code that led to it.
        """
        if self._is_skipped():
            return None
        name = printable(getattr(function, "__name__", type(function).__name__))
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self._broken = True
            self._lines.append(Line(False, f"{name} raised {said(error)}{where(error, function)}"))
            return None
        done = Line(True, f"{name} ran to its end")
        if done not in self._lines:  # once is enough to read
            self._lines.append(done)
        return result

    def moved(self, steps: Steps, *names: str, at: int | None = None, label: str = "") -> Check:
        """Require that each of these tensors moved: in the step, or in at least one step of the ledger.

        Parameters
        ----------
        steps
            A step, or a ledger.
        *names
            Names of tensors or modules; those that met the same fate share a line of the verdict.
        at
            Which step of the ledger alone counts. If it was never taken, the requirement fails.
        label
            Stands before the line: ``"step on task 1"``.

        Raises
        ------
        ValueError
            If no tensor is named.
        TypeError
            If the first argument is no ledger and no step.
        """
        return self._all(steps, names, at, label, must_move=True)

    def stayed(self, steps: Steps, *names: str, at: int | None = None, label: str = "") -> Check:
        """Require that each of these tensors stayed: in the step, or in every step of the ledger.

        Parameters and errors are those of `moved`.
        """
        return self._all(steps, names, at, label, must_move=False)

    def reason(self, steps: Steps, name: str, reason: Reason | str, *, at: int | None = None) -> Check:
        """Require that a tensor moved or stayed for this reason in one step.

        Raises
        ------
        ValueError
            If there is no such reason, or the ledger has several steps and ``at`` does not choose.
        """
        if reason not in list(Reason):
            raise ValueError(f"no reason {reason!r}; the reasons are {', '.join(Reason)}")
        wanted = Reason(reason)
        if self._is_skipped() or not (chosen := self._chosen(steps, at)):
            return self
        step = one_step(chosen)
        if (t := self._tensor(step, name)) is not None:
            label = printable(t.name)
            if t.reason is wanted:
                self._lines.append(Line(True, f"{label} {what_happened(t)}"))
            else:
                self._lines.append(
                    Line(False, f"{label}: the reason must be “{wanted}”, but it {what_happened(t)}")
                )
        return self

    def that(self, ok: bool | Callable[[], bool], good: str, bad: str, cure: str = "") -> Check:
        """Require any other fact, with the line to say when it holds and the line to say when it does not.

        Parameters
        ----------
        ok
            The fact; or a function that finds it out, called only if the learner's code ran to its end. An
            exception in it counts as no, and is said.
        good, bad
            For instance ``"the head's learning rate is 0.01"`` and ``"… must be 0.01, but is 0.1"``. Write
            numbers with `layerlab.show.short`, so that they look the same on every machine.
        cure
            A line of PyTorch that helps when the fact does not hold; a notebook folds it.
        """
        if self._is_skipped():
            return self
        try:
            met = bool(ok() if callable(ok) else ok)
        except Exception as error:
            met, bad = False, f"{bad} ({said(error)})"
        self._lines.append(Line(met, printable(good if met else bad), "" if met else cure))
        return self

    def no_alarms(self, steps: Step | Ledger) -> Check:
        """Require that the ledger (or the step) raised no alarm; notices are no alarms."""
        if self._is_skipped() or not self._chosen(steps, None):
            return self
        grave = [alarm for alarm in steps.alarms if alarm.level == "alarm"]
        for warn in warnings_of(grave):
            said = f"{some(warn.names)}: {warn.what} ({warn.when}). Why: {warn.cause}"
            self._lines.append(Line(False, said, warn.cure))
        if not grave:
            self._lines.append(Line(True, "no alarm: nothing moved or stayed that was not meant to"))
        return self

    def _repr_html_(self) -> str:
        return self.verdict()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.verdict())

    def _is_skipped(self) -> bool:
        self._skipped += self._broken
        return self._broken

    def _in_their_words(self, cure: str) -> str:
        for ours, theirs in self._called.items():
            cure = re.sub(rf"\b{re.escape(ours)}\b", theirs, cure)
        return cure

    def _chosen(self, steps: Steps, at: int | None) -> list[Step]:
        """The steps that count; where there is none, that is a failed requirement."""
        given: Any = steps
        if isinstance(given, str) or not isinstance(given, (Step, Sequence)):
            raise TypeError(f"give a ledger or a step of it first, not {type(given).__name__}")
        if isinstance(steps, Step):
            return [steps]
        if not steps:
            self._lines.append(Line(False, NO_STEP))
            return []
        if at is None:
            return list(steps)
        if not -len(steps) <= at < len(steps):
            self._lines.append(Line(False, f"there is no step {at}: {len(steps)} recorded"))
            return []
        return [steps[at]]

    def _tensor(self, step: Step, name: str) -> TensorStep | None:
        try:
            return step[name]
        except KeyError as error:
            self._lines.append(Line(False, printable(error.args[0])))
            return None

    def _all(
        self, steps: Steps, names: Sequence[str], at: int | None, label: str, *, must_move: bool
    ) -> Check:
        if self._is_skipped() or not (chosen := self._chosen(steps, at)):
            return self
        if not names:
            raise ValueError("name at least one tensor")
        alike: dict[Fate, list[tuple[TensorStep, str]]] = defaultdict(list)
        for name in _tensors_of(names, chosen):
            seen = [step for step in chosen if name in step]
            if not seen:
                self._tensor(chosen[-1], name)
                continue
            # What decides: the first step that moved it, or else the last one.
            step = next((step for step in seen if step[name].moved), seen[-1])
            t = step[name]
            if t.moved == must_move:
                reasons = dict.fromkeys(s[name].reason for s in seen if s[name].moved == t.moved)
                alike[Fate(True, ", ".join(reasons))].append((t, ""))
                continue
            known = list(step.alarms)
            if not t.moved and at is None and isinstance(steps, Ledger):
                known += steps.alarms  # what never moved is known at the end of a run only
            alarm = _alarm_about(t, known)
            when = ""
            if len(chosen) > 1:
                when = f"step {step.index}" if t.moved else f"in all {len(seen)} steps"
            fate = Fate(False, t.reason.value, what_happened(t), alarm.cause if alarm else "", when)
            alike[fate].append((t, alarm.cure if alarm else _cure_of(t)))
        for fate, tensors in alike.items():
            line = _line(fate, tensors, must_move)
            self._lines.append(replace(line, text=f"{label}: {line.text}") if label else line)
        return self


@dataclass(frozen=True, slots=True)
class Fate:
    """What tensors have in common that share a line of the verdict."""

    met: bool
    reasons: str
    happened: str = ""
    cause: str = ""
    """The alarm's, if there is one: it knows better."""
    when: str = ""
    """Which step it was, where there are several."""


def _line(fate: Fate, tensors: Sequence[tuple[TensorStep, str]], must_move: bool) -> Line:
    names = some([printable(t.name) for t, _ in tensors])
    moved = tensors[0][0].moved
    verb = "moved" if moved else "stayed"
    if fate.met:
        return Line(True, f"{names} {verb} ({fate.reasons})")
    delta = f"‖Δ‖ = {span(t.delta_norm for t, _ in tensors)}" if moved else ""
    facts = ", ".join(filter(None, [fate.reasons if fate.cause else "", fate.when, delta]))
    said = (
        f"{names} must {'move' if must_move else 'stay still'}, but {verb if fate.cause else fate.happened}"
    )
    said += (f" ({facts})" if facts else "") + (f": {printable(fate.cause)}" if fate.cause else "")
    cure = tensors[0][1]
    if others := len({cure for _, cure in tensors}) - 1:
        cure += f"\n{likewise(others)}"
    return Line(False, said, cure)


def _tensors_of(names: Sequence[str], steps: Sequence[Step]) -> Iterator[str]:
    """The names, a module's by those of its tensors."""
    for name in names:
        known = [n for step in steps for n in step if n == name or n.startswith(f"{name}.")]
        yield from dict.fromkeys(known) or [name]


def _cure_of(t: TensorStep) -> str:
    """What holds a tensor that is not frozen at all: nothing raises an alarm about that."""
    if t.moved and t.reason is Reason.FORWARD:
        return (
            f"{path(t.info.module) if t.info.module else 'model'}.eval()  # again after every model.train()"
        )
    if t.moved and t.requires_grad and t.frozen is None:
        return f"{path(t.name)}.requires_grad_(False)  # before backward(); its flag is still True"
    return ""


def _alarm_about(t: TensorStep, alarms: Iterable[Alarm]) -> Alarm | None:
    """The gravest alarm that names the tensor, or, if none does, its module or one above it."""
    known = list(alarms)
    own = [alarm for alarm in known if alarm.name in (t.name, *t.info.names)]
    above = [
        alarm
        for alarm in known
        if f"{t.info.module}.".startswith(f"{alarm.name}.")
        and (alarm.code == "frozen-statistics") == (t.info.kind == "buffer")  # these speak of buffers only
    ]
    return next(iter(own or above), None)
