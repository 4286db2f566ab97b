"""A small network, and how tests look into parameter groups."""

from torch import nn


class Net(nn.Module):
    """Two layers with a BatchNorm between; `head` has the same shape as nothing else."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)))


def names(groups):
    return [group["param_names"] for group in groups]


def ids(groups):
    return [[id(p) for p in group["params"]] for group in groups]


def options(groups):
    return [{k: v for k, v in group.items() if k not in ("params", "param_names")} for group in groups]
