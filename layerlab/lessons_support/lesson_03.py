"""Lesson 03's pictures and table of costs, and the check of its exercise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from layerlab.experiments.backward_cost import Cost
from layerlab.experiments.schedules import ScheduleRun
from layerlab.experiments.settings import RESNET_BODY
from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.trials import optimizer_of, resnet_and_images, without_gradient
from layerlab.lessons_support.verdict import Verdict
from layerlab.show import Shown, table
from layerlab.show.alphabet import BLUE, GREY, VERMILLION
from layerlab.show.chart import Chart, new_figure

STEPS = 3


def megabytes(count: int) -> float:
    """Bytes as MB, to one decimal."""
    return round(count / 1e6, 1)


def cost_table(costs: Mapping[str, Cost], title: str) -> Shown:
    """Show what one step cost in each of several cases."""
    rows = [
        {
            "frozen": name,
            "activations (MB)": megabytes(cost.activations),
            "gradients (MB)": megabytes(cost.gradients),
            "optimizer's state (MB)": megabytes(cost.state),
            "backward() (GFLOP)": round(cost.backward / 1e9, 2),
        }
        for name, cost in costs.items()
    ]
    return table(rows, title=title, digits=3)


def time_chart(seconds: Mapping[str, float]) -> Chart:
    """Draw how long each step took, as a share of the first; the words leave out what differs by machine."""
    shares = [one / next(iter(seconds.values())) for one in seconds.values()]
    with new_figure(9, 0.55 + 0.42 * len(shares), font=10) as figure:
        axes = figure.subplots()
        bars = axes.barh(list(seconds), shares, color=BLUE, height=0.6)
        axes.bar_label(bars, [f"{share:.2f}" for share in shares], padding=4)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15 * max(shares))
        axes.set_xlabel(f"processor time of one step, as a share of “{next(iter(seconds))}” (ratio)")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
    return Chart(
        figure,
        f"processor time of one step, for {'; '.join(seconds)} (drawn only: it differs from run to run)",
    )


def schedule_chart(runs: Mapping[str, ScheduleRun]) -> Chart:
    """Draw the learning rates of both groups over the steps, a panel for each scheduler."""
    columns = 5
    rows = -(-len(runs) // columns)
    with new_figure(11.5, 0.4 + 1.55 * rows, font=8) as figure:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
        for axes, (name, run) in zip(panels, runs.items(), strict=False):
            wakes = bool(run.moved)
            axes.plot(run.training, color=GREY, linestyle="--", linewidth=1.2, label="the group that trains")
            axes.plot(
                run.frozen,
                color=VERMILLION if wakes else BLUE,
                linewidth=2.4,
                marker="^" if wakes else None,
                markersize=3.5,
            )
            verdict = f"wakes it in step {run.moved[0]}" if wakes else "stays at 0"
            axes.set_title(f"{name.replace(' with ', chr(10) + 'with ')}\n{verdict}", fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        figure.supxlabel("step", fontsize=9)
        figure.supylabel("lr: thick, the group of lr = 0; dashed, the other", fontsize=9)
    woken = [name for name, run in runs.items() if run.moved]
    left = f"{len(runs) - len(woken)} of {len(runs)} schedulers leave the frozen group at 0"
    words = f"lr over the steps: {left}; it is woken by {', '.join(woken) or 'none'}"
    return Chart(figure, words)


Prepare = Callable[[nn.Module], Optimizer]
TrainMode = Callable[[nn.Module], object]


def check_frozen_body(prepare: Prepare, train_mode: TrainMode) -> Verdict:
    """Train ResNet18 for three steps with all but fc frozen the learner's way, and look for what moved.

    Before each step the loop calls ``train_mode(net)``; it clips gradients by their norm and runs a cosine
    schedule with ``eta_min``.

    Parameters
    ----------
    prepare
        Called once with the model; freezes it and returns the optimizer.
    train_mode
        Called with the model before each step.
    """
    check = Check("all but fc frozen, fc trains", called={"model": "net"})
    net, x, y = resnet_and_images(64)
    optimizer = optimizer_of(check, prepare, net, "prepare")
    if optimizer is None:
        return check.verdict()
    if not any(p.requires_grad for p in net.parameters()):
        check.that(False, "", "fc is frozen too, so nothing can train: freeze all but fc")
        return check.verdict()

    scheduler = CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=1e-3)

    def train_one_step() -> None:
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()

    with watch(net, optimizer) as ledger:
        for _ in range(STEPS):
            check.run(train_mode, net)
            check.run(train_one_step)
    parameters = [n for n, _ in net.named_parameters() if n.split(".")[0] in RESNET_BODY]
    statistics = [n for n, _ in net.named_buffers() if n.split(".")[0] in RESNET_BODY]
    check.stayed(ledger, *parameters, label="parameters")
    check.stayed(ledger, *statistics, label="BatchNorm's statistics")
    check.moved(ledger, "fc.weight", "fc.bias")
    check.that(
        lambda: without_gradient(ledger, parameters, STEPS),
        "no gradient is computed for the frozen part: fc keeps the whole norm when it is clipped",
        "gradients are computed for the frozen part: backward() works for nothing, clip_grad_norm_ makes "
        "fc's step smaller, and a NaN gets in. Set requires_grad to False before backward()",
    )
    return check.verdict()
