"""The printed optimizer against its own text by hand, and each of its defects against a formula."""

import math

import pytest
import torch
from torch import nn

import layerlab as ll
from layerlab.experiments.layer_adaptive import (
    LayerAdaptiveLR,
    constant_gradient,
    empty_group_error,
    factors,
    group_orders,
    load_elsewhere,
    one_scalar,
    same_with_weight_decay,
)
from layerlab.experiments.trust_ratio import LAMB, LARS


def by_hand(w, gradients, lr, b1=0.9, b2=0.999, eps=1e-8):
    """The listing in plain Python floats."""
    m, v = [0.0] * len(w), [0.0] * len(w)
    for g in gradients:
        m = [b1 * m_i + (1 - b1) * g_i for m_i, g_i in zip(m, g, strict=True)]
        v = [b2 * v_i + (1 - b2) * g_i**2 for v_i, g_i in zip(v, g, strict=True)]
        ratios = [abs(m_i) / (math.sqrt(v_i) + eps) for m_i, v_i in zip(m, v, strict=True)]
        rate = lr * sum(ratios) / len(ratios)
        w = [w_i - rate * m_i for w_i, m_i in zip(w, m, strict=True)]
    return w


def test_the_listing_does_what_it_says():
    start = [0.5, -1.0, 2.0]
    gradients = [[math.sin(step + 2 * i) for i in range(3)] for step in range(6)]
    p = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = LayerAdaptiveLR([p], lr=0.1)
    for g in gradients:
        p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    assert p.tolist() == pytest.approx(by_hand(start, gradients, 0.1), rel=1e-12)


def test_the_factor_lacks_the_bias_correction():
    found = factors(constant_gradient(LayerAdaptiveLR, 2000, eps=0.0))
    expected = [(1 - 0.9**t) / math.sqrt(1 - 0.999**t) for t in range(1, 2001)]
    assert found == pytest.approx(expected, rel=1e-9)
    assert found.index(max(found)) + 1 == 12
    adam = constant_gradient(torch.optim.Adam, 50)
    assert adam == pytest.approx([1.0] * 50, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "power"), [(LayerAdaptiveLR, 1), (torch.optim.SGD, 1), (torch.optim.Adam, 0), (LAMB, 0)]
)
def test_what_is_normalised_does_not_shrink_with_the_gradient(make, power):
    large, small = (constant_gradient(make, 1, gradient, lr=0.001)[0] for gradient in (1.0, 1e-3))
    assert small / large == pytest.approx(1e-3**power, rel=2e-3)


@pytest.mark.parametrize(
    ("make", "same"),
    [
        (LayerAdaptiveLR, True),
        (torch.optim.Adam, False),
        (torch.optim.AdamW, False),
        (LARS, False),
        (LAMB, False),
    ],
)
def test_only_the_printed_one_ignores_weight_decay(make, same):
    assert same_with_weight_decay(make, 0.5) is same


@pytest.mark.parametrize(("make", "one"), [(LayerAdaptiveLR, True), (torch.optim.Adam, False)])
def test_its_step_is_one_number_times_momentum(make, one):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        x = torch.randn(8, 5, dtype=torch.float64)
    optimizer = make(net.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.step()
    for found, p in zip(one_scalar(optimizer, before, net.named_parameters()), net.parameters(), strict=True):
        assert (found.unexplained < 1e-6) is one
        if one:
            state = optimizer.state[p]
            ratio = (state["exp_avg"].abs() / (state["exp_avg_sq"].sqrt() + 1e-8)).mean()
            assert found.scalar == pytest.approx(0.01 * float(ratio), rel=1e-6)


def test_its_groups_stand_in_the_order_of_their_addresses():
    ps = [nn.Parameter(torch.zeros(1)) for _ in range(20)]
    optimizer = LayerAdaptiveLR([{"params": [p]} for p in ps])
    addresses = [id(group["params"][0]) for group in optimizer.param_groups]
    assert addresses == sorted(addresses)
    assert len(set(group_orders(LayerAdaptiveLR))) > 1
    assert set(group_orders(torch.optim.Adam)) == {(0, 1, 2, 3, 4)}


@pytest.mark.parametrize("make", [torch.optim.Adam, LAMB])
def test_a_state_finds_its_layer(make):
    assert [(one.layer, one.state_of, one.lr_of) for one in load_elsewhere(make)] == [
        (f"layer{n}", f"layer{n}", f"layer{n}") for n in (1, 2, 3)
    ]


def test_a_state_of_the_printed_one_lands_on_another_layer():
    found = [(one.layer, one.state_of, one.lr_of) for one in load_elsewhere(LayerAdaptiveLR, layers=4)]
    assert found == [(f"layer{n}", f"layer{5 - n}", f"layer{5 - n}") for n in (1, 2, 3, 4)]


def test_an_empty_group_stops_only_the_printed_one():
    assert empty_group_error(LayerAdaptiveLR) == "IndexError: list index out of range"
    assert empty_group_error(torch.optim.Adam) == ""
    assert empty_group_error(LAMB) == ""


def test_a_tiny_gradient_leaves_ones_where_they_are():
    net = nn.LayerNorm(4)
    for make, reason in (
        (LayerAdaptiveLR, ll.Reason.BELOW_RESOLUTION),
        (torch.optim.Adam, ll.Reason.GRADIENT),
    ):
        nn.init.ones_(net.weight)
        optimizer = make(net.parameters(), lr=1e-3)
        with ll.watch(net, optimizer) as ledger:
            optimizer.zero_grad()
            (1e-6 * net(torch.tensor([[1.0, 2.0, 4.0, 8.0]])) ** 2).sum().backward()
            optimizer.step()
        assert ledger[0]["weight"].reason is reason
