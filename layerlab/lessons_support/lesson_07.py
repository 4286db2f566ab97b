"""Lesson 07's tables and picture: what a layer does in its forward pass, and what a freeze saves where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layerlab.experiments.backward_cost import Cost
from layerlab.experiments.places import Place, sweep
from layerlab.experiments.what_moves import ForwardFacts
from layerlab.show import Shown, table
from layerlab.show.alphabet import BLUE, FROZEN, GREY, VERMILLION
from layerlab.show.chart import Chart, new_figure
from layerlab.show.page import Description

Modes = tuple[ForwardFacts, ForwardFacts]
"""A layer's facts in train mode, and in eval mode."""
OTHER = "another output"
BLOCKS = "blocks, from the input on"

_STYLES = ((BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREY, ":", "^"))
_PANELS = ("operations of backward()", "activations kept", "processor time of the step")


def layer_table(facts: Mapping[str, Modes], title: str) -> Shown:
    """Show what each layer does besides its work in train mode, and what of it eval mode leaves.

    A dash is good news: nothing of the kind.
    """
    rows = [
        {
            "layer": name,
            "in train() moves": _moves(train),
            "same input twice": None if train.repeats else OTHER,
            "other examples beside it": None if train.alone else OTHER,
            "what eval() does not cure": _left(evaluate),
        }
        for name, (train, evaluate) in facts.items()
    ]
    return table(rows, title=title)


def _moves(facts: ForwardFacts) -> str | None:
    """The last part of each name: ``running_mean``."""
    return ", ".join(name.rpartition(".")[2] for name in facts.moved) or None


def _left(facts: ForwardFacts) -> str | None:
    left = [f"moves {_moves(facts)}"] if facts.moved else []
    left += [f"same input twice: {OTHER}"] if not facts.repeats else []
    left += [f"other examples beside it: {OTHER}"] if not facts.alone else []
    return "; ".join(left) or None


def picture(frozen: Place, count: int) -> str:
    """Write a row of blocks, the input on the left: a frozen one as ❄, one that trains by its number."""
    return " ".join(FROZEN if block in frozen else str(block) for block in range(1, count + 1))


def place_table(
    costs: Mapping[Place, Cost],
    count: int,
    pass_cost: int,
    title: str,
    guesses: Mapping[Place, float] | None = None,
) -> Shown:
    """Show what a training step costs for each place of the freeze; the first one is compared with.

    Parameters
    ----------
    costs
        From the frozen blocks to what a step then costs; the first is the one with nothing frozen.
    count
        How many blocks there are.
    pass_cost
        Operations of one pass through a block: `Cost.backward` is also shown in these.
    guesses
        The learner's own: a share of the first one's operations, in per cent; 0 for none.
    """
    full = next(iter(costs.values()))
    rows = []
    for place, cost in costs.items():
        row: dict[str, object] = {
            BLOCKS: picture(place, count),
            "backward(): passes through a block": round(cost.backward / pass_cost),
            "% of everything": round(100 * cost.backward / full.backward),
        }
        if guesses is not None:
            row["your guess (%)"] = guesses.get(place) or None
        row["activations (kB)"] = round(cost.activations / 1000)
        row["gradients (kB)"] = round(cost.gradients / 1000)
        rows.append(row)
    return _evenly_spaced(table(rows, title=title, digits=4), BLOCKS)


def _evenly_spaced(shown: Shown, title: str) -> Shown:
    """The table with a column in a fixed-width font, so that its rows stand below each other."""
    (page,) = shown.description.tables
    columns = tuple(replace(column, code=column.code or column.title == title) for column in page.columns)
    return Shown(Description(tables=(replace(page, columns=columns),)))


def place_chart(costs: Mapping[Place, Cost], seconds: Mapping[Place, float], count: int) -> Chart:
    """Draw what a step costs when the first k blocks, the last k, or block k alone is frozen.

    Parameters
    ----------
    costs, seconds
        For every place of `layerlab.experiments.places.sweep`, and for ``()``, nothing frozen, of which they
        are drawn as shares. Seconds are not said: they differ from run to run.
    count
        How many blocks there are.
    """
    full, full_seconds = costs[()], seconds[()]
    panels = [_lines(count, {place: c.backward / full.backward for place, c in costs.items()})]
    panels += [_lines(count, {place: c.activations / full.activations for place, c in costs.items()})]
    panels += [_lines(count, {place: one / full_seconds for place, one in seconds.items()})]
    with new_figure(11, 3.1) as figure:
        every = figure.subplots(1, len(panels), sharey=True)
        for axes, title, lines in zip(every, _PANELS, panels, strict=True):
            for (kind, points), (colour, dash, mark) in zip(lines.items(), _STYLES, strict=False):
                axes.plot(
                    list(points), list(points.values()), color=colour, linestyle=dash, marker=mark, label=kind
                )
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("k")
            axes.set_xticks(range(1, count + 1))
            axes.spines[["top", "right"]].set_visible(False)
        every[0].set_ylim(0, max(1.08, *(value for line in panels[2].values() for value in line.values())))
        every[0].set_ylabel("share of training everything (ratio)")
        figure.legend(
            *every[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, title="frozen"
        )
    said = [f"{what}: {_words(lines)}" for what, lines in zip(_PANELS[:2], panels, strict=False)]
    return Chart(
        figure,
        f"shares of training everything, by k. {'. '.join(said)}. ({_PANELS[2]}: drawn only, it differs from "
        "run to run)",
    )


def _lines(count: int, shares: Mapping[Place, float]) -> dict[str, dict[int, float]]:
    """From the kind of place to the shares by k."""
    return {kind: {k: shares[place] for k, place in by.items()} for kind, by in sweep(count).items()}


def _words(lines: Mapping[str, Mapping[int, float]]) -> str:
    kinds = [f"{kind} {', '.join(f'{one:.0%}' for one in points.values())}" for kind, points in lines.items()]
    return "; ".join(kinds)
