"""Which schedulers wake a group with lr = 0, against learning rates worked out by hand."""

import math

import pytest
import torch

from layerlab.experiments.schedules import FLOOR, LR, SCHEDULERS, STEPS, schedule_run
from layerlab.experiments.two_ways import WAYS

WAKING = {
    "CosineAnnealingLR with eta_min",
    "CosineAnnealingWarmRestarts with eta_min",
    "OneCycleLR",
    "CyclicLR",
    "SWALR",
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_that_multiplies_leaves_0_at_0_and_one_with_a_goal_does_not(name):
    run = schedule_run(SCHEDULERS[name], WAYS[0])
    assert len(run.frozen) == len(run.training) == STEPS
    assert bool(run.moved) == (name in WAKING)
    if name not in WAKING:
        assert set(run.frozen) == {0.0}
    # its gradient is 1 in every step, and lr · momentum is far above float resolution: it moves when lr > 0
    assert run.moved == tuple(step for step, lr in enumerate(run.frozen) if lr > 0)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_none_wakes_what_has_no_gradient(name):
    assert schedule_run(SCHEDULERS[name], WAYS[1]).moved == ()


def by_cosine(start, step, period):
    return FLOOR + (start - FLOOR) * (1 + math.cos(math.pi * step / period)) / 2


def test_the_learning_rates_are_those_of_the_formulas():
    def frozen(name):
        return schedule_run(SCHEDULERS[name]).frozen

    def training(name):
        return schedule_run(SCHEDULERS[name]).training

    steps = range(STEPS)
    assert training("StepLR") == pytest.approx([LR * 0.1 ** (step // 5) for step in steps])
    assert training("ExponentialLR") == pytest.approx([LR * 0.9**step for step in steps])
    cosine = "CosineAnnealingLR with eta_min"
    assert frozen(cosine) == pytest.approx([by_cosine(0, step, STEPS) for step in steps])
    assert training(cosine) == pytest.approx([by_cosine(LR, step, STEPS) for step in steps])
    restarts = [by_cosine(0, step % 7, 7) for step in steps]
    assert frozen("CosineAnnealingWarmRestarts with eta_min") == pytest.approx(restarts)
    assert frozen("OneCycleLR")[0] == pytest.approx(LR / 25)  # its default div_factor
    assert frozen("CyclicLR")[:6] == pytest.approx([FLOOR + step / 5 * (LR - FLOOR) for step in range(6)])
    assert min(training("ReduceLROnPlateau with min_lr")) == pytest.approx(FLOOR)


def test_every_scheduler_of_torch_is_there_but_those_that_combine_others():
    lrs = torch.optim.lr_scheduler
    known = {name for name in lrs.__all__ if isinstance(getattr(lrs, name), type)}
    combining = {"LRScheduler", "SequentialLR", "ChainedScheduler"}
    assert {name.split(" with ")[0] for name in SCHEDULERS} >= known - combining


@pytest.mark.parametrize(
    ("arguments", "said"), [({"way": "flag"}, "way='flag': choose one of"), ({"steps": 0}, "steps=0")]
)
def test_what_makes_no_sense_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        schedule_run(SCHEDULERS["StepLR"], **arguments)
