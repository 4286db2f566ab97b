"""Bytes and operations of one step, against those counted by hand for a small network."""

import pytest
import torch
from torch import nn

from layerlab.experiments import backward_cost
from layerlab.experiments.backward_cost import fastest, step_cost

BATCH, INS, HIDDEN, OUTS = 3, 5, 7, 2
FLOAT = 4
FIRST, LAST = INS * HIDDEN + HIDDEN, HIDDEN * OUTS + OUTS  # numbers in each layer's parameters


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTS))


def loss(model):
    return model(torch.ones(BATCH, INS)).square().sum()


def cost(*frozen, momentum=0.9):
    model = net()
    for layer in frozen:
        model[layer].requires_grad_(False)
    return step_cost(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=momentum), loss)


def test_everything_trains():
    found = cost()
    # kept: the input (for the first weight), ReLU's output (for it and the last weight), the output (square)
    assert found.activations == FLOAT * BATCH * (INS + HIDDEN + OUTS)
    assert found.gradients == found.state == FLOAT * (FIRST + LAST)
    assert found.forward == 2 * BATCH * (INS * HIDDEN + HIDDEN * OUTS)
    assert found.backward == 2 * BATCH * (INS * HIDDEN + 2 * HIDDEN * OUTS)  # no gradient for the input


def test_the_early_layer_frozen_saves_its_activations_and_its_work():
    found = cost(0)
    assert found.activations == FLOAT * BATCH * (HIDDEN + OUTS)
    assert found.gradients == found.state == FLOAT * LAST
    assert found.forward == cost().forward
    assert found.backward == 2 * BATCH * HIDDEN * OUTS


def test_the_late_layer_frozen_saves_no_activations():
    found = cost(2)
    assert found.activations == cost().activations
    assert found.gradients == found.state == FLOAT * FIRST
    assert found.backward == 2 * BATCH * (INS * HIDDEN + HIDDEN * OUTS)


def test_lr_0_saves_nothing():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    assert step_cost(model, optimizer, loss) == cost()


def test_without_momentum_nothing_is_stored():
    assert cost(momentum=0).state == 0


def test_it_takes_one_ordinary_step():
    by_hand, counted = net(), net()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.01)
    loss(by_hand).backward()
    optimizer.step()
    step_cost(counted, torch.optim.SGD(counted.parameters(), lr=0.01), loss)
    for ours, theirs in zip(counted.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(ours.grad, theirs.grad)


def test_a_tensor_kept_under_two_views_counts_once():
    weight = nn.Parameter(torch.ones(4, 6))
    model = nn.Module()
    model.weight = weight

    def loss(model):
        hidden = model.weight + 1  # addition keeps nothing
        return (hidden * 2 * hidden.view(4, 6)).sum()  # the product keeps hidden * 2, and hidden by a view

    once = step_cost(model, torch.optim.SGD([weight], lr=0.1), loss)
    assert once.activations == 2 * FLOAT * 4 * 6

    def twice(model):
        hidden = model.weight + 1
        return (hidden * hidden.view(4, 6)).sum()

    assert step_cost(model, torch.optim.SGD([weight], lr=0.1), twice).activations == FLOAT * 4 * 6


def test_runs_take_turns_and_the_fastest_counts(monkeypatch):
    durations = iter([3.0, 30.0, 1.0, 20.0, 2.0, 10.0])  # as a busy machine gives them
    clock, began, calls = 0.0, False, []

    def process_time():
        nonlocal clock, began
        began = not began
        if not began:
            clock += next(durations)
        return clock

    monkeypatch.setattr(backward_cost.time, "process_time", process_time)
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    assert fastest(runs, rounds=3) == {"a": 1.0, "b": 10.0}
    assert "".join(calls) == "ab" + "ab" * 3  # a first time each, which is not timed


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds=0"):
        fastest({"a": lambda: None}, rounds=0)
