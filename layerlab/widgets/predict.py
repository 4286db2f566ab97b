"""`Predict`: tick the tensors that will move, then compare with what the ledger saw."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import traitlets
from torch import nn

from layerlab.lessons_support.scorecard import scorecard
from layerlab.lessons_support.scoring import Answer, Score, one_step, score, what_happened
from layerlab.names import listing
from layerlab.printable import printable
from layerlab.record import Step
from layerlab.show.alphabet import ALPHABET, ink
from layerlab.widgets.asked import groups, names_asked_about
from layerlab.widgets.base import shown_errors
from layerlab.widgets.drawn import Drawn, front_end

OUTDATED = "outdated: the ticks have changed since; call check(step) again"
UNCOUNTED = "; not locked in, so it does not count"
OPEN, LOCKED, RUNNING, SCORED = "open", "locked", "running", "scored"

Steps = Step | Sequence[Step]


class Predict(Drawn):
    """One tick box a tensor: which of them will move? `check` compares the ticks with a step of a ledger.

    The answer is locked in by its button. The first score of an answer that was locked in counts for the
    lesson (see `layerlab.lessons_support.scorecard`); boxes that nobody locked in are compared all the same.

    >>> predict = Predict(net)  # doctest: +SKIP
    >>> predict.tick("output.weight")  # doctest: +SKIP
    >>> predict.check(ledger[-1])  # doctest: +SKIP

    Parameters
    ----------
    model_or_names
        A model: every parameter is asked about, and every buffer of running statistics. Or the names of the
        tensors to ask about, in the order in which they shall stand. Where they are many, they are folded by
        module.
    question
        Stands above the boxes.
    ticked
        Names that are ticked from the start.
    run
        What the button does once the answer is locked in: called without arguments, it returns a step, or a
        ledger of exactly one step, which is then checked.

    Attributes
    ----------
    names : tuple of str
        The tensors that are asked about.
    score : Score or None
        What the last `check` returned.
    stage : str
        ``"open"``, ``"locked"``, ``"running"`` or ``"scored"``.

    Raises
    ------
    ValueError
        If there is nothing to ask about, a name comes twice, or ``ticked`` has a name that is not asked
        about; the message lists near names.
    TypeError
        If ``model_or_names`` is a single str, or ``run`` cannot be called.
    """

    _esm = front_end("dom.js", "predict.js")
    _css = front_end("predict.css")

    asked = traitlets.Dict().tag(sync=True)
    """What the page draws once: the question, the groups with their boxes, whether there is a ``run``."""
    ticks = traitlets.List(traitlets.Int()).tag(sync=True)
    """Positions in ``names`` of the boxes that are ticked."""
    stage = traitlets.Enum((OPEN, LOCKED, RUNNING, SCORED), OPEN).tag(sync=True)
    verdict = traitlets.Dict().tag(sync=True)
    """How it fared: the sum, the lesson's score, and a mark for each box; empty before a score."""

    def __init__(
        self,
        model_or_names: nn.Module | Iterable[str],
        question: str = "Which tensors will move in this step?",
        ticked: Iterable[str] = (),
        run: Callable[[], Steps] | None = None,
    ) -> None:
        self._first_name = names_asked_about(model_or_names)
        if run is not None and not callable(run):
            raise TypeError(f"run must be a function without arguments, not {type(run).__name__}")
        self.names = tuple(dict.fromkeys(self._first_name.values()))
        self.question = question
        self.score: Score | None = None
        self._run = run
        self._checked: tuple[str, ...] = ()
        self._counts = False
        self._marks: list[dict[str, Any]] = []
        self._groups = groups(self.names)
        chosen = self._positions(ticked)
        drawn = [
            {"name": printable(name), "items": [self._item(at) for at in members]}
            for name, members in self._groups
        ]
        asked = {"question": printable(question), "groups": drawn, "runs": run is not None}
        super().__init__(asked=asked, ticks=sorted(chosen))
        self.observe(lambda _: self._show_verdict(), "ticks")

    @property
    def ticked(self) -> tuple[str, ...]:
        """Names of the tensors that are ticked, in the order in which they are asked about."""
        return tuple(self.names[at] for at in self.ticks)

    @property
    def outdated(self) -> bool:
        """Whether the ticks have changed since the last `check`."""
        return self.score is not None and self.ticked != self._checked

    def tick(self, *names: str) -> None:
        """Tick boxes, as a click would; a module's name means all that is asked about of it.

        Raises
        ------
        ValueError
            If a name is not asked about; then no box is changed. The message lists near names.
        RuntimeError
            If the answer is locked in and not scored yet.
        """
        positions = self._positions(names)
        self._must_not_be_locked()
        self.ticks = sorted({*self.ticks, *positions})

    def untick(self, *names: str) -> None:
        """Take ticks away; see `tick`."""
        positions = self._positions(names)
        self._must_not_be_locked()
        self.ticks = sorted({*self.ticks} - positions)

    def lock_in(self) -> None:
        """Let the answer stand, as the button does; with a ``run``, run it and check what it returns.

        An error of ``run`` is shown, unlocks and is raised. Harmless when the answer is locked in already.
        """
        if self.stage != OPEN:
            return
        if self._run is None:
            self.stage = LOCKED
            return
        try:
            self.stage = RUNNING
            with shown_errors(self):
                self.check(self._run())
        finally:
            if self.stage == RUNNING:  # it raised
                self.stage = OPEN

    def unlock(self) -> None:
        """Take the answer back ("change my mind").

        Raises
        ------
        RuntimeError
            If it has been scored; `try_again` is for that.
        """
        if self.stage == SCORED:
            raise RuntimeError("this answer has been scored and stands; try_again() clears the verdict")
        if self.stage == LOCKED:
            self.stage = OPEN

    def try_again(self) -> None:
        """Clear the verdict and unlock. The first score is what counts for the lesson."""
        if self.stage == SCORED:
            self.score, self.verdict, self.stage = None, {}, OPEN

    def check(self, step: Steps) -> Score:
        """Compare what is ticked with what moved in a step; show the verdict and return it.

        It counts for the lesson only if the answer had been locked in.

        Parameters
        ----------
        step
            A step of a ledger, or a ledger of exactly one step.

        Raises
        ------
        ValueError, KeyError
            For a ledger of several steps, or a step without these tensors; see
            `layerlab.lessons_support.scoring.score`. Then nothing is scored.
        """
        with shown_errors(self):
            ticked = self.ticked
            counts = self._counts if self.stage == SCORED else self.stage in (LOCKED, RUNNING)
            result = score(ticked, step, names=self.names, locked=counts)
            answers = {answer.fact.name: answer for answer in result.answers}
            facts = one_step(step)
            self._marks = [_mark(answers[facts[name].name]) for name in self.names]
            self._counts = counts
            scorecard().note(self.question, self.names, result)
            self.score, self._checked = result, ticked
            self.stage = SCORED
            self._show_verdict()
        return result

    def _heard(self, message: dict[str, Any]) -> None:
        wanted = message.get("do")
        if wanted == "tick":
            if self.stage == OPEN:  # one that was on its way while the answer was locked in comes too late
                names = [self.names[at] for at in message["at"]]
                (self.tick if message["on"] else self.untick)(*names)
        elif wanted == "lock":
            self.lock_in()
        elif wanted == "unlock":
            self.unlock()
        elif wanted == "again":
            self.try_again()
        else:
            raise ValueError(f"{message!r}: Predict knows tick, lock, unlock and again")

    def _must_not_be_locked(self) -> None:
        if self.stage in (LOCKED, RUNNING):
            raise RuntimeError("the answer is locked in: call unlock() first, or press “change my mind”")

    def _positions(self, names: Iterable[str]) -> set[int]:
        found: set[int] = set()
        for name in [names] if isinstance(names, str) else list(names):
            meant = [one for one in self._first_name if one == name or one.startswith(f"{name}.")]
            if not meant:
                near = difflib.get_close_matches(name, self._first_name, n=3, cutoff=0.4)
                hint = f"near names: {listing(near)}" if near else f"asked about: {listing(self.names)}"
                raise ValueError(f"no tick box for {name!r}; {hint}")
            found |= {self.names.index(self._first_name[one]) for one in meant}
        return found

    def _item(self, at: int) -> dict[str, Any]:
        """One box, for the page."""
        return {"at": at, "name": printable(self.names[at]), "tied": self._tied(at)}

    def _tied(self, at: int) -> str:
        name = self.names[at]
        return ", ".join(printable(n) for n, first in self._first_name.items() if first == name != n)

    def _show_verdict(self) -> None:
        """Say it in the page: the sum, and a mark beside each box; no marks that were about other ticks."""
        if self.score is None:
            return
        said = OUTDATED if self.outdated else f"{self.score.right} of {self.score.total} right"
        first = scorecard().first(self.question, self.names)
        if not self._counts:
            said += UNCOUNTED
        elif first is not None and first.right != self.score.right:
            said += f"; at the first try {first.right}, which counts"
        marks = [] if self.outdated else self._marks
        lesson = scorecard().line if scorecard().entries else ""
        self.verdict = {"said": said, "lesson": lesson, "marks": marks}

    def _as_text(self) -> str:
        text = f"Predict: {len(self.ticked)} of {len(self.names)} ticked"
        text += f": {', '.join(map(printable, self.ticked))}" if self.ticked else ""
        text += " (locked in)" if self.stage == LOCKED else ""
        if self.score is None:
            return text
        return "\n".join([text, *([OUTDATED] if self.outdated else []), repr(self.score)])

    def _as_html(self) -> str:
        asked = f"<p><strong>{escape(printable(self.question))}</strong></p>"
        listed = [self._group_html(name, members) for name, members in self._groups]
        return "\n".join(["<div>", asked, *listed, self._verdict_html(), "</div>"])

    def _group_html(self, name: str, members: Sequence[int]) -> str:
        items = []
        for at in members:
            tied = f" (tied: <code>{escape(self._tied(at))}</code>)" if self._tied(at) else ""
            sign = "☑" if at in self.ticks else "☐"
            items.append(f"<li>{sign} <code>{escape(printable(self.names[at]))}</code>{tied}</li>")
        # Each item has its own sign, so the list needs none.
        boxes = "\n".join(['<ul style="list-style:none;padding-left:0">', *items, "</ul>"])
        if len(members) == 1 or len(self._groups) == 1:
            return boxes
        count = f"{sum(at in self.ticks for at in members)} of {len(members)} ticked"
        head = f"<summary><code>{escape(printable(name))}</code>: {count}</summary>"
        return f"<details>{head}\n{boxes}\n</details>"

    def _verdict_html(self) -> str:
        if self.score is None:
            return ""
        return (f"<p><em>{OUTDATED}</em></p>\n" if self.outdated else "") + self.score._repr_html_()


def _mark(answer: Answer) -> dict[str, Any]:
    """What stands beside a box: ✓, or what happened instead and why."""
    letter = ALPHABET[answer.fact.reason]
    if answer.right:
        return {"right": True}
    why = f"it {what_happened(answer.fact)}"
    return {"right": False, "symbol": letter.symbol, "ink": ink(letter.colour), "why": why}
