"""Does it pay to choose for each image which blocks are tuned? Seven methods, two tasks, small images.

The learned choice is SpotTune's (Guo et al., "SpotTune: Transfer Learning through Adaptive Fine-tuning",
CVPR 2019), reduced to four blocks and 8×8 scans; see `layerlab.experiments.two_copies`. Simplified: the
temperature is fixed, at test time the likelier copy is taken, and one optimizer trains the policy too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from layerlab.data import Images
from layerlab.data.digits import source, target
from layerlab.experiments.two_copies import Coin, Look, Policy, SameForAll, SmallResNet, TwoCopies
from layerlab.training import Run, evaluate
from layerlab.training.machine import Chance

Task = Literal["negatives", "new_digits"]
Method = Literal[
    "scratch", "frozen", "last_two", "fine_tune", "random_routes", "one_route_for_all", "spot_tune"
]

TASKS: Final[Mapping[Task, str]] = MappingProxyType(
    {
        "negatives": "source: all ten digits; target: the same, but every other image is a negative",
        "new_digits": "source: the digits 0 to 4; target: all ten",
    }
)
"""The tasks. Half of the target's images are foreign to the source: negatives, or the digits 5 to 9."""

METHODS: Final[Mapping[Method, str]] = MappingProxyType(
    {
        "scratch": "random weights, everything trains",
        "frozen": "pretrained, only the head trains (its norm and its linear layer)",
        "last_two": "pretrained, the last two blocks and the head train",
        "fine_tune": "pretrained, all four blocks and the head train",
        "random_routes": "two copies of each block, a coin chooses for each image",
        "one_route_for_all": "two copies of each block, one learned choice for all images",
        "spot_tune": "two copies of each block, a learned choice for each image",
    }
)
"""The methods, and what each does. Those that are pretrained leave the stem as it is."""

POLICIES: Final[Mapping[str, Callable[[], nn.Module]]] = MappingProxyType(
    {
        "random_routes": Coin,
        "one_route_for_all": lambda: Policy(SameForAll()),
        "spot_tune": lambda: Policy(Look()),
    }
)
"""What makes the policy, of the methods that have one."""

PER_DIGIT: Final = 5
"""Labelled images of each digit."""
PRETRAINING_EPOCHS: Final = 8
EPOCHS: Final = 60
"""Each is one step of Adam on all labelled images, its learning rate falling to 0 by a cosine."""


@dataclass(frozen=True)
class Parts:
    """The images of a task.

    Attributes
    ----------
    train
        The labelled ones.
    development, test
        Two halves of all others: one to choose learning rates by, one that chooses nothing.
    foreign
        Which of the test images are unlike those of the source.
    """

    train: Images
    development: Images
    test: Images
    foreign: Tensor


@dataclass(frozen=True)
class Result:
    """What a method came to: shares of images answered right, from 0 to 1.

    Attributes
    ----------
    familiar, foreign
        Of the test images that are like those of the source, and of the others.
    tuned
        For familiar and for foreign test images: the share of them that goes through the tuned copy, block by
        block. Empty for a method without a policy.
    """

    development: float
    test: float
    familiar: float
    foreign: float
    tuned: tuple[tuple[float, ...], ...] = ()


def parts(task: Task, seed: int = 0) -> Parts:
    """Draw the images of a task; the same on any machine.

    Raises
    ------
    ValueError
        There is no such task.
    """
    _known(task)
    chance = torch.Generator().manual_seed(seed)
    train, rest = (
        some.take(torch.randperm(len(some), generator=chance))
        for some in target(PER_DIGIT, seed, task="digit")
    )
    if task == "negatives":
        train, rest = _every_other_negative(train), _every_other_negative(rest)
        foreign = torch.arange(len(rest)) % 2 == 1
    else:
        foreign = rest.labels >= 5
    half = len(rest) // 2
    return Parts(train, rest.take(slice(half)), rest.take(slice(half, None)), foreign[half:])


def _known(task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"task={task!r}: choose one of {', '.join(TASKS)}")


def _every_other_negative(images: Images) -> Images:
    sign = 1.0 - 2.0 * (torch.arange(len(images)) % 2)
    told = f"every other one a negative: {images.came_from}"
    return replace(images, pixels=images.pixels * sign[:, None, None, None], came_from=told)


def pretrained(task: Task, seed: int = 0) -> dict[str, Tensor]:
    """Train the small network on the source of a task, a few seconds; its state dict.

    Raises
    ------
    ValueError
        There is no such task.
    """
    _known(task)
    digits = range(10) if task == "negatives" else range(5)
    images = source(digits)
    net = small_resnet(len(digits), seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    steps = PRETRAINING_EPOCHS * -(-len(images) // 32)
    schedule = OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    run = Run(net, optimizer, images, batch_size=32, seed=seed, scheduler=schedule, schedule="step")
    for _ in run.epochs(PRETRAINING_EPOCHS):
        pass
    return net.state_dict()


def small_resnet(classes: int, seed: int) -> SmallResNet:
    """The network with random weights of a seed; the caller's random state stays as it was."""
    with Chance(seed):
        return SmallResNet(classes)


def model_for(method: Method, weights: Mapping[str, Tensor], seed: int = 0) -> nn.Module:
    """The model of a method, its flags set.

    Parameters
    ----------
    weights
        From `pretrained`. A head for ten digits is kept, another one is replaced by a new one.

    Raises
    ------
    ValueError
        There is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: choose one of {', '.join(METHODS)}")
    net = small_resnet(10, seed)
    if method == "scratch":
        return net
    fits = {name: t for name, t in weights.items() if t.shape == net.state_dict()[name].shape}
    net.load_state_dict(fits, strict=False)
    net.stem.requires_grad_(False)
    if method in ("frozen", "last_two"):
        net.blocks[: 2 if method == "last_two" else None].requires_grad_(False)
    if method not in POLICIES:
        return net
    with Chance(seed):
        return TwoCopies(net, POLICIES[method]())


def learn(
    method: Method, some: Parts, weights: Mapping[str, Tensor], *, seed: int = 0, lr: float = 3e-3
) -> Result:
    """Train a method on the labelled images of a task, and measure it.

    Raises
    ------
    ValueError
        There is no such method.
    """
    model = model_for(method, weights, seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    schedule = CosineAnnealingLR(optimizer, EPOCHS)
    run = Run(model, optimizer, some.train, batch_size=len(some.train), seed=seed, scheduler=schedule)
    for _ in run.epochs(EPOCHS):
        pass
    kinds = [some.test.take(~some.foreign), some.test.take(some.foreign)]
    familiar, foreign = (evaluate(model, kind).accuracy for kind in kinds)
    development, test = (evaluate(model, half).accuracy for half in (some.development, some.test))
    tuned: tuple[tuple[float, ...], ...] = ()
    if isinstance(model, TwoCopies):
        model.eval()
        with torch.no_grad():
            tuned = tuple(tuple(model.policy(kind.pixels).mean(0).tolist()) for kind in kinds)
    return Result(development, test, familiar, foreign, tuned)
