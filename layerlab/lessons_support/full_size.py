"""The recorded full-size runs as a table and a picture, beside what the document prints."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from layerlab.experiments.full_size import full_size_lines
from layerlab.experiments.settings import COLOURS
from layerlab.show import Shown, table
from layerlab.show.chart import Chart, new_figure

DASHES: Final = {"scratch": "-", "fine_tune": "-", "frozen": "--", "lr_zero": ":", "lr_tenth": "-."}


def full_size_table(folder: Path) -> Shown:
    """Show the recorded runs beside the document's, and which ones are missing."""
    lines = [
        {
            "network": line.architecture,
            "starts from": line.start,
            "setting": line.setting,
            "the document": _percent(line.document),
            "ours, last epoch": _percent(line.mean("accuracy")) or "not run",
            "best epoch": _percent(line.mean("best")),
            "seeds": len(line.runs) or "",
        }
        for line in full_size_lines(folder)
    ]
    return table(lines, title="ants and bees, 25 epochs, 153 validation images (mean over the seeds)")


def full_size_chart(folder: Path) -> Chart:
    """Draw the validation accuracy over the epochs, a panel for each start that was run.

    Raises
    ------
    ValueError
        Nothing was recorded there.
    """
    ran = [line for line in full_size_lines(folder) if line.runs]
    if not ran:
        raise ValueError(f"no recorded full-size run in {folder}")
    starts = list(dict.fromkeys((line.architecture, line.start) for line in ran))
    with new_figure(1.2 + 2.9 * len(starts), 3.4) as figure:
        panels = figure.subplots(1, len(starts), sharey=True, squeeze=False)[0]
        for axes, start in zip(panels, starts, strict=True):
            for line in ran:
                if (line.architecture, line.start) != start:
                    continue
                colour, dash = COLOURS[line.setting], DASHES[line.setting]
                for number, run in enumerate(line.runs):
                    measured = [epoch for epoch in run.epochs if epoch.test_accuracy is not None]
                    axes.plot(
                        [epoch.number for epoch in measured],
                        [100 * epoch.test_accuracy for epoch in measured if epoch.test_accuracy is not None],
                        color=colour,
                        linestyle=dash,
                        label=None if number else line.setting,
                    )
                if line.document is not None:
                    axes.axhline(100 * line.document, color=colour, linewidth=0.8, alpha=0.7)
                    axes.text(
                        0.5,
                        100 * line.document + 0.5,
                        "the document",
                        fontsize=8,
                        color="#555555",
                        va="bottom",
                    )
            axes.set_title(f"{start[0]}\n{_wrapped(start[1])}", fontsize=9)
            axes.set_xlabel("epoch")
            axes.legend(frameon=False, loc="lower right")
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("validation images answered right (%)")
    said = "; ".join(
        f"{line.architecture} from {line.start}, {line.setting}: {_percent(line.mean('accuracy'))}"
        for line in ran
    )
    return Chart(figure, f"validation accuracy over 25 epochs of ants and bees. After the last: {said}")


def _wrapped(start: str) -> str:
    return start.replace(" that", "\nthat").replace(", not", ",\nnot")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
