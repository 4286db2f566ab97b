"""What a forward pass moves, against formulas by hand and what torch documents of its layers."""

import copy

import pytest
import torch
from torch import nn

from layerlab.experiments.what_moves import LAYERS, WIDTH, changed, forward_facts


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(4, 3)
        self.out = nn.Linear(3, 4)
        self.out.weight = self.emb.weight
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("scratch", torch.tensor([1.0, float("nan")]), persistent=False)


def test_nothing_done_nothing_changed():
    assert changed(Net(), lambda: None) == ()


def test_the_smallest_change_is_found():
    net = Net()

    def nudge():
        with torch.no_grad():
            net.out.bias[0] = net.out.bias[0].nextafter(torch.tensor(9.0))

    assert changed(net, nudge) == ("out.bias",)


def test_a_sign_of_zero_is_a_change():
    net = Net()
    assert changed(net, lambda: net.seen.neg_()) == ("seen",)


def test_a_buffer_that_state_dict_leaves_out_counts():
    net = Net()
    assert "scratch" not in net.state_dict()
    assert changed(net, lambda: net.scratch.fill_(2)) == ("scratch",)


def test_a_tied_tensor_is_named_once():
    net = Net()
    with torch.no_grad():
        assert changed(net, lambda: net.out.weight.add_(1)) == ("emb.weight",)


def test_a_tensor_that_was_replaced():
    net = Net()

    def untie(noise):
        net.out.weight = nn.Parameter(net.emb.weight.detach() + noise)

    assert changed(net, lambda: untie(1)) == ("out.weight",)  # new as a name
    assert changed(net, lambda: untie(1)) == ()  # another tensor, the same numbers
    assert changed(net, lambda: untie(2)) == ("out.weight",)
    assert changed(net, lambda: delattr(net, "out")) == ("out.weight", "out.bias")


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
POWER = ("parametrizations.weight.0._u", "parametrizations.weight.0._v")
NOTHING = ((), True, True)
# moved, the same output again, an output of its own: in train mode, in eval mode
DOCUMENTED = {
    "BatchNorm1d": ((STATISTICS, True, False), NOTHING),
    "BatchNorm1d, momentum=0": ((STATISTICS[2:], True, False), NOTHING),
    "BatchNorm1d, momentum=None": ((STATISTICS, True, False), NOTHING),
    "BatchNorm1d, track_running_stats=False": (((), True, False), ((), True, False)),
    "InstanceNorm1d, track_running_stats=True": ((STATISTICS[:2], True, True), NOTHING),
    "InstanceNorm1d": (NOTHING, NOTHING),
    "LayerNorm": (NOTHING, NOTHING),
    "GroupNorm": (NOTHING, NOTHING),
    "Linear with spectral_norm": ((POWER, False, True), NOTHING),
    "Dropout": (((), False, True), NOTHING),
    "LSTM, dropout=0.5": (((), False, True), NOTHING),
}


def inputs():
    return torch.randn(8, WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))


def test_every_layer_is_checked():
    assert DOCUMENTED.keys() == LAYERS.keys()


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_do_what_torch_documents(name, train):
    torch.manual_seed(0)
    facts = forward_facts(LAYERS[name](), inputs(), train=train)
    assert (facts.moved, facts.repeats, facts.alone) == DOCUMENTED[name][0 if train else 1]
    assert facts.moved_without_grad == facts.moved


@pytest.mark.parametrize("name", ["BatchNorm1d", "Dropout", "Linear with spectral_norm"])
def test_layer_and_random_state_stay_as_they_are(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    before, random = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
    forward_facts(layer, inputs(), train=True)
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())
    assert not layer.training
    assert torch.equal(torch.get_rng_state(), random)


def test_one_example_is_too_few():
    with pytest.raises(ValueError, match="inputs has 1 examples: give two or more"):
        forward_facts(nn.Identity(), inputs()[:1], train=True)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
def test_running_statistics_follow_the_formula(momentum, gradients):
    """After n equal batches the start weighs (1 − momentum)ⁿ; with momentum None it does not count."""
    norm = nn.BatchNorm1d(3, momentum=momentum).double().requires_grad_(False)
    norm.running_mean.fill_(5)
    batch = torch.arange(12.0).reshape(4, 3).double() ** 2
    with torch.set_grad_enabled(gradients):
        for _ in range(4):
            norm(batch)
    left = 0 if momentum is None else (1 - momentum) ** 4
    mean = batch.sum(0) / 4
    var = ((batch - mean) ** 2).sum(0) / 3
    torch.testing.assert_close(norm.running_mean, left * 5 + (1 - left) * mean)
    torch.testing.assert_close(norm.running_var, left * torch.ones(3).double() + (1 - left) * var)
    assert norm.num_batches_tracked == 4


def test_what_a_wrong_layer_does_in_eval_mode_is_found():
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return x + self.calls * x.mean()

    facts = forward_facts(Forgetful(), inputs(), train=False)
    assert facts.moved == facts.moved_without_grad == ("calls",)
    assert not facts.repeats
    assert not facts.alone
