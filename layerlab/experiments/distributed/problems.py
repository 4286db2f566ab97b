"""What is trained: on each rank the same network, and batches that no other rank has."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from layerlab.experiments.two_tasks import Network
from layerlab.training.machine import Chance

Problem = Literal["two tasks", "mlp"]
Batch: TypeAlias = tuple[tuple[Tensor, ...] | tuple[Tensor, str], Tensor]
"""The arguments of the network's forward pass, and the targets."""

STEPS = 4
EXAMPLES = 8
"""In a batch, on each rank."""
TASKS = ("task1", "task2")


def network(problem: Problem) -> nn.Module:
    """The article's two-task network from its printed weights, or a network of two layers."""
    with Chance(0):
        if problem == "two tasks":
            return Network.from_article(softmax=False)
        return nn.Sequential(OrderedDict(body=nn.Linear(3, 3), act=nn.Tanh(), head=nn.Linear(3, 4)))


def batches(problem: Problem, rank: int) -> list[Batch]:
    """Four batches of a rank's own; with two tasks these take turns, task 1 first."""
    generator = torch.Generator().manual_seed(1 + rank)
    found: list[Batch] = []
    for step in range(STEPS):
        task = TASKS[step % 2]
        width = 2 if problem == "two tasks" and task == "task2" else 3
        inputs = torch.randn(EXAMPLES, width, generator=generator)
        targets = torch.randint(0, 4, (EXAMPLES,), generator=generator)
        found.append(((inputs, task) if problem == "two tasks" else (inputs,), targets))
    return found


def optimizer_of(net: nn.Module) -> Optimizer:
    """AdamW with a parameter group for each layer."""
    layers = [layer for layer in net.children() if any(True for _ in layer.parameters())]
    return AdamW([{"params": list(layer.parameters())} for layer in layers], lr=0.1)
