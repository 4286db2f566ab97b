"""What `TrainLab` says of its runs: to its page, and as text and HTML where no kernel runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from layerlab.experiments.settings import COLOURS, SETTINGS, Setting
from layerlab.printable import printable
from layerlab.show.alphabet import ink
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.show.words import MISSING, plural, short
from layerlab.widgets.base import in_words
from layerlab.widgets.train_choices import NAMES, WORDS
from layerlab.widgets.train_run import LabRun

DRAWN = (
    "A running notebook draws test accuracy and training loss as each run goes, and how far a step moves "
    "each layer."
)

_MARKS: Final = list(SETTINGS)


def for_the_page(runs: Sequence[LabRun]) -> list[dict[str, Any]]:
    """All that the page draws of each run: a few hundred bytes, and some 20 an epoch."""
    settings = [run.setting for run in runs]
    return [_for_the_page(run, settings[:at].count(run.setting)) for at, run in enumerate(runs)]


def _for_the_page(run: LabRun, again: int) -> dict[str, Any]:
    seconds = run.seconds_a_step
    pace = f"{short(1000 * seconds, 2)} ms" if seconds is not None else MISSING
    return {
        "number": run.number,
        "name": f"{NAMES[run.setting]}{_depth(run)}",
        "ink": ink(COLOURS[run.setting]),
        "mark": _MARKS.index(run.setting),
        "again": again,  # runs of this setting that stand before it: each has another dash pattern
        "state": run.state,
        "error": in_words(run.error) if run.error is not None else "",
        "until": run.until,
        "step": run.step,
        "steps": run.steps_an_epoch,
        "chosen": [NAMES[run.setting], *_choices(run)],
        "came_to": [*_figures(run), _epochs(run), pace],
        "loss": [_sent(epoch.train_loss) for epoch in run.epochs],
        "right": [_sent(epoch.test_accuracy) for epoch in run.epochs],
        "ratios": [
            {
                "epoch": look.epoch,
                "lr": short(look.lr),
                "layers": [
                    [printable(name), _sent(ratio), name in look.frozen]
                    for name, ratio in look.layers.items()
                ],
            }
            for look in run.ratios
        ],
    }


def describe_runs(
    runs: Sequence[LabRun], settings: Sequence[Setting], each: str, figures: bool
) -> Description:
    """A table of the runs: the same on every machine, but for the figures that are asked for.

    Parameters
    ----------
    settings
        Those that are offered: they are explained, or, once there are runs, those of them that were run.
    each
        What the images are counted by: ``"class"``.
    figures
        Whether to write accuracies and losses, which differ a little between machines.
    """
    columns = [Column("run"), Column("setting"), Column("frozen up to", code=True, names=True)]
    columns += [Column("lr", align="right", code=True), Column(f"images of each {each}", align="right")]
    columns += [Column("seed", align="right"), Column("epochs", align="right"), Column("state")]
    if figures:
        columns += [Column("test images right", align="right"), Column("training loss", align="right")]
    else:
        columns += [Column("training loss")]
    columns.append(Column("layers that moved", code=True))
    rows = []
    for run in runs:
        said = [str(run.number), NAMES[run.setting], *_choices(run), _epochs(run), _state(run)]
        said += [*(_figures(run) if figures else [_verdict(run)]), _moved(run)]
        rows.append(Row(tuple(map(Cell, said))))
    used = [one for one in settings if any(run.setting == one for run in runs)] if runs else settings
    notes = [f"{NAMES[one]}: {WORDS[one]}" for one in used]
    title = f"TrainLab: {plural(len(runs), 'run')}" if runs else "TrainLab: no run yet"
    return Description(tables=(Table(title, tuple(columns), tuple(rows), notes=tuple(notes)),), note=DRAWN)


def _depth(run: LabRun) -> str:
    return f" up to {printable(run.frozen_up_to)}" if run.frozen_up_to is not None else ""


def _choices(run: LabRun) -> list[str]:
    upto = printable(run.frozen_up_to) if run.frozen_up_to is not None else MISSING
    return [upto, short(run.lr), str(run.per_class), str(run.seed)]


def _figures(run: LabRun) -> list[str]:
    measured = [epoch.test_accuracy for epoch in run.epochs if epoch.test_accuracy is not None]
    right = f"{100 * measured[-1]:.1f} %" if measured else MISSING
    return [right, short(run.epochs[-1].train_loss) if run.epochs else MISSING]


def _epochs(run: LabRun) -> str:
    return f"{len(run.epochs)} of {run.until}"


def _state(run: LabRun) -> str:
    return f"failed: {in_words(run.error)}" if run.error is not None else run.state


def _verdict(run: LabRun) -> str:
    """How the training loss went, in a word that does not hang on the last digits."""
    if len(run.epochs) < 2:
        return MISSING
    first, last = run.epochs[0].train_loss, run.epochs[-1].train_loss
    if not math.isfinite(last):
        return "not finite"
    return "fell" if last < first else "did not fall"


def _moved(run: LabRun) -> str:
    """The layers that moved in any step that was watched."""
    if not run.ratios:
        return MISSING
    layers = list(run.ratios[0].layers)
    moved = [name for name in layers if any(look.layers.get(name) for look in run.ratios)]
    if moved == layers:
        return "all"
    if len(moved) > 2 and moved == layers[-len(moved) :]:
        return printable(f"{moved[0]} … {moved[-1]}")
    return printable(", ".join(moved)) or "none"


def _sent(value: float | None) -> float | None:
    """Six figures; JSON has no NaN and no infinity."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
