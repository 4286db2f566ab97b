"""Lesson 11: the check of a repaired patient, a patient's source, and where each code is explained."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from layerlab.auditing import CODES, audit
from layerlab.ledger import Ledger, watch
from layerlab.lessons_support import patients
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict
from layerlab.show import Shown, table
from layerlab.training.machine import Chance

EPOCHS = 9


# -- a patient, repaired


@dataclass(frozen=True, slots=True)
class Aim:
    """What a patient's author meant: who trains, who rests when, and at which learning rates.

    Attributes
    ----------
    trains
        Modules that move: what rests at times, in every other epoch; what never rests, in one at least.
    rests
        From a module to the epochs in which nothing of it moves.
    rates
        From a module to its lr in the first epoch.
    loss
        What the loss has to fall below after 200 more epochs, if that is asked.
    """

    title: str
    trains: tuple[str, ...] = ("stem", "norm", "block", "fc")
    rests: dict[str, range] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    classes: int = 3


ALWAYS = range(EPOCHS)

AIMS: dict[patients.Make, Aim] = {
    patients.patient_1: Aim("patient 1: everything trains, the new fc too"),
    patients.patient_2: Aim(
        "patient 2: fc trains, and nothing else moves",
        trains=("fc",),
        rests={"stem": ALWAYS, "norm": ALWAYS, "block": ALWAYS},
    ),
    patients.patient_3: Aim(
        "patient 3: stem rests, the others train at their learning rates",
        trains=("norm", "block", "fc"),
        rests={"stem": ALWAYS},
        rates={"norm": 0.02, "block": 0.02, "fc": 0.1},
    ),
    patients.patient_4: Aim("patient 4: it learns the task", loss=0.3),
    patients.patient_5: Aim(
        "patient 5: stem rests in every second epoch", rests={"stem": range(1, EPOCHS, 2)}
    ),
    patients.patient_6: Aim(
        "patient 6: stem rests, the others train after a warm-up",
        trains=("norm", "block", "fc"),
        rests={"stem": ALWAYS},
    ),
    patients.patient_7: Aim(
        "patient 7: stem rests in epochs 3 to 5, and follows the new labels after that",
        rests={"stem": range(3, 6)},
        classes=5,
    ),
}


def check_repair(patient: patients.Make, repaired: patients.Make) -> Verdict:
    """Audit what a learner's function returns, train it for nine epochs, and look for what was meant.

    Parameters
    ----------
    patient
        Whose repair it is: one of `layerlab.lessons_support.patients.PATIENTS`.
    repaired
        The learner's function; returns the model, the optimizer, the scheduler if there is one, and train.

    Raises
    ------
    ValueError
        If the first argument is no patient.
    """
    if patient not in AIMS:
        known = ", ".join(one.__name__ for one in AIMS)
        raise ValueError(f"{getattr(patient, '__name__', patient)!r} is no patient; there are {known}")
    aim = AIMS[patient]
    check = Check(aim.title)
    with Chance(0):
        made: Any = check.run(repaired)
        wrong = _what_is_wrong(made)
        if wrong:
            check.that(False, "", f"it must return model, optimizer, (scheduler,) train, but {wrong}")
            return check.verdict()
        _examine(check, aim, *made)
    return check.verdict()


def _what_is_wrong(made: Any) -> str:
    """Why this is no set-up, in words; empty if it is one."""
    if not isinstance(made, tuple) or len(made) not in (3, 4):
        what = f"{len(made)} things" if isinstance(made, tuple) else type(made).__name__
        return f"returned {what}"
    model, optimizer, train = made[0], made[1], made[-1]
    if not isinstance(model, nn.Module):
        return f"the first thing is of type {type(model).__name__}"
    if not isinstance(optimizer, Optimizer):
        return f"the second thing is of type {type(optimizer).__name__}"
    if len(made) == 4 and not hasattr(made[2], "step"):
        return f"the third thing is of type {type(made[2]).__name__}, and no scheduler"
    if not callable(train):
        return f"the last thing is of type {type(train).__name__}, and no function"
    parts = [name for name, _ in model.named_children()]
    if missing := [name for name in ("stem", "norm", "block", "fc") if name not in parts]:
        return f"the model has no {missing[0]}"
    return ""


def _examine(check: Check, aim: Aim, model: Any, optimizer: Optimizer, *rest: Any) -> None:
    """Both witnesses: the audit before training, the ledger during it."""
    *scheduler, train = rest
    classes = model.fc.out_features
    told = "fc tells {} classes"
    check.that(
        classes == aim.classes, told.format(classes), f"fc must tell {aim.classes} classes, not {classes}"
    )
    found = audit(model, optimizer, scheduler=scheduler, loss=cross_entropy)
    grave = [finding for finding in found if finding.level != "note"]
    for finding in grave:
        said = f"the audit finds {finding.code} ({finding.place}): {finding.effect}"
        check.that(False, "", said, finding.cure)
    if not grave:
        check.that(True, "the audit is silent", "")
    with watch(model, optimizer) as ledger:
        check.run(_epochs(train, EPOCHS))
    if len(ledger) == EPOCHS:
        _compare(check, aim, ledger)
        if check.verdict().passed:  # else the alarms say once more what has been said
            check.no_alarms(ledger)
    else:
        told = f"train must take one step an epoch, but took {len(ledger)} in {EPOCHS} epochs"
        check.that(False, "", told)
    if aim.loss is not None:
        _learns(check, model, train, aim.loss)


def _epochs(train: Callable[[], object], count: int) -> Callable[[], None]:
    """Call it so many times, under its own name: an exception is told as one in ``train``."""

    @functools.wraps(train)
    def repeated() -> None:
        for _ in range(count):
            train()

    return repeated


def _compare(check: Check, aim: Aim, ledger: Ledger) -> None:
    for part, epochs in aim.rests.items():
        check.stayed([ledger[epoch] for epoch in epochs], part, label=_when(epochs))
    always = [name for part in aim.trains if part not in aim.rests for name in _parameters(ledger, part)]
    check.moved(ledger, *always)
    for part in aim.trains:
        if part in aim.rests:
            _awake(check, aim, ledger, part)
    for part, rate in aim.rates.items():
        rates = {ledger[0][name].lr for name in _parameters(ledger, part)}
        told = ", ".join("in no group" if lr is None else f"{lr:g}" for lr in rates)
        check.that(rates == {rate}, f"{part} has lr {rate:g}", f"{part} must have lr {rate:g}, but is {told}")


def _awake(check: Check, aim: Aim, ledger: Ledger, part: str) -> None:
    """What rests in some epochs moves in every other one."""
    names = _parameters(ledger, part)
    awake = [epoch for epoch in ALWAYS if epoch not in aim.rests[part]]
    still = [epoch for epoch in awake if not all(ledger[epoch][name].moved for name in names)]
    if still:
        check.moved(ledger, *names, at=still[0], label=f"epoch {still[0]}")
    else:
        check.moved([ledger[epoch] for epoch in awake], *names, label="the other epochs")


def _when(epochs: range) -> str:
    if epochs == ALWAYS:
        return ""
    listed = [str(epoch) for epoch in epochs]
    return f"epochs {', '.join(listed[:-1])} and {listed[-1]}"


def _parameters(ledger: Ledger, part: str) -> list[str]:
    return [
        name for name, t in ledger[0].items() if t.info.kind == "parameter" and name.startswith(f"{part}.")
    ]


def _learns(check: Check, model: nn.Module, train: Callable[[], object], most: float) -> None:
    """Whether the loss falls as far as it does without the fault."""
    check.run(_epochs(train, 200))
    with torch.no_grad():
        loss = float(cross_entropy(model(patients.x), patients.y))
    check.that(
        loss < most,
        f"after 200 more epochs the loss is below {most}",
        f"after 200 more epochs the loss must be below {most}, but is {loss:.2f}",
    )


# -- all codes

LESSON_OF: dict[str, str | None] = {
    "layer-replaced": "05, 11",
    "other-model": "06",
    "in-no-optimizer": "05, 06, 11",
    "foreign-parameters": "05",
    "in-two-optimizers": None,
    "in-two-groups": "05",
    "twice-in-group": "05",
    "empty-group": "05, 11",
    "unknown-option": None,
    "flag-on-module": "06, 11",
    "misspelt-flag": "11",
    "everything-frozen": "07",
    "frozen-too-late": "02",
    "frozen-zero-gradient": "01, 02",
    "frozen-gradient-kept": "03",
    "stale-momentum": "02, 11",
    "lbfgs-frozen": "02",
    "tied-weight": "07",
    "frozen-statistics": "07, 11",
    "frozen-dropout": "07",
    "eval-mode": "07",
    "late-freeze": "07",
    "double-softmax": "01, 11",
    "lr-zero": "03",
    "lr-zero-wakes": "03, 11",
    "lr-zero-moves": "03",
    "eta-min-above-lr": "06",
    "min-lr-above-lr": None,
    "group-after-scheduler": "06",
    "scheduler-elsewhere": None,
    "plateau-needs-metric": "06",
    "scheduler-not-stepped": None,
    "nonfinite-parameter": "03",
    "nonfinite-state": None,
    "nonfinite-gradient": "03",
    "ddp-frozen-after": "09",
    "ddp-released-after": "09",
    "ddp-unseen": "09",
    "unused-in-forward": "01",
}
"""Which lessons explain each code of an audit; None where none does: then the finding itself has to."""


def codes_table() -> Shown:
    """Show every code that an audit knows, what it means, and the lessons that explain it.

    Raises
    ------
    KeyError
        If a code has no entry: add it to `LESSON_OF`.
    """
    rows = [
        {"code": code, "level": level, "means": means, "lessons": LESSON_OF[code]}
        for code, (level, means) in CODES.items()
    ]
    return table(rows, title=f"the {len(rows)} codes of an audit, and where each is explained")
