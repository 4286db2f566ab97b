"""Five ways to give a network a new task: from scratch, and four that start from pretrained weights.

They are the five settings of "7.2 模型 Finetune" (PyTorch 学习笔记), which prints a result for two of them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from layerlab.freezing import BatchNorm, Freeze, freeze
from layerlab.names import tensors
from layerlab.training import Batches, Epoch, Run, cached_features, hardware

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


class Transfer:
    """One setting, ready to train; ``outcome`` is what it has come to so far.

    Parameters
    ----------
    setting
        One of `SETTINGS`.
    model
        The model to train, with its new head ``fc``: its weights random for ``scratch``, pretrained for the
        others. It is trained in place, and left with its flags as they were after `close`.
    train, test
        The data of the new task.
    cached
        Compute the frozen backbone's outputs once: bitwise the same head, far quicker. Only for ``frozen``
        with ``batchnorm="eval"``.
    about
        What else the outcome and the saved file are to say: where data and weights came from.
    save_to
        See `layerlab.training.Run`.

    Attributes
    ----------
    run : layerlab.training.Run
        ``for epoch in transfer.run.epochs(25): …``
    model, optimizer
        What trains; ``model`` is the whole also where only its head is run.

    Raises
    ------
    ValueError
        There is no such setting or schedule; or ``cached`` for one whose backbone does not stand still.
    """

    def __init__(
        self,
        setting: Setting,
        model: nn.Module,
        train: Batches,
        test: Batches,
        recipe: Recipe,
        *,
        seed: int = 0,
        cached: bool = False,
        device: torch.device | str = "cpu",
        save_to: Path | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if setting not in SETTINGS:
            raise ValueError(f"setting={setting!r}: choose one of {', '.join(SETTINGS)}")
        if cached and (setting != "frozen" or recipe.batchnorm != "eval"):
            raise ValueError(
                f"cached=True with setting={setting!r} and batchnorm={recipe.batchnorm!r}: only a backbone "
                "that stands still gives the same features again, setting='frozen' with batchnorm='eval'"
            )
        self.model = model.to(device)
        self._handle: Freeze | None = None
        if setting in ("frozen", "lr_zero"):
            self._handle = _freeze_backbone(model, setting, recipe.batchnorm)
        try:
            self.optimizer = optimizer_for(setting, model, recipe)
            learner = model
            if cached:
                learner = model.get_submodule(HEAD)
                train, test = (cached_features(model, HEAD, data, device=device) for data in (train, test))
            self.run = Run(
                learner,
                self.optimizer,
                train,
                test,
                batch_size=recipe.batch_size,
                seed=seed,
                scheduler=_scheduler(self.optimizer, recipe),
                test_every=recipe.test_every,
                device=device,
                save_to=save_to,
                about={"setting": setting, "cached": cached, "recipe": asdict(recipe), **(about or {})},
            )
        except BaseException:
            self.close()
            raise
        self.recipe, self._device = recipe, device

    def epochs(self) -> Iterator[Epoch]:
        """Train what is left of the recipe's epochs, and give each as it ends."""
        return self.run.epochs(self.recipe.epochs)

    @property
    def outcome(self) -> Outcome:
        """What it has come to so far."""
        return Outcome(self.run.about, made_with(self._device), tuple(self.run.history))

    def close(self) -> None:
        """Release what was frozen."""
        if self._handle is not None:
            self._handle.release()


def transfer(
    setting: Setting,
    model: nn.Module,
    train: Batches,
    test: Batches,
    recipe: Recipe,
    *,
    after_epoch: Callable[[Epoch], None] | None = None,
    **options: Any,
) -> Outcome:
    """Train one setting to its end, going on from ``save_to`` if that is there; parameters as in `Transfer`.

    Parameters
    ----------
    after_epoch
        Called with each epoch as it ends.
    """
    work = Transfer(setting, model, train, test, recipe, **options)
    try:
        work.run.resume()
        for epoch in work.epochs():
            if after_epoch is not None:
                after_epoch(epoch)
        return work.outcome
    finally:
        work.close()


def optimizer_for(setting: Setting, model: nn.Module, recipe: Recipe) -> Optimizer:
    """The optimizer of a setting, for a model whose flags are set already."""
    options: dict[str, Any] = {
        "lr": recipe.lr,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
    }
    head = list(model.get_submodule(HEAD).parameters())
    ids = set(map(id, head))
    backbone = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    if setting == "frozen":
        return SGD(head, **options)
    if setting in ("lr_zero", "lr_tenth"):
        lr = 0.0 if setting == "lr_zero" else recipe.lr / 10
        groups: list[dict[str, Any]] = [{"params": backbone, "lr": lr}, {"params": head}]
        return SGD(groups, **options)
    return SGD(model.parameters(), **options)


def made_with(device: torch.device | str) -> dict[str, str]:
    """Versions, and what computes."""
    packages = {name: metadata.version(name) for name in ("torch", "torchvision", "layerlab")}
    return {**packages, "python": platform.python_version(), "hardware": hardware(device)}


def _freeze_backbone(model: nn.Module, setting: Setting, batchnorm: BatchNorm) -> Freeze | None:
    """Freeze all but the head by its flags; for lr = 0, which the optimizer does, only BatchNorm's modes."""
    backbone = [named.name for named in tensors(model) if named.name.partition(".")[0] != HEAD]
    if setting == "frozen":
        return freeze(model, backbone, batchnorm=batchnorm)
    statistics = [name for name in backbone if name.endswith((".running_mean", ".running_var"))]
    return freeze(model, statistics) if batchnorm == "eval" and statistics else None


def _scheduler(optimizer: Optimizer, recipe: Recipe) -> LRScheduler | None:
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=7, gamma=0.1)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    if recipe.schedule == "constant":
        return None
    raise ValueError(f"schedule={recipe.schedule!r}: choose 'step', 'cosine' or 'constant'")
