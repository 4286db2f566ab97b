"""Every dense optimizer of the installed torch, with the settings that can move a frozen tensor.

The classes and their settings are read from `torch.optim`, so a new optimizer appears here by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Configuration:
    """An optimizer class with its settings, and a name for it."""

    name: str
    optimizer: type[Optimizer]
    options: dict[str, Any]

    def make(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Return a new optimizer. Adadelta keeps its own lr of 1, which is a factor and not a step size."""
        return self.optimizer(params, **{"lr": lr, **self.options})


def _why_not(optimizer: type[Optimizer]) -> str | None:
    """Return why an optimizer class cannot take part in the comparison, or None."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return "its step() needs a closure"
    if "Sparse" in optimizer.__name__:
        return "it takes sparse gradients only"
    return None


def _variants(optimizer: type[Optimizer]) -> list[Configuration]:
    """Return an optimizer class with its defaults and with what else can move a frozen tensor switched on."""
    name = optimizer.__name__
    default = {k: p.default for k, p in inspect.signature(optimizer).parameters.items()}
    base = {"lr": 1.0} if name == "Adadelta" else {}
    settings: dict[str, dict[str, Any]] = {name: {}}
    if default.get("momentum") == 0:
        settings[f"{name} + momentum"] = {"momentum": 0.9}
    if default.get("weight_decay") == 0:
        settings[f"{name} + weight decay"] = {"weight_decay": 0.01}
        if default.get("momentum") == 0:
            settings[f"{name} + momentum + weight decay"] = {"momentum": 0.9, "weight_decay": 0.01}
    if "betas" in default:
        settings[f"{name} β1 = 0"] = {"betas": (0.0, 0.999)}
    return [Configuration(n, optimizer, base | options) for n, options in settings.items()]


def _implementations(one: Configuration) -> list[Configuration]:
    """Return the same configuration with torch's other implementations of it, where it has them."""
    known = inspect.signature(one.optimizer).parameters
    return [
        Configuration(f"{one.name} ({kind})", one.optimizer, one.options | {kind: True})
        for kind in ("foreach", "fused")
        if kind in known
    ]


_CLASSES: list[type[Optimizer]] = [
    cls
    for _, cls in sorted(vars(torch.optim).items())
    if inspect.isclass(cls) and issubclass(cls, Optimizer) and cls is not Optimizer
]

NOT_COMPARED: dict[str, str] = {cls.__name__: why for cls in _CLASSES for why in [_why_not(cls)] if why}
"""The optimizers of the installed torch that `CONFIGURATIONS` leaves out → why."""

CONFIGURATIONS: list[Configuration] = [
    one for cls in _CLASSES if cls.__name__ not in NOT_COMPARED for one in _variants(cls)
]
"""Every other optimizer of the installed torch: defaults, + momentum .9, + weight decay .01, β1 = 0."""

IMPLEMENTATIONS: list[Configuration] = [twin for one in CONFIGURATIONS for twin in _implementations(one)]
"""The foreach and fused twins of `CONFIGURATIONS`, where torch has them."""
