"""A net of two branches of which each loss uses one, run as in the article: for tests of what lessons ask."""

import torch
from torch import nn

from layerlab.ledger import watch


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left = nn.Linear(3, 4, bias=False)
        self.right = nn.Linear(3, 4, bias=False)
        self.norm = nn.BatchNorm1d(4, affine=False)
        self.out = nn.Linear(4, 2, bias=False)

    def forward(self, x, branch="left"):
        return self.out(self.norm(getattr(self, branch)(x)))


def backward(net, branch="left"):
    net(torch.linspace(-1, 1, 15).sin().reshape(5, 3), branch).cos().sum().backward()


def train(net, optimizer, branches=("left", "right"), *, set_to_none=False, freeze_left=True):
    """One step a branch; before the second the left branch is frozen, but its gradient of zeros is there."""
    for branch in branches:
        optimizer.zero_grad(set_to_none=set_to_none)
        if branch == "right" and freeze_left:
            net.left.weight.requires_grad_(False)
        backward(net, branch)
        optimizer.step()


def adamw(net):
    return torch.optim.AdamW(net.parameters(), lr=0.1)


def article_run(*, set_to_none=False):
    """The ledger of two steps, and for each step the names that really changed, found by comparing clones."""
    net = Branches()
    optimizer = adamw(net)
    truth = []
    with watch(net, optimizer) as ledger:
        for branch in ("left", "right"):
            before = {name: value.clone() for name, value in net.state_dict().items()}
            train(net, optimizer, (branch,), set_to_none=set_to_none)
            now = net.state_dict()
            truth.append({name for name in now if not torch.equal(now[name], before[name])})
    return ledger, truth
