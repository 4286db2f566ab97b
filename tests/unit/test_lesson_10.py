"""Lesson 10: its check takes any right way and says what is wrong with others; its pictures speak."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from layerlab.experiments.routing import backward_by_route, forward_routed, masked_gradients
from layerlab.lessons_support.lesson_10 import check_routed_backward, methods_chart, routes_chart


def by_detaching(net, x, y, route):
    cross_entropy(forward_routed(net, x, route), y).backward()
    for k, block in enumerate(net.blocks):
        if not route[:, k].any():
            block.weight.grad = None


def by_masking(net, x, y, route):
    for name, gradient in masked_gradients(net, x, y, route).items():
        net.get_parameter(name).grad = gradient


@pytest.mark.parametrize("way", [by_detaching, by_masking, backward_by_route])
def test_right_ones_pass(way):
    assert check_routed_backward(way).passed


def plain(net, x, y, route):
    cross_entropy(net(x), y).backward()


def leaves_zeros(net, x, y, route):
    cross_entropy(forward_routed(net, x, route), y).backward()


def flags_for_the_whole_batch(net, x, y, route):
    for k, block in enumerate(net.blocks):
        block.weight.requires_grad_(bool(route[:, k].any()))
    plain(net, x, y, route)


def flags_for_good(net, x, y, route):
    for k, block in enumerate(net.blocks):
        if not route[:, k].any():
            block.weight.requires_grad_(False)
    cross_entropy(forward_routed(net, x, route), y).backward()


def mean_of_those_that_train(net, x, y, route):
    by_masking(net, x, y, route)
    for k, block in enumerate(net.blocks):
        if block.weight.grad is not None:
            block.weight.grad *= len(x) / route[:, k].sum()


def the_wrong_way_round(net, x, y, route):
    by_detaching(net, x, y, ~route)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (plain, "step 1: block1.weight has the gradient of all examples, but only examples 1, 3 train it"),
        (
            leaves_zeros,
            "no example trains block2.weight, but it moved (momentum): its gradient was a tensor of zeros",
        ),
        (flags_for_the_whole_batch, "block1.weight has the gradient of all examples"),
        (flags_for_good, "block2.weight has no gradient, but examples 0, 2 train it: its requires_grad is"),
        (mean_of_those_that_train, "its gradient is too large, divide by the number of all examples"),
        (the_wrong_way_round, "step 0: block1.weight has no gradient, but examples 0, 1, 2, 3 train it"),
        (lambda net, x, y, route: None, "block1.weight has no gradient"),
        (lambda net, x, y, route: net.no_such_layer, "no_such_layer"),
    ],
)
def test_wrong_ones_are_told_what_is_wrong(way, said):
    verdict = check_routed_backward(way)
    assert not verdict.passed
    assert said in " ".join(repr(verdict).split())


def test_the_check_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_routed_backward(by_detaching)
    assert torch.equal(torch.rand(2), expected)


def test_pictures_say_in_words_what_they_show():
    chart = methods_chart({"one": {"a": (0.9, 0.01), "b": (0.5, 0.1)}, "two": {"a": (0.8, 0), "b": (0.7, 0)}})
    assert "one: a 90.0 ± 1.0, b 50.0 ± 10.0; two: a 80.0 ± 0.0" in chart.words
    assert [axes.get_title() for axes in chart.figure.axes] == ["one", "two"]
    chart = routes_chart({"one": [[0.1, 0.2], [0.9, 1.0]]})
    assert [round(bar.get_height()) for bar in chart.figure.axes[0].patches] == [10, 20, 90, 100]
    assert "like the source and foreign" in chart.words
    assert chart._repr_png_().startswith(b"\x89PNG")
