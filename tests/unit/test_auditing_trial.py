"""The audit with a batch: what one forward pass on a copy shows, and that it shows itself nowhere else."""

import random

import numpy
import pytest
import torch
from audited import X, bits, cured, loss_of, net, same, step, the
from torch import nn

from layerlab.auditing import audit
from layerlab.names import tensors

SGD = torch.optim.SGD


class TwoTasks(nn.Module):
    """A body and two heads, of which each pass uses one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4)
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x, task="left"):
        return {"out": [getattr(self, task)(self.body(x))], "task": task}


def test_what_the_output_does_not_depend_on():
    model = TwoTasks()
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer, batch=X), "unused-in-forward", "note")
    assert finding.names == ("right.weight", "right.bias")
    before = bits(model.right.parameters())
    model(X)["out"][0].square().mean().backward()
    assert all(p.grad is None for p in model.right.parameters())
    optimizer.step()
    assert all(same(model.right.parameters(), before))
    model.zero_grad()
    model.right.bias.requires_grad_(False)
    cured(finding, model=model)
    assert "unused-in-forward" not in audit(model, optimizer, batch=X).codes


@pytest.mark.parametrize("batch", [(X, "right"), [X, "right"], {"x": X, "task": "right"}])
def test_a_batch_of_several_arguments(batch):
    model = TwoTasks()
    finding = the(audit(model, SGD(model.parameters(), lr=0.1), batch=batch), "unused-in-forward")
    assert finding.names == ("left.weight", "left.bias")


class Counts(nn.Module):
    """A module of somebody's own with a statistic of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return x * self.weight - self.mean


def test_statistics_of_a_module_of_ones_own():
    model = nn.Sequential(Counts().requires_grad_(False), nn.Linear(3, 2))
    optimizer = SGD(model.parameters(), lr=0.1)
    assert not audit(model, optimizer)  # nothing was run, so nothing is known
    x = X + 1
    finding = the(audit(model, optimizer, batch=x), "frozen-statistics", "warning")
    assert "0.mean" in finding.effect
    assert not model[0].mean.any()
    model(x)
    assert model[0].mean.any()
    cured(finding, model=model)
    assert not audit(model, optimizer, batch=x)


def test_batchnorm_is_told_once_with_a_batch_or_without():
    model = nn.Sequential(nn.BatchNorm1d(3).requires_grad_(False), nn.Linear(3, 2))
    the(audit(model, SGD(model.parameters(), lr=0.1), batch=X), "frozen-statistics")


class Greedy(nn.Module):
    """Draws on every source of random numbers, and writes to its input."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Dropout())

    def forward(self, x):
        x += torch.rand(()) + random.random() + float(numpy.random.rand())
        return self.body(x)


def test_a_trial_leaves_no_trace():
    model, x = Greedy(), X.clone()
    seen = []
    model.body.register_forward_hook(lambda module, args, output: seen.append(output))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model.body, optimizer)
    seen.clear()
    everything = [named.tensor for named in tensors(model)]
    before, grads = bits(everything), bits(p.grad for p in model.parameters())
    state = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
    assert not audit(model, optimizer, batch=x)
    assert all(same(everything, before))
    assert all(same([p.grad for p in model.parameters()], grads))
    assert torch.equal(x, X)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert (numpy.random.get_state()[1] == state[2]).all()
    assert seen == []


def test_no_gradient_is_asked_for_where_none_is_wanted():
    model = TwoTasks()
    with torch.no_grad():
        found = audit(model, SGD(model.parameters(), lr=0.1), batch=X)
        assert not torch.is_grad_enabled()
    assert found.codes == ("unused-in-forward",)


def test_a_batch_that_the_model_cannot_take():
    with pytest.raises(
        ValueError, match=r"batch: the model raised RuntimeError on it: .*shapes.*tuple of positional"
    ):
        audit(net(), batch=torch.ones(2, 5))


def test_a_model_that_cannot_be_copied():
    model = net()
    model.kept = loss_of(model)  # part of a graph
    with pytest.raises(ValueError, match="batch: the model cannot be copied, so nothing was run"):
        audit(model, batch=X)


def test_an_output_without_a_gradient():
    model = nn.Sequential(nn.Linear(3, 2)).requires_grad_(False)
    assert not audit(model, batch=X)
