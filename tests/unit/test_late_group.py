"""A group that is added after the scheduler was built: the lr that comes of it, and the errors."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch_versions import SCHEDULERS_COUNT_GROUPS

from layerlab.experiments.late_group import ADDED_IN, late_group
from layerlab.experiments.schedules import LR, SCHEDULERS, STEPS
from layerlab.unfreezing import Unfreeze

counts = pytest.mark.skipif(not SCHEDULERS_COUNT_GROUPS, reason="passes over the group before torch 2.10")
STEPLR = late_group(SCHEDULERS["StepLR"], lr=0.01)


def test_under_step_lr_both_go_down_by_the_same_factors():
    assert STEPLR.old == pytest.approx([LR * 0.1 ** (epoch // 5) for epoch in range(STEPS + 5)])
    assert STEPLR.new == pytest.approx([0.1 * lr for lr in STEPLR.old[ADDED_IN:]])
    assert (STEPLR.error, STEPLR.raised_to, STEPLR.failed_in) == ("", None, None)


def test_what_is_left_of_a_warm_up_comes_on_top():
    run = late_group(SCHEDULERS["LinearLR"], lr=0.01)  # from a third in 10 epochs
    then = 1 / 3 + (2 / 3) * ADDED_IN / 10
    assert run.raised_to == pytest.approx(0.01 / then)
    assert late_group(SCHEDULERS["ConstantLR"], lr=0.01).raised_to == pytest.approx(0.03)


@counts
@pytest.mark.parametrize("name", ["CosineAnnealingLR", "CosineAnnealingLR with eta_min"])
def test_a_cosine_fails_only_past_its_t_max(name):
    run = late_group(SCHEDULERS[name])
    assert run.failed_in == STEPS
    assert run.error.startswith("ValueError")
    assert len(run.old) == STEPS + 1


@pytest.mark.parametrize(
    ("name", "error"),
    [
        pytest.param("LambdaLR", "ValueError", marks=counts),
        pytest.param("MultiplicativeLR", "ValueError", marks=counts),
        pytest.param("CosineAnnealingWarmRestarts with eta_min", "ValueError", marks=counts),
        pytest.param("CyclicLR", "ValueError", marks=counts),
        ("OneCycleLR", "KeyError: 'initial_lr'"),
        ("SWALR", "KeyError: 'swa_lr'"),
    ],
)
def test_others_fail_at_once(name, error):
    run = late_group(SCHEDULERS[name])
    assert run.failed_in == ADDED_IN
    assert run.error.startswith(error)


@pytest.mark.skipif(SCHEDULERS_COUNT_GROUPS, reason="an error since torch 2.10")
@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR", "CosineAnnealingWarmRestarts with eta_min"])
def test_before_2_10_others_pass_over_it_and_a_plan_refuses_them_all_the_same(name):
    run = late_group(SCHEDULERS[name], lr=0.01)
    assert not run.error
    assert set(run.new) == {0.01}
    assert len(set(run.old)) > 1
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    optimizer = torch.optim.SGD(net[1].parameters(), lr=LR, momentum=0.9)
    with pytest.raises(ValueError, match="cannot take a parameter group later"):
        Unfreeze(net, optimizer, {1: {"0": 0.01}}, scheduler=SCHEDULERS[name](optimizer))


@counts
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_plan_takes_a_scheduler_just_when_a_late_group_does_well(name):
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    optimizer = torch.optim.SGD(net[1].parameters(), lr=LR, momentum=0.9)
    scheduler = SCHEDULERS[name](optimizer)
    run = late_group(SCHEDULERS[name])
    # The plan gives the scheduler what it lacks, so that a cosine goes on past its T_max.
    well = run.raised_to is None and (not run.error or isinstance(scheduler, lrs.CosineAnnealingLR))
    if well:
        Unfreeze(net, optimizer, {1: {"0": 0.01}}, scheduler=scheduler)
    else:
        with pytest.raises(ValueError, match=type(scheduler).__name__):
            Unfreeze(net, optimizer, {1: {"0": 0.01}}, scheduler=scheduler)


def test_too_few_epochs_are_refused():
    with pytest.raises(ValueError, match="epochs=3: take more than 3"):
        late_group(SCHEDULERS["StepLR"], epochs=3)
