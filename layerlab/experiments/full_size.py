"""The recorded full-size runs side by side, beside what the document prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

from layerlab.data.backbones import Weights
from layerlab.experiments.outcome import Outcome
from layerlab.experiments.reproduce import Architecture, Row, read
from layerlab.experiments.settings import SETTINGS, Setting

STARTS: Final[tuple[tuple[Architecture, Weights | None, str], ...]] = (
    ("resnet18", None, "random weights"),
    ("resnet18", "imagenet", "torchvision's ImageNet weights"),
    ("resnet18", "imagenet-without-layer4", "ImageNet weights that lack layer4's convolutions"),
    ("resnet50", "imagenet", "ImageNet weights, not torchvision's"),
)
"""What the rows start from, in the order of the table."""


@dataclass(frozen=True)
class Line:
    """One setting from one start: what was recorded of it, a run for each seed."""

    setting: Setting
    architecture: Architecture
    start: str
    runs: tuple[Outcome, ...]
    document: float | None
    """What the document prints for it, from 0 to 1."""

    def mean(self, what: str) -> float | None:
        """Mean over the runs of an outcome's ``accuracy`` or ``best``; None where nothing was run."""
        return mean(getattr(run, what) for run in self.runs) if self.runs else None


def full_size_lines(folder: Path) -> Iterator[Line]:
    """The lines of the table, those that were not run, too.

    Parameters
    ----------
    folder
        Holds what ``layerlab reproduce`` wrote; only runs of the document's own protocol are looked at.

    Raises
    ------
    ValueError
        A file of such a name holds something else.
    """
    for architecture, weights, start in STARTS:
        for setting in SETTINGS if architecture == "resnet18" else list(SETTINGS)[1:]:
            if (setting == "scratch") != (weights is None):
                continue
            row = Row(setting, architecture, weights or "imagenet")
            runs = tuple(read(path) for path in sorted(folder.glob(f"{row.name.removesuffix('1')}*.json")))
            yield Line(setting, architecture, start, runs, row.document)
