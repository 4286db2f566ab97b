"""torchvision's ResNets with the weights asked for, and a new head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from layerlab.data import checkpoints
from layerlab.data.errors import DataError
from layerlab.data.places import DATA, given, way_out

Weights = Literal["imagenet", "imagenet-without-layer4"]

ARCHITECTURES = ("resnet18", "resnet50")
WITHOUT_LAYER4 = "resnet18_imagenet_without_layer4_convs.pt"
HALF_PRECISION = "resnet50_imagenet_fp16.pt"
MISSING = tuple(f"layer4.{block}.conv{conv}.weight" for block in (0, 1) for conv in (1, 2))
"""What the file `WITHOUT_LAYER4` lacks."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network to fine-tune."""

    model: nn.Module
    """torchvision's own architecture, whose ``fc`` is a new `torch.nn.Linear`; all else has its names."""
    came_from: str
    """One sentence: which weights these are and where they came from."""
    missing: tuple[str, ...] = ()
    """Tensors that the weights asked for do not have, so that they are random; the new ``fc`` not counted."""


def backbone(
    arch: Literal["resnet18", "resnet50"] = "resnet18",
    weights: Weights | None = "imagenet",
    *,
    classes: int = 2,
    seed: int = 0,
    progress: bool | None = None,
) -> Backbone:
    """Build a ResNet with a new head.

    Parameters
    ----------
    arch
        ``"resnet18"`` or ``"resnet50"``.
    weights
        None leaves all weights random. ``"imagenet"`` takes torchvision's ``IMAGENET1K_V1``: its file, under
        its own name, in the folder that ``LAYERLAB_DATA`` names, else torch.hub's cache, else a download
        through torchvision. For ``"resnet50"`` the folder may have ``resnet50_imagenet_fp16.pt`` instead,
        which are other numbers, as `Backbone.came_from` then says. ``"imagenet-without-layer4"``, for
        ``"resnet18"``, takes ``resnet18_imagenet_without_layer4_convs.pt`` in that folder, which lacks four
        tensors; before fine-tuning it, call `layerlab.data.recalibrate_batchnorm`.
    classes
        How many outputs the new head has.
    seed
        Decides everything random: the head is the same whatever the weights. The global random state is left
        alone.
    progress
        Whether a download shows a bar; None shows it only in a terminal.

    Raises
    ------
    DataError
        The weights cannot be had, or do not fit. They are never replaced by others.
    ValueError
        For another `arch`, other `weights`, or less than one class.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch must be one of {', '.join(ARCHITECTURES)}, not {arch!r}")
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be a positive whole number, not {classes!r}")
    missing: tuple[str, ...] = ()
    state: dict[str, Tensor] | None = None
    if weights is None:
        came_from = f"torchvision's {arch} with random weights"
    elif weights == "imagenet":
        state, came_from = _imagenet(arch, progress)
    elif weights == "imagenet-without-layer4" and arch == "resnet18":
        state, came_from = _without_layer4()
        missing = MISSING
    else:
        raise ValueError(
            f"weights must be None, 'imagenet' or, for resnet18, 'imagenet-without-layer4'; "
            f"{arch} has no {weights!r}"
        )
    model, head = _random(arch, classes, seed)
    if state is not None:
        _load(model, state, arch, missing)
    model.fc = head
    heads = f"a new random head of {classes} output{'s' * (classes != 1)} (seed {seed})"
    return Backbone(model, f"{came_from}; {heads}", missing)


def _random(arch: str, classes: int, seed: int) -> tuple[nn.Module, nn.Linear]:
    from torchvision import models

    # Not torch.manual_seed: it would also set the accelerators' generators, which fork_rng would not restore.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = getattr(models, arch)(weights=None)
        assert isinstance(model.fc, nn.Linear)
        return model, nn.Linear(model.fc.in_features, classes)


def _imagenet(arch: str, progress: bool | None) -> tuple[dict[str, Tensor], str]:
    published = checkpoints.published(arch)
    name = checkpoints.file_name(published)
    if (found := given(name)) is not None:
        checkpoints.verify(found, published)
        return checkpoints.read(found), f"torchvision's {published}, from {name} where {DATA} says, verified"
    if arch == "resnet50" and (found := given(HALF_PRECISION)) is not None:
        said = f"ImageNet weights of {arch}, not torchvision's own, from {HALF_PRECISION} where {DATA} says"
        return checkpoints.read(found), said
    return checkpoints.through_torchvision(published, progress), f"torchvision's {published}, verified"


def _without_layer4() -> tuple[dict[str, Tensor], str]:
    if (found := given(WITHOUT_LAYER4)) is None:
        cause = f"{DATA} is not set, or its folder has none"
        raise DataError(f"There is no {WITHOUT_LAYER4}: {cause}. {way_out(WITHOUT_LAYER4)}")
    said = f"ImageNet weights of resnet18 from {WITHOUT_LAYER4} where {DATA} says"
    return checkpoints.read(found), f"{said}; random, for they are missing: {', '.join(MISSING)}"


def _load(model: nn.Module, state: dict[str, Tensor], arch: str, missing: Sequence[str]) -> None:
    wrong = _misfits(model.state_dict(), state, missing)
    if wrong:
        shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise DataError(f"The weights do not fit {arch}: {shown}. Give the file that was asked for.")
    model.load_state_dict(state, strict=not missing)


def _misfits(own: dict[str, Tensor], state: dict[str, Tensor], missing: Sequence[str]) -> list[str]:
    wrong = [f"{name} is missing" for name in own if name not in state and name not in missing]
    for name, tensor in state.items():
        if name not in own:
            wrong.append(f"{name} has no place in it")
        elif name in missing:
            wrong.append(f"{name} should be missing and is not")
        elif tensor.shape != own[name].shape:
            wrong.append(f"{name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
        elif tensor.is_floating_point() != own[name].is_floating_point():
            wrong.append(f"{name} is {tensor.dtype}, not {own[name].dtype}")
    return wrong
