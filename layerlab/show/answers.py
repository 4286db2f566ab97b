"""One column each: what it says of one tensor in a step, or of several alike ones that share a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerlab.printable import printable
from layerlab.record import Reason, TensorStep
from layerlab.show.alphabet import ALARM, ALPHABET, FROZEN, symbol_and_word
from layerlab.show.judge import changed_outside_too, is_counter, went_backwards
from layerlab.show.page import Cell, Column
from layerlab.show.words import MISSING, plural, precise, short, span, with_tied

DECADES = 6
"""The bar's log scale: from 1e-6 to 1, the same in every row of every step."""
GRAD_WORDS = {"none": "none", "zero": "zero", "nonzero": "nonzero", "nonfinite": "inf or NaN"}
"""How each state of a gradient is called."""


@dataclass(frozen=True)
class Answer:
    """A column, and how to fill its cell for one row."""

    column: Column
    cell: Callable[[Sequence[TensorStep]], Cell]
    ordinary: tuple[str, ...] = ()
    """Texts that say nothing new: a column that holds no other is left out."""

    def is_ordinary(self, cell: Cell) -> bool:
        """Whether a cell of this column says nothing new."""
        return bool(self.ordinary) and cell.text in (*self.ordinary, MISSING)


def name_cell(ts: Sequence[TensorStep], label: str, *, alarmed: bool) -> Cell:
    """Name one tensor (with the names it is tied to), or say what several have in common."""
    first = ts[0]
    marks = (ALARM if alarmed else "") + (FROZEN if first.frozen else "")
    hover = ["an alarm names it"] * alarmed
    if first.frozen:
        hover.append(f"frozen by {first.frozen}")
    if len(ts) > 1:
        noun = "buffers" if all(t.info.kind == "buffer" for t in ts) else "tensors"
        text = f"{printable(label)}: {len(ts)} {noun}"
    else:
        text = with_tied(first.info.names)
        size = "×".join(map(str, first.info.shape)) or "scalar"
        hover.append(f"{first.info.kind} {size} of {printable(first.info.module_type)}")
    return Cell(text, hover="; ".join(hover), mark=marks)


def _bar(ts: Sequence[TensorStep]) -> Cell:
    ratios = [t.update_ratio for t in ts if t.moved and not is_counter(t)]
    largest = max((r for r in ratios if not math.isnan(r)), default=None)
    if largest is None:
        return Cell("")
    fill = 1 + math.log10(largest) / DECADES if largest > 0 else 0.0
    return Cell("", bar=min(max(fill, 0.0), 1.0), reason=ts[0].reason)


def _ratio(ts: Sequence[TensorStep]) -> Cell:
    first = ts[0]
    if len(ts) > 1:
        ratios = [t.update_ratio for t in ts if not (t.moved and is_counter(t))]
        return Cell(span(ratios) if ratios else f"by {span(t.delta_max for t in ts)}")
    if not first.moved:
        return Cell("0", "no bit of it changed")
    sizes = {"‖Δ‖": first.delta_norm, "‖w‖": first.weight_norm, "largest |Δ|": first.delta_max}
    hover = ", ".join(f"{name} = {precise(size)}" for name, size in sizes.items())
    if is_counter(first):
        return Cell(f"by {short(first.delta_max)}", hover)
    was_zero = " (was 0)" if first.weight_norm == 0 else ""
    return Cell(short(first.update_ratio) + was_zero, hover)


def _why(ts: Sequence[TensorStep]) -> Cell:
    first = ts[0]
    text, hover = symbol_and_word(first.reason), ALPHABET[first.reason].sentence
    if changed_outside_too(first):
        text += f", {symbol_and_word(Reason.OUTSIDE)}"
        hover += "; it had already changed before the optimizer began to step"
    return Cell(text, hover, reason=first.reason)


def _grad(ts: Sequence[TensorStep]) -> Cell:
    first = ts[0]
    if first.info.kind == "buffer":
        return Cell(MISSING, "a buffer has no gradient")
    text = GRAD_WORDS[first.grad]
    if first.grad_stale:
        text += ", stale"
    rows = max(t.zero_grad_rows_moved for t in ts)
    if rows:
        text += f", {plural(rows, 'zero row')} moved"
    return Cell(text, f"largest |gradient| = {precise(max(t.grad_max for t in ts))}")


def _parts(ts: Sequence[TensorStep]) -> Cell:
    measured = [t.parts for t in ts if t.parts]
    if not measured:
        return Cell(MISSING)
    norms = {
        Reason.GRADIENT: [p.gradient for p in measured],
        Reason.MOMENTUM: [p.momentum for p in measured],
        Reason.WEIGHT_DECAY: [p.weight_decay for p in measured],
    }
    totals = [sum(three) for three in zip(*norms.values(), strict=True)]
    shares = {
        reason: [n / total if total else 0.0 for n, total in zip(some, totals, strict=True)]
        for reason, some in norms.items()
    }
    text = " ".join(
        f"{ALPHABET[reason].symbol} {_percent(some)}"
        for reason, some in shares.items()
        if not all(share < 0.005 for share in some)  # NaN is said
    )
    if any(p.sampled for p in measured):
        text = f"~{text}"
    if went_backwards(ts[0]):
        text += ", against its gradient"
    if len(ts) > 1:
        return Cell(text or MISSING)
    hover = ", ".join(f"{reason.value} {precise(some[0])}" for reason, some in norms.items())
    p = measured[0]
    return Cell(text or MISSING, f"norms: {hover}; measured on {p.elements} of {p.total} elements")


def _percent(shares: Sequence[float]) -> str:
    if any(map(math.isnan, shares)):
        return "nan"
    return "…".join(dict.fromkeys(f"{100 * share:.0f}" for share in (min(shares), max(shares)))) + "%"


def _lr(ts: Sequence[TensorStep]) -> Cell:
    lrs = sorted({t.lr for t in ts if t.lr is not None})
    if not lrs:
        return Cell(MISSING, "in no optimizer")
    return Cell("…".join(dict.fromkeys(f"{lr:g}" for lr in (lrs[0], lrs[-1]))))


def _mode(ts: Sequence[TensorStep]) -> Cell:
    return Cell("train" if ts[0].training else "eval")


RATIO = Answer(Column("‖Δ‖/‖w‖ (ratio)", align="right", code=True), _ratio)
PARTS = Answer(Column("parts (share of norms)"), _parts, ordinary=("● 100%", "~● 100%"))
LR = Answer(Column("lr", align="right", code=True), _lr)
ANSWERS = (
    Answer(Column("moved"), _bar),
    RATIO,
    Answer(Column("why"), _why),
    Answer(Column("grad"), _grad, ordinary=("nonzero",)),
    PARTS,
    LR,
    Answer(Column("mode"), _mode, ordinary=("train",)),
)
"""What a step's table asks of each tensor, in this order."""
