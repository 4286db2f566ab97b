"""Predict, then look: what a learner said would move, against what the ledger saw move."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from layerlab.printable import printable
from layerlab.record import Reason, Step, TensorStep
from layerlab.show import Shown
from layerlab.show.alphabet import ALPHABET
from layerlab.show.fold import Item, fold
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.words import NO_STEP, with_tied

RIGHT, WRONG = "✓", "✗"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the learner said of one tensor, and what the step did to it."""

    said_moves: bool
    fact: TensorStep

    @property
    def right(self) -> bool:
        """Whether the learner was right."""
        return self.said_moves == self.fact.moved

    @property
    def said(self) -> str:
        """``moves`` or ``stays``."""
        return "moves" if self.said_moves else "stays"


class Score(Shown):
    """How a prediction fared in one step; Jupyter shows it as a table, the mistakes marked.

    Made by `score`.
    """

    def __init__(self, answers: Sequence[Answer], step: Step, *, locked: bool = True) -> None:
        self.answers = tuple(answers)
        self.step = step.index
        self.locked = locked
        super().__init__(_describe(self, step))

    @property
    def right(self) -> int:
        """How many answers were right."""
        return sum(answer.right for answer in self.answers)

    @property
    def total(self) -> int:
        """How many tensors were asked about."""
        return len(self.answers)

    @property
    def mistakes(self) -> list[str]:
        """One line for each wrong answer: what was said, what happened, and why."""
        return [
            f"{printable(a.fact.name)}: you said it {a.said}; it {what_happened(a.fact)}"
            for a in self.answers
            if not a.right
        ]


def score(
    ticked: Collection[str],
    step: Step | Sequence[Step],
    *,
    names: Iterable[str] | None = None,
    locked: bool = True,
) -> Score:
    """Compare the tensors that a learner expects to move with those that moved, bit for bit.

    Parameters
    ----------
    ticked
        Names of the tensors that are expected to move; what is not ticked is expected to stay.
    step
        The step that was asked about, or the ledger of a run of exactly one step.
    names
        Which tensors were asked about. When None: every parameter and every buffer of running statistics
        (not ``num_batches_tracked``), and whatever else was ticked.
    locked
        Whether the answer was given before it could be known: what was not says so, and does not count.

    Returns
    -------
    Score
        Its answers stand in the model's order, a tied tensor counts once.

    Raises
    ------
    TypeError
        If ``ticked`` or ``names`` is a single str, or ``step`` is no step.
    ValueError
        If a ledger of several steps is given: "will it move?" then has several answers. If nothing is asked
        about, or something was ticked that was not asked about.
    KeyError
        If the step has no tensor of a name; the message lists near names.
    """
    step = one_step(step)
    said = {step[name].name for name in _several(ticked, "ticked")}
    if names is None:
        asked = {*asked_about(t.info for t in step.values()), *said}
    else:
        asked = {step[name].name for name in _several(names, "names")}
    stray = [name for name in step if name in said - asked]
    if stray:
        raise ValueError(f"{stray[0]!r} was ticked but not asked about; asked: {', '.join(sorted(asked))}")
    if not asked:
        raise ValueError("there is no tensor to ask about: the list of names is empty")
    return Score([Answer(name in said, step[name]) for name in step if name in asked], step, locked=locked)


class _HasName(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...


def asked_about(tensors: Iterable[_HasName]) -> list[str]:
    """Names of the tensors that a learner is asked about unless told otherwise.

    Every parameter, and the buffers that hold running statistics (``running_mean``, ``running_var``): a
    counter such as ``num_batches_tracked`` teaches nothing that these do not.
    """
    return [
        t.name for t in tensors if t.kind == "parameter" or t.name.rpartition(".")[2].startswith("running_")
    ]


def one_step(step: Step | Sequence[Step]) -> Step:
    """Return the step, or the only step of a ledger; refuse a ledger of several, or of none."""
    if isinstance(step, Step):
        return step
    if not isinstance(step, Sequence):
        raise TypeError(f"give a step of a ledger, such as ledger[-1], not {type(step).__name__}")
    if not step:
        raise ValueError(NO_STEP)
    if len(step) > 1:
        raise ValueError(f"this ledger has {len(step)} steps: say which one, such as ledger[-1]")
    return step[0]


def what_happened(t: TensorStep) -> str:
    """Whether a tensor moved, and why, in the words of the ledger: ``stayed: its grad was None, so …``."""
    sentence = ALPHABET[t.reason].sentence
    if t.reason is Reason.UNKNOWN:
        return f"{'moved' if t.moved else 'stayed'}: {sentence}"
    if t.reason in (Reason.MOMENTUM, Reason.WEIGHT_DECAY) and t.grad == "zero":
        return f"moved by {t.reason}: its gradient was a tensor of zeros, not None"
    if t.reason is Reason.GRADIENT and t.grad_stale:
        return f"{sentence}, which an earlier step had already used"
    if t.reason is Reason.GRADIENT and t.frozen == "requires_grad":
        return f"{sentence}, which was there before requires_grad became False"
    return sentence


def _several(names: Iterable[str], what: str) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"{what} is a collection of names, such as {{{names!r}}}, not a str")
    return list(names)


def _describe(result: Score, step: Step) -> Description:
    answers = result.answers
    items = [Item(a.fact.name, (a.right, a.said, what_happened(a.fact)), False) for a in answers]
    rows = [_row(group.label, [answers[i] for i in group.positions]) for group in fold(items)]
    page = Table(
        title=f"{result.right} of {result.total} right{'' if result.locked else ' (not locked in)'}: "
        f"what moved in step {step.index} "
        f"({printable(step.optimizer_type)})",
        columns=(Column("tensor", code=True, names=True), Column("you said"), Column("what happened")),
        rows=tuple(rows),
    )
    return Description(tables=(page,))


def _row(label: str, alike: Sequence[Answer]) -> Row:
    first = alike[0]
    many = f"{printable(label)}: {len(alike)} tensors"
    name = many if len(alike) > 1 else with_tied(first.fact.info.names)
    reason = first.fact.reason
    return Row(
        cells=(
            Cell(name, "right" if first.right else "wrong", mark=RIGHT if first.right else WRONG),
            Cell(first.said),
            Cell(f"{ALPHABET[reason].symbol} {what_happened(first.fact)}", reason=reason),
        ),
        names=tuple(printable(a.fact.name) for a in alike),
    )
