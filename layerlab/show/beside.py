"""Two runs side by side as a neutral description: which tensors behave differently, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerlab.printable import printable
from layerlab.record import Reason, Step, TensorStep
from layerlab.show.alphabet import ALARM, ALPHABET, FROZEN, symbol_and_word, used_words
from layerlab.show.answers import RATIO
from layerlab.show.fold import SMALL, Item, fold
from layerlab.show.matrix import SHOWN
from layerlab.show.page import Cell, Column, Description, Fold, Row, Table
from layerlab.show.warn import alarmed_names, is_alarmed
from layerlab.show.words import MISSING, NO_STEP, plural, precise, short

DIFFERS = "≠"
"""Marks a tensor that moves or stays for another reason on the other side."""
RESIZED = "Δ"
"""Marks a tensor that moves for the same reasons, by another amount."""

SIDES = ("left", "right")

_MOVES = {
    Reason.GRADIENT: "moves by its gradient",
    Reason.FORWARD: "moves by the forward pass",
    Reason.OUTSIDE: "moves by something outside the step",
    Reason.UNKNOWN: "moves, and why is unknown",
}


def describe_beside(
    left: Sequence[Step], right: Sequence[Step], settings: tuple[str, str] = ("", "")
) -> Description:
    """Describe two runs side by side: a sentence, and one table in which what differs stands first.

    Parameters
    ----------
    left, right
        The steps of both runs; they are compared step by step, and what only one of them has differs.
    settings
        What is set on each side and not on the other, for the caption.

    Notes
    -----
    Steps are numbered from 0 in each run.
    """
    if not left and not right:
        return Description(note=NO_STEP)
    marked = [(one.mark, one) for one in _pairs(left, right)]
    pairs = [one for wanted in (DIFFERS, RESIZED) for mark, one in marked if mark == wanted]
    equal = [one for mark, one in marked if not mark]
    folded = len(pairs) + len(equal) > SMALL and len(equal) > 1
    said = Table(title=_sentence(pairs, len(pairs) + len(equal)), columns=(), rows=())
    return Description(tables=(said, _table(pairs, equal, (left, right), settings, folded)))


@dataclass(frozen=True)
class _Side:
    """One tensor in one run."""

    steps: tuple[TensorStep | None, ...]
    """What happened to it in each step; None where the run has no such step, or the model no such tensor."""
    alarmed: bool

    @property
    def tale(self) -> tuple[tuple[bool, Reason] | None, ...]:
        """Whether it moved in each step, and why."""
        return tuple((t.moved, t.reason) if t else None for t in self.steps)

    @property
    def last(self) -> TensorStep | None:
        return next((t for t in reversed(self.steps) if t), None)

    @property
    def marks(self) -> str:
        return (ALARM if self.alarmed else "") + (FROZEN if self.last and self.last.frozen else "")


@dataclass(frozen=True)
class _Pair:
    """One tensor in both runs."""

    name: str
    left: _Side
    right: _Side

    @property
    def mark(self) -> str:
        if self.left.tale != self.right.tale:
            return DIFFERS
        same = (_same_size(a, b) for a, b in zip(self.left.steps, self.right.steps, strict=True))
        return "" if all(same) else RESIZED

    @property
    def where(self) -> int:
        """The last step in which it behaves differently, or else moves by another amount."""
        tales = list(enumerate(zip(self.left.tale, self.right.tale, strict=True)))
        if differ := [step for step, (a, b) in tales if a != b]:
            return differ[-1]
        sizes = enumerate(zip(self.left.steps, self.right.steps, strict=True))
        return max(step for step, (a, b) in sizes if not _same_size(a, b))

    @property
    def kind(self) -> tuple[object, ...]:
        """Pairs of one kind look the same but for the amounts."""
        return self.mark, self.left.tale, self.right.tale, self.left.marks, self.right.marks


def _same_size(a: TensorStep | None, b: TensorStep | None) -> bool:
    return a is None or b is None or repr(a.delta_norm) == repr(b.delta_norm)  # repr: NaN is like itself


def _pairs(left: Sequence[Step], right: Sequence[Step]) -> Iterator[_Pair]:
    length = max(len(left), len(right))
    for name in dict.fromkeys(name for step in (*left, *right) for name in step):
        yield _Pair(name, _side(name, left, length), _side(name, right, length))


def _side(name: str, steps: Sequence[Step], length: int) -> _Side:
    found = [step.tensors.get(name) for step in steps]
    alarmed = any(
        t is not None and is_alarmed(t, alarmed_names(step.alarms))
        for t, step in zip(found, steps, strict=True)
    )
    return _Side((*found, *[None] * (length - len(found))), alarmed)


def _sentence(pairs: Sequence[_Pair], total: int) -> str:
    differ = [pair for pair in pairs if pair.mark == DIFFERS]
    resized = len(pairs) - len(differ)
    if not differ:
        amounts = f"; {resized} of {total} by other amounts" if resized else ", by the same amounts"
        return f"No tensor behaves differently: each moves or stays for the same reasons{amounts}."
    first = next((pair for pair in differ if _one_stays(pair)), differ[0])
    step = first.where
    rest = f" {resized} more: the same reasons, other amounts." if resized else ""
    return (
        f"{len(differ)} of {plural(total, 'tensor')} {'behaves' if len(differ) == 1 else 'behave'} "
        f"differently: in step {step}, {printable(first.name)} {_does(first.left.steps[step])} on the left "
        f"and {_does(first.right.steps[step])} on the right.{rest}"
    )


def _one_stays(pair: _Pair) -> bool:
    """Whether it moves on one side only, where it last differs: the plainest difference."""
    sides = (pair.left.steps[pair.where], pair.right.steps[pair.where])
    return len({side is not None and side.moved for side in sides}) == 2


def _does(t: TensorStep | None) -> str:
    if t is None:
        return "is not there"
    return _MOVES.get(t.reason, f"moves by {t.reason.value}") if t.moved else f"stays ({t.reason.value})"


def _table(
    pairs: Sequence[_Pair],
    equal: Sequence[_Pair],
    runs: tuple[Sequence[Step], Sequence[Step]],
    settings: tuple[str, str],
    folded: bool,
) -> Table:
    shown = [*pairs, *([] if folded else equal)]
    items = [Item(pair.name, pair.kind, False) for pair in shown]
    groups = [(group.label, [shown[at] for at in group.positions]) for group in fold(items)]
    with_why = any(pair.mark for pair in shown)
    columns = [Column("tensor", code=True, names=True)]
    columns += [
        Column(side, f"one symbol a step: {_span(run)}") for side, run in zip(SIDES, runs, strict=True)
    ]
    columns += [Column("last difference", "in which step, and why each side did what it did")] * with_why
    columns += [
        Column(
            f"last {RATIO.column.title.partition(' ')[0]} {side}", "of the last step: a ratio", "right", True
        )
        for side in SIDES
    ]
    both = [_span(run) for run in runs]
    spans = both[0] if both[0] == both[1] else f"{both[0]} on the left, {both[1]} on the right"
    same = Fold(f"{len(equal)} tensors are the same on both sides", tuple(printable(p.name) for p in equal))
    return Table(
        title="; ".join(f"{side}: {printable(s)}" for side, s in zip(SIDES, settings, strict=True) if s),
        columns=tuple(columns),
        rows=tuple(_row(label, group, with_why) for label, group in groups),
        folds=(same,) * folded,
        notes=(f"one symbol a step: {spans}", *_notes([*pairs, *equal])),
    )


def _span(run: Sequence[Step]) -> str:
    """Which steps the symbols stand for."""
    if len(run) < 2:
        return "step 0" if run else "no step"
    return f"steps {max(0, len(run) - SHOWN)} to {len(run) - 1}"


def _row(label: str, group: Sequence[_Pair], with_why: bool) -> Row:
    first = group[0]
    name = printable(label) + (f": {len(group)} tensors" if len(group) > 1 else "")
    cells = [Cell(name, mark=first.mark), _symbols(first.left), _symbols(first.right)]
    if with_why:
        cells.append(_why(first))
    for lasts in ([p.left.last for p in group], [p.right.last for p in group]):
        there = [t for t in lasts if t]
        cells.append(RATIO.cell(there) if there else Cell(MISSING))
    return Row(tuple(cells), tuple(printable(pair.name) for pair in group))


def _symbols(side: _Side) -> Cell:
    """One symbol a step, in full on hover; of a long run the last steps."""
    shown = side.steps[-SHOWN:]
    text = " ".join(ALPHABET[t.reason].symbol if t else MISSING for t in shown)
    hover = "; ".join(
        f"step {len(side.steps) - len(shown) + at}: {ALPHABET[t.reason].sentence}"
        for at, t in enumerate(shown)
        if t
    )
    return Cell(text, hover, mark=side.marks)


def _why(pair: _Pair) -> Cell:
    if not pair.mark:
        return Cell("")
    sides = (pair.left.steps[pair.where], pair.right.steps[pair.where])
    if pair.mark == RESIZED:
        sizes = [t.delta_norm if t else 0.0 for t in sides]
        for said in ([short(size) for size in sizes], [precise(size) for size in sizes]):
            if said[0] != said[1]:
                return Cell(f"step {pair.where}: ‖Δ‖ {said[0]} {DIFFERS} {said[1]}", "the same reasons")
        return Cell(f"step {pair.where}: ‖Δ‖ {short(sizes[0])}, but for its last digits", "the same reasons")
    words = [symbol_and_word(t.reason) if t else MISSING for t in sides]
    hover = [f"{side}: {ALPHABET[t.reason].sentence}" for side, t in zip(SIDES, sides, strict=True) if t]
    return Cell(f"step {pair.where}: {words[0]} {DIFFERS} {words[1]}", "; ".join(hover))


def _notes(pairs: Sequence[_Pair]) -> Iterator[str]:
    marks = {pair.mark for pair in pairs}
    sides = [side for pair in pairs for side in (pair.left, pair.right)]
    if DIFFERS in marks:
        yield f"{DIFFERS} another reason"
    if RESIZED in marks:
        yield f"{RESIZED} the same reasons, other amounts"
    if any(side.alarmed for side in sides):
        yield f"{ALARM} an alarm names it"
    if any(FROZEN in side.marks for side in sides):
        yield f"{FROZEN} frozen"
    yield used_words({t.reason for side in sides for t in side.steps if t})
