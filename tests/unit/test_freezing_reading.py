"""What freezing tells of a parameter and a group that it holds: what will return, and who holds it."""

import pytest
import torch
from torch import nn

from layerlab.freezing import freeze, gradients, learning_rates, ways_held


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def test_ways_held_names_every_handle_or_leaves_one_out(net):
    first = freeze(net, "0")
    second = freeze(net, "0.bias", "grad_none")
    assert ways_held(net[0].bias) == ("requires_grad", "grad_none")
    assert ways_held(net[0].bias, besides=first) == ("grad_none",)
    assert ways_held(net[0].weight, besides=first) == ()
    second.release()
    assert ways_held(net[0].bias) == ("requires_grad",)


def test_flag_and_gradient_at_release_are_what_a_release_gives(net):
    net[0].weight.requires_grad = False
    net(torch.ones(1, 2)).sum().backward()
    gradient = net[1].weight.grad
    handle = freeze(net, "*")
    told = [(gradients.flag_at_release(p), gradients.grad_at_release(p)) for p in net.parameters()]
    assert told[2][1] is gradient
    handle.release()
    for p, (flag, grad) in zip(net.parameters(), told, strict=True):
        assert p.requires_grad is flag
        assert p.grad is grad


def test_own_groups_are_as_if_nothing_were_held(net):
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[1].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    handle = freeze(net, ["0", "1.bias"], "lr_zero", optimizer=optimizer)
    first, second = learning_rates.own_groups(optimizer)
    assert (first.lr, first.zeroed, first.split, first.split_lr) == (0.1, True, (), None)
    assert (second.lr, second.zeroed, second.split_lr) == (0.2, False, 0)
    assert [list(map(id, g.parameters)) for g in (first, second)] == [
        list(map(id, layer.parameters())) for layer in net
    ]
    assert [id(p) for p in second.split] == [id(net[1].bias)]
    learning_rates.set_lr(optimizer, 0, 0.5)
    learning_rates.set_lr(optimizer, 1, 0.6)
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0.6, 0]
    handle.release()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.6]
