"""The list of groups as a table and as code: as it is now, whatever an optimizer or you made of it."""

import copy
import io
import pickle

import pytest
import torch
from grouped import Net, ids, names, options
from torch import nn

from layerlab.groups import param_groups


@pytest.fixture
def net():
    return Net()


def test_the_table_shows_the_groups_as_they_are_now(net):
    groups = param_groups(net, {"head": {"lr": 0.1}, "*": {}})
    assert repr(groups) == (
        "2 parameter groups: 6 tensors, 34 elements\n"
        "group    tensors  elements  which                      lr  weight decay\n"
        "0: head        2        10  head.weight, head.bias    0.1             –\n"
        "1: *           4        24  body.weight … and 3 more    –             –\n"
        "  – the optimizer's own"
    )
    torch.optim.SGD(groups, lr=0.5, momentum=0.9)
    lines = repr(groups).splitlines()
    assert lines[2].split() == ["0:", "head", "2", "10", "head.weight,", "head.bias", "0.1", "0"]
    assert lines[3].split()[-2:] == ["0.5", "0"]
    assert "in every group: momentum 0.9" in lines[4]
    groups[1]["lr"] = 0.25
    groups.append({"params": [nn.Parameter(torch.ones(1))]})
    lines = repr(groups).splitlines()
    assert lines[3].split()[9:12] == ["0.25", "0", "0.9"]  # the new group has no momentum: now a column
    assert lines[4].split()[:2] == ["2:", "–"]


class Sly:
    """A value that is shown by what it says of itself."""

    def __repr__(self):
        return "<i>\u200f"


def test_hostile_names_and_values_are_escaped():
    net = nn.Sequential()
    net.add_module("<script>\u200f", nn.Linear(1, 1))
    net.add_module("other", nn.Linear(1, 1))
    groups = param_groups(net, {"<script>*": {"<b>": Sly()}, "*": {}})
    html = groups._repr_html_()
    assert "&lt;i&gt;" in html
    for raw in ("<script>", "<b>", "<i>", "\u200f"):
        assert raw not in html
    assert "\u200f" not in repr(groups)


def test_copies_keep_who_is_who(net):
    groups = param_groups(net, {"head": {"lr": 0.1}, "*": {}})
    stream = io.BytesIO(pickle.dumps(groups))
    for copied in (copy.deepcopy(groups), pickle.load(stream)):
        assert repr(copied) == repr(groups)
        assert names(copied) == names(groups)
        assert set(ids(copied)[0]).isdisjoint(ids(groups)[0])


def test_the_same_in_plain_pytorch(net):
    groups = param_groups(
        net, {"head": {"lr": 0.1, "betas": (0.8, 0.9)}, "*.bias": {"lr": torch.tensor(2.0)}, "*": {}}
    )
    code = groups.as_code()
    assert code.splitlines()[1] == (
        '    {"params": [*model.head.parameters()], "lr": 0.1, "betas": (0.8, 0.9)},  # head'
    )
    scope = {"model": net, "torch": torch}
    exec(code, scope)
    assert [set(i) for i in ids(scope["groups"])] == [set(i) for i in ids(groups)]
    assert options(scope["groups"]) == options(groups)
    groups.append({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="group 3 has 1 tensor that the model does not have"):
        groups.as_code()
