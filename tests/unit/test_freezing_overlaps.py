"""Freezes that overlap and are released in any order."""

import pytest
import torch
from frozen_net import (
    DEEP,
    EVERYTHING,
    FIRST,
    NORM,
    WAYS,
    Net,
    adam,
    moved,
    sgd,
    state_of,
    train_step,
    values,
)

from layerlab.freezing import freeze, how_frozen


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return Net()


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("older_goes_first", [True, False])
@pytest.mark.parametrize("patterns", [("deep.0", "deep.0"), ("deep", "deep.0"), ("deep.0", "*")])
def test_a_tensor_stays_frozen_until_its_last_handle_goes(net, first, second, older_goes_first, patterns):
    optimizer = adam(net)
    train_step(net, optimizer)
    optimizer.zero_grad()
    before, start = values(net), state_of(net, optimizer)
    handles = [
        freeze(net, patterns[0], first, optimizer=optimizer),
        freeze(net, patterns[1], second, optimizer=optimizer),
    ]
    assert how_frozen(net.deep[0].weight) == second
    going, staying = handles if older_goes_first else handles[::-1]
    going.release()
    assert how_frozen(net.deep[0].weight) == staying.how
    for _ in range(2):
        optimizer.zero_grad()
        loss = net(torch.randn(6, 3)).square().sum()
        if loss.requires_grad:
            loss.backward()
        optimizer.step()
    still = {name for name in EVERYTHING if name in staying.names}
    assert moved(net, before) & (FIRST | NORM | DEEP) == (FIRST | NORM | DEEP) - still
    optimizer.zero_grad()
    staying.release()
    assert how_frozen(net.deep[0].weight) is None
    assert state_of(net, optimizer) == start
    train_step(net, optimizer)
    assert moved(net, before) == EVERYTHING


def test_the_first_gradient_comes_back_whichever_handle_goes_last(net):
    net(torch.randn(6, 3)).sum().backward()
    grad = net.first.weight.grad
    old = freeze(net, "first", clear_grad=False)
    new = freeze(net, "*", "grad_none")
    newest = freeze(net, "first.weight")
    new.release()
    assert net.first.weight.grad is None  # still held by two
    newest.release()
    assert net.first.weight.grad is None
    old.release()
    assert net.first.weight.grad is grad


def test_a_gradient_of_lr_zero_training_is_not_overwritten(net):
    optimizer = sgd(net)
    lr_zero = freeze(net, "first", "lr_zero", optimizer=optimizer)
    freeze(net, "first").release()
    net(torch.randn(6, 3)).sum().backward()
    grad = net.first.weight.grad
    lr_zero.release()
    assert net.first.weight.grad is grad


def test_how_frozen_speaks_of_the_newest_handle_and_not_of_the_flag(net):
    assert how_frozen(net.first.weight) is None
    net.first.weight.requires_grad = False
    assert how_frozen(net.first.weight) is None
    old = freeze(net, "first", "grad_none")
    new = freeze(net, "first.weight")
    assert how_frozen(net.first.weight) == "requires_grad"
    assert how_frozen(net.first.bias) == "grad_none"
    new.release()
    assert how_frozen(net.first.weight) == "grad_none"
    old.release()
    assert how_frozen(net.first.weight) is None
    assert how_frozen(torch.ones(2)) is None


def test_a_flag_that_was_false_stays_false(net):
    net.first.weight.requires_grad = False
    with freeze(net, "first"):
        pass
    assert not net.first.weight.requires_grad
    with freeze(net, "first", "grad_none"):
        net.first.bias.requires_grad = False  # this way does not touch flags, so neither does its release
    assert not net.first.bias.requires_grad
