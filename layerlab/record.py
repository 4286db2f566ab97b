"""The record of what an optimizer step did: plain data, no torch, no display.

Everything above this file either fills these classes in (`layerlab.ledger`, `layerlab.reasons`,
`layerlab.alarms`) or shows them (`layerlab.show`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Literal

from layerlab.printable import printable

Grad = Literal["none", "zero", "nonzero", "nonfinite"]
Level = Literal["alarm", "notice"]


class Reason(str, Enum):
    """Why a tensor moved or stayed: a closed list.

    The first five move a tensor, the others (but `UNKNOWN`, which may be either) leave it where it is.
    """

    GRADIENT = "gradient"
    """It moved, and would have ended elsewhere had its gradient been zero."""
    MOMENTUM = "momentum"
    """It moved by stored optimizer state alone: its gradient was zero (or made no difference)."""
    WEIGHT_DECAY = "weight decay"
    """It moved by weight decay alone, or by more of it than of stored state, without a gradient."""
    FORWARD = "forward pass"
    """A buffer that its module's forward pass rewrote (BatchNorm's running statistics)."""
    OUTSIDE = "outside the step"
    """Something other than a watched optimizer or a forward pass wrote to it: an in-place edit."""

    NOT_IN_OPTIMIZER = "not in the optimizer"
    """It stayed: the optimizer that stepped does not hold it."""
    NO_GRADIENT = "no gradient"
    """It stayed: its ``grad`` was None, so ``step()`` skipped it."""
    ZERO_GRADIENT = "zero gradient"
    """It stayed: its gradient was zero and no stored state or weight decay could move it."""
    LR_ZERO = "lr = 0"
    """It stayed: the learning rate of its parameter group was 0."""
    BELOW_RESOLUTION = "below float resolution"
    """It stayed: the update was too small to change a number of its size and dtype."""
    NONFINITE = "inf or NaN already"
    """It stayed: its numbers were inf or NaN, and no update changes those."""
    SKIPPED = "step skipped"
    """It stayed: a gradient scaler told a fused optimizer to skip this step (inf or NaN found)."""
    UNTOUCHED = "untouched"
    """A buffer that nothing wrote to."""

    UNKNOWN = "unknown"
    """The step could not be replayed, or no replay gave its bits: the cause is not known. Never a guess."""

    def __str__(self) -> str:
        return self.value


MOVED_BY = frozenset(
    {Reason.GRADIENT, Reason.MOMENTUM, Reason.WEIGHT_DECAY, Reason.FORWARD, Reason.OUTSIDE, Reason.UNKNOWN}
)
STAYED_BECAUSE = (frozenset(Reason) - MOVED_BY) | {Reason.UNKNOWN}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What does not change from step to step about one watched tensor."""

    name: str
    """Its first name in the model, wrapper prefixes such as DDP's ``module.`` stripped."""
    names: tuple[str, ...]
    """All its names: more than one when it is tied (shared)."""
    kind: Literal["parameter", "buffer"]
    shape: tuple[int, ...]
    dtype: str
    numel: int
    module: str
    """Name of the module that owns it; the empty string for the model itself."""
    module_type: str


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one step's Δ as Euclidean norms, measured by counterfactual steps on clones.

    ``gradient`` is what vanishes when the gradient is zeroed, ``weight_decay`` what then vanishes with
    weight decay off, ``momentum`` what stored state does on its own. As tensors they sum to the step's Δ
    within float rounding (their norms do not: parts may point in different directions).
    """

    gradient: float
    momentum: float
    weight_decay: float
    agreement: float
    """Cosine between the step and its gradient part: −1 means it walked against its own gradient."""
    elements: int
    """How many elements were replayed: all of them, or a sample of a large tensor."""
    total: int

    @property
    def sampled(self) -> bool:
        """Whether the parts were measured on a sample of the tensor's elements."""
        return self.elements < self.total


@dataclass(slots=True)
class TensorStep:
    """The facts about one parameter or buffer in one optimizer step."""

    info: TensorInfo
    training: bool
    """Train (True) or eval mode of the module that owns it."""
    requires_grad: bool
    frozen: str | None
    """How it is frozen (``requires_grad``, ``grad_none``, ``lr_zero``), or None when it is not."""
    grad: Grad
    grad_max: float
    """Largest absolute gradient; 0 when there is none."""
    grad_stale: bool
    """The gradient is the one the previous step already used: no backward pass touched it since."""
    optimizer: int | None
    """Position of the optimizer that holds it (the one that stepped, if several do), or None."""
    group: int | None
    """Position of its parameter group in that optimizer, or None."""
    lr: float | None
    weight_decay: float | None
    state_steps: int | None
    """The optimizer's own step count for it after the step, or None if it keeps none."""
    moved: bool
    """Whether any bit changed since the previous step's end."""
    moved_outside: bool
    """Whether it had already changed before the optimizer began to step."""
    delta_norm: float
    delta_max: float
    weight_norm: float
    """Euclidean norm before the step."""
    reason: Reason
    parts: Parts | None = None
    zero_grad_rows_moved: int = 0
    """Rows (along the first dimension) with an all-zero gradient that moved all the same."""

    @property
    def name(self) -> str:
        """The tensor's first name."""
        return self.info.name

    @property
    def update_ratio(self) -> float:
        """‖Δ‖ / ‖w‖, a pure ratio; infinite when a tensor of zeros moved, 0 when it stayed."""
        if not self.moved:
            return 0.0
        return self.delta_norm / self.weight_norm if self.weight_norm else float("inf")

    def as_dict(self) -> dict[str, Any]:
        """Flat plain data: one DataFrame row."""
        row: dict[str, Any] = {f.name: getattr(self.info, f.name) for f in fields(self.info)}
        row |= {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("info", "parts")}
        row["update_ratio"] = self.update_ratio
        row["reason"] = self.reason.value
        for part in ("gradient", "momentum", "weight_decay"):
            row[f"part_{part}"] = getattr(self.parts, part) if self.parts else None
        return row


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a learner should know: which tensor, since when, why, and the line that cures it."""

    code: str
    level: Level
    """``alarm``: not what was meant. ``notice``: true, and easy to overlook."""
    name: str
    """The tensor (or module, or ``optimizer 0``) it speaks of."""
    step: int
    """The step at which it was first seen; −1 when it was true before any step."""
    what: str
    cause: str
    cure: str
    """A line of PyTorch."""
    count: int = 1
    """In how many steps it was seen."""


@dataclass(slots=True)
class Step(Mapping[str, TensorStep]):
    """One optimizer step: a mapping from tensor name to `TensorStep`, in the model's order.

    Every name of a tied tensor finds it; iteration gives first names only.
    """

    index: int
    optimizer: int
    """Position in ``watch(model, *optimizers)`` of the optimizer that stepped."""
    optimizer_type: str
    tensors: dict[str, TensorStep]
    completed: bool = True
    """False when ``step()`` raised before it returned."""
    alarms: list[Alarm] = field(default_factory=list)
    note: str = ""
    """Why the step could not be replayed, if it could not."""
    remade: str = ""
    """The call that would build its optimizer anew, for what is trainable; where a cure needs it."""
    named_groups: bool = False
    """Whether the optimizer's groups keep the names of their parameters: then it wants names of new ones."""
    scheduled: bool = False
    """Whether a scheduler was built on the optimizer."""

    def __getitem__(self, name: str) -> TensorStep:
        found = self.tensors.get(name)
        if found is None:
            found = next((t for t in self.tensors.values() if name in t.info.names), None)
        if found is None:
            near = difflib.get_close_matches(name, self.tensors, n=3, cutoff=0.4)
            hint = f"; near names: {', '.join(map(printable, near))}" if near else ""
            raise KeyError(f"no tensor named {name!r} in step {self.index}{hint}")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def moved(self) -> list[str]:
        """Names of the tensors that moved."""
        return [name for name, t in self.tensors.items() if t.moved]

    @property
    def stayed(self) -> list[str]:
        """Names of the tensors that did not move."""
        return [name for name, t in self.tensors.items() if not t.moved]
