"""Lesson 04's pictures, and the check of its exercise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from layerlab.data import Images
from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.trials import optimizer_of, resnet_and_images
from layerlab.lessons_support.verdict import Verdict
from layerlab.show.alphabet import BLUE, GREY, VERMILLION
from layerlab.show.chart import Chart, new_figure

Spread = tuple[float, float]
"""Mean and standard deviation over seeds."""


def images_chart(rows: Mapping[str, Images], columns: int = 12) -> Chart:
    """Draw the first images of some data sets, a row each, with what they are labelled."""
    with new_figure(0.75 * columns, 1.15 * len(rows)) as figure:
        panels = figure.subplots(len(rows), columns, squeeze=False)
        for (name, images), line in zip(rows.items(), panels, strict=True):
            for at, axes in enumerate(line):
                axes.imshow(images.pixels[at, 0].numpy(), cmap="gray_r")
                axes.set_title(images.classes[int(images.labels[at])], fontsize=9, pad=2)
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    told = "; ".join(f"{name}: {', '.join(images.classes)}" for name, images in rows.items())
    return Chart(figure, f"the first {columns} images of each task, with their labels ({told})")


def accuracy_chart(runs: Mapping[str, Sequence[float]], guess: Mapping[str, float]) -> Chart:
    """Draw the accuracies of each setting, a dot a run, and beside them what the learner guessed.

    Parameters
    ----------
    runs
        From a setting to its accuracies, from 0 to 1.
    guess
        From a setting to a guess in percent; 0 is none.

    Raises
    ------
    ValueError
        A guess for a setting that there is not, or one that is no percentage.
    """
    for setting, percent in guess.items():
        if setting not in runs:
            raise ValueError(f"a guess for {setting!r}: the settings are {', '.join(runs)}")
        if not 0 <= percent <= 100:
            raise ValueError(f"a guess of {percent!r} for {setting}: give a percentage, from 0 to 100")
    with new_figure(9, 0.75 + 0.42 * len(runs)) as figure:
        axes = figure.subplots()
        for row, (setting, accuracies) in enumerate(runs.items()):
            axes.plot([100 * a for a in accuracies], [row] * len(accuracies), "o", color=BLUE, alpha=0.7)
            if guess.get(setting):
                axes.plot(guess[setting], row, "x", color=VERMILLION, markersize=9, markeredgewidth=2)
        axes.plot([], [], "o", color=BLUE, label="a run")
        if any(guess.values()):
            axes.plot([], [], "x", color=VERMILLION, markeredgewidth=2, label="your guess")
        axes.set_yticks(range(len(runs)), list(runs))
        axes.invert_yaxis()
        axes.set_xlim(min([50, *filter(None, guess.values())]) - 2, 101)
        axes.axvline(50, color=GREY, linewidth=1, zorder=0)
        axes.text(50.3, -0.45, "chance", color="#555555", fontsize=8)
        axes.set_xlabel("test images answered right (%)")
        figure.legend(loc="outside right upper", frameon=False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
    lowest = min(runs, key=lambda setting: mean(runs[setting]))
    return Chart(figure, f"test accuracy of {', '.join(runs)}, a dot a run: {lowest} is lowest by its mean")


def spread_chart(lines: Mapping[str, Mapping[str, Spread]], xlabel: str) -> Chart:
    """Draw mean ± standard deviation of an accuracy, a line for each kind of run.

    Parameters
    ----------
    lines
        From a line's name to its points: from what stands below the axis to mean and deviation.
    """
    styles = [(BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREY, ":", "^")]
    with new_figure(8, 3.2) as figure:
        axes = figure.subplots()
        ticks = list(dict.fromkeys(at for points in lines.values() for at in points))
        for shift, ((name, points), (colour, dash, mark)) in enumerate(
            zip(lines.items(), styles, strict=False)
        ):
            apart = 0.06 * (shift - 1) if len(lines) > 1 else 0  # else one hides the other
            x = [ticks.index(at) + apart for at in points]
            y, error = ([100 * p[part] for p in points.values()] for part in (0, 1))
            axes.errorbar(x, y, error, color=colour, linestyle=dash, marker=mark, capsize=3, label=name)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("test images answered right (%)")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    said = "; ".join(
        f"{name}: {', '.join(f'{at} {100 * m:.1f} ± {100 * s:.1f}' for at, (m, s) in points.items())}"
        for name, points in lines.items()
    )
    return Chart(figure, f"test accuracy in %, mean ± standard deviation over the seeds, by {xlabel}. {said}")


MakeOptimizer = Callable[[nn.Module], Optimizer]


def check_two_rates(make_optimizer: MakeOptimizer) -> Verdict:
    """Train ResNet18 for a step with the learner's SGD: lr 0.01 for fc, a tenth for all else; momentum 0.9.

    Parameters
    ----------
    make_optimizer
        Called with the model; returns the optimizer.
    """
    check = Check("fc at lr 0.01, the backbone at 0.001", called={"model": "net"})
    net, x, y = resnet_and_images(32)
    optimizer = optimizer_of(check, make_optimizer, net, "make_optimizer")
    if optimizer is None:
        return check.verdict()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for part, wanted, members in (
        ("fc", 0.01, [p for n, p in net.named_parameters() if n.startswith("fc.")]),
        ("the backbone", 0.001, [p for n, p in net.named_parameters() if not n.startswith("fc.")]),
    ):
        missing = sum(id(p) not in rates for p in members)
        check.that(
            missing == 0,
            f"all {len(members)} tensors of {part} are in the optimizer",
            f"{missing} of {len(members)} tensors of {part} are in no parameter group and would never train",
        )
        if missing:
            return check.verdict()  # the first thing to mend
        found = sorted({rates[id(p)] for p in members})
        right = all(abs(lr - wanted) < 1e-9 for lr in found)
        told = ", ".join(f"{lr:.3g}" for lr in found)
        check.that(right, f"{part} has lr {wanted}", f"{part} must have lr {wanted}, but has {told}")
    kind = type(optimizer).__name__
    check.that(isinstance(optimizer, SGD), "it is SGD", f"it must be SGD, but is {kind}")
    momenta = {group.get("momentum") for group in optimizer.param_groups}
    check.that(
        momenta == {0.9},
        "momentum is 0.9",
        f"momentum of every group must be 0.9, but is {', '.join(map(str, momenta))}",
    )

    def train_one_step() -> None:
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()

    with watch(net, optimizer) as ledger:
        check.run(train_one_step)
    check.moved(ledger, *(n for n, _ in net.named_parameters()))
    return check.verdict()
