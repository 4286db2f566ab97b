"""The audit of parameter groups' options, on what the optimizer really reads."""

import pytest
import torch
from audited import cured, net, step, the

from layerlab.auditing import audit

OPTIM = torch.optim


@pytest.mark.parametrize(
    ("kind", "given", "meant", "value"),
    [
        (OPTIM.SGD, "learning_rate", "lr", 0.5),
        (OPTIM.AdamW, "wd", "weight_decay", 0.3),
        (OPTIM.AdamW, "weightdecay", "weight_decay", 0.3),
        (OPTIM.SGD, "momentun", "momentum", 0.9),
        (OPTIM.Adam, "beta", "betas", (0.5, 0.9)),
        (OPTIM.SGD, "weights_decay", "weight_decay", 0.3),
    ],
)
def test_an_option_that_nobody_reads(kind, given, meant, value):
    model = net()
    groups = [{"params": model[0].parameters(), given: value}, {"params": model[1:].parameters()}]
    optimizer = kind(groups, lr=0.1)
    finding = the(audit(model, optimizer), "unknown-option", "warning")
    assert finding.names == ("group 0 of optimizer",)
    assert optimizer.param_groups[0][meant] == optimizer.param_groups[1][meant] != value
    cured(finding, optimizer=optimizer)
    assert optimizer.param_groups[0][meant] == value
    assert given not in optimizer.param_groups[0]
    assert not audit(model, optimizer)


def test_it_comes_true_the_learning_rate_is_another():
    model, twin = net(), net()
    optimizer = OPTIM.SGD([{"params": model.parameters(), "learning_rate": 0.5}], lr=0.1)
    assert audit(model, optimizer).codes == ("unknown-option",)
    step(model, optimizer)
    step(twin, OPTIM.SGD(twin.parameters(), lr=0.1))
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_options_of_schedulers_and_of_ones_own_are_fine():
    model = net()
    optimizer = OPTIM.AdamW(
        [{"params": model.parameters(), "name": "all", "lr_scale": 0.5, "layer": 3}], lr=0.1
    )
    OPTIM.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    assert {"max_lr", "initial_lr", "min_lr"} <= optimizer.param_groups[0].keys()
    assert "unknown-option" not in audit(model, optimizer).codes


@pytest.mark.parametrize(
    "own",
    [
        {"apply_weight_decay": True},
        {"no_weight_decay": True},
        {"weight_decay_mult": 0.0},
        {"lr_mult": 0.1},
        {"lr2": 0.1},
        {"beta1": 0.9},
        {"wd": False},
        {"decay": 0.9},
    ],
)
@pytest.mark.parametrize("kind", [OPTIM.AdamW, OPTIM.RMSprop, OPTIM.SGD])
def test_what_a_loop_of_ones_own_may_read_is_fine(kind, own):
    model = net()
    assert not audit(model, kind([{"params": model.parameters(), **own}], lr=0.1))


def test_an_optimizer_of_ones_own_may_read_what_it_has_no_default_for():
    class Own(OPTIM.SGD):
        pass

    model = net()
    assert not audit(model, Own([{"params": model.parameters(), "wd": 0.1}], lr=0.1))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: OPTIM.lr_scheduler.LambdaLR(o, lambda e: 1.0),
        lambda o: OPTIM.lr_scheduler.CosineAnnealingLR(o, 5),
    ],
)
def test_under_a_scheduler_the_schedule_starts_from_the_cured_rate(schedule):
    model = net()
    optimizer = OPTIM.SGD([{"params": model.parameters(), "learning_rate": 0.5}], lr=0.1)
    finding = the(audit(model, optimizer, schedule(optimizer)), "unknown-option")
    assert "build the scheduler anew" in finding.cure
    cured(finding, optimizer=optimizer)
    assert schedule(optimizer).base_lrs == [0.5]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_name_of_another_library_for_what_the_optimizer_has_not():
    model = net()
    optimizer = OPTIM.LBFGS([{"params": list(model.parameters()), "wd": 0.1}])
    assert "unknown-option" not in audit(model, optimizer).codes
