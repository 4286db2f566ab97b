"""Lesson 11's two witnesses: what an audit said before training, beside what a ledger saw during it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerlab.auditing import Audit, Finding
from layerlab.ledger import Ledger
from layerlab.lessons_support.scoring import asked_about
from layerlab.printable import printable
from layerlab.record import Alarm, TensorStep
from layerlab.show import Shown
from layerlab.show.alphabet import ALPHABET
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.words import MISSING, plural, some

_ALARM, _NOTE = "⚠", "!"


def side_by_side(found: Audit, ledger: Ledger) -> Shown:
    """Show for each tensor what an audit said of it, and what the steps of a ledger did to it.

    Tensors of the same fate share a row. A finding about no tensor that the ledger watches (a softmax) has a
    row of its own.

    Raises
    ------
    ValueError
        If the ledger has no step.
    """
    if not ledger:
        raise ValueError("this ledger has no step: train inside `with ll.watch(…)`")
    first = ledger[0]
    asked = asked_about(t.info for t in first.values())
    said = {name: tuple(finding for finding in found if _speaks_of(finding, first[name])) for name in asked}
    spoken = {finding for findings in said.values() for finding in findings}
    rows = [
        Row(
            (
                Cell(finding.place),
                _told([finding]),
                *[Cell(MISSING)] * len(ledger),
                Cell("no tensor to watch"),
            )
        )
        for finding in found
        if finding not in spoken
    ]
    alike: dict[tuple[object, ...], list[str]] = {}
    for name in asked:
        history = tuple(step[name].reason for step in ledger)
        key = (first[name].info.module, said[name], history, _fate(name, ledger))
        alike.setdefault(key, []).append(name)
    for names in alike.values():
        reasons = [step[names[0]].reason for step in ledger]
        symbols = [Cell(ALPHABET[r].symbol, ALPHABET[r].sentence, reason=r) for r in reasons]
        fate = _fate(names[0], ledger)
        shown = tuple(printable(name) for name in names)
        rows.append(Row((Cell(some(shown)), _told(said[names[0]]), *symbols, fate), shown))
    page = Table(
        title=f"what the audit said, and what {plural(len(ledger), 'step')} did",
        columns=(
            Column("tensor", code=True, names=True),
            Column("the audit"),
            *[Column(str(step.index), code=True) for step in ledger],
            Column("the ledger"),
        ),
        rows=tuple(rows),
    )
    return Shown(Description(tables=(page,)))


def _speaks_of(finding: Finding, t: TensorStep) -> bool:
    """Whether a finding is about this tensor: by one of its names, or by a module that it lies in."""
    if finding.code == "empty-group":  # what an empty group lacks is in no group
        return t.info.kind == "parameter" and t.optimizer is None and t.requires_grad
    if finding.code == "frozen-statistics" and t.info.kind != "buffer":
        return False
    return any(name == one or name.startswith(f"{one}.") for one in finding.names for name in t.info.names)


def _told(findings: Sequence[Finding]) -> Cell:
    if not findings:
        return Cell(MISSING)
    words = ", ".join(finding.code for finding in findings)
    effects = " ".join(finding.effect for finding in findings)
    return Cell(
        words, effects, mark=_NOTE if all(finding.level == "note" for finding in findings) else _ALARM
    )


def _fate(name: str, ledger: Ledger) -> Cell:
    """The first alarm about a tensor, if there is one; else each reason once: ``moved: gradient``."""
    alarms = [alarm for alarm in ledger.alarms if _is_about(alarm, ledger[0][name])]
    if alarms:
        what = printable(alarms[0].what)
        since = f"step {alarms[0].step}: " if alarms[0].step > 0 else ""
        short = re.sub(r" \([^)]*\)$", "", what.partition(": ")[0])
        return Cell(since + short, f"{what}: {printable(alarms[0].cause)}", mark=_ALARM)
    told: dict[str, dict[str, None]] = {}
    for t in (step[name] for step in ledger):
        told.setdefault("moved" if t.moved else "stayed", {})[t.reason.value] = None
    return Cell("; ".join(f"{what}: {', '.join(reasons)}" for what, reasons in told.items()))


def _is_about(alarm: Alarm, t: TensorStep) -> bool:
    """Whether an alarm names a tensor, or the module that owns it (and then only what moved of it)."""
    named = alarm.name in t.info.names or (t.moved and alarm.name == t.info.module)
    return named and alarm.level == "alarm"
