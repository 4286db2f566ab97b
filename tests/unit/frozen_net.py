"""A small net, its tensors by name, and what a freeze may change about it: for the tests of freezing."""

import copy

import torch
from torch import nn

WAYS = ["requires_grad", "grad_none", "lr_zero"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.deep = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2))

    def forward(self, x):
        return self.deep(torch.relu(self.norm(self.first(x))))


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def adam(net):
    return torch.optim.AdamW(net.parameters(), lr=0.1)


def train_step(net, optimizer, *, set_to_none=True):
    optimizer.zero_grad(set_to_none=set_to_none)
    net(torch.randn(6, 3)).square().sum().backward()
    optimizer.step()


def values(net):
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def moved(net, before):
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


def layout(optimizer):
    """What the groups hold: parameters by identity, and every option by value."""
    return [
        (
            id(group),
            id(group["params"]),
            [id(p) for p in group["params"]],
            {key: value for key, value in group.items() if key != "params"},
        )
        for group in optimizer.param_groups
    ]


def state_of(net, optimizer):
    """All that a freeze may touch."""
    return (
        [(id(p), p.requires_grad, id(p.grad)) for p in net.parameters()],
        [None if p.grad is None else p.grad.tolist() for p in net.parameters()],
        [(m.training, "train" in vars(m), sorted(vars(m))) for m in net.modules()],
        copy.deepcopy(layout(optimizer)),
    )


def two_groups(net):
    return torch.optim.SGD(
        [
            {"params": list(net.first.parameters()) + list(net.norm.parameters()), "lr": 0.5},
            {"params": net.deep.parameters(), "weight_decay": 0.2, "name": "deep"},
        ],
        lr=0.1,
        momentum=0.9,
    )


FIRST = {"first.weight", "first.bias"}
NORM = {"norm.weight", "norm.bias"}
NORM_STATISTICS = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
DEEP = {"deep.0.weight", "deep.0.bias", "deep.2.weight", "deep.2.bias"}
DEEP_STATISTICS = {"deep.1.running_mean", "deep.1.running_var", "deep.1.num_batches_tracked"}
EVERYTHING = FIRST | NORM | NORM_STATISTICS | DEEP | DEEP_STATISTICS
