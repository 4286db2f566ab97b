"""`Unfreeze` under a scheduler: the lr is the plan's at the release, and follows the schedule from there.

Where the lr should be is worked out here from each schedule's formula, solved for its start.
"""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from unfrozen_net import LR, build, new_net, train_epoch

from layerlab.unfreezing import Unfreeze

EPOCHS = 14
RELEASE, AT = 3, 0.04

# Each scheduler, and the formula of its documentation: from the lr at the start and the epoch to the lr.
LATER = {
    "StepLR": (partial(lrs.StepLR, step_size=2, gamma=0.5), lambda lr, t: lr * 0.5 ** (t // 2)),
    "MultiStepLR": (
        partial(lrs.MultiStepLR, milestones=[1, 3, 6], gamma=0.5),
        lambda lr, t: lr * 0.5 ** ((t >= 1) + (t >= 3) + (t >= 6)),
    ),
    "ExponentialLR": (partial(lrs.ExponentialLR, gamma=0.8), lambda lr, t: lr * 0.8**t),
    "PolynomialLR": (
        partial(lrs.PolynomialLR, total_iters=10, power=2.0),
        lambda lr, t: lr * (1 - min(t, 10) / 10) ** 2,
    ),
    "CosineAnnealingLR": (
        partial(lrs.CosineAnnealingLR, T_max=6, eta_min=0.01),  # past T_max it climbs back
        lambda lr, t: 0.01 + (lr - 0.01) * (1 + math.cos(math.pi * t / 6)) / 2,
    ),
}
FROM_THE_START = LATER | {
    "LambdaLR": (
        lambda o: lrs.LambdaLR(o, [lambda t, k=k: 0.9**t + k * 0 for k in range(len(o.param_groups))]),
        lambda lr, t: lr * 0.9**t,
    ),
    "MultiplicativeLR": (partial(lrs.MultiplicativeLR, lr_lambda=lambda t: 0.9), lambda lr, t: lr * 0.9**t),
    "CosineAnnealingWarmRestarts": (
        partial(lrs.CosineAnnealingWarmRestarts, T_0=5, eta_min=0.01),
        lambda lr, t: 0.01 + (lr - 0.01) * (1 + math.cos(math.pi * (t % 5) / 5)) / 2,
    ),
    "LinearLR": (
        partial(lrs.LinearLR, start_factor=0.25, total_iters=8),
        lambda lr, t: lr * (0.25 + 0.75 * min(t, 8) / 8),
    ),
    "ConstantLR": (
        partial(lrs.ConstantLR, factor=0.5, total_iters=5),
        lambda lr, t: lr * (0.5 if t < 5 else 1.0),
    ),
}


def lr_of(optimizer, tensor):
    return next(g["lr"] for g in optimizer.param_groups if any(p is tensor for p in g["params"]))


def rates(layout, make_scheduler, release=RELEASE, at=AT):
    """The lr of layer3, released by the plan, and of fc, in each epoch."""
    net = new_net()
    optimizer = build("SGD", net, layout, ["layer3"])
    for part in (net.layer1, net.layer2):
        part.requires_grad_(False)
    scheduler = make_scheduler(optimizer)
    plan = Unfreeze(net, optimizer, {release: {"layer3": at}}, scheduler=scheduler)
    found = []
    for epoch in range(EPOCHS):
        train_epoch(net, optimizer, epoch)
        scheduler.step()
        plan.step()
        released = epoch + 1 >= release
        found.append(
            (lr_of(optimizer, net.layer3[0].weight) if released else None, lr_of(optimizer, net.fc.weight))
        )
        if released:
            assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    return found


def start_that_comes_to(formula, lr, epoch):
    """Solve the formula, linear in its start, for the start."""
    zero, one = formula(0.0, epoch), formula(1.0, epoch)
    return (lr - zero) / (one - zero)


def check(found, formula):
    start = start_that_comes_to(formula, AT, RELEASE)
    for epoch, (released, fc) in enumerate(found, start=1):
        assert fc == pytest.approx(formula(LR, epoch), rel=1e-9, abs=1e-15)  # as without a plan
        if epoch == RELEASE:
            assert released == AT
        if epoch >= RELEASE:
            assert released == pytest.approx(formula(start, epoch), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("layout", ["only what trains", "one group", "weights and biases"])
@pytest.mark.parametrize("name", LATER)
def test_a_group_that_comes_later_follows_the_schedule(name, layout):
    make, formula = LATER[name]
    check(rates(layout, make), formula)


@pytest.mark.parametrize("name", FROM_THE_START)
def test_a_group_that_was_there_from_the_start_follows_the_schedule(name):
    make, formula = FROM_THE_START[name]  # its lr was 0 until the release
    check(rates("groups of their own", make), formula)


def test_one_cycle_is_followed_in_proportion():
    def one_cycle(optimizer):
        return lrs.OneCycleLR(optimizer, max_lr=[0.3, 0.2], total_steps=EPOCHS + 1)

    found = rates("groups of their own", one_cycle)
    (at_release, fc_then), *after = found[RELEASE - 1 :]
    assert at_release == AT
    for released, fc in after:
        assert released / AT == pytest.approx(fc / fc_then)


@pytest.mark.parametrize("layout", ["only what trains", "groups of their own"])
def test_plateau(layout):
    net = new_net()
    optimizer = build("SGD", net, layout)
    scheduler = lrs.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    plan = Unfreeze(net, optimizer, {2: {"layer3": AT}, 9: {("layer1", "layer2"): AT}}, scheduler=scheduler)
    found = []
    for epoch, loss in enumerate([3.0, 2.0, 1.0, 1.0, 1.0]):  # no better in the last two
        train_epoch(net, optimizer, epoch)
        scheduler.step(loss)
        plan.step()
        if epoch >= 1:
            found.append((lr_of(optimizer, net.layer3[0].weight), lr_of(optimizer, net.fc.weight)))
    assert found == [(AT, LR), (AT, LR), (AT / 2, LR / 2), (AT / 4, LR / 4)]


def test_at_the_bottom_of_a_cosine_nothing_is_released():
    net = new_net()
    optimizer = build("SGD", net, "only what trains")
    scheduler = lrs.CosineAnnealingLR(optimizer, T_max=2, eta_min=0.05)
    plan = Unfreeze(net, optimizer, {2: {"layer3": AT}}, scheduler=scheduler)
    for epoch in range(2):
        train_epoch(net, optimizer, epoch)
        scheduler.step()
        if epoch == 0:
            plan.step()
    with pytest.raises(
        ValueError, match=r"after 2 steps CosineAnnealingLR is at its lowest, .* eta_min=0\.05"
    ):
        plan.step()
    assert plan.epoch == 1
    assert len(optimizer.param_groups) == 1


def test_a_cosine_raises_an_lr_below_its_eta_min_and_no_further():
    cosine = partial(lrs.CosineAnnealingLR, T_max=6, eta_min=0.05)
    released = [lr for lr, _ in rates("only what trains", cosine, at=0.01) if lr is not None]
    assert released[0] == 0.01
    assert released[6 - RELEASE] == pytest.approx(0.05)
    assert all(0.01 - 1e-9 <= lr <= 0.05 + 1e-9 for lr in released)


def test_after_the_end_of_a_polynomial_a_group_keeps_its_lr():
    found = rates("only what trains", partial(lrs.PolynomialLR, total_iters=2))
    assert [lr for lr, _ in found[RELEASE - 1 :]] == [AT] * (EPOCHS - RELEASE + 1)


@pytest.mark.parametrize(
    "order", ["plan optimizer scheduler", "scheduler plan optimizer", "plan scheduler optimizer"]
)
@pytest.mark.parametrize("layout", ["only what trains", "one group", "groups of their own"])
@pytest.mark.parametrize("name", LATER)
def test_saved_and_gone_on_with_it_follows_the_same_bits(name, layout, order):
    def built():
        net = new_net()
        optimizer = build("AdamW", net, layout)
        scheduler = LATER[name][0](optimizer)
        parts = {2: {"layer3": AT}, 5: {("layer1", "layer2"): AT}}
        plan = Unfreeze(net, optimizer, parts, scheduler=scheduler)
        return {"net": net, "optimizer": optimizer, "scheduler": scheduler, "plan": plan}

    def run(made, epochs):
        seen = []
        for epoch in epochs:
            train_epoch(made["net"], made["optimizer"], epoch)
            made["scheduler"].step()
            made["plan"].step()
            seen.append([group["lr"] for group in made["optimizer"].param_groups])
        return seen

    whole = built()
    expected = run(whole, range(EPOCHS))
    for stop in (1, 3, 6, 8):
        first = built()
        run(first, range(stop))
        states = {name: copy.deepcopy(one.state_dict()) for name, one in first.items()}
        second = built()
        for which in (*order.split(), "net"):
            second[which].load_state_dict(states[which])
        assert run(second, range(stop, EPOCHS)) == expected[stop:]
        for a, b in zip(second["net"].state_dict().values(), whole["net"].state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (FROM_THE_START["LambdaLR"][0], "one function for each group"),
        (FROM_THE_START["MultiplicativeLR"][0], "one function for each group"),
        (FROM_THE_START["CosineAnnealingWarmRestarts"][0], "counts the groups once"),
        (FROM_THE_START["LinearLR"][0], "raise the new group's lr"),
        (FROM_THE_START["ConstantLR"][0], "raise the new group's lr"),
        (partial(lrs.OneCycleLR, max_lr=0.1, total_steps=9), "a maximum into each group once"),
        (lambda o: lrs.ReduceLROnPlateau(o, min_lr=[0.0] * len(o.param_groups)), "min_lr is a list"),
    ],
)
@pytest.mark.parametrize("layout", ["only what trains", "one group"])
def test_a_scheduler_that_cannot_take_a_group_later_is_refused(make, why, layout):
    net = new_net()
    optimizer = build("SGD", net, layout)
    flags = [p.requires_grad for p in net.parameters()]
    scheduler = make(optimizer)
    with pytest.raises(ValueError, match=why) as refusal:
        Unfreeze(net, optimizer, {1: {"layer3": 0.05}}, scheduler=scheduler)
    assert "all parameters from the start" in str(refusal.value)
    assert [p.requires_grad for p in net.parameters()] == flags


def test_the_cure_that_the_refusal_gives_works():
    net = new_net()
    optimizer = build("SGD", net, "groups of their own")
    scheduler = FROM_THE_START["LambdaLR"][0](optimizer)
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}}, scheduler=scheduler)
    train_epoch(net, optimizer, 0)
    scheduler.step()
    plan.step()
    assert lr_of(optimizer, net.layer3[0].weight) == 0.05


def test_schedulers_that_nothing_is_known_of_are_refused():
    net = new_net()
    optimizer = build("SGD", net, "groups of their own")
    chained = lrs.ChainedScheduler([lrs.StepLR(optimizer, 3)])
    with pytest.raises(ValueError, match="how ChainedScheduler comes to a group's lr is not known"):
        Unfreeze(net, optimizer, {1: {"layer3": 0.05}}, scheduler=chained)


def test_a_scheduler_of_another_optimizer_or_none_at_all():
    net, other = new_net(), new_net()
    optimizer = build("SGD", net, "one group")
    with pytest.raises(ValueError, match="this StepLR belongs to another optimizer"):
        Unfreeze(
            net, optimizer, {1: {"layer3": 0.05}}, scheduler=lrs.StepLR(build("SGD", other, "one group"), 3)
        )
    with pytest.raises(TypeError, match="scheduler must be one of torch's, not int"):
        Unfreeze(net, optimizer, {1: {"layer3": 0.05}}, scheduler=3)


def test_a_scheduler_that_the_plan_does_not_know_is_noticed():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}})
    lrs.StepLR(optimizer, 3)
    for refused in (plan.step, lambda: Unfreeze(net, optimizer, {1: {"layer1": 0.05}})):
        with pytest.raises(ValueError, match="a scheduler was built on this optimizer"):
            refused()
    assert plan.epoch == 0
    for group in optimizer.param_groups:
        group.pop("initial_lr")
    plan.step()


def test_the_plan_steps_after_the_scheduler():
    net = new_net()
    optimizer = build("SGD", net, "one group")
    scheduler = lrs.StepLR(optimizer, 1)
    plan = Unfreeze(net, optimizer, {1: {"layer3": 0.05}}, scheduler=scheduler)
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"call scheduler\.step\(\) before plan\.step\(\)"):
        plan.step()
    scheduler.step()
    plan.step()
    assert lr_of(optimizer, net.layer3[0].weight) == 0.05


def test_an_lr_in_a_tensor_follows_too():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(net[1].parameters(), lr=torch.tensor(0.1))
    scheduler = lrs.ExponentialLR(optimizer, 0.5)
    plan = Unfreeze(net, optimizer, {1: {"0": 0.08}}, scheduler=scheduler)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
        plan.step()
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.0125, 0.02])
