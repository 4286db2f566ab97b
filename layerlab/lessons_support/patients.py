"""The patients of lesson 11: small set-ups for training, most of them with faults planted in them.

Each returns its model, its optimizer, its scheduler if it has one, and ``train``, which trains for an epoch
of one step. A learner reads them, so they are written as a learner would write them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from layerlab.training.machine import Chance

Setup: TypeAlias = tuple[Any, ...]
"""Model, optimizer, scheduler (not always), train."""
Make: TypeAlias = Callable[[], Setup]


def _data() -> tuple[Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(0)
    examples = torch.randn(48, 6, generator=numbers)
    return examples, (examples @ torch.randn(6, 5, generator=numbers)).argmax(1)


x, five = _data()
"""Examples, and their labels in the task that the network has learned already: five classes."""
y = five % 3
"""Their labels in the new task: three classes."""


def pretrained() -> Any:
    """A small network that has learned to tell five classes: stem, norm, block, and the classifier fc."""
    with Chance(0):
        model = nn.Sequential(
            OrderedDict(
                stem=nn.Linear(6, 16, bias=False),
                norm=nn.BatchNorm1d(16),
                relu=nn.ReLU(),
                block=nn.Linear(16, 16),
                tanh=nn.Tanh(),
                fc=nn.Linear(16, 5),
            )
        )
    optimizer = Adam(model.parameters(), lr=0.02)
    for _ in range(50):
        optimizer.zero_grad()
        cross_entropy(model(x), five).backward()
        optimizer.step()
    model.zero_grad()
    return model


def healthy() -> Setup:
    """Nothing is wrong with this one."""
    model = pretrained()
    model.fc = nn.Linear(16, 3)  # three classes from now on
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    return model, optimizer, train


def patient_1() -> Setup:
    """The optimizer is older than the classifier."""
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.fc = nn.Linear(16, 3)  # three classes from now on

    def train() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    return model, optimizer, train


def patient_2() -> Setup:
    """A flag on a module, a misspelt one, and statistics that move in what is frozen."""
    model = pretrained()
    model.fc = nn.Linear(16, 3)
    model.stem.requires_grad = False  # only fc is to train
    model.norm.requires_grad_(False)
    for p in model.block.parameters():
        p.require_grad = False
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    return model, optimizer, train


def patient_3() -> Setup:
    """A generator that was used up, and a learning rate of 0 that the schedule raises."""
    model = pretrained()
    model.fc = nn.Linear(16, 3)
    middle = (p for name, p in model.named_parameters() if name.startswith(("norm", "block")))
    assert len(list(middle)) == 4, "a layer has another name"
    groups = [
        {"params": model.stem.parameters(), "lr": 0.0},  # frozen
        {"params": middle, "lr": 0.02},
        {"params": model.fc.parameters(), "lr": 0.1},
    ]
    optimizer = SGD(groups, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, T_max=10, eta_min=0.001)

    def train() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()

    return model, optimizer, scheduler, train


def patient_4() -> Setup:
    """It ends in a softmax, and so does the loss."""
    model = pretrained()
    model.fc = nn.Linear(16, 3)
    model.softmax = nn.Softmax(dim=1)  # probabilities
    optimizer = Adam(model.parameters(), lr=0.02)

    def train() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    return model, optimizer, train


def patient_5() -> Setup:
    """A pause that comes too late, and gradients that are zeros and not None: both in the loop."""
    model = pretrained()
    model.fc = nn.Linear(16, 3)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    epochs = count()

    def train() -> None:
        rests = next(epochs) % 2 == 1  # stem rests in every second epoch
        optimizer.zero_grad(set_to_none=False)
        cross_entropy(model(x), y).backward()
        model.stem.requires_grad_(not rests)
        optimizer.step()
        model.stem.requires_grad_(True)

    return model, optimizer, train


def patient_6() -> Setup:
    """It looks wrong in three places, and is right."""
    model = pretrained()
    model.fc = nn.Linear(16, 3)
    model.stem.requires_grad_(False)
    optimizer = AdamW(model.parameters(), lr=0.02, weight_decay=0.1)  # stem too
    scheduler = LambdaLR(optimizer, lambda epoch: epoch / 3 if epoch < 3 else 1)

    def train() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()

    return model, optimizer, scheduler, train


def patient_7() -> Setup:
    """Released with the momentum of a time before the pause."""
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    epochs = count()

    def train() -> None:
        epoch = next(epochs)
        labels = (five + 2) % 5 if epoch < 3 else five  # the first labels turned out to be wrong
        model.stem.requires_grad_(epoch not in (3, 4, 5))  # stem rests while the others learn them anew
        optimizer.zero_grad()
        cross_entropy(model(x), labels).backward()
        optimizer.step()

    return model, optimizer, train


PATIENTS: tuple[Make, ...] = (patient_1, patient_2, patient_3, patient_4, patient_5, patient_6, patient_7)
