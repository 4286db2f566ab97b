"""Lesson 05's check takes any right optimizer, and tells each typical mistake from the others."""

from functools import partial

import pytest
import torch
from torch.optim import SGD, Adam

from layerlab.groups import param_groups
from layerlab.lessons_support.lesson_05 import check_groups


def freeze(net, *modules):
    for module in modules or ("conv1", "bn1", "layer1"):
        net.get_submodule(module).requires_grad_(False)


def by_pattern(net, frozen="keep", no_decay="norm and bias", **options):
    freeze(net)
    patterns = {"fc": {"lr": 0.1, "weight_decay": 0.001}, "*": {"lr": 0.01, "weight_decay": 0.001}}
    groups = param_groups(net, patterns, no_decay=no_decay, frozen=frozen)
    return SGD(groups, **{"momentum": 0.9, **options})


def a_group_a_tensor(net):
    freeze(net)
    groups = []
    for name, p in net.named_parameters():
        lr, decay = (0.1 if name.startswith("fc.") else 0.01), (0.001 if p.dim() > 1 else 0.0)
        groups.append({"params": [p], "lr": torch.tensor(lr, dtype=torch.float64), "weight_decay": decay})
    return SGD(groups, momentum=0.9)


@pytest.mark.parametrize("make", [by_pattern, partial(by_pattern, frozen="leave out"), a_group_a_tensor])
def test_right_ones_pass(make):
    assert check_groups(make).passed


def in_parentheses(net):
    """The article's condition, in parentheses: the shortcuts' convolutions are not called conv."""
    freeze(net)
    conv = [p for n, p in net.named_parameters() if "conv" in n and "weight" in n]
    others = [p for n, p in net.named_parameters() if not ("conv" in n and "weight" in n) and "fc" not in n]
    groups = [
        {"params": conv, "weight_decay": 0.001},
        {"params": others},
        {"params": [net.fc.weight], "lr": 0.1, "weight_decay": 0.001},
        {"params": [net.fc.bias], "lr": 0.1},
    ]
    return SGD(groups, lr=0.01, momentum=0.9)


def without_the_body(net):
    freeze(net)
    groups = [
        {"params": [net.fc.weight], "lr": 0.1, "weight_decay": 0.001},
        {"params": [net.fc.bias], "lr": 0.1},
    ]
    return SGD(groups, momentum=0.9)


def used_up(net):
    freeze(net)
    rest = filter(lambda p: p.shape[0] != 10, net.parameters())
    assert len(list(rest)) == 60
    return SGD([{"params": rest, "lr": 0.01}, {"params": net.fc.parameters()}], lr=0.1, momentum=0.9)


def replaced_after(net):
    optimizer = by_pattern(net)
    net.fc = torch.nn.Linear(net.fc.in_features, 10)
    return optimizer


def unfrozen_bn(net):
    optimizer = by_pattern(net)
    net.bn1.requires_grad_(True)
    return optimizer


def all_frozen(net):
    net.requires_grad_(False)
    return SGD(net.parameters())


def layer2_too(net):
    freeze(net, "layer2")
    return by_pattern(net)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            partial(by_pattern, no_decay=None),
            ["weight decay of biases and norms must be 0, but is 0.001 for 31"],
        ),
        (partial(by_pattern, momentum=0.0), ["momentum of every group must be 0.9, but is 0 for 47 of 47"]),
        (in_parentheses, ["layer2.0.downsample.0.weight", "must be 0.001, but is 0 for 3 of "]),
        (without_the_body, ["in no parameter group", "layer2.0.conv1.weight"]),
        (used_up, ["group 0 is empty", "generator used up"]),
        (replaced_after, ["fc.weight, fc.bias must move, but stayed"]),
        (unfrozen_bn, ["bn1.weight, bn1.bias must not require gradients", "must stay still, but moved"]),
        (all_frozen, ["everything is frozen"]),
        (layer2_too, ["must require gradients: requires_grad = True", "layer2.0.conv1.weight"]),
        (lambda net: Adam(net.parameters()), ["must be torch.optim.SGD, but is Adam"]),
        (lambda net: None, ["must return the optimizer, but returned NoneType"]),
        (lambda net: net.no_such_layer, ["no_such_layer"]),
    ],
)
def test_wrong_ones_are_told_what_is_wrong(make, said):
    verdict = check_groups(make)
    assert not verdict.passed
    missed = " | ".join(f"{line.text} {line.cure}" for line in verdict.lines if not line.ok)
    for words in said:
        assert words in missed


def test_a_tensor_that_is_in_twice_is_named():
    def twice(net):
        optimizer = by_pattern(net)
        optimizer.param_groups[0]["params"].append(net.fc.weight)
        return optimizer

    missed = [line.text for line in check_groups(twice).lines if not line.ok]
    assert missed[0] == "fc.weight is in a group twice: step() updates them twice"


def test_the_check_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_groups(by_pattern)
    assert torch.equal(torch.rand(2), expected)
