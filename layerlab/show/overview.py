"""Many steps of a ledger in few bytes, for a view in the browser that moves through them by itself.

What few rows say alike is sent once (`_facts_of`, as words) and pointed to by number; only numbers are sent
for every tensor and step: 9 bytes each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from layerlab.printable import printable
from layerlab.record import Reason, Step, TensorInfo, TensorStep
from layerlab.show.alphabet import ALPHABET, ink
from layerlab.show.answers import GRAD_WORDS, name_cell
from layerlab.show.judge import changed_outside_too, is_counter, went_backwards
from layerlab.show.page import Warn
from layerlab.show.warn import alarmed_names, is_alarmed, warnings_of
from layerlab.show.words import plural

BUDGET = 64 * 1024
"""Bytes that one overview takes at most, where a single step fits into them."""
STRETCHES = 200
"""Stretches of steps with alarms that are sent at most."""
LONGEST = 500
"""Steps that one overview holds at most."""
ABSENT = 0xFFFF
"""Stands for the facts of a tensor that was not there in a step."""
UNKNOWN_SHARE = 255
LITTLE = 254
"""Stands for a share that is not zero and less than one per cent."""
_ROW = np.dtype([("facts", "<u2"), ("ratio", "<f4"), ("shares", "u1", (3,))])


class Overview:
    """Encodes the steps of one growing ledger, each step once.

    `window` gives what is sent: plain data for JSON, and bytes. The bytes hold for each step, and in it for
    each tensor in the order of ``tensors``: the number of its facts (uint16, 65535: not there), ‖Δ‖/‖w‖
    (float32; for an integer counter: by how much it moved), and the shares of the gradient, momentum and
    weight-decay parts in per cent (uint8; 254: below one, 255: not measured). Little-endian, all facts
    first, then all ratios, then all shares.
    """

    def __init__(self) -> None:
        self._rows: list[npt.NDArray[Any]] = []
        self._heads: list[dict[str, Any]] = []
        self._tensors: dict[str, TensorInfo] = {}
        self._facts: dict[Hashable, int] = {}
        self._said: list[dict[str, Any]] = []
        self._warns: dict[Warn, int] = {}
        self._alarms: list[list[int]] = []

    def read(self, steps: Sequence[Step]) -> None:
        """Encode the steps that are new since the last call."""
        for step in steps[len(self._rows) :]:
            self._rows.append(self._encode(step))
            self._heads.append(self._head(step))
            if self._heads[-1]["alarms"]:
                self._note_alarm(len(self._heads) - 1)

    def window(self, around: int | None = None) -> dict[str, Any]:
        """Return the newest steps, or those around one step, as many as the budget allows.

        Returns
        -------
        dict
            ``count``: steps recorded in all; ``first``: the first one that is sent; ``alarms``: stretches of
            steps with alarms, first and last, the first 200 of them; ``steps``, ``facts``, ``warns``,
            ``letters``: plain data; ``rows``: bytes.
        """
        count = len(self._rows)
        around = count - 1 if around is None else around
        length = min(count, LONGEST, max(1, BUDGET // (_ROW.itemsize * len(self._tensors) + 60)))
        while True:
            first = min(max(around - length // 2, 0), count - length)
            sent = self._pack(first, first + length)
            if length <= 1 or _size(sent) <= BUDGET:
                return sent
            length = length * 4 // 5

    def tensors(self) -> list[list[Any]]:
        """Describe the tensors, in the order of the rows: sent apart, for they hardly ever change.

        Each is a list: name, kind, shape, dtype, module type, names that it is tied to; and the name as it is
        where that cannot be printed.
        """
        return [_described(info) for info in self._tensors.values()]

    def _note_alarm(self, index: int) -> None:
        if self._alarms and self._alarms[-1][1] == index - 1:
            self._alarms[-1][1] = index
        else:
            self._alarms.append([index, index])

    def _pack(self, first: int, last: int) -> dict[str, Any]:
        tables = [self._table(row) for row in self._rows[first:last]]
        table = np.stack(tables) if tables else np.zeros((0, len(self._tensors)), _ROW)
        used = sorted({int(i) for i in np.unique(table["facts"])} - {ABSENT})
        numbers = np.full(ABSENT + 1, ABSENT, "<u2")
        numbers[used] = np.arange(len(used))
        heads = self._heads[first:last]
        warned = sorted({i for head in heads for i in head["warns"]})
        warns = list(self._warns)
        return {
            "count": len(self._rows),
            "first": first,
            "alarms": [list(stretch) for stretch in self._alarms[:STRETCHES]],
            "steps": [head | {"warns": [warned.index(i) for i in head["warns"]]} for head in heads],
            "facts": [self._said[i] for i in used],
            "warns": [asdict(warns[i]) for i in warned],
            "letters": {
                r.value: asdict(letter) | {"ink": ink(letter.colour)} for r, letter in ALPHABET.items()
            },
            "rows": b"".join(
                part.tobytes() for part in (numbers[table["facts"]], table["ratio"], table["shares"])
            ),
        }

    def _table(self, row: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Lengthen a row that was encoded before some tensors were known."""
        whole = np.zeros(len(self._tensors), _ROW)
        whole["facts"] = ABSENT
        whole[: len(row)] = row
        return whole

    def _encode(self, step: Step) -> npt.NDArray[Any]:
        alarmed = alarmed_names(step.alarms)
        for t in step.values():
            self._tensors[t.name] = t.info
        row = np.zeros(len(self._tensors), _ROW)
        row["facts"] = ABSENT
        position = {name: i for i, name in enumerate(self._tensors)}
        for t in step.values():
            at = position[t.name]
            ratio = t.delta_max if t.moved and is_counter(t) else t.update_ratio
            row[at] = (self._number(t, alarmed), ratio, _shares(t))
        return row

    def _number(self, t: TensorStep, alarmed: frozenset[str]) -> int:
        marked = is_alarmed(t, alarmed)
        sampled = t.parts is not None and t.parts.sampled
        key = (
            *(t.reason, t.moved, t.frozen, t.requires_grad, t.grad, t.grad_stale, t.training),
            *(t.optimizer, t.group, t.weight_decay, t.zero_grad_rows_moved > 0, changed_outside_too(t)),
            *(went_backwards(t), is_counter(t), t.info.kind, len(t.info.names), marked, sampled),
        )
        number = self._facts.get(key)
        if number is None:
            number = self._facts[key] = len(self._said)
            self._said.append(_facts_of(t, alarmed=marked))
        return number

    def _head(self, step: Step) -> dict[str, Any]:
        warns = warnings_of(step.alarms)
        lrs = {(t.optimizer, t.group): t.lr for t in step.values() if t.lr is not None}
        return {
            "optimizer": printable(step.optimizer_type) + (f" ({step.optimizer})" if step.optimizer else ""),
            "completed": step.completed,
            "note": printable(step.note),
            "moved": len(step.moved),
            "total": len(step),
            "lrs": {f"{optimizer}.{group}": f"{lr:g}" for (optimizer, group), lr in lrs.items()},
            "warns": [self._warns.setdefault(warn, len(self._warns)) for warn in warns],
            "alarms": sum(warn.level == "alarm" for warn in warns),
        }


def _described(info: TensorInfo) -> list[Any]:
    shape = "×".join(map(str, info.shape)) or "scalar"
    tied = [printable(name) for name in info.names if name != info.name]
    said = [printable(info.name), info.kind, shape, info.dtype, printable(info.module_type), tied]
    return [*said, info.name] if said[0] != info.name else said


def _facts_of(t: TensorStep, *, alarmed: bool) -> dict[str, Any]:
    """Say in words what a row says, but for its numbers."""
    held = "none: in no optimizer" if t.group is None else str(t.group)
    if t.optimizer:
        held += f" of optimizer {t.optimizer}"
    grad = GRAD_WORDS[t.grad] + (", stale" if t.grad_stale else "")
    parameter = t.info.kind == "parameter"
    return {
        "reason": t.reason.value,
        "moved": t.moved,
        "marks": name_cell([t], t.name, alarmed=alarmed).mark,
        "alarmed": alarmed,
        "parameter": parameter,
        "counter": is_counter(t),
        "sampled": t.parts is not None and t.parts.sampled,
        "place": None if t.group is None else f"{t.optimizer}.{t.group}",
        "asides": _asides(t, grad),
        "said": [
            ["requires_grad", str(t.requires_grad)] if parameter else ["kind", "buffer: no gradient"],
            *([["frozen by", t.frozen]] if t.frozen else []),
            *([["grad", grad]] if parameter else []),
            *([["parameter group", held]] if parameter else []),
            *([["weight decay", f"{t.weight_decay:g}"]] if t.weight_decay is not None else []),
            ["mode", "train" if t.training else "eval"],
        ],
    }


def _asides(t: TensorStep, grad: str) -> list[str]:
    """List what is worth a small mark in a row, because it is out of the ordinary."""
    told = {Reason.NO_GRADIENT: "none", Reason.ZERO_GRADIENT: "zero"}.get(t.reason, "nonzero")
    said = [f"grad {grad}"] if t.info.kind == "parameter" and grad not in ("nonzero", told) else []
    if not t.training:
        said.append("eval")
    if t.info.kind == "parameter" and t.group is None:
        said.append("in no optimizer")
    if t.zero_grad_rows_moved:
        said.append("rows with zero grad moved")
    if went_backwards(t):
        said.append("against its gradient")
    if changed_outside_too(t):
        said.append("also changed outside the step")
    if t.info.names[1:]:
        said.append(f"tied to {plural(len(t.info.names) - 1, 'other name')}")
    return said


def _shares(t: TensorStep) -> tuple[int, int, int]:
    if t.parts is None:
        return (UNKNOWN_SHARE,) * 3
    norms = (t.parts.gradient, t.parts.momentum, t.parts.weight_decay)
    total = sum(norms)
    if not math.isfinite(total) or total <= 0:
        return (UNKNOWN_SHARE,) * 3
    first, second, third = (LITTLE if 0 < norm < total / 100 else round(100 * norm / total) for norm in norms)
    return first, second, third


def _size(sent: dict[str, Any]) -> int:
    """Count the bytes of a message: what is plain as JSON, and the rest as it is."""
    plain = {key: value for key, value in sent.items() if key != "rows"}
    return len(json.dumps(plain, ensure_ascii=False).encode()) + len(sent["rows"])  # as Jupyter writes it
