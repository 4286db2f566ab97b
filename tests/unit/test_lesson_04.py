"""Lesson 04: its check takes any right optimizer and says what is wrong with others; its pictures speak."""

import pytest
import torch
from torch.optim import SGD, Adam

from layerlab.data.digits import target
from layerlab.lessons_support.lesson_04 import (
    accuracy_chart,
    check_two_rates,
    images_chart,
    spread_chart,
)


def backbone(net):
    return [p for n, p in net.named_parameters() if not n.startswith("fc.")]


def by_name(net):
    return SGD(
        [{"params": backbone(net), "lr": 0.001}, {"params": net.fc.parameters()}], lr=0.01, momentum=0.9
    )


def by_address(net):
    """As the document does it."""
    ignored = list(map(id, net.fc.parameters()))
    rest = filter(lambda p: id(p) not in ignored, net.parameters())
    return SGD(
        [{"params": rest, "lr": 0.01 * 0.1}, {"params": net.fc.parameters(), "lr": 0.01}], momentum=0.9
    )


def a_group_a_tensor(net):
    groups = [{"params": [p], "lr": 0.01 if p.shape[0] == 2 else 0.001} for p in net.parameters()]
    return SGD(groups, momentum=0.9)


@pytest.mark.parametrize("make", [by_name, by_address, a_group_a_tensor])
def test_right_ones_pass(make):
    assert check_two_rates(make).passed


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda net: SGD(net.parameters(), lr=0.01), "the backbone must have lr 0.001, but has 0.01"),
        (
            lambda net: SGD([{"params": backbone(net)}, {"params": net.fc.parameters()}], lr=0.001),
            "fc must have lr 0.01, but has 0.001",
        ),
        (lambda net: SGD(net.fc.parameters(), lr=0.01), "60 of 60 tensors of the backbone are in no"),
        (
            lambda net: SGD(
                [
                    {"params": [p for p in backbone(net) if p.dim() == 4], "lr": 0.001},
                    {"params": net.fc.parameters()},
                ],
                lr=0.01,
            ),
            "40 of 60 tensors of the backbone are in no",
        ),
        (lambda net: None, "must return the optimizer, but returned NoneType: is its return missing?"),
        (
            lambda net: [{"params": backbone(net)}],
            "must return the optimizer, but returned list, which is none",
        ),
        (
            lambda net: Adam(
                [{"params": backbone(net), "lr": 0.001}, {"params": net.fc.parameters()}], lr=0.01
            ),
            "it must be SGD, but is Adam",
        ),
        (
            lambda net: SGD(
                [{"params": backbone(net), "lr": 0.001}, {"params": net.fc.parameters()}], lr=0.01
            ),
            "momentum of every group must be 0.9, but is 0",
        ),
        (lambda net: net.no_such_layer, "no_such_layer"),
        (lambda net: (backbone(net)[0].requires_grad_(False), by_name(net))[1], "conv1.weight"),
    ],
)
def test_wrong_ones_are_told_what_is_wrong(make, said):
    verdict = check_two_rates(make)
    assert not verdict.passed
    assert said in repr(verdict)


def test_the_check_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_two_rates(by_name)
    assert torch.equal(torch.rand(2), expected)


def test_pictures_say_in_words_what_they_show():
    train, test = target(2, 0)
    chart = images_chart({"train": train, "test": test})
    assert "the first 12 images of each task" in chart.words
    assert chart._repr_png_().startswith(b"\x89PNG")
    chart = accuracy_chart({"scratch": [0.7, 0.8], "frozen": [0.6, 0.95]}, {"scratch": 40, "frozen": 0})
    assert "scratch is lowest by its mean" in chart.words
    crosses = [
        line for line in chart.figure.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())
    ]
    assert [list(line.get_xdata()) for line in crosses] == [[40]]
    assert chart.figure.axes[0].get_xlim()[0] < 40
    chart = spread_chart({"frozen": {1: (0.9, 0.01), 2: (0.95, 0.02)}, "scratch": {1: (0.6, 0.1)}}, "images")
    assert "frozen: 1 90.0 ± 1.0, 2 95.0 ± 2.0; scratch: 1 60.0 ± 10.0" in chart.words
    assert [label.get_text() for label in chart.figure.axes[0].get_xticklabels()] == ["1", "2"]


@pytest.mark.parametrize(
    ("guess", "said"),
    [
        ({"lr_zro": 90}, "'lr_zro': the settings are scratch"),
        ({"scratch": 101}, "a guess of 101 for scratch"),
    ],
)
def test_guesses_that_cannot_be_drawn_are_refused(guess, said):
    with pytest.raises(ValueError, match=said):
        accuracy_chart({"scratch": [0.7]}, guess)
