"""Recalibration against statistics of a forward pass written out by hand, and against the old function."""

import copy
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import batch_norm, conv2d
from torchvision.models import resnet18

from layerlab import freeze
from layerlab.data import Images, backbone, insects, recalibrate_batchnorm
from layerlab.data.image_files import opened

GIVEN = os.environ.get("LAYERLAB_DATA")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 5, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(5, eps=1e-3, momentum=None)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def made(seed=0):
    torch.manual_seed(seed)
    net = Net()
    for bn in (net.bn1, net.bn2):
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
        nn.init.normal_(bn.running_mean)
        nn.init.uniform_(bn.running_var, 0.1, 4)
    return net


def noise(n=10, side=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.zeros(n, dtype=torch.int64), ("noise",), "Noise, made for a test.")


def normed(bn, x):
    """Eval mode in double precision."""
    tensors = (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    return batch_norm(x, *(tensor.detach().double() for tensor in tensors), training=False, eps=bn.eps)


def inputs_of_both(net, images):
    x = images.batch(slice(None))[0].double()
    first = conv2d(x, net.conv1.weight.detach().double())
    second = conv2d(torch.relu(normed(net.bn1, first)), net.conv2.weight.detach().double())
    return first, second


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 13))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_statistics_are_those_of_the_inputs_and_the_function_stays(seed, n, batch):
    net, images = made(seed), noise(n)
    first, second = inputs_of_both(net, images)
    expected = normed(net.bn2, second)
    assert recalibrate_batchnorm(net, images, batch=batch) == ("bn1", "bn2")
    for bn, x in ((net.bn1, first), (net.bn2, second)):
        torch.testing.assert_close(bn.running_mean.double(), x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            bn.running_var.double(), x.var((0, 2, 3), correction=1), rtol=1e-4, atol=1e-5
        )
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(images.batch(slice(None))[0]).double(), expected, rtol=1e-3, atol=1e-3)


def test_in_train_mode_it_is_the_same_function_on_the_whole_set():
    net, images = made(), noise(64)
    net.drop.p = 0.0
    x = images.batch(slice(None))[0]
    with torch.no_grad():
        expected = copy.deepcopy(net).eval()(x)
        before = (copy.deepcopy(net).train()(x) - expected).abs().mean()
        recalibrate_batchnorm(net, images)
        after = (net.train()(x) - expected).abs().mean()
    assert before > 0.1  # there was something to repair
    torch.testing.assert_close(after, torch.tensor(0.0), rtol=0, atol=1e-3)


def test_large_means_cost_no_precision():
    net = nn.Sequential(nn.BatchNorm2d(3))
    pixels = 1000 + torch.rand(50, 3, 4, 4)
    images = Images(pixels, torch.zeros(50, dtype=torch.int64), ("noise",), "")
    recalibrate_batchnorm(net, images, batch=7)
    torch.testing.assert_close(net[0].running_var.double(), pixels.double().var((0, 2, 3)), rtol=1e-4, atol=0)


def test_modes_gradients_flags_and_hooks_stay():
    net = made()
    net.train()
    net.bn2.eval()
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    net.bn1.weight.requires_grad_(False)
    tensors = {name: id(tensor) for name, tensor in net.state_dict(keep_vars=True).items()}
    convolutions = [net.conv1.weight.detach().clone(), net.conv2.weight.detach().clone()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    recalibrate_batchnorm(net, noise())
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in net.modules()] == [True, True, True, True, False, True]
    assert net.conv1.weight.grad.sum() == net.conv1.weight.numel()
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == {"bn1.weight"}
    assert {name: id(tensor) for name, tensor in net.state_dict(keep_vars=True).items()} == tensors
    assert torch.equal(net.conv1.weight, convolutions[0])
    assert torch.equal(net.conv2.weight, convolutions[1])
    assert int(net.bn1.num_batches_tracked) == 0
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_under_a_freeze_that_keeps_eval_mode():
    net = made()
    net.train()
    with freeze(net, "bn1"):
        recalibrate_batchnorm(net, noise())
        assert not net.bn1.training
        assert net.bn2.training
    assert net.bn1.training


def values(net):
    return [tensor.clone() for tensor in net.state_dict().values()]


def broken(change):
    net = made()
    change(net)
    return net


def no_statistics(net):
    net.bn2 = nn.BatchNorm2d(5, track_running_stats=False)


def no_weight(net):
    net.bn2 = nn.BatchNorm2d(5, affine=False)


def never_used(net):
    net.extra = nn.BatchNorm2d(5)


def infinite(net):
    net.conv2.weight.data[0, 0, 0, 0] = float("inf")


def no_norm(net):
    net.bn1 = net.bn2 = nn.Identity()


def fails(net):
    def fail(module, inputs):
        raise RuntimeError("on purpose")

    net.drop.register_forward_pre_hook(fail)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (no_statistics, ValueError, "bn2 has no running statistics"),
        (no_weight, ValueError, "bn2 has no running statistics, or no weight"),
        (never_used, ValueError, "extra got no input"),
        (infinite, ValueError, "the inputs of bn2 are not all finite"),
        (no_norm, ValueError, "the model has no BatchNorm2d"),
        (fails, RuntimeError, "on purpose"),
    ],
)
def test_what_cannot_be_done_changes_nothing(change, error, says):
    net = broken(change)
    before = values(net)
    with pytest.raises(error, match=says):
        recalibrate_batchnorm(net, noise())
    assert all(torch.equal(a, b) for a, b in zip(values(net), before, strict=True))
    assert all(module.training for module in net.modules())
    assert not net.bn1._forward_pre_hooks


def test_no_pictures_or_no_batch():
    with pytest.raises(ValueError, match="images is empty"):
        recalibrate_batchnorm(made(), noise(0))
    with pytest.raises(ValueError, match="batch=0"):
        recalibrate_batchnorm(made(), noise(), batch=0)


def test_every_batchnorm_of_a_resnet18():
    torch.manual_seed(0)
    net = resnet18().eval()
    images = noise(6, 32)
    x = images.batch(slice(None))[0]
    with torch.no_grad():
        expected = net(x)
        done = recalibrate_batchnorm(net, images)
        torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-3)
    assert len(done) == 20
    assert done[:2] == ("bn1", "layer1.0.bn1")


def test_the_folded_imagenet_weights_become_sane_in_train_mode(monkeypatch):
    file = "resnet18_imagenet_without_layer4_convs.pt"
    if GIVEN is None or not all((Path(GIVEN) / name).is_file() for name in (file, insects.ARCHIVE)):
        pytest.skip(f"needs LAYERLAB_DATA to name a folder with {file} and {insects.ARCHIVE}")
    monkeypatch.setenv("LAYERLAB_DATA", GIVEN)
    with opened(Path(GIVEN) / insects.ARCHIVE, insects.FOLDER) as files:
        pixels = torch.stack([insects.decode(files.read(name), 64) for name in files.names[:240:10]])
    images = Images(pixels, torch.zeros(24, dtype=torch.int64), ("insects",), "")
    net = backbone("resnet18", "imagenet-without-layer4").model
    x = images.batch(slice(None))[0]
    with torch.no_grad():
        in_eval = net.eval()(x)
        before = (copy.deepcopy(net).train()(x) - in_eval).norm() / in_eval.norm()
        recalibrate_batchnorm(net, images)
        torch.testing.assert_close(net.eval()(x), in_eval, rtol=1e-3, atol=1e-3)
        after = (copy.deepcopy(net).train()(x) - in_eval).norm() / in_eval.norm()
    assert before > 0.5
    assert after < 0.05  # the batch has the biased variance, the statistics the unbiased one
