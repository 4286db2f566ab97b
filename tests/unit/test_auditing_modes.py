"""The audit of modes and of where the frozen part lies: provoked, seen to come true, and cured."""

import copy

import pytest
import torch
from audited import bits, codes, cured, same, the
from torch import nn

from layerlab.auditing import audit
from layerlab.freezing import freeze

SGD = torch.optim.SGD
IMAGES = torch.linspace(-2, 3, 96).reshape(4, 3, 2, 4)

NORMS = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "without weights": lambda: nn.BatchNorm2d(4, affine=False),
    "cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
}


def with_norm(norm):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.ReLU())
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(32, 2))
    body.requires_grad_(False)
    return model, SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("norm", NORMS)
def test_statistics_of_a_frozen_part_move(norm):
    model, optimizer = with_norm(NORMS[norm]())
    finding = the(audit(model, optimizer), "frozen-statistics", "warning")
    assert finding.names == ("0.1",)
    before = bits([model[0][1].running_mean])
    with torch.no_grad():
        model(IMAGES)
    assert not any(same([model[0][1].running_mean], before))
    cured(finding, model=model)
    before = bits(model.buffers())
    model(IMAGES)
    assert all(same(model.buffers(), before))
    assert not audit(model, optimizer)


STILL = {
    "momentum 0": lambda: nn.BatchNorm2d(4, momentum=0.0),
    "not tracked": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
}


@pytest.mark.parametrize("norm", STILL)
def test_statistics_that_stay_are_no_finding(norm):
    model, optimizer = with_norm(STILL[norm]())
    before = bits(b for n, b in model.named_buffers() if n.endswith(("mean", "var")))
    model(IMAGES)
    assert all(same([b for n, b in model.named_buffers() if n.endswith(("mean", "var"))], before))
    assert not audit(model, optimizer)


def test_synchronised_batchnorm_counts_too():
    model, optimizer = with_norm(nn.SyncBatchNorm(4))
    assert codes(model, optimizer) == {"frozen-statistics"}


def test_many_modules_share_one_finding_and_one_cure():
    body = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(5))).requires_grad_(False)
    model = nn.Sequential(body, nn.Flatten(), nn.Linear(24, 2))
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer), "frozen-statistics")
    assert finding.place == "0.0, 0.1, 0.2 … and 2 more"
    assert len(finding.names) == 5
    assert finding.cure.startswith("model[0].eval()")
    cured(finding, model=model)
    assert not audit(model, optimizer)


def test_freeze_keeps_statistics_unless_told_otherwise():
    model, optimizer = with_norm(nn.BatchNorm2d(4))
    with freeze(model, "0"):
        assert not audit(model.train(), optimizer)
    with freeze(model, "0", batchnorm="train"):
        the(audit(model, optimizer), "frozen-statistics", "note")


def test_statistics_move_under_lr_zero():
    model, _ = with_norm(nn.BatchNorm2d(4))
    model.requires_grad_(True)
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
    optimizer = SGD(groups, lr=0.1)
    assert {"frozen-statistics", "lr-zero"} == codes(model, optimizer)
    before = bits([*model[0].parameters(), model[0][1].running_mean])
    model(IMAGES).square().mean().backward()
    optimizer.step()
    assert same([*model[0].parameters(), model[0][1].running_mean], before) == [True] * 4 + [False]


@pytest.mark.parametrize(
    "drops", [lambda: nn.Dropout(0.5), lambda: nn.Dropout1d(0.5), lambda: nn.AlphaDropout(0.5)]
)
def test_dropout_in_a_frozen_part_is_a_note(drops):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(8, 16), drops(), nn.Linear(16, 16)).requires_grad_(False)
    model = nn.Sequential(body, nn.Dropout(), nn.Linear(16, 2))
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer), "frozen-dropout", "note")
    assert finding.names == ("0.1",)  # the one after it belongs to the part that trains
    x = torch.randn(2, 3, 8)
    assert not torch.equal(body(x), body(x))
    cured(finding, model=model)
    assert torch.equal(body(x), body(x))
    assert not audit(model, optimizer)


def test_dropout_inside_attention_and_recurrent_layers_counts():
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(4, 2, dropout=0.1),
            "lstm": nn.LSTM(4, 4, num_layers=2, dropout=0.1),
            "none": nn.MultiheadAttention(4, 2),
            "head": nn.Linear(4, 2),
        }
    ).requires_grad_(False)
    model["head"].requires_grad_(True)
    finding = the(audit(model, SGD(model.parameters(), lr=0.1)), "frozen-dropout")
    assert finding.names == ("attention", "lstm")


def test_a_model_in_eval_mode():
    model, optimizer = with_norm(nn.BatchNorm2d(4))
    model.eval()
    finding = the(audit(model, optimizer), "eval-mode", "note")
    before = bits(model.buffers())
    model(IMAGES)
    assert all(same(model.buffers(), before))
    cured(finding, model=model)
    model(IMAGES)
    assert not any(same(model.buffers(), before))  # it woke the frozen part too, and that is told now
    assert codes(model, optimizer) == {"frozen-statistics"}


def kept_bytes(model, x):
    """Bytes of activations that autograd keeps for the backward pass, each once."""
    own = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    size = sum(tensor.nbytes for tensor in kept.values())
    assert out.requires_grad
    return size


def test_freezing_only_late_layers_keeps_the_activations():
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)]
    model, x = nn.Sequential(*parts), torch.randn(64, 16)
    everything = kept_bytes(model, x)
    optimizer = SGD(model.parameters(), lr=0.1)
    late = copy.deepcopy(model)
    late[2:].requires_grad_(False)
    finding = the(audit(late, SGD(late.parameters(), lr=0.1)), "late-freeze", "note")
    assert finding.names == ("2", "3")
    assert kept_bytes(late, x) == everything
    model[:2].requires_grad_(False)
    assert kept_bytes(model, x) < 0.7 * everything
    assert not audit(model, optimizer)
    cured(finding, model=late)
    assert "late-freeze" not in codes(late, SGD(late.parameters(), lr=0.1))


def test_frozen_norms_alone_are_no_late_freeze():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    assert not audit(model, SGD(model.parameters(), lr=0.1))
