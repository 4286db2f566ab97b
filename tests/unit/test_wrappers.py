"""An optimizer inside a wrapper, as accelerate and Lightning have: everything works on the one inside."""

import sys

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

import layerlab as ll
from layerlab.wrappers import inside


class Wrapper(torch.optim.Optimizer):
    """Passes for an Optimizer, and was not made as one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)
    defaults = property(lambda self: self.optimizer.defaults)

    def step(self, closure=None):
        return self.optimizer.step(closure)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def made(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return optimizer, Wrapper(Wrapper(optimizer))


def test_inside_all_wrappers(net):
    optimizer, wrapper = made(net)
    assert inside(wrapper) is inside(optimizer) is optimizer
    with pytest.raises(TypeError, match="Wrapper has no step hooks"):
        inside(Wrapper(None))


def test_an_audit_says_the_same(net):
    optimizer, wrapper = made(net)
    scheduler = StepLR(optimizer, 2)
    assert not ll.audit(net, wrapper, scheduler)
    net[1] = nn.Linear(4, 2)
    found = ll.audit(net, wrapper, scheduler)
    assert found.codes == ("layer-replaced",)
    assert repr(found) == repr(ll.audit(net, optimizer, scheduler))


def test_a_cure_names_the_users_variable(net, monkeypatch):
    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    _, main.wrapped = made(net)
    main.net = net
    net[1] = nn.Linear(4, 2)
    assert ll.audit(net, main.wrapped)[0].cure.startswith("wrapped = torch.optim.SGD(net.parameters()")


def test_freezing_by_lr_zero_and_unfreezing(net):
    optimizer, wrapper = made(net)
    handle = ll.freeze(net, "0", "lr_zero", optimizer=wrapper)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.0]
    handle.release()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]
    plan = ll.Unfreeze(net, wrapper, {1: {"0": 0.3}}, scheduler=None)
    assert plan.frozen == ("0.weight", "0.bias")
    plan.close()


def test_a_panel_moves_the_rates_inside(net):
    optimizer, wrapper = made(net)
    panel = ll.FreezePanel(net, wrapper, method="lr_zero")
    panel.freeze("0")
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.0, 0.1]
    panel.close()
