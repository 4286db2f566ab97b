"""Lesson 03's check takes right solutions, and tells each typical mistake from the others; its pictures."""

import pytest
import torch

import layerlab as ll
from layerlab.experiments.backward_cost import Cost
from layerlab.experiments.schedules import SCHEDULERS, schedule_run
from layerlab.experiments.settings import RESNET_BODY
from layerlab.lessons_support.lesson_03 import (
    check_frozen_body,
    cost_table,
    schedule_chart,
    time_chart,
)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.001, momentum=0.9)


def flag_all_but_fc(net):
    net.requires_grad_(False)
    net.fc.requires_grad_(True)
    return sgd(net.fc.parameters())


def flag_and_hold_all(net):
    flag_all_but_fc(net)
    return sgd(net.parameters())


def freeze_of_ours(net):
    ll.freeze(net, list(RESNET_BODY))
    return sgd(net.parameters())


def lr_zero(net):
    body = [p for name, p in net.named_parameters() if not name.startswith("fc.")]
    groups = [{"params": body, "lr": 0.0}, {"params": list(net.fc.parameters())}]
    return torch.optim.SGD(groups, lr=0.001, momentum=0.9)


def only_fc_in_the_optimizer(net):
    return sgd(net.fc.parameters())


def everything_frozen(net):
    net.requires_grad_(False)
    return sgd(net.parameters())


def no_return(net):
    flag_all_but_fc(net)


def typo(net):
    net.fcc.requires_grad_(True)


def eval_but_fc(net):
    net.eval()
    net.fc.train()


def train(net):
    net.train()


def evaluate(net):
    net.eval()


def lose_mode(net):
    net.no_such_mode()


def failed(verdict):
    return [f"{line.text} {line.cure}" for line in verdict.lines if not line.ok]


@pytest.mark.parametrize(
    ("prepare", "mode"),
    [(flag_all_but_fc, eval_but_fc), (flag_and_hold_all, evaluate), (freeze_of_ours, train)],
)
def test_right_solutions_pass(prepare, mode):
    assert check_frozen_body(prepare, mode).passed


@pytest.mark.parametrize(
    ("prepare", "mode", "said"),
    [
        (flag_all_but_fc, train, ["BatchNorm's statistics"]),
        (lr_zero, evaluate, ["a scheduler rewrote the lr of its group", "gradients are computed"]),
        (lr_zero, train, ["a scheduler rewrote", "BatchNorm's statistics", "gradients are computed"]),
        (only_fc_in_the_optimizer, evaluate, ["gradients are computed"]),
        (everything_frozen, evaluate, ["fc is frozen too"]),
        (no_return, evaluate, ["must return the optimizer, but returned NoneType"]),
        (typo, evaluate, ["AttributeError"]),
        (flag_all_but_fc, lose_mode, ["net.no_such_mode()"]),
    ],
)
def test_each_typical_mistake_gets_its_own_words(prepare, mode, said):
    messages = failed(check_frozen_body(prepare, mode))
    assert len(messages) == len(said)
    for message, words in zip(messages, said, strict=True):
        assert words in message


def test_the_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_frozen_body(flag_all_but_fc, evaluate)
    assert torch.equal(torch.rand(2), expected)


def test_the_schedules_are_drawn_and_said():
    names = ["StepLR", "OneCycleLR"]
    chart = schedule_chart({name: schedule_run(SCHEDULERS[name]) for name in names})
    assert chart.words == (
        "lr over the steps: 1 of 2 schedulers leave the frozen group at 0; it is woken by OneCycleLR"
    )
    titles = [axes.get_title() for axes in chart.figure.axes]
    assert titles[:2] == ["StepLR\nstays at 0", "OneCycleLR\nwakes it in step 0"]
    assert chart._repr_png_().startswith(b"\x89PNG")


def test_times_are_drawn_as_shares_and_not_said():
    fast, slow = (time_chart({"all": 4.0 * speed, "some": 1.0 * speed}) for speed in (1, 2))
    assert repr(fast) == repr(slow)
    assert not any(letter.isdigit() for letter in repr(fast))
    labels = [text.get_text() for text in fast.figure.axes[0].texts]
    assert labels == ["1.00", "0.25"]


def test_costs_are_shown_in_round_units():
    cost = Cost(activations=7_288_388, gradients=4_104, state=44_710_152, forward=0, backward=2_291_679_232)
    lines = repr(cost_table({"all": cost}, "one step")).splitlines()
    assert lines[0] == "one step"
    assert lines[-1].split() == ["all", "7.3", "0", "44.7", "2.29"]
