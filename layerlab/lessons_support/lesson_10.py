"""Lesson 10's pictures, and the check of its exercise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from layerlab.experiments.routing import FourBlocks, a_small_batch, masked_gradients, per_example_gradients
from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict
from layerlab.show.alphabet import BLUE, ORANGE
from layerlab.show.chart import Chart, new_figure

Spread = tuple[float, float]
"""Mean and standard deviation over seeds."""


def methods_chart(panels: Mapping[str, Mapping[str, Spread]]) -> Chart:
    """Draw mean ± standard deviation of each method's accuracy, a panel for each task."""
    methods = list(next(iter(panels.values())))
    with new_figure(9, 0.9 + 0.3 * len(methods)) as figure:
        drawn = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (task, figures) in zip(drawn, panels.items(), strict=True):
            for row, (mean, deviation) in enumerate(figures.values()):
                axes.errorbar(100 * mean, row, xerr=100 * deviation, fmt="o", color=BLUE, capsize=3)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_title(task)
            axes.set_xlabel("test images answered right (%)")
            axes.grid(axis="x", color="#dddddd")
            axes.set_axisbelow(True)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(left=False)
        drawn[0].invert_yaxis()
    told = (
        f"{task}: {', '.join(f'{m} {100 * mean:.1f} ± {100 * sd:.1f}' for m, (mean, sd) in figures.items())}"
        for task, figures in panels.items()
    )
    return Chart(figure, f"test accuracy in %, mean ± standard deviation over the seeds. {'; '.join(told)}")


def routes_chart(
    panels: Mapping[str, Sequence[Sequence[float]]], kinds: Sequence[str] = ("like the source", "foreign")
) -> Chart:
    """Draw which share of each kind of images goes through the tuned copy of each block.

    Parameters
    ----------
    panels
        From a panel's title to the shares: for each kind of images one for each block.
    """
    with new_figure(9, 2.7) as figure:
        drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, shares) in zip(drawn, panels.items(), strict=True):
            for at, (kind, some, colour, hatch) in enumerate(
                zip(kinds, shares, (BLUE, ORANGE), ("", "//"), strict=True)
            ):
                x = [k + 0.4 * (at - 0.5) for k in range(len(some))]
                heights = [100 * share for share in some]
                bars = axes.bar(x, heights, 0.36, color=colour, hatch=hatch, edgecolor="white", label=kind)
                axes.bar_label(bars, fmt="%.0f", fontsize=7.5)  # a bar of 0 cannot be seen
            axes.set_xticks(range(len(shares[0])), [f"block {k + 1}" for k in range(len(shares[0]))])
            axes.set_ylim(0, 112)
            axes.set_yticks(range(0, 101, 25))
            axes.set_title(title)
            axes.spines[["top", "right"]].set_visible(False)
        drawn[0].set_ylabel("images through the\ntuned copy (%)")
        handles, labels = drawn[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return Chart(
        figure,
        f"share of the test images ({' and '.join(kinds)}) that go through the tuned copy of each block: "
        + "; ".join(panels),
    )


RoutedBackward = Callable[[FourBlocks, Tensor, Tensor, Tensor], object]
ROUTES = {
    "step 0": [(True, True, True, True)] * 4,
    "step 1": [(False, False, True, True), (True, False, True, False)] * 2,
    "step 2": [(False, True, False, True), (False, False, True, True)] * 2,
}
"""In step 0 everything gets momentum; then block 2, and then block 1, is trained by no example."""


def check_routed_backward(routed_backward: RoutedBackward) -> Verdict:
    """Train four examples for three steps with AdamW, on other routes each time.

    Parameters
    ----------
    routed_backward
        Called with the network, inputs, labels and the route, after ``zero_grad()`` and before ``step()``.
    """
    check = Check("each example trains the blocks of its route, and no other")
    net, x, y = a_small_batch(examples=4, seed=5)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    with watch(net, optimizer) as ledger:
        for number, (step, rows) in enumerate(ROUTES.items()):
            route = torch.tensor(rows)
            expected = masked_gradients(net, x, y, route)
            everybody = {name: g.mean(0) for name, g in per_example_gradients(net, x, y).items()}
            optimizer.zero_grad()
            check.run(routed_backward, net, x, y, route.clone())
            wrong = _wrong(net, route, expected, everybody)
            good = "every block has the gradient of the examples that train it, the head that of all"
            check.that(not wrong, f"{step}: {good}", f"{step}: {wrong}")
            optimizer.step()
            for idle in (name for name, gradient in expected.items() if gradient is None):
                t = ledger[number][idle]
                left = "a tensor of zeros" if t.grad == "zero" else t.grad
                check.that(
                    not t.moved,
                    f"{step}: no example trains {idle}, and it stayed ({t.reason})",
                    f"{step}: no example trains {idle}, but it moved ({t.reason}): its gradient was {left}, "
                    "and only None makes step() skip it",
                )
    return check.verdict()


def _wrong(
    net: FourBlocks, route: Tensor, expected: Mapping[str, Tensor | None], everybody: Mapping[str, Tensor]
) -> str:
    """The first thing that is wrong with the gradients; nothing if they are right."""
    for name, p in net.named_parameters():
        wanted = expected[name]
        trains = route[:, int(name[5]) - 1] if name.startswith("block") else torch.ones(len(route)).bool()
        whose = f"{_examples(trains)} train{'s' if trains.sum() == 1 else ''} it"
        if wanted is None:
            if p.grad is not None and p.grad.any():
                return f"{name} has a gradient, but no example trains it"
        elif p.grad is None:
            flag = "" if p.requires_grad else ": its requires_grad is False"
            return f"{name} has no gradient, but {whose}{flag}"
        elif not _close(p.grad, wanted):
            if _close(p.grad, everybody[name]):
                return f"{name} has the gradient of all examples, but only {whose}"
            if _close(p.grad * trains.sum() / len(route), wanted):
                return f"{name}: its gradient is too large, divide by the number of all examples"
            return f"the gradient of {name} is not what is asked: {whose}"
    return ""


def _examples(rows: Tensor) -> str:
    numbers = [str(i) for i in rows.nonzero().flatten().tolist()]
    return f"example {numbers[0]}" if len(numbers) == 1 else f"examples {', '.join(numbers)}"


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6)
