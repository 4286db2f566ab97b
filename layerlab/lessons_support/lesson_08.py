"""Lesson 08's pictures, its guesses of a number, and the check of its exercise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, update_wrapper
from statistics import mean
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict
from layerlab.record import Step
from layerlab.show import Shown, short, table
from layerlab.show.alphabet import BLUE, GREEN, GREY, PURPLE, VERMILLION
from layerlab.show.chart import Chart, new_figure

STYLES = [(VERMILLION, "s"), (GREY, "^"), (PURPLE, "D"), (BLUE, "o"), (GREEN, "v")]
"""Colour and mark of the first line, the second, and so on: the same optimizer comes first everywhere."""

NEAR = 0.25
"""How far a guess may be off to count as right, as a share of the truth."""


def compare_guesses(title: str, guess: Mapping[str, float | None], found: Mapping[str, float]) -> Shown:
    """Set the learner's numbers beside the measured ones; a guess within a quarter of the truth is right.

    Parameters
    ----------
    guess
        By the same names as ``found``; None for no guess.

    Raises
    ------
    ValueError
        For a name that is not asked about.
    """
    if strange := [name for name in guess if name not in found]:
        raise ValueError(f"{strange[0]!r} is not asked about; asked: {', '.join(found)}")
    rows: list[dict[str, Any]] = []
    for name, value in found.items():
        said = guess.get(name)
        right = said is not None and abs(said - value) <= NEAR * abs(value)
        rows.append({"": name, "you said": said, "measured": float(value), "right": right})
    return table(rows, title=f"{title}: {sum(row['right'] for row in rows)} of {len(rows)} right")


def factor_chart(factors: Sequence[float]) -> Chart:
    """Draw the printed optimizer's factor over the steps of a constant gradient, beside a corrected one's."""
    steps = range(1, len(factors) + 1)
    with new_figure(8, 2.6) as figure:
        axes = figure.subplots()
        axes.plot(steps, factors, color=VERMILLION, linewidth=2.2, label="as printed")
        axes.axhline(1, color=BLUE, linestyle="--", linewidth=1.6, label="with bias correction")
        axes.set_xscale("log")
        axes.set_ylim(0, 1.1 * max(factors))
        axes.set_xlabel("step")
        axes.set_ylabel("factor c")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    largest = max(factors)
    return Chart(
        figure,
        f"factor c, by step: {short(factors[0])} at step 1, at most {short(largest)} "
        f"(step {factors.index(largest) + 1}), {short(factors[-1])} at step {len(factors)}; "
        "1 in every step with bias correction",
    )


def ratio_chart(steps: Mapping[str, Step], beside: str) -> Chart:
    """Draw how far each tensor moved by its size (‖Δ‖/‖w‖), compared with one of them.

    Parameters
    ----------
    steps
        One step of each optimizer, on the same network.
    beside
        The tensor that all others are compared with.
    """
    shares = {
        name: {t.name: t.update_ratio / step[beside].update_ratio for t in step.values()}
        for name, step in steps.items()
    }
    tensors = list(next(iter(shares.values())))
    with new_figure(8.5, 0.9 + 0.36 * len(tensors)) as figure:
        axes = figure.subplots()
        for nth, ((name, share), (colour, mark)) in enumerate(zip(shares.items(), STYLES, strict=False)):
            rows = [tensors.index(tensor) for tensor in share]
            size = 12 - 1.7 * nth  # the later ones smaller, for they may lie on the earlier ones
            axes.plot(
                list(share.values()), rows, mark, color=colour, markersize=size, label=name, clip_on=False
            )
        axes.axvline(1, color=GREY, linewidth=1, zorder=0)
        axes.set_xscale("log")
        axes.set_yticks(range(len(tensors)), tensors)
        axes.invert_yaxis()
        axes.set_xlabel(f"‖Δ‖/‖w‖, as a multiple of {beside}'s (ratio, log scale)")
        figure.legend(loc="outside right upper", frameon=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
    said = "; ".join(f"{n} {short(min(s.values()))} to {short(max(s.values()))}" for n, s in shares.items())
    return Chart(figure, f"‖Δ‖/‖w‖ of each tensor, as a multiple of {beside}'s, smallest to largest. {said}")


def accuracy_chart(panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]]) -> Chart:
    """Draw accuracies by learning rate: a panel for each network, a line for each optimizer, a dot a run.

    Parameters
    ----------
    panels
        Network → optimizer → learning rate → the accuracies of its runs.
    """
    with new_figure(10, 3.4) as figure:
        drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (network, lines) in zip(drawn, panels.items(), strict=True):
            for (name, runs), (colour, mark) in zip(lines.items(), STYLES, strict=False):
                means = [100 * mean(accuracies) for accuracies in runs.values()]
                axes.plot(list(runs), means, "-" + mark, color=colour, label=name, alpha=0.85)
                for lr, accuracies in runs.items():
                    axes.plot([lr] * len(accuracies), [100 * a for a in accuracies], ".", color=colour)
            axes.axhline(10, color=GREY, linewidth=1, zorder=0)
            axes.set_xscale("log")
            axes.set_title(network, fontsize=9)
            axes.set_xlabel("lr (log scale)")
            axes.spines[["top", "right"]].set_visible(False)
        drawn[0].set_ylabel("test images answered right (%)")
        drawn[0].set_ylim(0, 100)
        drawn[0].text(0.5, 4, "chance", color="#555555", transform=drawn[0].get_yaxis_transform())
        figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    optimizers = ", ".join(next(iter(panels.values())))
    return Chart(
        figure,
        f"test accuracy by lr, for {optimizers}; networks: {', '.join(panels)} "
        "(drawn only: it differs a little from machine to machine)",
    )


START = (0.5, -1.0, 2.0)
GRADIENT = (1.0, -3.0, 0.5)
LR, DECAY, STEPS = 0.125, 0.5, 3


def check_repaired(make: Callable[..., Optimizer]) -> Verdict:
    """Step the learner's optimizer on a few weights whose right end is known by hand.

    Parameters
    ----------
    make
        Their class: called with parameters or groups, and with ``lr`` and ``weight_decay``.
    """
    check = Check("the repaired optimizer")
    trial = check.run(update_wrapper(partial(_try, make), make, updated=()))
    if trial is None:
        return check.verdict()
    check.that(
        not (wrong := _first_wrong(trial.moves)),
        f"with the same gradient {STEPS} times, each of the {STEPS} steps is lr times the gradient",
        "with the same gradient in every step, the two means are that gradient and its square, so each step "
        f"must be lr times the gradient, but {wrong}. Divide the means where they are used, not where they "
        "are stored: exp_avg / (1 - beta1 ** state['step']), exp_avg_sq / (1 - beta2 ** state['step'])",
    )
    ought = [start * (1 - LR * DECAY) for start in START]
    check.that(
        _near(trial.decayed, ought),
        "weight decay counts: with a gradient of zeros, w becomes (1 − lr · weight_decay) · w",
        f"with a gradient of zeros, lr {LR} and weight_decay {DECAY}, the weights {_list(START)} must become "
        f"{_list(ought)}, but became {_list(trial.decayed)}: p.data.mul_(1 - lr * weight_decay)",
    )
    both = [start * (1 - LR * DECAY) - LR * g for start, g in zip(START, GRADIENT, strict=True)]
    if _near(trial.decayed, ought) and not wrong:
        check.that(
            _near(trial.both, both),
            "weight decay comes before the step",
            f"with a gradient, too, the weights {_list(START)} must become {_list(both)}, but became "
            f"{_list(trial.both)}: decay the weights before the step, not the step with them",
        )
    check.that(
        trial.keeps_order,
        "the groups stay in the order in which they are given",
        "the groups stand in another order than they were given in: leave self.param_groups alone",
    )
    return check.verdict()


@dataclass(frozen=True)
class _Trial:
    """What became of a few weights."""

    moves: list[list[float]]
    """Each step under a constant gradient."""
    decayed: list[float]
    """Where they are after a step with weight decay and a gradient of zeros."""
    both: list[float]
    """The same, with a gradient."""
    keeps_order: bool


def _try(make: Callable[..., Optimizer]) -> _Trial:
    p = nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer, moves = make([p], lr=LR, weight_decay=0), []
    for _ in range(STEPS):
        before = p.detach().clone()
        p.grad = torch.tensor(GRADIENT, dtype=torch.float64)
        optimizer.step()
        moves.append((p.detach() - before).tolist())
    decayed: list[float] = []
    both: list[float] = []
    for gradient, ends in ((torch.zeros(len(START)), decayed), (torch.tensor(GRADIENT), both)):
        p = nn.Parameter(torch.tensor(START, dtype=torch.float64))
        p.grad = gradient.double()
        make([p], lr=LR, weight_decay=DECAY).step()
        ends += p.detach().tolist()
    # One row of addresses goes up, the other down: a sort by id cannot leave both alone.
    up = sorted((nn.Parameter(torch.zeros(1)) for _ in range(3)), key=id)
    return _Trial(moves, decayed, both, all(_keeps_order(make, ps) for ps in (up, up[::-1])))


def _keeps_order(make: Callable[..., Optimizer], ps: Sequence[nn.Parameter]) -> bool:
    groups = make([{"params": [p]} for p in ps], lr=LR).param_groups
    return [id(group["params"][0]) for group in groups] == [id(p) for p in ps]


def _near(some: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(a - b) <= 1e-5 * (1 + abs(b)) for a, b in zip(some, others, strict=True))


def _first_wrong(moves: Sequence[Sequence[float]]) -> str:
    """Say which step was another one than lr times the gradient, in units of that; empty if none was."""
    for number, move in enumerate(moves, start=1):
        times = [-moved / (LR * g) for moved, g in zip(move, GRADIENT, strict=True)]
        if not _near(times, [1.0] * len(times)):
            several = (
                ", for the three weights: a tensor has one factor" if max(times) > 1.01 * min(times) else ""
            )
            return f"step {number} is {_list(times)} times that{several}"
    return ""


def _list(values: Sequence[float]) -> str:
    return ", ".join(dict.fromkeys(short(value, 3) for value in values))
