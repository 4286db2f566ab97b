"""Lesson 11's two witnesses: what an audit said before training, beside what a ledger saw during it."""

from __future__ import annotations

from collections.abc import Iterable

from layerlab.auditing import Audit, Finding
from layerlab.ledger import Ledger
from layerlab.lessons_support.scoring import asked_about
from layerlab.record import TensorStep
from layerlab.show import Shown
from layerlab.show.alphabet import ALPHABET
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.warn import alarmed_names, is_alarmed
from layerlab.show.words import MISSING, plural, printable, some

_ALARM = "⚠"


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
        Row((Cell(finding.place), _told([finding]), Cell(MISSING), Cell("it has no tensor to watch")))
        for finding in found
        if finding not in spoken
    ]
    alarmed = alarmed_names(ledger.alarms)
    alike: dict[tuple[object, ...], list[str]] = {}
    marked: set[str] = set()
    for name in asked:
        history = tuple(step[name].reason for step in ledger)
        alarm = any(is_alarmed(step[name], alarmed) for step in ledger)
        if alarm:
            marked.add(name)
        alike.setdefault((first[name].info.module, said[name], history, alarm), []).append(name)
    for names in alike.values():
        alarm = names[0] in marked
        steps = [step[names[0]] for step in ledger]
        symbols = " ".join(ALPHABET[t.reason].symbol for t in steps)
        cells = (
            Cell(some([printable(name) for name in names])),
            _told(said[names[0]]),
            Cell(symbols, reason=steps[-1].reason),
            Cell(_fate(steps), mark=_ALARM if alarm else ""),
        )
        rows.append(Row(cells, tuple(map(printable, names)), "alarm" if alarm else None))
    page = Table(
        title=f"the audit, before, and the ledger, during {plural(len(ledger), 'step')}",
        columns=(
            Column("tensor", code=True, names=True),
            Column("the audit said"),
            Column("step by step", code=True),
            Column("the ledger saw"),
        ),
        rows=tuple(rows),
        notes=(f"{_ALARM} the ledger has an alarm about it",) if any(row.level for row in rows) else (),
    )
    return Shown(Description(tables=(page,)))


def _speaks_of(finding: Finding, t: TensorStep) -> bool:
    """Whether a finding is about this tensor: by one of its names, or by a module that it lies in."""
    if finding.code == "empty-group":  # what an empty group lacks is in no group
        return t.info.kind == "parameter" and t.optimizer is None and t.requires_grad
    if finding.code == "frozen-statistics" and t.info.kind != "buffer":
        return False
    return any(name == one or name.startswith(f"{one}.") for one in finding.names for name in t.info.names)


def _told(findings: Iterable[Finding]) -> Cell:
    findings = list(findings)
    words = ", ".join(f"{finding.code} ({finding.level})" for finding in findings)
    return Cell(words or "nothing", hover=" ".join(finding.effect for finding in findings))


def _fate(steps: Iterable[TensorStep]) -> str:
    """What became of a tensor, each reason once: ``moved: gradient; stayed: lr = 0``."""
    told: dict[str, dict[str, None]] = {}
    for t in steps:
        told.setdefault("moved" if t.moved else "stayed", {})[t.reason.value] = None
    return "; ".join(f"{what}: {', '.join(reasons)}" for what, reasons in told.items())
