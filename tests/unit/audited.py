"""What the tests of the audit share: one finding, its cure run as printed, and steps to see what happens."""

import torch
from torch import nn

from layerlab.auditing import audit

X = torch.linspace(-1, 1, 15).reshape(5, 3)


def net():
    """Two linear layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def the(found, code, level=None):
    """The one finding of a code."""
    matching = [finding for finding in found if finding.code == code]
    assert len(matching) == 1, found
    assert level in (None, matching[0].level)
    return matching[0]


def cured(finding, **variables):
    """Run a finding's cure with the usual variables; return these afterwards."""
    namespace = {"torch": torch, **variables}
    exec(finding.cure, namespace)
    return namespace


def codes(*arguments, **options):
    return set(audit(*arguments, **options).codes)


def bits(tensors):
    return [tensor.detach().clone() for tensor in tensors]


def same(tensors, before):
    return [torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True)]


def loss_of(model):
    return model(X).square().mean()


def step(model, *optimizers, zero_grad=True):
    """One training step of all optimizers."""
    if zero_grad:
        model.zero_grad()
    loss_of(model).backward()
    for optimizer in optimizers:
        optimizer.step()
