"""The score of a lesson: how the first answer to each of its predictions fared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from layerlab.lessons_support.scoring import Score
from layerlab.printable import printable
from layerlab.show import Shown
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.words import plural


@dataclass(frozen=True, slots=True)
class Entry:
    """How the first answer to one prediction fared."""

    question: str
    right: int
    total: int


class Scorecard:
    """What a learner's predictions of one lesson came to; Jupyter shows it as a table.

    Only the first score of a prediction counts, so running a cell again changes nothing. Predictions are told
    apart by their question and the names that they ask about.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, tuple[str, ...]], Entry] = {}
        self._not_locked: set[tuple[str, tuple[str, ...]]] = set()

    def note(self, question: str, names: Iterable[str], score: Score) -> None:
        """Enter the score of a prediction, unless it has one; what was not locked in is only counted."""
        key = (question, tuple(names))
        if score.locked:
            self._entries.setdefault(key, Entry(question, score.right, score.total))
        else:
            self._not_locked.add(key)

    def first(self, question: str, names: Iterable[str]) -> Entry | None:
        """How the first answer to this prediction fared; None before it was scored."""
        return self._entries.get((question, tuple(names)))

    def reset(self) -> None:
        """Start anew: forget every score."""
        self._entries.clear()
        self._not_locked.clear()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The predictions that have been scored, in the order of their first scores."""
        return tuple(self._entries.values())

    @property
    def right(self) -> int:
        """How many answers were right, over all predictions."""
        return sum(entry.right for entry in self.entries)

    @property
    def total(self) -> int:
        """How many tensors were asked about, over all predictions."""
        return sum(entry.total for entry in self.entries)

    @property
    def line(self) -> str:
        """The sum in one line: ``this lesson so far: 11 of 14 right in 3 predictions``."""
        if not self._entries:
            return "this lesson so far: no prediction locked in and scored yet"
        counted = plural(len(self._entries), "prediction")
        left_out = len(self._not_locked - self._entries.keys())
        rest = f"; {left_out} more not locked in" if left_out else ""
        return f"this lesson so far: {self.right} of {self.total} right in {counted}{rest}"

    def __repr__(self) -> str:
        return repr(self._shown())

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()

    def _shown(self) -> Shown:
        page = Table(
            title=self.line,
            columns=(
                Column("prediction"),
                Column("right in the first answer locked in", align="right", code=True),
            ),
            rows=tuple(
                Row((Cell(printable(entry.question)), Cell(f"{entry.right} of {entry.total}")))
                for entry in self.entries
            ),
        )
        return Shown(Description(tables=(page,)))


_CARD = Scorecard()


def scorecard() -> Scorecard:
    """Return the scorecard of this lesson: there is one a kernel, and a notebook has its own kernel."""
    return _CARD
