"""The audit of how schedulers and optimizers are put together: provoked, seen to come true, and cured."""

import pytest
import torch
from audited import codes, cured, net, the
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from layerlab.auditing import audit

OPTIM = torch.optim


def one_group(lr=0.1):
    model = net()
    return model, OPTIM.SGD(model[0].parameters(), lr=lr)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


BY_GROUP = {
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda epoch: 0.95**epoch),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda epoch: 0.95),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 7),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, max_lr=0.1, total_steps=20),
    "CyclicLR": lambda o: lrs.CyclicLR(o, base_lr=0.01, max_lr=0.1),
    "SWALR": lambda o: SWALR(o, swa_lr=0.05),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=0, min_lr=[0.01]),
}


@pytest.mark.parametrize("name", BY_GROUP)
def test_a_group_that_a_scheduler_does_not_know_fails_or_is_passed_over(name):
    model, optimizer = one_group()
    scheduler = BY_GROUP[name](optimizer)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.1})
    finding = the(audit(model, optimizer, scheduler), "group-after-scheduler", "error")
    assert finding.place == "group 1 of optimizer"
    optimizer.step()
    raised = None
    try:
        for _ in range(3):
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    except (ValueError, KeyError, RuntimeError, IndexError) as error:
        raised = error
    # Older torch pairs groups and rates without counting: the new group keeps its lr.
    assert raised is not None or rates(optimizer)[1] == 0.1
    scheduler = BY_GROUP[name](optimizer) if name != "ReduceLROnPlateau" else lrs.ReduceLROnPlateau(optimizer)
    assert "group-after-scheduler" not in codes(model, optimizer, scheduler)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lrs.StepLR(o, 2),
        lambda o: lrs.ExponentialLR(o, 0.9),
        lambda o: lrs.MultiStepLR(o, [1, 3]),
        lambda o: lrs.PolynomialLR(o, 8),
        lambda o: lrs.ReduceLROnPlateau(o, patience=0),
    ],
)
def test_schedulers_that_take_a_new_group_along(make):
    model, optimizer = one_group()
    scheduler = make(optimizer)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.1})
    assert not codes(model, optimizer, scheduler) - {"plateau-needs-metric"}
    for _ in range(4):
        optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, lrs.ReduceLROnPlateau) else []))
    assert rates(optimizer)[0] == rates(optimizer)[1] < 0.1


def test_a_cosine_takes_a_new_group_along_as_far_as_its_lowest():
    model, optimizer = one_group()
    scheduler = lrs.CosineAnnealingLR(optimizer, 4)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.1})
    finding = the(audit(model, optimizer, scheduler), "group-after-scheduler", "note")
    assert "up to T_max = 4" in finding.effect
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert rates(optimizer) == pytest.approx([0.0, 0.0])
    try:
        scheduler.step()
    except ValueError:
        pass  # torch 2.15
    else:
        assert rates(optimizer)[0] > 0 == rates(optimizer)[1]


def test_linear_warm_up_takes_a_new_group_past_its_lr():
    model, optimizer = one_group(lr=0.01)
    scheduler = lrs.LinearLR(optimizer, start_factor=0.5, total_iters=4)
    optimizer.step()
    scheduler.step()
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.01})
    finding = the(audit(model, optimizer, scheduler), "group-after-scheduler", "warning")
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert rates(optimizer) == pytest.approx([0.01, 0.016])
    # The cure, run where it is to be run: right after the group was added.
    model, optimizer = one_group(lr=0.01)
    scheduler = lrs.LinearLR(optimizer, start_factor=0.5, total_iters=4)
    optimizer.step()
    scheduler.step()
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.01})
    scheduler = cured(finding, optimizer=optimizer)["scheduler"]
    assert scheduler.start_factor == 0.5
    assert audit(model, optimizer, scheduler).codes == ("scheduler-not-stepped",)  # a note: it is new
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert rates(optimizer) == pytest.approx([0.01, 0.01])


def test_a_finished_warm_up_does_no_harm():
    model, optimizer = one_group()
    scheduler = lrs.LinearLR(optimizer, total_iters=2)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.1})
    assert not audit(model, optimizer, scheduler)
    scheduler.step()
    assert rates(optimizer) == pytest.approx([0.1, 0.1])


def test_a_group_that_an_inner_scheduler_does_not_know():
    model, optimizer = one_group()
    scheduler = lrs.SequentialLR(
        optimizer, [lrs.ConstantLR(optimizer, 1.0, 2), BY_GROUP["LambdaLR"](optimizer)], milestones=[2]
    )
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.1})
    the(audit(model, optimizer, scheduler), "group-after-scheduler", "error")


def test_a_scheduler_of_the_optimizer_from_before():
    model = net()
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1)
    scheduler = lrs.StepLR(optimizer, step_size=1)
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1, momentum=0.9)
    finding = the(audit(model, optimizer, scheduler), "scheduler-elsewhere", "error")
    scheduler.optimizer.step()
    scheduler.step()
    assert rates(optimizer) == [0.1]
    scheduler = cured(finding, optimizer=optimizer)["scheduler"]
    assert type(scheduler) is lrs.StepLR
    assert scheduler.step_size == 1
    optimizer.step()
    scheduler.step()
    assert rates(optimizer) == pytest.approx([0.01])
    assert not audit(model, optimizer, scheduler)


def test_the_scheduler_of_one_of_several_optimizers_is_fine():
    model = net()
    first, second = (OPTIM.SGD(part.parameters(), lr=0.1) for part in (model[0], model[2]))
    schedulers = [lrs.StepLR(second, 2), lrs.CosineAnnealingLR(first, 10)]
    assert not audit(model, first, second, scheduler=schedulers)


def test_plateau_asks_for_a_metric():
    model = net()
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1)
    scheduler = lrs.ReduceLROnPlateau(optimizer)
    finding = the(audit(model, optimizer, scheduler), "plateau-needs-metric", "note")
    with pytest.raises(TypeError, match="metrics"):
        scheduler.step()
    cured(finding, scheduler=scheduler, validation_loss=1.0)
    assert not audit(model, optimizer, scheduler)


def test_a_scheduler_that_nobody_steps():
    model = net()
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1)
    scheduler = lrs.StepLR(optimizer, step_size=1)
    assert not audit(model, optimizer, scheduler)
    for _ in range(3):
        optimizer.step()
    finding = the(audit(model, optimizer, scheduler), "scheduler-not-stepped", "note")
    assert rates(optimizer) == [0.1]
    cured(finding, scheduler=scheduler)
    assert rates(optimizer) == pytest.approx([0.01])
    assert not audit(model, optimizer, scheduler)
