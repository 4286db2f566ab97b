"""The audit of groups at lr 0 and of floors, against real steps under every scheduler of torch."""

import copy

import pytest
import torch
from audited import bits, codes, cured, net, same, step, the
from torch.optim import lr_scheduler as lrs

from layerlab.auditing import audit
from layerlab.experiments.schedules import SCHEDULERS, STEPS

OPTIM = torch.optim


def two_groups(lr=0.0, maker=OPTIM.SGD, **options):
    model = net()
    groups = [{"params": model[0].parameters(), "lr": lr}, {"params": model[2].parameters()}]
    return model, maker(groups, lr=0.1, **options)


def test_a_group_at_lr_zero_is_held_and_paid_for():
    model, optimizer = two_groups(momentum=0.9)
    finding = the(audit(model, optimizer), "lr-zero", "note")
    assert finding.names == ("0.weight", "0.bias")
    before = bits(model[0].parameters())
    for _ in range(2):
        step(model, optimizer)
    assert all(same(model[0].parameters(), before))
    for parameter in model[0].parameters():
        assert parameter.grad.any()
        assert optimizer.state[parameter]["momentum_buffer"].any()
    cured(finding, optimizer=optimizer)
    optimizer.state.clear()
    step(model, optimizer)
    assert all(same(model[0].parameters(), before))
    assert all(p.grad is None and p not in optimizer.state for p in model[0].parameters())
    assert not audit(model, optimizer)


def test_a_gradient_of_nan_gets_through_lr_zero():
    model, optimizer = two_groups()
    the(audit(model, optimizer), "lr-zero")
    step(model)
    model[0].weight.grad.fill_(float("nan"))
    optimizer.step()
    assert model[0].weight.isnan().all()


def test_every_group_at_lr_zero():
    model = net()
    optimizer = OPTIM.AdamW(model.parameters(), lr=0.0)
    finding = the(audit(model, optimizer), "lr-zero", "warning")
    before = bits(model.parameters())
    step(model, optimizer)
    assert all(same(model.parameters(), before))
    cured(finding, optimizer=optimizer)
    step(model, optimizer)
    assert not any(same(model.parameters(), before))
    assert not audit(model, optimizer)


COMBINED = {
    "SequentialLR": lambda o: lrs.SequentialLR(
        o, [lrs.ConstantLR(o, 0.5, 5), lrs.CosineAnnealingLR(o, 10)], milestones=[5]
    ),
    "SequentialLR with eta_min": lambda o: lrs.SequentialLR(
        o, [lrs.ConstantLR(o, 0.5, 5), lrs.CosineAnnealingLR(o, 10, eta_min=0.01)], milestones=[5]
    ),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler(
        [lrs.ConstantLR(o, 0.5, 5), lrs.ExponentialLR(o, 0.9)]
    ),
    "ChainedScheduler with eta_min": lambda o: lrs.ChainedScheduler(
        [lrs.ConstantLR(o, 0.5, 5), lrs.CosineAnnealingLR(o, 20, eta_min=0.01)]
    ),
}
EVERY = SCHEDULERS | COMBINED


def moves_under(scheduler, model, optimizer):
    """Whether the first layer moves in a real run."""
    before = bits(model[0].parameters())
    for _ in range(STEPS):
        step(model, optimizer)
        scheduler.step(*([1.0] if isinstance(scheduler, lrs.ReduceLROnPlateau) else []))
    return not all(same(model[0].parameters(), before))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_scheduler_that_wakes_a_group_is_told_and_no_other(name, when):
    model, optimizer = two_groups(lr=0.0 if when == "before" else 0.1)
    scheduler = EVERY[name](optimizer)
    if when == "after":
        optimizer.param_groups[0]["lr"] = 0.0
    found = audit(model, optimizer, scheduler)
    asleep = optimizer.param_groups[0]["lr"] == 0  # OneCycle, Cyclic overwrite it when they are built
    cure = the(found, "lr-zero-wakes", "warning") if "lr-zero-wakes" in found.codes else None
    if cure:
        held, its = copy.deepcopy((model, optimizer))
        cured(cure, optimizer=its)
        before = bits(held[0].parameters())
        for _ in range(STEPS):
            its.param_groups[0]["lr"] = 0.1  # whatever a scheduler writes
            step(held, its)
        assert all(same(held[0].parameters(), before))
    if asleep:
        assert moves_under(scheduler, model, optimizer) == (cure is not None)
        assert cure is None or name.split(" ")[0] in cure.effect or "eta_min" in name
    else:
        assert cure is None


class ByHand:
    """A scheduler that is none of torch's: it warms up from 0."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group["initial_lr"], group["lr"] = group["lr"], 0.0

    def step(self):
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]


def test_a_scheduler_that_is_not_of_torch():
    model = net()
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1)
    assert not audit(model, optimizer, ByHand(optimizer))
    model, optimizer = two_groups()
    scheduler = ByHand(optimizer)
    optimizer.param_groups[1]["lr"] = 0.1
    finding = the(audit(model, optimizer, scheduler), "lr-zero", "note")
    assert finding.effect.endswith("Whether ByHand raises it, an audit cannot tell")


def test_rprop_moves_at_lr_zero():
    model, optimizer = two_groups(maker=OPTIM.Rprop)
    finding = the(audit(model, optimizer), "lr-zero-moves", "error")
    before = bits(model[0].parameters())
    for _ in range(2):
        step(model, optimizer)
    assert not all(same(model[0].parameters(), before))
    cured(finding, optimizer=optimizer)
    before = bits(model[0].parameters())
    step(model, optimizer)
    assert all(same(model[0].parameters(), before))
    assert not codes(model, optimizer) & {"lr-zero-moves", "lr-zero"}


def test_asgd_moves_one_step_late():
    model, optimizer = two_groups(lr=0.1, maker=OPTIM.ASGD)
    step(model, optimizer)
    optimizer.param_groups[0]["lr"] = 0.0
    finding = the(audit(model, optimizer), "lr-zero-moves", "error")
    twin, its = copy.deepcopy((model, optimizer))
    before = bits(model[0].parameters())
    step(model, optimizer)
    assert not any(same(model[0].parameters(), before))
    cured(finding, optimizer=its)
    step(twin, its)
    assert all(same(twin[0].parameters(), before))
    fresh, held = two_groups(maker=OPTIM.ASGD)
    assert codes(fresh, held) == {"lr-zero"}  # from the start it holds
    before = bits(fresh[0].parameters())
    step(fresh, held)
    assert all(same(fresh[0].parameters(), before))


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lrs.CosineAnnealingLR(o, 10, eta_min=0.05),
        lambda o: lrs.CosineAnnealingWarmRestarts(o, 30, eta_min=0.05),
        lambda o: lrs.SequentialLR(
            o, [lrs.ConstantLR(o, 1.0, 3), lrs.CosineAnnealingLR(o, 10, eta_min=0.05)], milestones=[3]
        ),
    ],
)
def test_eta_min_above_a_lr_raises_it(make):
    model, optimizer = two_groups(lr=0.001)
    scheduler = make(optimizer)
    finding = the(audit(model, optimizer, scheduler), "eta-min-above-lr", "warning")
    assert finding.place == "group 0 of optimizer"
    rates = []
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == sorted(rates)
    assert rates[-1] > 0.01
    model, optimizer = two_groups(lr=0.001)
    scheduler = make(optimizer)
    cured(finding, scheduler=getattr(scheduler, "_schedulers", [scheduler])[-1])
    assert not audit(model, optimizer, scheduler)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] <= 0.001


def test_min_lr_above_a_lr_never_reduces_it():
    model, optimizer = two_groups(lr=0.001)
    scheduler = lrs.ReduceLROnPlateau(optimizer, patience=1, min_lr=0.01)
    finding = the(audit(model, optimizer, scheduler), "min-lr-above-lr", "warning")
    for _ in range(6):
        scheduler.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.01])
    cured(finding, scheduler=scheduler)
    assert not audit(model, optimizer, scheduler)  # the other group has got to its floor, which is fine
    for _ in range(3):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] < 0.001


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lrs.LambdaLR(o, lambda step: min(1.0, step / 10)),
        lambda o: lrs.SequentialLR(
            o,
            [lrs.LambdaLR(o, lambda step: step / 5), lrs.CosineAnnealingLR(o, 10)],
            milestones=[5],
        ),
    ],
)
def test_a_warm_up_from_zero_is_no_finding(make):
    model = net()
    optimizer = OPTIM.AdamW(model.parameters(), lr=0.01)
    scheduler = make(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0
    assert not audit(model, optimizer, scheduler)
    assert not audit(model, optimizer)  # the audit is not told of the scheduler, and knows of one
