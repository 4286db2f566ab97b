"""What an audit says: a finding, and the table of the codes that a finding may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["error", "warning", "note"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an audit found.

    Attributes
    ----------
    code
        A stable word for it, one of `CODES`.
    level
        ``error``: training does something else than the code says. ``warning``: it most likely does.
        ``note``: true, and easy to overlook.
    place
        Where: the names of tensors, modules, groups or schedulers; many are folded.
    effect
        What will happen, in a sentence.
    cure
        A line (or lines) of PyTorch, with the variables of the notebook where they can be told.
    names
        All the names that `place` folds.
    """

    code: str
    level: Level
    place: str
    effect: str
    cure: str
    names: tuple[str, ...] = ()


CODES: Final[dict[str, tuple[Level, str]]] = {
    # which optimizer holds what
    "layer-replaced": ("error", "trainable and in no optimizer, while one holds tensors the model has not"),
    "other-model": ("error", "an optimizer holds no tensor of this model"),
    "in-no-optimizer": ("warning", "trainable, and in none of the given optimizers"),
    "foreign-parameters": ("note", "an optimizer also holds tensors that the model does not have"),
    "in-two-optimizers": ("warning", "two optimizers hold the same tensor"),
    "in-two-groups": ("error", "two parameter groups of one optimizer hold the same tensor"),
    "twice-in-group": ("error", "a parameter group lists the same tensor twice"),
    "empty-group": ("error", "a parameter group without parameters"),
    "unknown-option": ("warning", "a parameter group has an option that its optimizer does not read"),
    # flags
    "flag-on-module": ("error", "requires_grad was set on a module, where it is a plain attribute"),
    "misspelt-flag": ("error", "requires_grad was misspelt: a plain attribute that does nothing"),
    "everything-frozen": ("error", "nothing requires a gradient: backward() will raise"),
    # what is frozen, its gradients and stored state
    "frozen-too-late": ("warning", "frozen, with a gradient that the next step() would still apply"),
    "frozen-zero-gradient": ("warning", "frozen, with a gradient of zeros on which step() would move it"),
    "frozen-gradient-kept": ("note", "frozen, with a gradient that no step() applies, but clipping counts"),
    "stale-momentum": ("note", "frozen, with stored optimizer state that its release would wake"),
    "lbfgs-frozen": ("error", "frozen, and LBFGS remembers directions that move it"),
    "tied-weight": ("warning", "one tensor under two names, one of them in a part that is otherwise frozen"),
    # modules
    "frozen-statistics": ("warning", "running statistics that move though their module is frozen"),
    "frozen-dropout": ("note", "Dropout is active inside a frozen part"),
    "eval-mode": ("note", "the whole model is in eval mode, and its modes matter"),
    "late-freeze": ("note", "only late layers are frozen: that saves no activation memory"),
    "double-softmax": ("error", "the model ends in a function that the loss applies once more, or needs"),
    # learning rates and schedulers
    "lr-zero": ("note", "a parameter group with lr = 0: held still, at the cost of training it"),
    "lr-zero-wakes": ("warning", "a parameter group with lr = 0 that a scheduler will wake"),
    "lr-zero-moves": ("error", "a parameter group with lr = 0 under an optimizer that moves it all the same"),
    "eta-min-above-lr": (
        "warning",
        "an annealing scheduler whose lowest lr is above a group's lr: it raises",
    ),
    "min-lr-above-lr": ("warning", "a ReduceLROnPlateau that can never reduce a group's lr"),
    "group-after-scheduler": ("error", "a parameter group came or went after the scheduler was built"),
    "scheduler-elsewhere": ("error", "a scheduler of an optimizer that is not among the given ones"),
    "plateau-needs-metric": ("note", "a ReduceLROnPlateau: its step() needs the metric"),
    "scheduler-not-stepped": ("note", "the optimizer has stepped, its scheduler has not"),
    # values
    "nonfinite-parameter": ("error", "a parameter or buffer holds NaN (or a parameter infinity)"),
    "nonfinite-state": ("error", "stored optimizer state holds inf or NaN"),
    "nonfinite-gradient": ("error", "a gradient that the next step() applies holds inf or NaN"),
    # DistributedDataParallel
    "ddp-frozen-after": ("error", "frozen after wrapping: DistributedDataParallel waits for its gradient"),
    "ddp-released-after": ("error", "released after wrapping: its gradient is averaged over no ranks"),
    "ddp-unseen": ("note", "frozen under DistributedDataParallel, and whether in time cannot be seen"),
    # a forward pass on the given batch
    "unused-in-forward": ("note", "trainable, and the output on the given batch does not depend on it"),
}
"""Every code: its usual level, and what it means. Some findings are a level down where less is certain."""
