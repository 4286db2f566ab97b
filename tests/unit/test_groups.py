"""`param_groups`: who is in which group, with which options, and what is refused."""

import re
import warnings
from functools import partial

import pytest
import torch
from grouped import Net, ids, names, options
from torch import nn

from layerlab.freezing import freeze
from layerlab.groups import param_groups


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


@pytest.fixture
def net():
    return Net()


BODY, NORM, HEAD = (
    ["body.weight", "body.bias"],
    ["norm.weight", "norm.bias"],
    ["head.weight", "head.bias"],
)


def test_the_first_match_wins_and_the_order_is_that_of_the_patterns(net):
    groups = param_groups(net, {"head": {"lr": 0.1}, "*.bias": {"lr": 0.2}, "*": {"lr": 0.3}})
    assert names(groups) == [HEAD, ["body.bias", "norm.bias"], ["body.weight", "norm.weight"]]
    assert options(groups) == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]
    assert ids(groups)[0] == [id(net.head.weight), id(net.head.bias)]


def test_every_kind_of_pattern(net):
    groups = param_groups(net, {re.compile(r".*\.weight"): {}, ("body", "head"): {}, "nor[m]": {}})
    assert names(groups) == [
        ["body.weight", "norm.weight", "head.weight"],
        ["body.bias", "head.bias"],
        ["norm.bias"],
    ]


def test_names_are_kept_as_torch_keeps_them(net):
    ours = torch.optim.Adam(param_groups(net, {"*": {}}))
    theirs = torch.optim.Adam(net.named_parameters())
    assert ours.param_groups[0]["param_names"] == theirs.param_groups[0]["param_names"]
    assert ids(ours.param_groups) == ids(theirs.param_groups)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_the_names_of_wrappers_are_left_out(net, wrap):
    groups = param_groups(wrap(net), {"head": {}, "*": {}})
    assert names(groups) == [HEAD, BODY + NORM]


def test_a_tied_parameter_is_taken_once_by_any_of_its_names():
    net = Tied()
    groups = param_groups(net, {"head": {"lr": 0.1}})
    assert names(groups) == [["embed.weight"]]
    assert "embed.weight (tied: head.weight)" in groups._repr_html_()
    with pytest.raises(ValueError, match=r"'embed' gets nothing: 'head' stands before it"):
        param_groups(net, {"head": {}, "embed": {}})


def test_what_no_pattern_matches_is_an_error_unless_you_say(net):
    with pytest.raises(
        ValueError, match=r"no pattern matches body.weight, body.bias, norm.weight, norm.bias: "
    ):
        param_groups(net, {"head": {}})
    left_out = param_groups(net, {"head": {}}, unmatched="leave out")
    assert names(left_out) == [HEAD]
    assert left_out.left_out == (*BODY, *NORM)
    assert "in no group, matched by no pattern: 4 tensors" in repr(left_out)
    rest = param_groups(net, {"head": {}}, unmatched={"lr": 0.5})
    assert names(rest) == [HEAD, BODY + NORM]
    assert options(rest) == [{}, {"lr": 0.5}]
    assert names(param_groups(net, {"*": {}}, unmatched={"lr": 0.5})) == [BODY + NORM + HEAD]


def test_frozen_parameters_stay_in_and_are_marked_or_are_left_out(net):
    net.body.requires_grad_(False)
    net.head.bias.requires_grad_(False)
    kept = param_groups(net, {"body": {}, "*": {}})
    assert names(kept) == [BODY, NORM + HEAD]
    lines = repr(kept).splitlines()
    assert lines[2].startswith("❄ 0: body")
    assert lines[3].startswith("  1: *")
    assert "❄ frozen: 3 tensors with requires_grad False" in lines[-1]
    assert "<code>❄ head.bias</code>" in kept._repr_html_()
    without = param_groups(net, {"head": {}, "*": {}}, frozen="leave out")
    assert names(without) == [["head.weight"], NORM]
    assert without.left_out == (*BODY, "head.bias")
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is left"):
        param_groups(net, {"*": {}}, frozen="leave out")


def test_no_weight_decay_for_norms_and_biases(net):
    groups = param_groups(net, {"head": {}, "*": {"weight_decay": 0.1, "lr": 1.0}}, no_decay="norm and bias")
    assert names(groups) == [["head.weight"], ["head.bias"], ["body.weight"], ["body.bias", *NORM]]
    assert options(groups) == [
        {},
        {"weight_decay": 0.0},
        {"weight_decay": 0.1, "lr": 1.0},
        {"weight_decay": 0.0, "lr": 1.0},
    ]


class Odd(nn.Module):
    """Parameters by which rules of thumb differ."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 4)
        self.square_norm = nn.LayerNorm((2, 4))
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.gain = nn.Parameter(torch.ones(4))
        self.group = nn.GroupNorm(2, 4)
        self.biased = nn.Linear(4, 4, bias=False)


def test_what_counts_as_norm_or_bias():
    decaying, spared = param_groups(Odd(), {"*": {}}, no_decay="norm and bias")
    assert sorted(decaying["param_names"]) == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "biased.weight",
        "embed.weight",
    ]
    assert {"scale", "gain", "square_norm.weight", "attention.bias_k", "group.weight"} <= set(
        spared["param_names"]
    )


def test_lr_falls_by_layer(net):
    groups = param_groups(net, {"*": {"lr": 0.8}}, layer_decay=0.5)
    assert names(groups) == [BODY + NORM, HEAD]
    assert [group["lr"] for group in groups] == [0.4, 0.8]
    assert "0.5^1 = 0.5" in repr(groups)
    own = param_groups(
        net, {"*.bias": {"lr": 8.0}, "*": {"lr": 0.8}}, layer_decay=0.5, no_decay="norm and bias"
    )
    assert names(own) == [
        ["body.bias", "norm.bias"],
        ["head.bias"],
        ["body.weight"],
        ["norm.weight"],
        ["head.weight"],
    ]
    assert [group["lr"] for group in own] == [4.0, 8.0, 0.4, 0.4, 0.8]


@pytest.mark.parametrize(
    ("layer_decay", "after"), [(None, [0.08, 0.08]), (0.5, [0.04, 0.04, 0.08, 0.08])], ids=["one", "by layer"]
)
def test_a_tensor_lr_is_shared_by_no_two_groups(net, layer_decay, after):
    lr = torch.tensor(0.8)
    groups = param_groups(net, {"*": {"lr": lr}}, layer_decay=layer_decay, no_decay="norm and bias")
    optimizer = torch.optim.Adam(groups, foreach=False)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    optimizer.step()
    scheduler.step()
    assert [round(float(group["lr"]), 6) for group in optimizer.param_groups] == after
    assert lr == 0.8


@pytest.mark.parametrize(
    ("patterns", "more", "error", "said"),
    [
        ({"haed": {}}, {}, ValueError, "'haed' matches nothing; near names: head"),
        ({"*": {}, "head": {}}, {}, ValueError, "'head' gets nothing: '[*]' stands before it"),
        ({}, {}, ValueError, "there is no pattern"),
        ({"": {}}, {}, ValueError, "the empty pattern"),
        ({3: {}}, {}, TypeError, "a pattern is a str"),
        ({"norm.running_mean": {}}, {}, ValueError, "matches only buffers"),
        ({"*": 0.1}, {}, TypeError, "options of pattern '[*]' must be a dict"),
        ({"*": {1: 0.1}}, {}, TypeError, "an option's name is a str"),
        ({"*": {"params": []}}, {}, ValueError, "'params' in the options of pattern '[*]'"),
        ({"head": {}}, {"unmatched": {"param_names": []}}, ValueError, "'param_names' in the options of unm"),
        ({"head": {}}, {"unmatched": "ignore"}, ValueError, "unmatched='ignore' is neither"),
        ([("*", {})], {}, TypeError, "patterns must be a dict"),
        ({"*": {}}, {"frozen": "drop"}, ValueError, "frozen='drop' is neither"),
        ({"*": {}}, {"no_decay": "bias"}, ValueError, "no_decay='bias' is neither"),
        ({"*": {}}, {"layer_decay": 0.5}, ValueError, "pattern '[*]' has none"),
        ({"*": {"lr": "1"}}, {"layer_decay": 0.5}, TypeError, "lr must be a number, not '1'"),
        ({"*": {"lr": 1}}, {"layer_decay": 0}, ValueError, "layer_decay=0 must be above 0"),
        ({"*": {"lr": 1}}, {"layer_decay": 1.5}, ValueError, "at most 1"),
        ({"*": {"lr": 1}}, {"layer_decay": float("nan")}, ValueError, "layer_decay=nan"),
        ({"*": {"lr": 1}}, {"layer_decay": "0.5"}, TypeError, "must be a number such as 0.75"),
        (
            {"*": {"momentum": 1}},
            {"optimizer": torch.optim.Adam},
            ValueError,
            "Adam has no option 'momentum'",
        ),
        ({"*": {"weigth_decay": 1}}, {"optimizer": torch.optim.SGD}, ValueError, "near names: weight_decay"),
        (
            {"*": {"beta": 1}},
            {"optimizer": partial(torch.optim.AdamW, lr=1)},
            ValueError,
            "AdamW has no option",
        ),
        ({"*": {}}, {"optimizer": 3}, TypeError, "optimizer must be a class"),
    ],
)
def test_what_cannot_be_right_is_refused_and_says_why(net, patterns, more, error, said):
    with pytest.raises(error, match=said):
        param_groups(net, patterns, **more)


def test_models_that_have_nothing_to_group():
    with pytest.raises(TypeError, match="model must be a torch"):
        param_groups([nn.Linear(1, 1)], {"*": {}})
    with pytest.raises(ValueError, match="no parameters or buffers"):
        param_groups(nn.ReLU(), {"*": {}})
    with warnings.catch_warnings():  # older versions of torch warn that lazy modules are new
        warnings.simplefilter("ignore")
        lazy = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(ValueError, match="has no shape yet: run the model once"):
        param_groups(lazy, {"*": {}})


def test_option_names_of_an_optimizer_are_taken(net):
    groups = param_groups(
        net, {"*": {"betas": (0.8, 0.9)}}, no_decay="norm and bias", optimizer=torch.optim.Adam
    )
    assert options(groups)[1] == {"betas": (0.8, 0.9), "weight_decay": 0.0}

    class Own(torch.optim.Optimizer):
        def __init__(self, params, **anything):
            super().__init__(params, anything)

    assert options(param_groups(net, {"*": {"mine": 3}}, optimizer=Own)) == [{"mine": 3}]


def test_a_group_is_added_later_with_its_names(net):
    optimizer = torch.optim.SGD(param_groups(net, {"head": {}}, unmatched="leave out"))
    with pytest.raises(ValueError, match="with/without names"):
        optimizer.add_param_group({"params": list(net.body.parameters())})
    optimizer.add_param_group({"params": list(net.body.named_parameters())})
    assert len(optimizer.param_groups) == 2


def test_a_learning_rate_of_its_groups_is_frozen_and_released(net):
    optimizer = torch.optim.SGD(param_groups(net, {"head": {"lr": 0.1}, "*": {"lr": 0.2}}))
    with freeze(net, "norm", "lr_zero", optimizer=optimizer):
        zero = [group["param_names"] for group in optimizer.param_groups if group["lr"] == 0]
        assert zero == [NORM]
    assert names(optimizer.param_groups) == [HEAD, BODY + NORM]
