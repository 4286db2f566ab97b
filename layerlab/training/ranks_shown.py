"""How a comparison of ranks is shown: a row for each tensor, what became of it on each rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerlab.printable import printable
from layerlab.record import Reason
from layerlab.show.alphabet import ALARM, ALPHABET
from layerlab.show.page import Cell, Column, Description, Fold, Row, Table
from layerlab.show.warn import warnings_of
from layerlab.show.words import plural

if TYPE_CHECKING:
    from layerlab.training.ranks import RankComparison, RankRecord

APART, SAME = "≠", "the same bits"
SHOWN = 12
"""Steps that are shown: the last ones."""
SMALL, LARGE = 12, 20
"""Up to how many tensors all have a row of their own, and how many of those that parted have one at most."""


def describe_ranks(comparison: RankComparison) -> Description:
    """Describe a comparison: its alarms, and a row for each tensor; of many, for those that parted."""
    records, first = comparison.records, comparison.first
    steps = max(len(record.steps) for record in records)
    shown = range(max(0, steps - SHOWN), steps)
    names = list(dict.fromkeys(name for record in records for moment in record.digests for name in moment))
    alike = [name for name in names if name not in first] if len(names) > SMALL else []
    more = [name for name in names if name in first][LARGE:]
    hidden = {*alike, *more}
    rows = []
    for name in (name for name in names if name not in hidden):
        when = first.get(name)
        apart = when is not None
        verdict = SAME if when is None else f"{APART} from step {when}"
        if when == -1:
            verdict = f"{APART} before step 0"
        rows.append(
            Row(
                (
                    Cell(printable(name), mark=ALARM if apart else ""),
                    *(Cell(_symbols(record, name, shown)) for record in records),
                    Cell(verdict),
                ),
                names=(printable(name),),
                level="alarm" if apart else None,
            )
        )
    of = f"the last {len(shown)} of {steps} steps" if len(shown) < steps else plural(steps, "step")
    page = Table(
        title=f"{plural(len(records), 'rank')}, {of}: "
        + (f"{plural(len(first), 'tensor')} parted" if first else "all tensors are the same, bit for bit"),
        columns=(
            Column("tensor", code=True, names=True),
            *(Column(f"rank {record.rank}", code=True) for record in records),
            Column("on all ranks"),
        ),
        rows=tuple(rows),
        folds=tuple(_fold(text, some) for text, some in ((SAME, alike), ("parted too", more)) if some),
        notes=(_legend(records, shown),) if steps else ("no step was taken",),
    )
    return Description(alarms=warnings_of(comparison.alarms), tables=(page,))


def _fold(what: str, names: Sequence[str]) -> Fold:
    return Fold(f"{plural(len(names), 'tensor')}: {what}", tuple(printable(name) for name in names))


def _symbols(record: RankRecord, name: str, shown: range) -> str:
    facts = [record.steps[at].tensors.get(name) if at < len(record.steps) else None for at in shown]
    return " ".join(ALPHABET[fact.reason].symbol if fact else "·" for fact in facts)


def _legend(records: Sequence[RankRecord], shown: range) -> str:
    """The symbols that occur, a sign for each step: ``● gradient  ○ stayed``."""
    reasons = {
        fact.reason for record in records for step in record.steps[shown.start :] for fact in step.values()
    }
    words = {ALPHABET[r].symbol: ALPHABET[r].word for r in Reason if r in reasons}
    if "○" in words:
        words["○"] = "stayed"
    return "a sign for each step: " + "  ".join(f"{symbol} {word}" for symbol, word in words.items())
