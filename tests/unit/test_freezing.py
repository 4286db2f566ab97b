"""Freezing: what stays still and what moves, the handle, and bad input."""

import copy

import pytest
import torch
from frozen_net import (
    DEEP,
    DEEP_STATISTICS,
    EVERYTHING,
    FIRST,
    NORM,
    NORM_STATISTICS,
    WAYS,
    Net,
    adam,
    moved,
    sgd,
    state_of,
    train_step,
    values,
)
from torch import nn

from layerlab import freezing
from layerlab.freezing import freeze, how_frozen


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return Net()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize(
    ("pattern", "still"),
    [
        ("first", FIRST),
        (["first.bias", "deep.2.weight"], {"first.bias", "deep.2.weight"}),
        ("norm", NORM | NORM_STATISTICS),
        ("deep", DEEP | DEEP_STATISTICS),
        ("norm.weight", {"norm.weight"}),
        ("*.running_*", NORM_STATISTICS | DEEP_STATISTICS),
    ],
)
def test_what_is_frozen_stays_and_the_rest_moves(net, how, make, set_to_none, pattern, still):
    optimizer = make(net)
    train_step(net, optimizer)  # momentum and averages are there
    before = values(net)
    with freeze(net, pattern, how, optimizer=optimizer):
        for _ in range(2):
            net.train()
            train_step(net, optimizer, set_to_none=set_to_none)
        assert moved(net, before) == EVERYTHING - still
    train_step(net, optimizer)
    assert moved(net, before) == EVERYTHING


@pytest.mark.parametrize("how", ["requires_grad", "grad_none"])
@pytest.mark.parametrize("make", [sgd, adam])
def test_a_gradient_that_is_already_there_comes_back_at_a_release_before_the_next_step(net, how, make):
    other, mine = make(nn.Linear(2, 2)), make(net)
    net(torch.randn(6, 3)).square().sum().backward()
    grads = {name: p.grad for name, p in net.named_parameters()}
    contents = {name: grad.clone() for name, grad in grads.items()}
    with freeze(net, "first", how):
        assert net.first.weight.grad is None
        other.step()  # an optimizer that does not hold them: it would not have used them up
    for name, p in net.named_parameters():
        assert p.grad is grads[name]
        assert torch.equal(p.grad, contents[name])
    before = values(net)
    mine.step()
    assert moved(net, before) >= FIRST


@pytest.mark.parametrize("how", ["requires_grad", "grad_none"])
@pytest.mark.parametrize("make", [sgd, adam])
def test_a_gradient_that_was_there_does_not_outlive_the_step_that_it_was_meant_for(net, how, make):
    """A loop that clears after the step would add the next gradient to it."""
    twin, inputs = copy.deepcopy(net), [torch.randn(6, 3) for _ in range(2)]
    for each in (net, twin):
        optimizer = make(each)
        each(inputs[0]).square().sum().backward()
        before = values(each)
        with freeze(each, "first", how):
            assert each.first.weight.grad is None
            optimizer.step()
            assert not moved(each, before) & FIRST
            optimizer.zero_grad()
        assert all(p.grad is None for p in each.parameters())
        if each is twin:
            optimizer.zero_grad()
        each(inputs[1]).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True))


def test_a_gradient_of_one_s_own_making_is_left_alone_at_release(net):
    net(torch.randn(6, 3)).square().sum().backward()
    optimizer, own = sgd(net), torch.ones_like(net.first.weight)
    with freeze(net, "first"):
        optimizer.step()
        net.first.weight.grad = own
    assert net.first.weight.grad is own


def test_the_flag_alone_leaves_the_gradient_and_the_step_applies_it(net):
    optimizer = sgd(net)
    net(torch.randn(6, 3)).square().sum().backward()
    grad = net.first.weight.grad
    before = values(net)
    with freeze(net, "first", clear_grad=False):
        assert net.first.weight.grad is grad
        optimizer.step()
    assert moved(net, before) >= FIRST
    assert net.first.weight.grad is grad


def test_requires_grad_computes_no_gradient_and_fills_no_state(net):
    optimizer = adam(net)
    with freeze(net, "first"):
        train_step(net, optimizer)
        assert net.first.weight.grad is None
        assert net.first.weight not in optimizer.state
        assert net.deep[0].weight in optimizer.state


def test_grad_none_leaves_the_flag_and_lets_earlier_layers_learn(net):
    optimizer = adam(net)
    before = values(net)
    with freeze(net, "deep", "grad_none"):
        train_step(net, optimizer)
        assert all(p.requires_grad for p in net.parameters())
        assert net.deep[0].weight.grad is None
    assert moved(net, before) == EVERYTHING - DEEP - DEEP_STATISTICS


@pytest.mark.parametrize("how", WAYS)
def test_closures(net, how):
    optimizer = sgd(net)

    def closure():
        optimizer.zero_grad()
        loss = net(torch.randn(6, 3)).square().sum()
        loss.backward()
        return loss

    before = values(net)
    with freeze(net, "first", how, optimizer=optimizer):
        optimizer.step(closure)
        optimizer.step(closure)
    assert moved(net, before) == EVERYTHING - FIRST


def test_grad_none_also_throws_away_zeros_that_arrive_later(net):
    """As DistributedDataParallel writes them, after the parameter's own hook ran."""
    optimizer = adam(net)
    train_step(net, optimizer)
    before = values(net)
    handle = freeze(net, "first", "grad_none")
    net.first.weight.grad = torch.zeros_like(net.first.weight)
    optimizer.step()
    assert "first.weight" not in moved(net, before)
    handle.release()
    net.first.weight.grad = torch.zeros_like(net.first.weight)
    optimizer.step()
    assert "first.weight" in moved(net, before)


@pytest.mark.parametrize("how", WAYS)
def test_under_distributed_data_parallel(net, how):
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        if how == "requires_grad":  # the flag has to be set before wrapping
            handle = freeze(net, "first", how)
            wrapped = nn.parallel.DistributedDataParallel(net)
        else:
            wrapped = nn.parallel.DistributedDataParallel(net)
        optimizer = adam(net)
        train_step(wrapped, optimizer)
        before = values(net)
        if how != "requires_grad":
            handle = freeze(wrapped, "first", how, optimizer=optimizer)
        train_step(wrapped, optimizer)
        train_step(wrapped, optimizer)
        assert moved(net, before) == EVERYTHING - FIRST
        handle.release()
    finally:
        torch.distributed.destroy_process_group()


def test_a_tied_tensor_is_frozen_by_any_of_its_names():
    net = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4)})
    net["head"].weight = net["embed"].weight
    with freeze(net, "head.weight") as handle:
        assert handle.names == ("embed.weight",)
        assert not net["embed"].weight.requires_grad
        assert net["head"].bias.requires_grad


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float16, torch.bfloat16])
def test_complex_and_half_precision(how, dtype):
    net = nn.Linear(3, 2, dtype=dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    before = values(net)
    with freeze(net, "weight", how, optimizer=optimizer):
        net(torch.ones(1, 3, dtype=dtype)).abs().sum().backward()
        optimizer.step()
    assert moved(net, before) == {"bias"}


@pytest.mark.parametrize("how", WAYS)
def test_sparse_gradients(how):
    net = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(net.parameters(), lr=0.1)
    net(torch.tensor([1, 3])).sum().backward()
    grad = net.weight.grad
    before = values(net)
    with freeze(net, "weight", how, optimizer=optimizer):
        if how != "lr_zero":
            assert net.weight.grad is None
        optimizer.step()
    assert not moved(net, before)
    assert net.weight.grad is (grad if how == "lr_zero" else None)


@pytest.mark.parametrize("how", ["requires_grad", "grad_none"])
def test_integer_parameters(how):
    net = nn.Linear(2, 2)
    net.table = nn.Parameter(torch.arange(3), requires_grad=False)
    with freeze(net, "*", how):
        assert how_frozen(net.table) == how
        assert not net.table.requires_grad
    assert not net.table.requires_grad
    assert net.weight.requires_grad


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        (("frist",), {}, ValueError, "near names: .*first"),
        ((["first", "zzz"],), {}, ValueError, "'zzz' matches nothing"),
        ((3,), {}, TypeError, "not int"),
        (
            ("first", "lr0"),
            {},
            ValueError,
            r"how='lr0' .*'requires_grad', 'grad_none', 'lr_zero'",
        ),
        (("first",), {"batchnorm": "off"}, ValueError, "batchnorm='off' is neither"),
        (("first", "lr_zero"), {}, ValueError, "pass optimizer="),
        (("first", "lr_zero"), {"optimizer": "sgd"}, TypeError, "not str"),
        (("deep.1",), {"batchnorm": "train"}, ValueError, "only buffers, and batchnorm='train' leaves"),
        (
            ("*.running_mean",),
            {},
            ValueError,
            r"nothing to freeze in norm\.running_mean, deep\.1\.running_mean: only buffers, and not",
        ),
    ],
)
def test_bad_input_is_named_and_changes_nothing(net, arguments, options, error, said):
    optimizer = sgd(net)
    before = state_of(net, optimizer)
    with pytest.raises(error, match=said):
        freeze(net, *arguments, **options)
    assert state_of(net, optimizer) == before


def test_lr_zero_wants_an_optimizer_that_holds_the_parameters(net):
    optimizer = torch.optim.SGD(net.deep.parameters(), lr=0.1)
    before = state_of(net, optimizer)
    with pytest.raises(
        ValueError, match=r"no group holds first\.weight, first\.bias, norm\.weight, norm\.bias\."
    ):
        freeze(net, "*", "lr_zero", optimizer=optimizer)
    assert state_of(net, optimizer) == before


def test_lr_zero_wants_groups_with_a_learning_rate(net):
    optimizer = torch.optim.Optimizer(net.parameters(), {"step_size": 1.0})
    with pytest.raises(ValueError, match=r"param_groups\[0\] has no 'lr'"):
        freeze(net, "*", "lr_zero", optimizer=optimizer)


def test_a_failure_halfway_undoes_the_first_half(net, monkeypatch):
    optimizer = sgd(net)
    net(torch.randn(6, 3)).sum().backward()
    before = state_of(net, optimizer)

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(freezing.norm_eval, "_cover", fail)
    for how in WAYS:
        with pytest.raises(MemoryError):
            freeze(net, "*", how, optimizer=optimizer)
        assert state_of(net, optimizer) == before
        assert how_frozen(net.first.weight) is None
