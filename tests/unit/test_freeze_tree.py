"""`FreezeTree` without a browser: what it is told to show, and what it makes of messages."""

import pytest
from torch import nn

from layerlab.widgets import freeze_state as state
from layerlab.widgets.freeze_tree import FreezeTree


@pytest.fixture
def flips():
    return []


def tree_of(net, flips):
    tree = FreezeTree(lambda name, on: flips.append((name, on)))
    tree.show(state.rows(net, state.read(net, None, None, ())))
    return tree


def small():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2))
    net[0].weight.requires_grad = False
    return net


def test_rows_say_what_is_frozen_how_large_it_is_and_how(flips):
    tree = tree_of(small(), flips)
    assert [(row["name"], row["level"], row["fold"], row["checked"]) for row in tree.rows] == [
        ("0", 1, True, "mixed"),
        ("0.weight", 2, False, "true"),
        ("0.bias", 2, False, "false"),
        ("2", 1, True, "false"),
        ("2.weight", 2, False, "false"),
        ("2.bias", 2, False, "false"),
    ]
    assert [row["size"] for row in tree.rows[:3]] == ["6 parameters", "4 parameters", "2 parameters"]
    assert [row["note"] for row in tree.rows[:3]] == [
        "1 of 2 tensors frozen; requires_grad by code",
        "requires_grad by code",
        "",
    ]
    assert tree.rows[1]["label"] == "weight"


def test_a_small_tree_is_open_and_a_large_one_is_folded(flips):
    assert tree_of(small(), flips).unfolded == ["0", "2"]
    assert tree_of(nn.Sequential(*(nn.Linear(1, 1) for _ in range(5))), flips).unfolded == []


def test_what_the_learner_folded_stays_so_when_the_model_changes(flips):
    net = small()
    tree = tree_of(net, flips)
    tree.unfolded = ["2"]
    net[0] = nn.Linear(2, 3)
    tree.show(state.rows(net, state.read(net, None, None, ())))
    assert (tree.unfolded, tree.rows[0]["size"]) == (["2"], "9 parameters")


def test_a_name_that_cannot_be_seen_is_shown_by_its_code(flips):
    tree = tree_of(nn.ModuleDict({"a\u200f\n": nn.Linear(1, 1)}), flips)
    assert tree.rows[0]["name"] == "a\u200f\n"
    assert tree.rows[0]["label"] == r"a\u200f\n"
    assert "\u200f" not in repr(tree) + tree._repr_html_()


def test_flips_reach_the_callback_and_are_answered_also_when_they_fail(flips, monkeypatch):
    tree = tree_of(small(), flips)
    answers = []
    monkeypatch.setattr(tree, "send", answers.append)
    tree._receive(None, {"kind": "flip", "name": "0", "on": True, "number": "a-1"}, [])
    assert flips == [("0", True)]
    for number, wrong in enumerate([{"kind": "flop"}, {"name": 3}, {"on": "yes"}]):
        message = {"kind": "flip", "name": "0", "on": True, "number": number} | wrong
        with pytest.raises(ValueError, match="a flip has a name"):
            tree._receive(None, message, [])
        assert tree.error.startswith("ValueError")
    tree._receive(None, {"kind": "flip", "name": "2", "on": False, "number": "a-2"}, [])
    assert tree.error == ""
    assert flips == [("0", True), ("2", False)]
    assert answers == [{"kind": "answered", "number": number} for number in ("a-1", 0, 1, 2, "a-2")]


def test_a_shared_module_stands_under_both_names(flips):
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    net.add_module("again", net[0])
    names = [row["name"] for row in tree_of(net, flips).rows]
    assert names == [
        "0",
        "0.weight",
        "0.bias",
        "1",
        "1.weight",
        "1.bias",
        *("again", "again.weight", "again.bias"),
    ]


def test_text_and_html_stand_in_for_the_widget(flips):
    tree = tree_of(nn.ModuleDict({"<i>": small()}), flips)
    assert repr(tree).splitlines()[:3] == [
        "    <i> (10 parameters; 1 of 4 tensors frozen; requires_grad by code)",
        "      <i>.0 (6 parameters; 1 of 2 tensors frozen; requires_grad by code)",
        "      ❄ <i>.0.weight (4 parameters; requires_grad by code)",
    ]
    assert "<i>" not in tree._repr_html_()
    assert "&lt;i&gt;.0.weight" in tree._repr_html_()
