"""Training on every device that this machine has: the CPU, a CUDA GPU, Apple's."""

import copy

import pytest
import torch
import torchvision
from made_data import Data

from layerlab.experiments.settings import Recipe
from layerlab.experiments.transfer import transfer
from layerlab.training import best_device, cached_features, evaluate, hardware

DEVICES = list(dict.fromkeys(["cpu", best_device().type]))
RECIPE = Recipe(epochs=2, batch_size=4, lr=0.01)


TRAIN, TEST = Data(9, shape=(3, 32, 32)), Data(6, 1, shape=(3, 32, 32))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=2)


def train(net, device, setting, **options):
    net = copy.deepcopy(net)
    outcome = transfer(setting, net, TRAIN, TEST, RECIPE, device=device, **options)
    return net, outcome


def same(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("device", DEVICES)
def test_resnet18_trains_there_and_bitwise_the_same_again(net, device):
    first, outcome = train(net, device, "fine_tune")
    again, _ = train(net, device, "fine_tune")
    assert next(first.parameters()).device.type == device
    assert same(first, again)
    assert outcome.made_with["hardware"] == hardware(device)
    _, told = train(net, "cpu", "fine_tune")
    assert [e.train_loss for e in outcome.epochs] == pytest.approx(
        [e.train_loss for e in told.epochs], rel=0.05
    )


@pytest.mark.parametrize("device", DEVICES)
def test_stopped_and_resumed_there_it_is_bitwise_the_same(net, device, tmp_path):
    whole, _ = train(net, device, "fine_tune")

    class Stop(Exception):
        pass

    def stop(epoch):
        raise Stop

    file = tmp_path / "run.pt"
    with pytest.raises(Stop):
        train(net, device, "fine_tune", save_to=file, after_epoch=stop)
    resumed, _ = train(net, device, "fine_tune", save_to=file)
    assert same(whole, resumed)


@pytest.mark.parametrize("device", DEVICES)
def test_cached_features_there(net, device):
    plain, one = train(net, device, "frozen")
    cached, other = train(net, device, "frozen", cached=True)
    for name in ("weight", "bias"):
        left, right = getattr(plain.fc, name), getattr(cached.fc, name)
        if device == "cpu":
            assert torch.equal(left, right)
        else:  # which algorithm a GPU takes may depend on the size of the batch
            torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)
    assert one.accuracy == pytest.approx(other.accuracy, abs=1 / 6)


@pytest.mark.parametrize("device", DEVICES)
def test_measuring_there_is_measuring_here(net, device):
    there = copy.deepcopy(net).to(device)
    score, expected = evaluate(there, TEST, device=device), evaluate(net, TEST)
    assert score.loss == pytest.approx(expected.loss, rel=1e-3)
    vectors = cached_features(there, "fc", TEST, device=device).vectors
    torch.testing.assert_close(vectors.cpu(), cached_features(net, "fc", TEST).vectors, rtol=1e-2, atol=1e-3)
