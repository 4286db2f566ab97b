"""The five settings: what each holds still, and its optimizer.

They are those of "7.2 模型 Finetune" (PyTorch 学习笔记), which prints a result for two of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from layerlab.freezing import BatchNorm, Freeze, freeze
from layerlab.names import tensors
from layerlab.show.alphabet import BLUE, GREEN, ORANGE, PURPLE, VERMILLION

Setting = Literal["scratch", "fine_tune", "frozen", "lr_zero", "lr_tenth"]

SETTINGS: Final[Mapping[Setting, str]] = MappingProxyType(
    {
        "scratch": "random weights, everything trains",
        "fine_tune": "pretrained, everything trains",
        "frozen": "pretrained, the head trains: requires_grad=False for the rest",
        "lr_zero": "pretrained, the head trains: lr = 0 for the rest",
        "lr_tenth": "pretrained, everything trains: a tenth of the head's lr for the rest",
    }
)
"""The settings, in the order in which the document has them, and what each does."""

COLOURS: Final[Mapping[Setting, str]] = MappingProxyType(
    {"scratch": VERMILLION, "fine_tune": BLUE, "frozen": GREEN, "lr_zero": ORANGE, "lr_tenth": PURPLE}
)
"""The colour of each setting in all pictures."""

RESNET_BODY: Final = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
"""The layers of torchvision's ResNets from the input on, but for the head."""

HEAD = "fc"
"""The module that is new for the new task: what torchvision calls it in its ResNets."""


@dataclass(frozen=True)
class Recipe:
    """How long and with what a setting is trained.

    Attributes
    ----------
    lr
        The head's learning rate at the start; SGD's.
    schedule
        ``"step"``: after every 7 epochs a tenth. ``"cosine"``: down to 0 at the last epoch. ``"constant"``.
    batchnorm
        Whether the running statistics of a part that is frozen (``frozen``, ``lr_zero``) stay as they are,
        ``"eval"``, or go on following the batches, ``"train"``.
    test_every
        Measure after every so many epochs, and after the last.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["step", "cosine", "constant"] = "constant"
    batchnorm: BatchNorm = "eval"
    test_every: int = 1


DOCUMENT: Final = Recipe(epochs=25, batch_size=16, lr=0.001, schedule="step")
"""The document's own: 224 pixels, batches of 16, SGD with lr 0.001 and momentum 0.9, StepLR(7, 0.1)."""


def layers(model: nn.Module) -> list[str]:
    """The layers of the backbone, from the input on: its modules that hold tensors, but for the head."""
    names = (named.name.partition(".")[0] for named in tensors(model))
    return [name for name in dict.fromkeys(names) if name != HEAD]


def held_layers(setting: Setting, model: nn.Module, upto: str | None) -> list[str]:
    """The layers that a setting holds still, up to this one; by default the whole backbone.

    Raises
    ------
    ValueError
        There is no such setting or layer, or the setting holds nothing still.
    """
    if setting not in SETTINGS:
        raise ValueError(f"setting={setting!r}: choose one of {', '.join(SETTINGS)}")
    known = layers(model)
    if setting not in ("frozen", "lr_zero"):
        if upto is not None:
            raise ValueError(f"frozen_up_to={upto!r}: setting={setting!r} freezes nothing")
        return []
    if upto is None:
        return known
    if upto not in known:
        raise ValueError(f"frozen_up_to={upto!r}: choose one of {', '.join(known)}")
    return known[: known.index(upto) + 1]


def freeze_layers(
    model: nn.Module, held: Sequence[str], setting: Setting, batchnorm: BatchNorm
) -> Freeze | None:
    """Freeze by the flags; for lr = 0, which is the optimizer's part, only BatchNorm's modes."""
    if setting == "frozen":
        return freeze(model, list(held), batchnorm=batchnorm)
    below = [named.name for named in tensors(model) if named.name.partition(".")[0] in held]
    statistics = [name for name in below if name.endswith((".running_mean", ".running_var"))]
    return freeze(model, statistics) if batchnorm == "eval" and statistics else None


def optimizer_for(setting: Setting, model: nn.Module, held: Sequence[str], recipe: Recipe) -> Optimizer:
    """The optimizer of a setting; one parameter group for each learning rate."""
    options: dict[str, Any] = {
        "lr": recipe.lr,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
    }
    apart = held if setting != "lr_tenth" else layers(model)
    inside: list[nn.Parameter] = []
    outside: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (inside if name.partition(".")[0] in apart else outside).append(parameter)
    if setting in ("lr_zero", "lr_tenth"):
        lr = 0.0 if setting == "lr_zero" else recipe.lr / 10
        groups: list[dict[str, Any]] = [{"params": inside, "lr": lr}, {"params": outside}]
        return SGD(groups, **options)
    return SGD(outside, **options)


def scheduler_for(optimizer: Optimizer, recipe: Recipe) -> LRScheduler | None:
    """The scheduler of a recipe, to step after each epoch.

    Raises
    ------
    ValueError
        The recipe names another.
    """
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=7, gamma=0.1)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    if recipe.schedule == "constant":
        return None
    raise ValueError(f"schedule={recipe.schedule!r}: choose 'step', 'cosine' or 'constant'")
