"""Two examples of one batch train different layers: three ways, against gradients worked out by hand."""

import copy

import pytest
import torch
from torch import nn

from layerlab.experiments.routing import (
    ARTICLE_ROUTES,
    FourBlocks,
    a_small_batch,
    backward_by_route,
    forward_routed,
    masked_gradients,
    per_example_gradients,
)
from layerlab.experiments.two_tasks import Network, article_batch

PICTURE = torch.tensor([ARTICLE_ROUTES["A"], ARTICLE_ROUTES["B"]])


def sum_of_products(outputs, targets):
    """A loss without rounding where all numbers are small and whole; the mean of two is exact, too."""
    return (outputs * targets).sum(1).mean()


def whole_numbers():
    """A network, four inputs and their targets of small whole numbers: float arithmetic on them is exact."""
    chance = torch.Generator().manual_seed(1)
    net = FourBlocks(features=3, classes=2, activation=torch.relu)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randint(-2, 3, p.shape, generator=chance))
    x, y = (torch.randint(-3, 4, shape, generator=chance).float() for shape in ((4, 3), (4, 2)))
    return net, x, y


def one_by_one(net, x, y, route, loss):
    """The oracle: each example alone on a copy, plain autograd, masked and added in a loop."""
    found = {}
    for i in range(len(x)):
        twin = copy.deepcopy(net)
        loss(twin(x[i : i + 1]), y[i : i + 1]).backward()
        for name, p in twin.named_parameters():
            found.setdefault(name, torch.zeros_like(p))
            if name == "head.weight" or route[i, int(name[5]) - 1]:
                found[name] += p.grad / len(x)
    return found


def routed(net, x, y, route, loss):
    loss(forward_routed(net, x, route), y).backward()


WAYS = {"detach": routed, "a pass for each route": backward_by_route}
ROUTES = torch.tensor(
    [(False, False, True, True), (True, False, True, False), (False,) * 4, (True, False, False, True)]
)


@pytest.mark.parametrize("way", WAYS)
def test_each_example_trains_its_blocks_alone_bit_for_bit(way):
    net, x, y = whole_numbers()
    expected = one_by_one(net, x, y, ROUTES, sum_of_products)
    assert all(expected[name].any() for name in expected if name != "block2.weight")
    WAYS[way](net, x, y, ROUTES, sum_of_products)
    for name, p in net.named_parameters():
        got = torch.zeros_like(p) if p.grad is None else p.grad
        assert torch.equal(got, expected[name]), name


def test_masked_gradients_of_the_examples_are_the_same_bit_for_bit():
    net, x, y = whole_numbers()
    expected = one_by_one(net, x, y, ROUTES, sum_of_products)
    found = masked_gradients(net, x, y, ROUTES, sum_of_products)
    assert found.pop("block2.weight") is None  # no example trains it
    assert found.keys() == expected.keys() - {"block2.weight"}
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_they_agree_with_cross_entropy_to_float_rounding(way):
    net, x, y = a_small_batch(examples=4, seed=3)
    loss = nn.functional.cross_entropy
    expected = one_by_one(net, x, y, ROUTES, loss)
    masked = masked_gradients(net, x, y, ROUTES)
    WAYS[way](net, x, y, ROUTES, loss)
    for name, p in net.named_parameters():
        got = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(got, expected[name])
        if masked[name] is not None:
            torch.testing.assert_close(masked[name], expected[name])


def test_the_picture_of_the_article_by_formula():
    """One feature and no activation: the output is h·x·(1 + w1)(1 + w2)(1 + w3)(1 + w4)."""
    net = FourBlocks(features=1, classes=1, activation=lambda x: x)
    w1, w2, w3, w4, h = 1.0, 2.0, 0.5, 3.0, 2.0
    with torch.no_grad():
        for p, value in zip(net.parameters(), (w1, w2, w3, w4, h), strict=True):
            p.fill_(value)
    a, b = 1.0, -2.0
    x = torch.tensor([[a], [b]])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.25)
    out = forward_routed(net, x, PICTURE)
    assert out.flatten().tolist() == [72.0, -144.0]
    out.sum().backward()
    optimizer.step()
    # d/dw_k = h·x·(product of the other three factors), of the examples that train block k
    assert net.block1.weight.item() == w1 - 0.25 * (h * b * 3 * 1.5 * 4)
    assert net.block2.weight.item() == w2
    assert net.block3.weight.item() == w3 - 0.25 * (h * (a + b) * 2 * 3 * 4)
    assert net.block4.weight.item() == w4 - 0.25 * (h * a * 2 * 3 * 1.5)
    assert net.head.weight.item() == h - 0.25 * ((a + b) * 2 * 3 * 1.5 * 4)


def test_outputs_are_those_of_the_plain_network():
    net, x, _ = a_small_batch(examples=4)
    assert torch.equal(forward_routed(net, x, ROUTES), net(x))


def test_detaching_leaves_zeros_where_nobody_trains_and_a_pass_for_each_route_leaves_none():
    net, x, y = a_small_batch()
    routed(net, x, y, PICTURE, nn.functional.cross_entropy)
    assert net.block2.weight.grad is not None
    assert not net.block2.weight.grad.any()
    net.zero_grad()
    backward_by_route(net, x, y, PICTURE)
    assert net.block2.weight.grad is None
    assert net.block1.weight.grad.any()


def test_flags_are_put_back_also_after_an_error():
    net, x, y = a_small_batch()
    net.block3.weight.requires_grad_(False)
    backward_by_route(net, x, y, PICTURE)
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, True, True]

    def broken(outputs, targets):
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        backward_by_route(net, x, y, PICTURE, broken)
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, True, True]


def test_gradients_by_example_are_those_of_the_article_network():
    """Any module will do: here the mean over the examples must be the batch's own gradient."""
    with torch.random.fork_rng():
        net = Network.from_article()
    x, y = article_batch()["task1"]
    each = per_example_gradients(net, x, y)
    nn.functional.cross_entropy(net(x), y).backward()
    assert each["hidden_task1.weight"].shape == (10, 3, 3)
    torch.testing.assert_close(each["hidden_task1.weight"].mean(0), net.hidden_task1.weight.grad)
    assert not each["hidden_task2.weight"].any()


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (PICTURE.float(), "not torch.float32 of shape"),
        (PICTURE[:1], r"not torch.bool of shape \(1, 4\)"),
        (PICTURE.T, r"shape \(2, 4\), examples × blocks"),
        ([[True] * 4] * 2, "not list"),
    ],
)
@pytest.mark.parametrize("way", [routed, backward_by_route, masked_gradients])
def test_a_route_that_does_not_fit_is_refused(way, route, said):
    net, x, y = a_small_batch()
    with pytest.raises(ValueError, match=said):
        way(net, x, y, route, nn.functional.cross_entropy)
    assert all(p.grad is None for p in net.parameters())


def test_a_small_batch_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    a_small_batch()
    assert torch.equal(torch.rand(2), expected)
