"""The handle of a freeze: what it says, what it gives back, and what it leaves behind."""

import copy
import gc
import weakref

import pytest
import torch
import torch.optim.optimizer as optimizer_hooks
from frozen_net import (
    WAYS,
    Net,
    sgd,
    state_of,
    train_step,
)

from layerlab.freezing import freeze, how_frozen


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return Net()


@pytest.mark.parametrize("how", WAYS)
def test_the_handle_says_what_it_did(net, how):
    handle = freeze(net, ["first", "norm"], how, optimizer=sgd(net))
    assert handle.how == how
    assert handle.names == ("first.weight", "first.bias", "norm.weight", "norm.bias")
    assert handle.eval_modules == ("norm",)
    assert handle.active
    said = f"Freeze({how}: first.weight, first.bias, norm.weight, norm.bias; in eval: norm"
    assert repr(handle) == said + ")"
    handle.release()
    assert not handle.active
    assert repr(handle) == said + "; released)"


def test_repr_of_a_large_and_of_a_batchnorm_only_freeze(net):
    assert repr(freeze(net, "*")) == (
        "Freeze(requires_grad: first.weight, first.bias, norm.weight, norm.bias and 4 more; "
        "in eval: norm, deep.1)"
    )
    assert repr(freeze(net, "deep.1")) == "Freeze(requires_grad: in eval: deep.1)"


def test_release_twice_is_harmless_and_a_second_with_is_an_error(net):
    with freeze(net, "first") as handle:
        pass
    net.first.weight.requires_grad = False  # the learner's own doing now
    handle.release()
    assert not net.first.weight.requires_grad
    with pytest.raises(RuntimeError, match="was released"), handle:
        pass


def test_with_may_be_entered_on_a_handle_made_before(net):
    handle = freeze(net, "first")
    with handle as same:
        assert same is handle
        assert not net.first.weight.requires_grad
    assert net.first.weight.requires_grad


@pytest.mark.parametrize("how", WAYS)
def test_everything_comes_back_also_after_an_exception(net, how):
    optimizer = sgd(net)
    net.norm.eval()
    net(torch.randn(6, 3)).square().sum().backward()
    net.deep[0].bias.grad = None
    net.deep[0].bias.requires_grad = False
    before = state_of(net, optimizer)
    handle = freeze(net, ["norm", "deep.*"], how, optimizer=optimizer)
    assert state_of(net, optimizer) != before
    with pytest.raises(ZeroDivisionError), handle:
        raise ZeroDivisionError
    assert state_of(net, optimizer) == before


def test_a_lost_handle_releases_nothing(net):
    freeze(net, "first")
    gc.collect()
    assert not net.first.weight.requires_grad
    assert how_frozen(net.first.weight) == "requires_grad"


def test_a_copy_of_a_handle_releases_nothing(net):
    handle = freeze(net, "first")
    copy.deepcopy(handle).release()
    copy.deepcopy((net, handle))[1].release()
    assert not net.first.weight.requires_grad


@pytest.mark.parametrize("how", WAYS)
def test_a_dropped_model_is_collected_though_never_released(how):
    net = Net()
    optimizer = sgd(net)
    handle = freeze(net, "*", how, optimizer=optimizer)
    refs = [weakref.ref(net), weakref.ref(net.norm), weakref.ref(net.first.weight), weakref.ref(optimizer)]
    train_step_possible = how != "requires_grad"
    if train_step_possible:
        train_step(net, optimizer)
    del net, optimizer, handle
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4


@pytest.mark.parametrize("how", WAYS)
def test_a_released_handle_keeps_no_model_alive(how):
    net = Net()
    optimizer = sgd(net)
    handle = freeze(net, "*", how, optimizer=optimizer)
    handle.release()
    refs = [weakref.ref(net), weakref.ref(net.first.weight), weakref.ref(optimizer)]
    del net, optimizer
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


def test_no_hook_is_left_behind(net):
    hooks = optimizer_hooks._global_optimizer_pre_hooks
    gc.collect()
    freeze(net, "first").release()  # settles what tests with dropped models left
    count = len(hooks)
    one, two = freeze(net, "first", "grad_none"), freeze(net, "deep", "grad_none")
    assert len(hooks) == count + 1
    one.release()
    assert len(hooks) == count + 1
    two.release()
    assert len(hooks) == count
    net(torch.randn(6, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_release_after_the_model_was_cast(net):
    net(torch.randn(6, 3)).sum().backward()
    grad = net.first.weight.grad.clone()
    handle = freeze(net, "first", "grad_none")
    net.double()
    handle.release()
    assert net.first.weight.grad.dtype == torch.float64
    assert torch.equal(net.first.weight.grad, grad.double())
