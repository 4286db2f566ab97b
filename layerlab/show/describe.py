"""One optimizer step as a neutral description."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from layerlab.printable import printable
from layerlab.record import Reason, Step, TensorStep
from layerlab.show.alphabet import FROZEN
from layerlab.show.answers import ANSWERS, DECADES, LR, PARTS, Answer, name_cell
from layerlab.show.fold import SMALL, Group, Item, fold
from layerlab.show.judge import is_counter, is_surprising, kind
from layerlab.show.page import Column, Description, Fold, Row, Table
from layerlab.show.warn import alarmed_names, is_alarmed, warnings_of
from layerlab.show.words import plural


def describe_step(step: Step) -> Description:
    """Describe one step: its alarms, then one row a tensor in the model's order.

    In networks with more than 8 tensors, tensors that stayed for one reason share a line; where more than
    20 rows would remain, alike ones are folded by module. What an alarm names, or what moved for an unusual
    reason, keeps its own row (unless more than 20 tensors tell the very same tale).
    """
    return Description(alarms=warnings_of(step.alarms), tables=(step_table(step),))


def step_table(step: Step) -> Table:
    """Tabulate one step, without its alarms."""
    alarmed = alarmed_names(step.alarms)
    tensors = list(step.values())
    folded = _stayed_alike(tensors, alarmed)
    hidden = {t.name for group in folded.values() for t in group}
    rest = [t for t in tensors if t.name not in hidden]
    items = [Item(t.name, kind(t, alarmed), is_surprising(t, alarmed)) for t in rest]
    groups = [(group, [rest[i] for i in group.positions]) for group in fold(items)]
    lrs = {t.lr for t in tensors if t.lr is not None}
    shown = [
        answer
        for answer in ANSWERS
        if any(not answer.is_ordinary(answer.cell(ts)) for _, ts in groups)
        and (answer is not LR or len(lrs) > 1)  # one lr for all stands in the title
    ]
    return Table(
        title=_title(step, lrs),
        columns=(Column("tensor", code=True, names=True), *(answer.column for answer in shown)),
        rows=tuple(_row(group, ts, shown, alarmed) for group, ts in groups),
        folds=tuple(_still(reason, frozen, group) for (reason, frozen), group in folded.items()),
        notes=tuple(_notes(step, shown)),
    )


def _stayed_alike(
    tensors: Sequence[TensorStep], alarmed: frozenset[str]
) -> dict[tuple[Reason, bool], list[TensorStep]]:
    """Find the unsurprising tensors that stayed for one reason, where there are too many to show all."""
    alike: dict[tuple[Reason, bool], list[TensorStep]] = defaultdict(list)
    if len(tensors) > SMALL:
        for t in tensors:
            if not t.moved and not is_surprising(t, alarmed):
                alike[t.reason, t.frozen is not None].append(t)
    return {key: group for key, group in alike.items() if len(group) > 1}


def _row(group: Group, ts: list[TensorStep], shown: list[Answer], alarmed: frozenset[str]) -> Row:
    marked = is_alarmed(ts[0], alarmed)
    name = name_cell(ts, group.label, alarmed=marked)
    return Row(
        cells=(name, *(answer.cell(ts) for answer in shown)),
        names=tuple(printable(t.name) for t in ts),
        level="alarm" if marked else None,
    )


def _still(reason: Reason, frozen: bool, ts: Sequence[TensorStep]) -> Fold:
    what = f"{FROZEN} {len(ts)} frozen tensors" if frozen else f"{len(ts)} tensors"
    return Fold(f"{what} stayed: {reason.value}", tuple(printable(t.name) for t in ts))


def _title(step: Step, lrs: set[float]) -> str:
    which = f" (optimizer {step.optimizer})" if step.optimizer else ""
    lr = f", lr {next(iter(lrs)):g}" if len(lrs) == 1 else ""
    failed = "" if step.completed else "step() raised before it finished; "
    moved = f"{len(step.moved)} of {plural(len(step), 'tensor')} moved"
    return f"step {step.index}, {printable(step.optimizer_type)}{which}{lr}: {failed}{moved}"


def _notes(step: Step, shown: Sequence[Answer]) -> Iterator[str]:
    tensors = step.tensors.values()
    if step.note:
        yield f"not replayed: {printable(step.note)}"
    if not tensors:
        yield "the model has no parameters and no buffers"
    if any(t.moved and not is_counter(t) for t in tensors):
        yield f"bar: the ratio on a log scale, empty at 1e-{DECADES}, full at 1"
    if any(t.frozen for t in tensors):
        yield f"{FROZEN} frozen"
    if PARTS in shown and any(t.parts and t.parts.sampled for t in tensors):
        yield "~ measured on a sample of the tensor's elements"
