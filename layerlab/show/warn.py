"""Alarms as they are shown: alike ones together, and the rows that they mark."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from layerlab.printable import printable
from layerlab.record import Alarm, TensorStep
from layerlab.show.page import Warn
from layerlab.show.words import likewise


def warnings_of(alarms: Iterable[Alarm]) -> tuple[Warn, ...]:
    """Collect alarms that differ in nothing but the tensor they name; alarms before notices."""
    alike: dict[tuple[str, ...], list[Alarm]] = defaultdict(list)
    for alarm in sorted(alarms, key=lambda a: a.level != "alarm"):
        key = (alarm.level, alarm.code, _nameless(alarm.what, alarm), _nameless(alarm.cause, alarm))
        alike[key].append(alarm)
    return tuple(_warn(group) for group in alike.values())


def alarmed_names(alarms: Iterable[Alarm]) -> frozenset[str]:
    """Names that an alarm speaks of. Notices mark no row: nothing is wrong there."""
    return frozenset(alarm.name for alarm in alarms if alarm.level == "alarm")


def is_alarmed(t: TensorStep, alarmed: frozenset[str]) -> bool:
    """Whether an alarm names this tensor by any of its names, or names its module and it moved."""
    if not alarmed:
        return False
    return not alarmed.isdisjoint((t.name, *t.info.names)) or (t.moved and t.info.module in alarmed)


def _nameless(text: str, alarm: Alarm) -> str:
    """Blank out the tensor's name, also where it is written as code: ``layer1[0]`` for ``layer1.0``."""
    return re.sub(r"\[(\d+)\]", r".\1", text).replace(alarm.name, "\0")


def _warn(group: Sequence[Alarm]) -> Warn:
    first = group[0]
    cure = [printable(line) for line in first.cure.splitlines()]
    if len({alarm.cure for alarm in group}) > 1:
        cure.append(likewise(len(group) - 1))
    return Warn(
        level=first.level,
        names=tuple(printable(alarm.name) for alarm in group),
        what=printable(first.what),
        when=_when(min(alarm.step for alarm in group), max(alarm.count for alarm in group)),
        cause=printable(first.cause),
        cure="\n".join(cure),
    )


def _when(step: int, count: int) -> str:
    if step < 0:
        return "before the first step" if count == 1 else f"before the first step, seen {count} times"
    return f"step {step}" if count == 1 else f"first in step {step}, in {count} steps"
