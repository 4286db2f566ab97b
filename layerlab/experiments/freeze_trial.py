"""One training run in which a part of a model is frozen on the way: what `Compare` compares."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from layerlab.experiments.article import article_batch
from layerlab.experiments.configurations import CONFIGURATIONS
from layerlab.experiments.two_tasks import Network
from layerlab.ledger import Ledger, watch
from layerlab.names import Named, Pattern, find
from layerlab.training.machine import Chance

Loss = Callable[[Any], Tensor]
"""Computes the loss of the model that it is given, always on the same batch."""

_FIRST: tuple[type[Optimizer], ...] = (
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad),
)
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    cls.__name__: cls for cls in (*_FIRST, *(one.optimizer for one in CONFIGURATIONS), torch.optim.LBFGS)
}
"""The optimizers of the installed torch by name, the best known first."""

ZERO_GRAD: dict[str, bool | None] = {"None": True, "zeros": False, "never": None}
"""What ``zero_grad()`` leaves → its ``set_to_none``; None where it is not called."""

FREEZING = ("nothing", "requires_grad", "requires_grad, too late", "grad_none", "lr_zero")
"""How the part is frozen.

The flag before ``backward()``, the flag between ``backward()`` and ``step()``, the gradient set to None
there, or a parameter group of its own whose lr is set to 0.
"""

_OWN = ("momentum", "weight_decay")  # settings that not every optimizer has


def not_used(optimizer: str) -> tuple[str, ...]:
    """Which of the settings ``momentum`` and ``weight_decay`` an optimizer does not know."""
    known = inspect.signature(OPTIMIZERS[_one_of("optimizer", optimizer, OPTIMIZERS)]).parameters
    return tuple(setting for setting in _OWN if setting not in known)


def freeze_trial(
    model: nn.Module,
    loss: Loss,
    *,
    frozen: Pattern,
    optimizer: str = "SGD",
    zero_grad: str = "None",
    freezing: str = "nothing",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    lr: float = 0.1,
    steps: int = 3,
    freeze_after: int = 1,
) -> Ledger:
    """Train a copy of a model, freeze a part of it on the way, and return the ledger.

    It is plain PyTorch, without what `layerlab.freeze` does for you. The model, its gradients and the random
    state stay as they were; random numbers in the forward pass (dropout) are the same in every trial.

    Parameters
    ----------
    model
        Where to start: its weights, its flags and its train or eval mode.
    loss
        Given the copy, returns its loss on the same batch each time.
    frozen
        The part to freeze: a name, a glob or a list of these; see `layerlab.names.find`.
    optimizer
        A name in `OPTIMIZERS`. Whatever is not set here is torch's default.
    zero_grad
        What it leaves, called before each ``backward()``: ``"None"``, ``"zeros"``, or ``"never"`` called.
    freezing
        One of `FREEZING`.
    momentum, weight_decay
        The optimizer's own settings, 0 by default, also for those that torch gives another default.
    lr
        The learning rate.
    steps
        How many steps to train.
    freeze_after
        How many of them come before the part is frozen.

    Raises
    ------
    ValueError
        For a name that does not exist, a ``frozen`` that matches nothing, a momentum or weight decay that the
        optimizer does not know, nothing left to train, or a loss that does not depend on the model it is
        given.
    TypeError
        If ``model`` is no module, or ``loss`` cannot be called or returns no tensor.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"freeze_trial needs a torch.nn.Module, not {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"loss must be a function of the model, not {type(loss).__name__}")
    settings: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay}
    for setting in not_used(optimizer):
        if settings.pop(setting):
            raise ValueError(f"{optimizer} has no {setting}: leave it 0")
    _one_of("zero_grad", zero_grad, ZERO_GRAD)
    _one_of("freezing", freezing, FREEZING)
    if steps < 1:
        raise ValueError(f"steps={steps}: train one step or more")
    net = copy.deepcopy(model)
    net.zero_grad(set_to_none=True)
    part = find(net, frozen, buffers=False)
    _something_must_train(net, part, freezing)
    make = partial(OPTIMIZERS[optimizer], lr=lr, **settings)
    with Chance(0):
        return _train(net, loss, part, make, ZERO_GRAD[zero_grad], freezing, range(steps), freeze_after)


def _train(
    net: nn.Module,
    loss: Loss,
    part: list[Named],
    make: Callable[[Any], Optimizer],
    set_to_none: bool | None,
    freezing: str,
    steps: range,
    freeze_after: int,
) -> Ledger:
    layer = [named.tensor for named in part]
    apart = {id(p) for p in layer} if freezing == "lr_zero" else set()
    groups = [
        {"params": [p for p in net.parameters() if id(p) not in apart]},
        {"params": [p for p in net.parameters() if id(p) in apart]},
    ]
    optimizer = make([group for group in groups if group["params"]])

    def backward() -> Tensor:
        if set_to_none is not None:
            optimizer.zero_grad(set_to_none=set_to_none)
        value = loss(net)
        if not isinstance(value, Tensor):
            raise TypeError(f"loss(model) must return a tensor, not {type(value).__name__}")
        value.backward()
        if all(p.grad is None for p in net.parameters()):
            raise ValueError("loss(model) left no gradient in the model it was given: does it use another?")
        if step >= freeze_after and freezing == "requires_grad, too late":
            _set_flag(layer)
        if step >= freeze_after and freezing == "grad_none":
            for parameter in layer:
                parameter.grad = None
        return value.detach()

    with watch(net, optimizer) as ledger:
        for step in steps:
            if step == freeze_after and freezing == "requires_grad":
                _set_flag(layer)
            if step == freeze_after and freezing == "lr_zero":
                optimizer.param_groups[-1]["lr"] = 0.0
            if isinstance(optimizer, torch.optim.LBFGS):  # it evaluates the loss several times in a step
                optimizer.step(backward)
            else:
                backward()
                optimizer.step()
    return ledger


def _set_flag(layer: list[Tensor]) -> None:
    for parameter in layer:
        parameter.requires_grad_(False)


def _something_must_train(net: nn.Module, part: list[Named], freezing: str) -> None:
    layer = {id(named.tensor) for named in part}
    rest = [p for p in net.parameters() if p.requires_grad and id(p) not in layer]
    if not rest and freezing.startswith("requires_grad"):
        raise ValueError("frozen means every parameter that trains: backward() would raise; leave one out")


def _one_of(what: str, name: str, known: Any) -> str:
    if name not in known:
        raise ValueError(f"{what}={name!r}: choose one of {', '.join(map(repr, known))}")
    return name


class FreezeTrial:
    """`freeze_trial` of one model, loss and frozen part, to be called with the other settings.

    The model is copied once, so that all its trials start from the same weights. A momentum or weight decay
    that the optimizer does not know is left out, and `not_used` says so.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        frozen: Pattern,
        *,
        lr: float = 0.1,
        steps: int = 3,
        freeze_after: int = 1,
    ) -> None:
        find(model, frozen, buffers=False)  # a pattern that matches nothing is refused here
        self._trial = partial(
            freeze_trial,
            copy.deepcopy(model),
            loss,
            frozen=frozen,
            lr=lr,
            steps=steps,
            freeze_after=freeze_after,
        )

    @classmethod
    def of_the_article(cls) -> FreezeTrial:
        """Freeze hidden_task1 of the article's network, which trains on both tasks at once."""
        batch = article_batch()
        with torch.random.fork_rng(devices=[]):  # a new network draws random weights first
            net = Network.from_article(softmax=False)

        def loss(net: nn.Module) -> Tensor:
            losses = [cross_entropy(net(inputs, task), targets) for task, (inputs, targets) in batch.items()]
            return torch.stack(losses).sum()

        return cls(net, loss, "hidden_task1")

    def __call__(self, **settings: Any) -> Ledger:
        """Make one run; see `freeze_trial`."""
        dropped = self.not_used(**settings)
        return self._trial(**{name: value for name, value in settings.items() if name not in dropped})

    def not_used(self, **settings: Any) -> dict[str, str]:
        """The settings that do not apply → why: ``{"momentum": "not used by Adam"}``."""
        optimizer = settings.get("optimizer", "SGD")
        return {name: f"not used by {optimizer}" for name in not_used(optimizer) if name in settings}
