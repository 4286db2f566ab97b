"""Freezing by lr = 0: parameter groups are split, and joined again as they were."""

import copy

import pytest
import torch
from frozen_net import (
    EVERYTHING,
    FIRST,
    Net,
    adam,
    layout,
    moved,
    sgd,
    state_of,
    train_step,
    two_groups,
    values,
)
from torch import nn

from layerlab.freezing import freeze


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return Net()


def test_a_whole_group_gets_lr_zero_where_it_is(net):
    optimizer = two_groups(net)
    before = layout(optimizer)
    with freeze(net, "deep", "lr_zero", optimizer=optimizer):
        assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.0]
        assert [entry[2] for entry in layout(optimizer)] == [entry[2] for entry in before]
    assert layout(optimizer) == before


def test_a_group_meant_in_part_is_split_and_joined_again(net):
    optimizer = two_groups(net)
    before = layout(optimizer)
    with freeze(net, ["first.bias", "deep.2"], "lr_zero", optimizer=optimizer):
        groups = optimizer.param_groups
        assert [group["lr"] for group in groups] == [0.5, 0.1, 0.0, 0.0]
        assert groups[0]["params"] == [net.first.weight, net.norm.weight, net.norm.bias]
        assert groups[2]["params"] == [net.first.bias]
        assert groups[3]["params"] == [net.deep[2].weight, net.deep[2].bias]
        assert groups[3]["weight_decay"] == 0.2
        assert groups[3]["name"] == "deep"
        assert groups[3]["momentum"] == 0.9
    assert layout(optimizer) == before


def test_parameter_names_follow(net):
    optimizer = torch.optim.SGD(net.named_parameters(), lr=0.1)
    before = copy.deepcopy(optimizer.param_groups[0]["param_names"])
    with freeze(net, ["norm", "deep.0.weight"], "lr_zero", optimizer=optimizer):
        assert [group["param_names"] for group in optimizer.param_groups] == [
            ["first.weight", "first.bias", "deep.0.bias", "deep.2.weight", "deep.2.bias"],
            ["norm.weight", "norm.bias", "deep.0.weight"],
        ]
        optimizer.add_param_group({"params": [("extra", nn.Parameter(torch.ones(1)))]})
    assert optimizer.param_groups[0]["param_names"] == before
    assert len(optimizer.param_groups) == 2


def test_optimizer_state_is_left_alone(net):
    optimizer = adam(net)
    train_step(net, optimizer)
    before = {p: {key: value.clone() for key, value in state.items()} for p, state in optimizer.state.items()}
    with freeze(net, "first.bias", "lr_zero", optimizer=optimizer):
        assert list(optimizer.state) == list(before)
    for p, state in before.items():
        assert all(torch.equal(value, optimizer.state[p][key]) for key, value in state.items())


def test_a_tensor_learning_rate_comes_back_as_the_same_tensor(net):
    lr = torch.tensor(0.25)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for pattern in ("*", "first"):
        with freeze(net, pattern, "lr_zero", optimizer=optimizer):
            frozen = optimizer.param_groups[-1]["lr"]
            assert isinstance(frozen, torch.Tensor)
            assert frozen.item() == 0
            assert lr.item() == 0.25
        assert optimizer.param_groups[0]["lr"] is lr


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_overlapping_splits_released_in_any_order(net, order):
    optimizer = two_groups(net)
    before = layout(optimizer)
    names = {id(p): name for name, p in net.named_parameters()}
    handles = [
        freeze(net, pattern, "lr_zero", optimizer=optimizer)
        for pattern in (["first", "norm"], ["norm.weight", "deep.0"], ["deep.*.bias", "first.bias"])
    ]
    active = set(range(3))
    for i in order:
        frozen = {name for j in active for name in handles[j].names}
        at_zero = {names[id(p)] for g in optimizer.param_groups if g["lr"] == 0 for p in g["params"]}
        assert at_zero == frozen
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
        handles[i].release()
        active.remove(i)
    assert layout(optimizer) == before


@pytest.mark.parametrize("pattern", ["first", ["first", "norm"]], ids=["split", "whole"])
def test_groups_added_meanwhile_stay(net, pattern):
    optimizer = two_groups(net)
    extra = nn.Parameter(torch.ones(2))
    handle = freeze(net, pattern, "lr_zero", optimizer=optimizer)
    optimizer.add_param_group({"params": [extra], "lr": 0.7})
    added = optimizer.param_groups[-1]
    handle.release()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1, 0.7]
    assert optimizer.param_groups[-1] is added
    assert optimizer.param_groups[0]["params"][:2] == [net.first.weight, net.first.bias]


def test_a_learning_rate_set_meanwhile_for_the_free_part_stays(net):
    optimizer = sgd(net)
    with freeze(net, "first", "lr_zero", optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = 0.3
    assert [group["lr"] for group in optimizer.param_groups] == [0.3]


def test_an_optimizer_that_loaded_a_state_meanwhile(net):
    optimizer = sgd(net)
    order = [id(p) for p in net.parameters()]
    with freeze(net, "first", "lr_zero", optimizer=optimizer):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # renews every group's dict
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == [order]
    with freeze(net, "*", "lr_zero", optimizer=optimizer):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_groups_that_someone_rewrote_or_removed_meanwhile(net):
    optimizer = two_groups(net)
    whole = freeze(net, "deep", "lr_zero", optimizer=optimizer)
    split = freeze(net, "first", "lr_zero", optimizer=optimizer)
    deep = optimizer.param_groups[1]
    deep["params"] = deep["params"][:2]  # a new list
    del optimizer.param_groups[0]  # what first was split off from
    whole.release()
    split.release()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]
    assert optimizer.param_groups[1]["params"] == [net.first.weight, net.first.bias]
    gone = freeze(net, "first.bias", "lr_zero", optimizer=optimizer)
    del optimizer.param_groups[-1]  # the learner took it out
    gone.release()
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]


def test_a_group_with_a_scheduler_is_not_split(net):
    optimizer = two_groups(net)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = state_of(net, optimizer)
    with pytest.raises(
        ValueError, match=r"to give first.weight, first.bias lr 0, optimizer.param_groups\[0\]"
    ):
        freeze(net, "first", "lr_zero", optimizer=optimizer)
    with pytest.raises(ValueError, match="its own parameter group before building the scheduler"):
        freeze(net, ["deep", "first"], "lr_zero", optimizer=optimizer)
    assert state_of(net, optimizer) == before
    with freeze(net, "deep", "lr_zero", optimizer=optimizer):
        assert optimizer.param_groups[1]["lr"] == 0
        with pytest.raises(ValueError, match=r"param_groups\[1\]"):  # its release would have to split it
            freeze(net, "deep.0", "lr_zero", optimizer=optimizer)
    assert state_of(net, optimizer) == before


def test_a_scheduler_built_on_a_split_group(net):
    optimizer = sgd(net)
    handle = freeze(net, "first", "lr_zero", optimizer=optimizer)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(ValueError, match=r"param_groups\[0\] would have to be split"):
        freeze(net, "deep", "lr_zero", optimizer=optimizer)
    with pytest.raises(ValueError, match=r"param_groups\[0\] would have to be split"):
        freeze(net, "*", "lr_zero", optimizer=optimizer)
    inner = freeze(net, "first.bias", "lr_zero", optimizer=optimizer)  # changes no group
    handle.release()
    assert [len(group["params"]) for group in optimizer.param_groups] == [7, 1]
    inner.release()
    assert [len(group["params"]) for group in optimizer.param_groups] == [8]


def test_a_whole_group_under_a_scheduler_returns_to_its_learning_rate(net):
    optimizer = two_groups(net)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    with freeze(net, "deep", "lr_zero", optimizer=optimizer):
        optimizer.step()
        scheduler.step()
        assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.1]


@pytest.mark.parametrize("kind", ["ASGD", "Rprop", "LBFGS"])
def test_optimizers_that_lr_zero_would_not_stop(net, kind):
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"does not freeze under {kind}: .*Use how='requires_grad'"):
        freeze(net, "first", "lr_zero", optimizer=optimizer)


DENSE = ["Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD"]


@pytest.mark.parametrize("kind", DENSE)
def test_optimizers_that_lr_zero_does_stop(net, kind):
    if not hasattr(torch.optim, kind):
        pytest.skip(f"this torch has no {kind}")
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.1, weight_decay=0.1)
    train_step(net, optimizer)
    before = values(net)
    with freeze(net, "first", "lr_zero", optimizer=optimizer):
        train_step(net, optimizer)
        assert moved(net, before) == EVERYTHING - FIRST
