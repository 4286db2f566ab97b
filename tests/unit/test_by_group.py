"""One step split by group of examples: shares and moves that were worked out by hand."""

import copy

import pytest
import torch
from torch import nn

from layerlab.experiments.by_group import TOGETHER, moves_by_group
from layerlab.record import Reason


class Three(nn.Module):
    """Three numbers; a loss takes what it likes of them."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0]))
        self.b = nn.Parameter(torch.tensor([2.0]))
        self.c = nn.Parameter(torch.tensor([3.0]))


GROUPS = {"A": lambda net: (3 * net.a + 0 * net.b).sum(), "B": lambda net: (-net.a + 4 * net.c).sum()}


def reasons(moves, group):
    return [t.reason for t in moves.steps[group].values()]


def test_sgd_by_hand():
    net = Three()
    moves = moves_by_group(net, torch.optim.SGD(net.parameters(), lr=0.5), GROUPS)
    # A: gradients 3, 0 and None; B: −1, None and 4; together 2, 0 and 4
    assert reasons(moves, "A") == [Reason.GRADIENT, Reason.ZERO_GRADIENT, Reason.NO_GRADIENT]
    assert reasons(moves, "B") == [Reason.GRADIENT, Reason.NO_GRADIENT, Reason.GRADIENT]
    assert reasons(moves, TOGETHER) == [Reason.GRADIENT, Reason.ZERO_GRADIENT, Reason.GRADIENT]
    assert moves.shares == {
        "a": {"A": 0.75, "B": 0.25},
        "b": {"A": None, "B": None},
        "c": {"A": 0.0, "B": 1.0},
    }
    deltas = [[t.delta_max for t in moves.steps[group].values()] for group in ("A", "B", TOGETHER)]
    assert deltas == [[1.5, 0, 0], [0.5, 0, 2], [1, 0, 2]]


def test_stored_momentum_moves_what_a_group_gives_zeros():
    net = Three()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.5)
    (net.a + net.b + net.c).sum().backward()
    optimizer.step()  # every momentum buffer is 1 now
    moves = moves_by_group(net, optimizer, GROUPS)
    assert reasons(moves, "A") == [Reason.GRADIENT, Reason.MOMENTUM, Reason.NO_GRADIENT]
    assert moves.steps["A"]["a"].delta_max == 0.5 * (0.5 + 3)
    assert moves.steps["A"]["b"].delta_max == 0.5 * 0.5
    assert moves.steps["B"]["b"].reason is Reason.NO_GRADIENT


def test_nothing_is_changed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    x = torch.randn(6, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(x).sum().backward()
    optimizer.step()
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    grads = [p.grad.clone() for p in net.parameters()]
    chance = torch.get_rng_state()
    moves = moves_by_group(net, optimizer, {"A": lambda m: m(x[:3]).sum(), "B": lambda m: m(x[3:]).sum()})
    assert moves.steps["A"]["1.running_mean"].reason is Reason.FORWARD
    after = (net.state_dict(), optimizer.state_dict())
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    for number, state in before[1]["state"].items():
        assert all(torch.equal(state[name], after[1]["state"][number][name]) for name in state)
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True))
    assert torch.equal(torch.get_rng_state(), chance)
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(module._forward_hooks for module in net.modules())


def test_together_is_the_real_step():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(6, 3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    moves = moves_by_group(net, optimizer, {"A": lambda m: m(x[:2]).sum(), "B": lambda m: m(x[2:]).sum()})
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net(x).sum().backward()
    optimizer.step()
    for name, p in net.named_parameters():
        delta = (p.detach() - before[name]).norm()
        torch.testing.assert_close(torch.tensor(moves.steps[TOGETHER][name].delta_norm), delta)


def test_it_says_so_in_rows_in_text_and_in_html():
    net = Three()
    groups = {"<b>A": GROUPS["A"], "B": GROUPS["B"]}
    moves = moves_by_group(net, torch.optim.SGD(net.parameters(), lr=0.5), groups)
    assert moves.rows()[0] == {
        "tensor": "a",
        "group": "<b>A",
        "moved": True,
        "reason": "gradient",
        "grad": "nonzero",
        "share": 0.75,
    }
    assert len(moves.rows()) == 9
    assert "B alone" in repr(moves)
    assert "75%" in repr(moves)
    assert "&lt;b&gt;A alone" in moves._repr_html_()
    assert "<b>A" not in moves._repr_html_()


OTHER = Three()


@pytest.mark.parametrize(
    ("groups", "error", "said"),
    [
        ({}, ValueError, "groups is empty"),
        ({"together": GROUPS["A"]}, ValueError, "no group can be called 'together'"),
        ({"A": 3.0}, TypeError, "group 'A': its loss must be a function of the model, not 3.0"),
        ({"A": lambda net: 1.0}, TypeError, "group 'A': its loss must be a tensor, not float"),
        ({"A": lambda net: torch.stack([net.a, net.b])}, ValueError, r"one number .* shape \(2, 1\)"),
        ({"A": lambda net: net.a.detach()}, ValueError, "requires_grad=False"),
        ({"A": lambda net: OTHER.a.sum()}, ValueError, "does it use another"),
    ],
)
def test_bad_groups_are_refused(groups, error, said):
    net = Three()
    with pytest.raises(error, match=said):
        moves_by_group(net, torch.optim.SGD(net.parameters(), lr=0.5), groups)


def test_lbfgs_is_refused():
    net = Three()
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times"):
        moves_by_group(net, torch.optim.LBFGS(net.parameters()), GROUPS)
