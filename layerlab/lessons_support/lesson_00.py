"""The check of lesson 00's exercise."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from layerlab.ledger import watch
from layerlab.lessons_support.checks import Check
from layerlab.lessons_support.verdict import Verdict
from layerlab.names import find
from layerlab.training.machine import Chance


def check_freeze_body(freeze_body: Callable[[nn.Module], object]) -> Verdict:
    """Train three steps after ``freeze_body(net)`` and look for anything of body or norm that moved."""
    check = Check("body and norm frozen, head trains", called={"model": "net"})
    with Chance(0):
        layers = OrderedDict(body=nn.Linear(4, 3, bias=False), norm=nn.BatchNorm1d(3), head=nn.Linear(3, 2))
        net = nn.Sequential(layers)
        x, y = torch.randn(8, 4), torch.randint(0, 2, (8,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    check.run(freeze_body, net)

    if not any(p.requires_grad for p in net.parameters()):
        check.that(False, "", "head is frozen too, so nothing can train: freeze body and norm alone")
        return check.verdict()

    def train_three_steps() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    with watch(net, optimizer) as ledger:
        check.run(train_three_steps)
    frozen = [named.name for named in find(net, ["body", "norm"])]
    check.stayed(ledger, *frozen)
    check.moved(ledger, "head.weight", "head.bias")
    return check.verdict()
