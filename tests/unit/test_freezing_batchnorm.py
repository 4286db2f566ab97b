"""BatchNorm in a frozen part, and copies of a frozen model."""

import copy
import io

import pytest
import torch
from frozen_net import EVERYTHING, NORM_STATISTICS, WAYS, Net, moved, sgd, train_step, values
from torch import nn

from layerlab.freezing import batchnorm_choice, freeze, how_frozen


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return Net()


@pytest.mark.parametrize("how", WAYS)
def test_batchnorm_stays_in_eval_and_returns_to_the_mode_asked_for(net, how):
    optimizer = sgd(net)
    with freeze(net, "norm", how, optimizer=optimizer):
        assert not net.norm.training
        assert net.deep[1].training
        assert net.train() is net
        assert not net.norm.training
        assert net.norm.train() is net.norm
        assert not net.norm.training
    assert net.norm.training
    with freeze(net, "norm", how, optimizer=optimizer):
        net.eval()
    assert not net.norm.training
    with freeze(net, "norm", how, optimizer=optimizer):
        net.train()
        assert not net.norm.training
    assert net.norm.training
    assert "train" not in vars(net.norm)


def test_batchnorm_in_eval_before_stays_in_eval(net):
    net.norm.eval()
    with freeze(net, "norm"):
        pass
    assert not net.norm.training


def test_batchnorm_only_partly_meant_is_left_alone(net):
    with freeze(net, "norm.weight") as handle:
        assert net.norm.training
        assert handle.eval_modules == ()
        assert batchnorm_choice(net.norm) is None


def test_the_statistics_alone_can_be_frozen(net):
    with freeze(net, "*.running_*") as handle:
        assert handle.names == ()
        assert handle.eval_modules == ("norm", "deep.1")
        assert net.norm.weight.requires_grad
        assert how_frozen(net.norm.weight) is None


def test_instance_norm_with_statistics_counts_and_without_does_not():
    net = nn.ModuleList(
        [
            nn.InstanceNorm1d(2, track_running_stats=True),
            nn.InstanceNorm1d(2, affine=True),
            nn.BatchNorm1d(2, track_running_stats=False),
        ]
    )
    with freeze(net, "*") as handle:
        assert handle.eval_modules == ("0",)
        assert net[1].training


@pytest.mark.parametrize("asked", [True, False])
def test_overlapping_handles_keep_batchnorm_in_eval_until_the_last(net, asked):
    old, new = freeze(net, "norm"), freeze(net, "*")
    old.release()
    if asked:
        net.train()
    assert not net.norm.training
    new.release()
    assert net.norm.training


def test_told_to_leave_modes_alone(net):
    with freeze(net, "norm", batchnorm="train") as handle:
        before = values(net)
        assert handle.eval_modules == ()
        assert net.norm.training
        assert batchnorm_choice(net.norm) == "train"
        assert batchnorm_choice(net.deep[1]) is None
        net(torch.randn(6, 3))
        assert moved(net, before) >= NORM_STATISTICS
        with freeze(net, "norm"):
            assert batchnorm_choice(net.norm) == "eval"
            assert not net.norm.training
        assert net.norm.training
    assert batchnorm_choice(net.norm) is None


def test_a_train_method_of_its_own_comes_back(net):
    asked = []

    def train(mode=True):
        asked.append(mode)
        net.norm.training = False
        return net.norm

    net.norm.train = train
    with freeze(net, "norm"):
        net.train()
        assert asked == [True]
    assert net.norm.train is train
    assert not net.norm.training  # which is what its own method makes of train()


def test_a_train_method_put_there_meanwhile_stays(net):
    handle = freeze(net, "norm")
    net.norm.train = own = lambda mode=True: net.norm
    handle.release()
    assert net.norm.train is own
    assert net.norm.training


def test_a_mode_that_is_no_mode_is_still_an_error(net):
    with freeze(net, "norm"), pytest.raises(ValueError, match="expected to be boolean"):
        net.norm.train("yes")


def test_children_of_a_batchnorm_still_follow():
    class NormAct(nn.BatchNorm1d):
        def __init__(self):
            super().__init__(2)
            self.drop = nn.Dropout()

    net = nn.Sequential(NormAct())
    with freeze(net, "0"):
        net.eval()
        assert not net[0].drop.training
        net.train()
        assert net[0].drop.training
        assert not net[0].training


def copied(net):
    return copy.deepcopy(net)


def pickled(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("duplicate", [copied, pickled])
def test_a_copy_of_a_frozen_model_is_a_model_that_nobody_holds(net, how, duplicate):
    optimizer = sgd(net)
    handle = freeze(net, "*", how, optimizer=optimizer)
    net.train()
    other = duplicate(net)
    assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in net.parameters()]
    assert how_frozen(other.first.weight) is None
    assert batchnorm_choice(other.norm) is None
    assert not other.norm.training  # as it was when copied
    other.train()
    assert other.norm.training
    assert getattr(vars(other.norm).get("train"), "__func__", None) in (None, nn.Module.train)
    assert not net.norm.training  # nothing is shared
    other.eval()
    assert not other.norm.training
    other.requires_grad_(True)
    before, mine = values(other), values(net)
    train_step(other.train(), sgd(other))
    assert moved(other, before) == EVERYTHING
    assert not moved(net, mine)
    with freeze(other, "norm"):
        other.train()
        assert not other.norm.training
    assert other.norm.training
    handle.release()
    assert net.norm.training


@pytest.mark.parametrize("duplicate", [copied, pickled])
def test_a_copy_frozen_before_its_first_train_call(net, duplicate):
    freeze(net, "norm")
    other = duplicate(net)
    with freeze(other, "norm"):
        other.train()
        assert not other.norm.training
    assert other.norm.training
    other.eval()
    other.train()
    assert other.norm.training


def test_state_dict_of_a_frozen_model_has_the_same_keys(net):
    keys = list(net.state_dict())
    with freeze(net, "*"):
        assert list(net.state_dict()) == keys
