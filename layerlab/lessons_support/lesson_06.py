"""Lesson 06's pictures and tables of learning rates, and the check of its exercise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import StepLR

from layerlab.experiments.late_group import ADDED_IN, LateGroup
from layerlab.ledger import Ledger, watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict, all_of
from layerlab.printable import printable
from layerlab.show import Shown, describe_steps, short, table
from layerlab.show.alphabet import ALPHABET, BLUE, FROZEN, GREEN, PURPLE, VERMILLION
from layerlab.show.chart import Chart, new_figure
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.warn import warnings_of
from layerlab.show.words import MISSING
from layerlab.training.machine import Chance

Rates = Mapping[str, "float | None"]
"""The lr of each part in one epoch; None while it has none: in no group of the optimizer, or frozen."""

_STYLES = {
    "fc": (VERMILLION, "--", "s"),
    "backbone": (BLUE, "-", "o"),
    "layer3": (PURPLE, ":", "D"),
    "layer4": (GREEN, "-.", "^"),
}
"""A part of the lesson's networks looks the same in every picture."""


def rates_chart(runs: Mapping[str, Sequence[Rates]], columns: int = 3) -> Chart:
    """Draw the lr of each part over the epochs, a panel for each run, on one log scale."""
    parts = list(dict.fromkeys(part for run in runs.values() for part in run[0]))
    columns = min(columns, len(runs))
    rows = -(-len(runs) // columns)
    with new_figure(2 + 3.2 * columns, 0.7 + 2.0 * rows) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
        for axes, (name, run) in zip(panels, runs.items(), strict=False):
            for part, other in zip(parts, cycle(_STYLES.values())):
                colour, dash, mark = _STYLES.get(part, other)
                values = [lr if (lr := epoch.get(part)) else math.nan for epoch in run]
                marked = mark if len(run) < 20 else None  # too close together otherwise
                axes.plot(
                    values,
                    dash,
                    drawstyle="steps-post",
                    color=colour,
                    marker=marked,
                    markersize=4,
                    linewidth=2,
                    label=part,
                )
            axes.set_title(name, fontsize=9)
            axes.set_yscale("log")
            axes.set_xlim(-0.03 * len(run), 1.03 * (len(run) - 1))
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("lr (log scale)", fontsize=9)
    said = [f"{name}: {', '.join(_span(part, run) for part in parts)}" for name, run in runs.items()]
    return Chart(figure, "\n".join(["lr over the epochs", *said]))


def _span(part: str, run: Sequence[Rates]) -> str:
    """From where to where an lr went, and the ends of its way if they are others."""
    known = [lr for epoch in run if (lr := epoch.get(part)) is not None]
    if not known:
        return f"{part} none"
    ends = [short(lr) for lr in (known[0], known[-1])]
    outside = {
        word: short(extreme)
        for word, extreme in (("lowest", min(known)), ("highest", max(known)))
        if short(extreme) not in ends
    }
    more = "".join(f", {word} {lr}" for word, lr in outside.items())
    return f"{part} {' → '.join(dict.fromkeys(ends))}{more}"


def epochs_table(
    rates: Sequence[Rates], ledger: Ledger, title: str, bars: tuple[float, float] | None = None
) -> Shown:
    """Show the lr of each part in each epoch, as a bar and a number, and what the epoch's step did to it.

    Parameters
    ----------
    rates
        For each epoch.
    ledger
        With one step for each epoch; the first parameter of a part speaks for it.
    bars
        The lr at which a bar is empty, and that at which it is full, for tables to be compared; else they
        are taken from these rates.
    """
    parts = list(rates[0])
    known = [lr for epoch in rates for lr in epoch.values() if lr]
    lowest, highest = map(math.log, bars or (min(known) / 2, max(known)))
    columns = [Column("epoch", align="right", code=True)]
    for part in parts:
        columns += [Column(printable(part)), Column("lr", code=True)]
    rows = []
    for number, (epoch, step) in enumerate(zip(rates, ledger, strict=True)):
        cells = [Cell(str(number))]
        for part in parts:
            t = next(t for name, t in step.items() if name.startswith(f"{part}."))
            lr, symbol = epoch[part], ALPHABET[t.reason].symbol
            if t.requires_grad and lr:
                fill = (math.log(lr) - lowest) / (highest - lowest)
                fill = min(max(fill, 0.0), 1.0)
                cells += [Cell("", bar=fill, reason=t.reason), Cell(f"{symbol} {short(lr)}", reason=t.reason)]
                continue
            why = f"{FROZEN} frozen" if not t.requires_grad else "in no group" if lr is None else "lr 0"
            cells += [Cell(f"{symbol} {why}", ALPHABET[t.reason].sentence, reason=t.reason), Cell(MISSING)]
        rows.append(Row(tuple(cells)))
    notes = (
        f"bar: lr on a log scale, empty at {short(math.exp(lowest))}, full at {short(math.exp(highest))}",
        "● moved by its gradient, ○ stayed",
    )
    page = Table(title, tuple(columns), tuple(rows), notes=notes)
    return Shown(Description(tables=(page,)))


def alarms_of(ledger: Ledger) -> Shown:
    """Show what stands above a ledger: its alarms, each with its cause and its cure."""
    return Shown(Description(alarms=warnings_of(ledger.alarms)))


def matrix_of(ledger: Ledger) -> Shown:
    """Show a ledger's alarms, and which tensor moved in which step, without the figures of the last step."""
    whole = describe_steps(ledger, ledger.alarms)
    return Shown(replace(whole, tables=whole.tables[:1]))


def _loudness(run: LateGroup) -> tuple[bool, int, bool]:
    """What goes on first, then what raises the lr in silence, then errors, the late ones last."""
    return run.error != "", run.failed_in or 0, run.raised_to is not None


def late_table(runs: Mapping[str, LateGroup]) -> Shown:
    """Show what each scheduler does with a group that is added later."""
    rows = []
    for name, run in sorted(runs.items(), key=lambda item: _loudness(item[1])):
        fate = "goes on with it"
        if run.raised_to is not None:
            fate = f"raises its lr from {short(run.new[0])} to {short(run.raised_to)}"
        if run.error:
            fate = run.error
        when = None if run.failed_in is None else f"after epoch {run.failed_in}"
        rows.append({"scheduler": name, "what happens": fate, "when": when})
    return table(rows, title=f"a group is added in epoch {ADDED_IN}, after the scheduler was built")


Release = Callable[[nn.Module, Optimizer, str, float], object]

_PLAN = {1: ("layer2", 0.02), 3: ("layer1", 0.01)}
_EPOCHS = 5


def check_release(release: Release) -> Verdict:
    """Train a small network, and release a part in epoch 1 and another in epoch 3, the learner's way.

    The optimizer holds fc alone at first; then, in a second run, everything, the frozen parts in groups of
    their own with lr 0.

    Parameters
    ----------
    release
        Called with the model, the optimizer, the name of a module, and its lr.
    """
    cases = {
        "the optimizer holds fc alone": lambda net: SGD(net.fc.parameters(), lr=0.1, momentum=0.9),
        "it holds all, what is frozen with lr 0": _all_of_it,
    }
    checks = ((name, _check_release(name, make, release)) for name, make in cases.items())
    return all_of("parts released by hand", checks)


def _all_of_it(net: Any) -> Optimizer:
    frozen = [{"params": getattr(net, part).parameters(), "lr": 0.0} for part, _ in _PLAN.values()]
    return SGD([*frozen, {"params": net.fc.parameters()}], lr=0.1, momentum=0.9)


def _check_release(case: str, make: Callable[[Any], Optimizer], release: Release) -> Verdict:
    check = Check(f"parts released by hand ({case})", called={"model": "net"})
    with Chance(0):
        layers = {part: nn.Linear(4, 4) for _, (part, _) in reversed(_PLAN.items())}
        net = nn.Sequential()
        for part, layer in layers.items():
            net.add_module(part, layer)
        net.add_module("fc", nn.Linear(4, 2))
        x, y = torch.randn(8, 4), torch.tensor([0, 1] * 4)
    for part in layers:
        net.get_submodule(part).requires_grad_(False)
    optimizer = make(net)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    rates: dict[str, float | None] = {}

    def train_one_epoch() -> None:
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()

    with watch(net, optimizer) as ledger:
        for epoch in range(_EPOCHS):
            if epoch in _PLAN:
                part, lr = _PLAN[epoch]
                check.run(release, net, optimizer, part, lr)
                rates[part] = lr_of(net, optimizer, part)
            check.run(train_one_epoch)
            scheduler.step()
    for epoch, (part, lr) in _PLAN.items():
        _check_part(check, ledger, part, epoch)
        given = rates.get(part)
        told = "in no group of the optimizer" if given is None else f"at lr {short(given)}"
        if part in rates:
            check.that(
                given == lr, f"{part} is released at lr {lr}", f"{part} must be at lr {lr}, but is {told}"
            )
    fc = lr_of(net, optimizer, "fc")
    check.that(
        fc is not None and math.isclose(fc, 0.1 * 0.5 ** (_EPOCHS // 2)),
        "fc follows its own schedule",
        "fc must follow its own schedule, but its lr was changed: set the lr of the released group alone",
    )
    return check.verdict()


def _check_part(check: Check, ledger: Ledger, part: str, epoch: int) -> None:
    """It stays before its epoch and moves in it."""
    names = (f"{part}.weight", f"{part}.bias")
    for before in range(epoch):
        check.stayed(ledger, *names, at=before, label=f"epoch {before}")
    check.moved(ledger, *names, at=epoch, label=f"epoch {epoch}")


def lr_of(net: nn.Module, optimizer: Optimizer, part: str) -> float | None:
    """The lr with which the optimizer holds a module's first parameter; None if it does not hold it."""
    first = next(net.get_submodule(part).parameters())
    for group in optimizer.param_groups:
        if any(p is first for p in group["params"]):
            return float(group["lr"])
    return None
