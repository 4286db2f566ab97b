"""Undo: each step of the learner exactly, a drag as one, and nothing that code has done since."""

import pytest
import torch
from torch import nn

from layerlab.widgets import freeze_history
from layerlab.widgets.freeze_history import History
from layerlab.widgets.freeze_panel import FreezePanel


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(freeze_history.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def optimizer(net):
    return torch.optim.SGD(net.parameters(), lr=0.1)


def flags(net):
    return [p.requires_grad for p in net.parameters()]


def flip(panel, name):
    """What the browser sends when a switch is turned on."""
    panel.tree._receive(None, {"kind": "flip", "name": name, "on": True, "number": "v-1"}, [])


def train(net, optimizer):
    optimizer.zero_grad()
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("method", ["requires_grad", "grad_none", "lr_zero"])
def test_every_step_is_taken_back(net, optimizer, method, clock):
    train(net, optimizer)
    gradients = [p.grad for p in net.parameters()]
    group, order = optimizer.param_groups[0], list(optimizer.param_groups[0]["params"])
    panel = FreezePanel(net, optimizer, method=method)
    panel.clear_grad.value = True
    panel.freeze("0")
    panel.depth.value = "1"
    clock[0] += 10
    panel.lrs[0].value = 0.5
    assert not net[1].training
    for _ in range(4):
        panel.undo()
        assert panel.warning == ""
    assert flags(net) == [True] * 6
    assert all(p.grad is g for p, g in zip(net.parameters(), gradients, strict=True))
    assert net[1].training
    assert optimizer.param_groups[0] is group
    assert len(optimizer.param_groups) == 1
    assert list(map(id, group["params"])) == list(map(id, order))
    assert (group["lr"], panel.clear_grad.value) == (0.1, False)
    panel.undo()
    assert panel.method.value == "requires_grad"
    while not panel._undo_button.disabled:
        panel.undo()
    panel.undo()
    assert panel.warning == "nothing to undo."


def test_a_drag_is_one_step_and_a_pause_ends_it(net, optimizer, clock):
    panel = FreezePanel(net, optimizer)
    for lr in (0.2, 0.3, 0.4):
        clock[0] += 0.5
        panel.lrs[0].value = lr
    clock[0] += 2
    panel.lrs[0].value = 0.5
    panel.undo()
    assert optimizer.param_groups[0]["lr"] == 0.4
    panel.undo()
    assert optimizer.param_groups[0]["lr"] == 0.1
    panel.depth.value = "0"
    panel.depth.value = "nothing"  # there and back is no step
    assert panel._undo_button.disabled


def test_flips_are_never_one_step(net, clock):
    panel = FreezePanel(net)
    panel.freeze("0")
    panel.freeze("1")
    panel.undo()
    assert panel.frozen == ("0",)


def test_what_code_did_since_stays(net, optimizer):
    panel = FreezePanel(net, optimizer)
    panel.freeze("2")
    panel.freeze("0")
    panel.lrs[0].value = 0.5
    net[0].weight.requires_grad_(True)
    optimizer.param_groups[0]["lr"] = 0.3
    panel.undo()
    assert panel.warning.startswith("not undone: code has changed the lr of group 0")
    assert optimizer.param_groups[0]["lr"] == 0.3
    panel.undo()
    assert "0.weight.requires_grad" in panel.warning
    assert flags(net) == [True, False, True, True, False, False]
    panel.undo()  # the step before those is its own
    assert flags(net) == [True, False, True, True, True, True]
    panel.freeze("2")
    net[2] = nn.Linear(3, 2)
    panel.undo()
    assert panel.warning == "not undone: code has changed a layer (replaced) since, and that stays."


def test_what_is_not_undone_names_what_code_changed_and_nothing_else(optimizer, net):
    panel = FreezePanel(net, optimizer)
    panel.depth.value = "1"
    panel.method.value = "lr_zero"
    flip(panel, "2")
    net[2].requires_grad_(False)
    optimizer.param_groups[0]["lr"] = 0.01
    panel.refresh()
    for _ in range(2):
        panel.undo()
        assert panel.warning == "not undone: code has changed the lr of group 0 since, and that stays."
    assert panel._undo_button.disabled  # to undo the first step would change nothing: all that is awake
    panel.undo()
    assert panel.warning == "nothing to undo."
    assert flags(net) == [True, True, True, True, False, False]
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_a_step_that_is_not_undone_is_not_taken_for_code_by_the_step_before_it(net):
    panel = FreezePanel(net)
    panel.freeze("0")
    panel.method.value = "grad_none"
    net[0].weight.requires_grad_(False)
    panel.refresh()
    for _ in range(2):
        panel.undo()
        assert panel.warning == "not undone: code has changed 0.weight.requires_grad since, and that stays."
    assert flags(net) == [False, True, True, True, True, True]


def test_a_step_whose_undo_would_change_nothing_is_passed_over(net, optimizer):
    panel = FreezePanel(net, optimizer)
    panel.freeze("2")
    panel.freeze("0")
    net[0].requires_grad_(True)
    panel.refresh()
    panel.undo()
    assert (panel.warning, flags(net)) == ("", [True] * 6)
    assert panel._undo_button.disabled


def test_after_code_woke_all_the_groups_are_the_owner_s_again(net, optimizer):
    panel = FreezePanel(net, optimizer)
    panel.depth.value = "1"
    flip(panel, "2.bias")
    panel.method.value = "grad_none"
    panel.method.value = "lr_zero"
    net.requires_grad_(True)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    panel.refresh()
    while not panel._undo_button.disabled:
        panel.undo()
    assert panel.frozen == ()
    assert (len(optimizer.param_groups), len(panel.lrs)) == (1, 1)
    assert panel.code == 'optimizer.param_groups[0]["lr"] = 0.1'
    assert net[1].train().training


def test_training_between_a_step_and_its_undo_does_no_harm(net, optimizer):
    panel = FreezePanel(net, optimizer)
    panel.clear_grad.value = True
    panel.freeze("0")
    panel.release("0")
    train(net, optimizer)
    panel.undo()
    assert (panel.frozen, net[0].weight.grad) == (("0",), None)
    train(net, optimizer)
    panel.undo()
    assert panel.frozen == ()
    train(net, optimizer)
    assert net[0].weight.grad is not None


@pytest.mark.parametrize("method", ["requires_grad", "grad_none"])
@pytest.mark.parametrize("back", ["undo", "release", "close"])
def test_a_loop_that_clears_after_its_step_never_applies_a_gradient_twice(net, optimizer, method, back):
    """Freeze after backward(), and back after the step: as if that gradient had never been."""
    panel = FreezePanel(net, optimizer, method=method)
    panel.clear_grad.value = True
    net(torch.randn(4, 3)).sum().backward()
    panel.freeze("0")
    optimizer.step()
    optimizer.zero_grad()
    getattr(panel, back)()
    assert flags(net) == [True] * 6
    assert all(p.grad is None for p in net.parameters())
    panel.close()


def test_gradients_that_were_cleared_by_hand_come_back_until_the_next_step(net, optimizer):
    panel = FreezePanel(net, optimizer)
    net(torch.randn(4, 3)).sum().backward()
    gradient = net[0].weight.grad
    panel.freeze("0")
    for undone in (True, False):
        panel._clear_button.click()
        assert net[0].weight.grad is None
        if not undone:
            optimizer.step()
            optimizer.zero_grad()
        panel.undo()
        assert net[0].weight.grad is (gradient if undone else None)
    assert panel.frozen == ()  # no gradient was left to bring back: this undo took back the freeze
    panel.close()


def test_the_step_of_another_model_s_optimizer_leaves_gradients_to_come_back(net, optimizer):
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer)
    net(torch.randn(4, 3)).sum().backward()
    gradient = net[0].weight.grad
    panel.freeze("0")
    panel._clear_button.click()
    other.step()
    panel.undo()
    assert net[0].weight.grad is gradient
    panel.close()


def test_undo_of_what_code_had_frozen(net):
    net[0].requires_grad_(False)
    panel = FreezePanel(net)
    panel.freeze("0")
    panel.release("0")
    assert flags(net) == [True] * 6
    panel.undo()
    panel.close()
    assert flags(net) == [False, False, True, True, True, True]  # as code left it


def test_the_history_is_bounded_in_steps_and_in_bytes(monkeypatch):
    history = History()
    for step in range(150):
        history.record({("how",): step}, {("how",): step + 1})
    assert len(history) == freeze_history.MOST
    monkeypatch.setattr(freeze_history, "MOST_BYTES", 100)
    for _ in range(5):
        history.record({("grad", 1): torch.zeros(10)}, {("grad", 1): None})
    assert len(history) == 2
    history.clear()
