"""A whole ledger as a neutral description: which tensor moved in which step, then the last step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from layerlab.printable import printable
from layerlab.record import Alarm, Reason, Step, TensorStep
from layerlab.show.alphabet import ALPHABET, used_words
from layerlab.show.answers import name_cell
from layerlab.show.describe import step_table
from layerlab.show.fold import Item, fold
from layerlab.show.judge import UNUSUAL
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.warn import alarmed_names, is_alarmed, warnings_of
from layerlab.show.words import NO_STEP, plural

SHOWN = 12
"""Steps that get a column of their own: the last ones."""


def describe_steps(steps: Sequence[Step], alarms: Sequence[Alarm]) -> Description:
    """Describe a ledger: alarms, a matrix of tensor × step with each reason's symbol, the last step's table.

    Beyond 12 steps, the matrix shows the last 12 and counts the reasons of the earlier ones in one column.
    """
    warnings = warnings_of(alarms)
    if not steps:
        return Description(alarms=warnings, note=NO_STEP)
    last = step_table(steps[-1])
    return Description(alarms=warnings, tables=(last,) if len(steps) == 1 else (_matrix(steps, alarms), last))


@dataclass(frozen=True)
class _Track:
    """One tensor through all steps."""

    latest: TensorStep
    past: Counter[Reason]
    """Reasons in the steps that have no column."""
    shown: tuple[TensorStep | None, ...]
    """What happened to it in each step that has one."""
    alarmed: bool

    @property
    def kind(self) -> tuple[object, ...]:
        """Tracks of one kind look the same but for the counts of earlier steps."""
        symbols = tuple(t and ALPHABET[t.reason].symbol for t in self.shown)
        return symbols, frozenset(_by_symbol(self.past)), self.alarmed, self.latest.frozen

    @property
    def surprising(self) -> bool:
        reasons = {*self.past, *(t.reason for t in self.shown if t)}
        return self.alarmed or not UNUSUAL.isdisjoint(reasons)


def _matrix(steps: Sequence[Step], alarms: Sequence[Alarm]) -> Table:
    earlier, shown = steps[:-SHOWN], steps[-SHOWN:]
    tracks = _tracks(earlier, shown, alarmed_names(alarms))
    several = len({step.optimizer for step in steps}) > 1
    columns = [Column("tensor", code=True, names=True)]
    if earlier:
        columns.append(Column(f"… {plural(len(earlier), 'earlier step')}", code=True))
    columns += [_heading(step, several) for step in shown]
    groups = fold([Item(track.latest.name, track.kind, track.surprising) for track in tracks])
    return Table(
        title=f"{len(steps)} steps: which tensor moved in which step, and why",
        columns=tuple(columns),
        rows=tuple(
            _row(group.label, [tracks[i] for i in group.positions], shown, earlier) for group in groups
        ),
        notes=tuple(_notes(steps, shown)),
    )


def _tracks(earlier: Sequence[Step], shown: Sequence[Step], alarmed: frozenset[str]) -> list[_Track]:
    latest: dict[str, TensorStep] = {}
    past: dict[str, Counter[Reason]] = defaultdict(Counter)
    marked = set()
    for step in earlier:
        for name, t in step.tensors.items():
            past[name][t.reason] += 1
    for step in (*earlier, *shown):
        latest.update(step.tensors)
        here = alarmed_names(step.alarms)  # a module's alarm is about what moved while it held
        marked |= {name for name, t in step.tensors.items() if is_alarmed(t, here)}
    marked |= {name for name, t in latest.items() if not alarmed.isdisjoint((name, *t.info.names))}
    return [
        _Track(t, past[name], tuple(step.tensors.get(name) for step in shown), name in marked)
        for name, t in latest.items()
    ]


def _row(label: str, tracks: Sequence[_Track], shown: Sequence[Step], earlier: Sequence[Step]) -> Row:
    alarmed = tracks[0].alarmed
    cells = [name_cell([track.latest for track in tracks], label, alarmed=alarmed)]
    if earlier:
        cells.append(_past([track.past for track in tracks]))
    for i, step in enumerate(shown):
        cells.append(_symbol(step, [t for track in tracks if (t := track.shown[i])]))
    names = tuple(printable(track.latest.name) for track in tracks)
    return Row(tuple(cells), names, "alarm" if alarmed else None)


def _heading(step: Step, several: bool) -> Column:
    title = str(step.index) + ("" if step.completed else "!") + (f" opt{step.optimizer}" if several else "")
    raised = "" if step.completed else ": step() raised before it finished"
    hover = f"step {step.index}, optimizer {step.optimizer} ({printable(step.optimizer_type)}){raised}"
    return Column(title, hover, code=True)


def _symbol(step: Step, ts: Sequence[TensorStep]) -> Cell:
    if not ts:
        return Cell("")
    words = dict.fromkeys(ALPHABET[t.reason].sentence for t in ts)
    letter = ALPHABET[ts[0].reason]
    return Cell(letter.symbol, f"step {step.index}: {'; '.join(words)}", reason=ts[0].reason)


def _past(counts: Sequence[Counter[Reason]]) -> Cell:
    """Count the reasons of the earlier steps, by symbol: ``● 900 ○ 88``."""
    each = [_by_symbol(count) for count in counts]
    symbols = [letter.symbol for letter in ALPHABET.values() if letter.symbol in each[0]]
    said = []
    for symbol in dict.fromkeys(symbols):
        ends = min(count[symbol] for count in each), max(count[symbol] for count in each)
        said.append(f"{symbol} {'…'.join(dict.fromkeys(map(str, ends)))}")
    if len(counts) > 1:
        return Cell(" ".join(said))
    return Cell(" ".join(said), ", ".join(f"{r.value}: {plural(n, 'step')}" for r, n in counts[0].items()))


def _by_symbol(count: Counter[Reason]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for reason, n in count.items():
        totals[ALPHABET[reason].symbol] += n
    return totals


def _notes(steps: Sequence[Step], shown: Sequence[Step]) -> list[str]:
    words = used_words({t.reason for step in steps for t in step.values()})
    notes = [words] if words else []
    if any(not step.completed for step in shown):
        notes.append("! step() raised before it finished")
    return notes
