"""What a training run came to: every epoch, what the run was, and what it was made with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from layerlab.training import Epoch, hardware


@dataclass(frozen=True)
class Outcome:
    """What a setting came to.

    Attributes
    ----------
    about
        What the run was: setting, seed, recipe, data and weights in words, whether features were cached.
    made_with
        Versions, and what it was computed on.
    epochs
        Every epoch.
    """

    about: Mapping[str, Any]
    made_with: Mapping[str, str]
    epochs: tuple[Epoch, ...]

    @property
    def accuracy(self) -> float:
        """Of the last epoch that was measured, from 0 to 1."""
        return self._accuracies()[-1]

    @property
    def best(self) -> float:
        """The largest that was measured: chosen on the test images, so no fair figure."""
        return max(self._accuracies())

    def _accuracies(self) -> list[float]:
        return [epoch.test_accuracy for epoch in self.epochs if epoch.test_accuracy is not None]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        epochs = [asdict(epoch) | {"lrs": list(epoch.lrs)} for epoch in self.epochs]
        return {"about": dict(self.about), "made_with": dict(self.made_with), "epochs": epochs}


def made_with(device: torch.device | str) -> dict[str, str]:
    """Versions, and what computes."""
    packages = {name: metadata.version(name) for name in ("torch", "torchvision", "layerlab")}
    return {**packages, "python": platform.python_version(), "hardware": hardware(device)}
