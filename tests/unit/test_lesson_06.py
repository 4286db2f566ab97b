"""Lesson 06's check takes right solutions, and tells each typical mistake from the others; its pictures."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_versions import SCHEDULERS_COUNT_GROUPS

import layerlab as ll
from layerlab.experiments.late_group import late_group
from layerlab.experiments.schedules import SCHEDULERS
from layerlab.lessons_support.lesson_06 import (
    alarms_of,
    check_release,
    epochs_table,
    late_table,
    lr_of,
    matrix_of,
    rates_chart,
)


def groups_of(optimizer, module):
    own = set(module.parameters())
    return [group for group in optimizer.param_groups if own & set(group["params"])]


def as_in_the_lesson(net, optimizer, part, lr):
    module = net.get_submodule(part)
    module.requires_grad_(True)
    groups = groups_of(optimizer, module)
    if not groups:
        optimizer.add_param_group({"params": module.parameters()})
        groups = [optimizer.param_groups[-1]]
    for group in groups:
        group["lr"] = lr


def always_moved_to_a_new_group(net, optimizer, part, lr):
    module = net.get_submodule(part)
    for p in module.parameters():
        p.requires_grad = True
    for group in groups_of(optimizer, module):
        optimizer.param_groups.remove(group)
    optimizer.add_param_group({"params": module.parameters(), "lr": lr, "initial_lr": lr})


def on_the_module(net, optimizer, part, lr):
    net.get_submodule(part).requires_grad = True


def only_the_flag(net, optimizer, part, lr):
    net.get_submodule(part).requires_grad_(True)


def always_added(net, optimizer, part, lr):
    only_the_flag(net, optimizer, part, lr)
    optimizer.add_param_group({"params": net.get_submodule(part).parameters(), "lr": lr})


def at_the_default_lr(net, optimizer, part, lr):
    as_in_the_lesson(net, optimizer, part, 0.1)


def every_group(net, optimizer, part, lr):
    as_in_the_lesson(net, optimizer, part, lr)
    for group in optimizer.param_groups:
        group["lr"] = lr


def all_at_once(net, optimizer, part, lr):
    for each, its_lr in (("layer1", 0.01), ("layer2", 0.02)):
        as_in_the_lesson(net, optimizer, each, its_lr)
    as_in_the_lesson(net, optimizer, part, lr)


def typo(net, optimizer, part, lr):
    net.get_submodul(part)


def failed(verdict):
    return [f"{line.text} {line.cure}" for line in verdict.lines if not line.ok]


@pytest.mark.parametrize("release", [as_in_the_lesson, always_moved_to_a_new_group])
def test_right_solutions_pass(release):
    assert check_release(release).passed


@pytest.mark.parametrize(
    ("release", "case", "said"),
    [
        (
            on_the_module,
            "fc alone",
            ["no such flag", "layer2 must be at lr 0.02, but is in no group", "no such flag", "in no group"],
        ),
        (
            only_the_flag,
            "fc alone",
            ["add_param_group", "layer2 must be at lr 0.02", "add_param_group", "layer1 must be at lr 0.01"],
        ),
        (always_added, "with lr 0", ["more than one parameter group"]),
        (at_the_default_lr, "fc alone", ["layer2 must be at lr 0.02, but is at lr 0.1", "layer1 must be at"]),
        (every_group, "fc alone", ["fc must follow its own schedule"]),
        (all_at_once, "fc alone", ["epoch 1: layer1.weight", "epoch 2: layer1.weight"]),
        (typo, "fc alone", ["AttributeError"]),
    ],
)
def test_each_typical_mistake_gets_its_own_words(release, case, said):
    verdict = check_release(release)
    assert case in verdict.title
    messages = failed(verdict)
    assert len(messages) == len(said)
    for message, words in zip(messages, said, strict=True):
        assert words in message


def test_the_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_release(as_in_the_lesson)
    assert torch.equal(torch.rand(2), expected)


def test_rates_are_drawn_and_said():
    runs = {
        "down": [{"a": 0.1, "b": None}, {"a": 0.01, "b": 0.5}, {"a": 0.001, "b": 0.5}],
        "up and down": [{"a": 0.1, "b": 0.0}, {"a": 0.4, "b": 0.2}, {"a": 0.1, "b": 0.1}],
    }
    chart = rates_chart(runs)
    assert chart.words.splitlines() == [
        "lr over the epochs",
        "down: a 0.1 → 0.001, b 0.5",
        "up and down: a 0.1, highest 0.4, b 0 → 0.1, highest 0.2",
    ]
    assert [axes.get_title() for axes in chart.figure.axes] == list(runs)
    assert [line.get_label() for line in chart.figure.axes[0].lines] == ["a", "b"]
    assert chart._repr_png_().startswith(b"\x89PNG")


def three_epochs():
    """In epoch 0 first is frozen; in epoch 1 it trains; in epoch 2 its lr is 0. loose is in no group."""
    net = nn.Sequential()
    for name in ("first", "loose", "fc"):
        net.add_module(name, nn.Linear(2, 2))
    optimizer = torch.optim.SGD([{"params": net.first.parameters()}, {"params": net.fc.parameters()}], lr=0.1)
    rates = []
    with ll.watch(net, optimizer) as ledger:
        for epoch in range(3):
            net.first.requires_grad_(epoch > 0)
            optimizer.param_groups[0]["lr"] = 0.0 if epoch == 2 else 0.05
            rates.append({part: lr_of(net, optimizer, part) for part in ("first", "loose", "fc")})
            optimizer.zero_grad()
            cross_entropy(net(torch.ones(2, 2)), torch.tensor([0, 1])).backward()
            optimizer.step()
    return rates, ledger


def test_the_table_of_epochs_says_why_a_part_stays():
    rates, ledger = three_epochs()
    lines = repr(epochs_table(rates, ledger, "three epochs")).splitlines()
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells[0] == ["three epochs"]
    assert cells[1] == ["epoch", "first", "lr", "loose", "lr", "fc", "lr"]
    assert cells[2][:5] == ["0", "○ ❄ frozen", "–", "○ in no group", "–"]
    assert cells[3][0] == "1"
    assert set(cells[3][1]) <= set("█▏▎▍▌▋▊▉")
    assert cells[3][2] == "● 0.05"
    assert cells[4][:3] == ["2", "○ lr 0", "–"]
    assert cells[4][-2:] == ["████████████", "● 0.1"]


def test_the_matrix_is_the_upper_half_of_the_ledger():
    _, ledger = three_epochs()
    whole, upper = repr(ledger), repr(matrix_of(ledger))
    assert whole.startswith(upper)
    assert "3 steps: which tensor moved in which step" in upper
    assert "step 2, SGD" not in upper


def test_alarms_alone():
    _, ledger = three_epochs()
    assert repr(ledger).startswith(repr(alarms_of(ledger)))
    assert "no watched optimizer holds it" in repr(alarms_of(ledger)).replace("\n  ", " ")
    assert "three" not in repr(alarms_of(ledger))


@pytest.mark.skipif(not SCHEDULERS_COUNT_GROUPS, reason="LambdaLR passes over the group before torch 2.10")
def test_the_fates_of_late_groups_are_told_apart():
    names = ["StepLR", "ConstantLR", "LambdaLR"]
    lines = repr(late_table({name: late_group(SCHEDULERS[name], lr=0.01) for name in names})).splitlines()
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[2:]]
    assert cells[0] == ["StepLR", "goes on with it", "–"]
    assert cells[1] == ["ConstantLR", "raises its lr from 0.01 to 0.03", "–"]
    assert cells[2][0] == "LambdaLR"
    assert cells[2][1].startswith("ValueError")
    assert cells[2][2] == "after epoch 3"
