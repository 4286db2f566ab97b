"""Lesson 11's check tells a cure from half a cure."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from layerlab.freezing import freeze
from layerlab.lessons_support.lesson_11 import AIMS, check_repair
from layerlab.lessons_support.patients import PATIENTS, five, healthy, pretrained, x, y

P1, P2, P3, P4, P5, P6, P7 = PATIENTS


@pytest.fixture(autouse=True)
def _same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def loop(model, optimizer, *schedulers, before=lambda: None):
    def train():
        before()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()

    return train


def with_fc(model=None):
    model = model or pretrained()
    model.fc = nn.Linear(16, 3)
    return model


def fc_first():
    model = with_fc()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, loop(model, optimizer)


def group_added():
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    with_fc(model)
    optimizer.add_param_group({"params": list(model.fc.parameters())})
    return model, optimizer, loop(model, optimizer)


def no_new_fc():
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.1)
    return model, optimizer, loop(model, optimizer)


def two_steps():
    model, optimizer, train = fc_first()
    return model, optimizer, lambda: (train(), train())


def raising():
    def broken():
        raise KeyError("y")

    return *fc_first()[:2], broken


def only_fc(stem=True, block=True, norm="before and in the loop"):
    model = with_fc()
    frozen = [model.norm] + [model.stem] * stem + [model.block] * block
    for module in frozen:
        module.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    if "before" in norm:
        model.norm.eval()

    def modes():
        model.train()
        if "in the loop" in norm:
            model.norm.eval()

    return model, optimizer, loop(model, optimizer, before=modes)


def only_fc_by_freeze():
    model = with_fc()
    freeze(model, ["stem", "norm", "block"])
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, loop(model, optimizer, before=model.train)


def everything_frozen():
    model = with_fc().requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    return model, optimizer, loop(model, optimizer)


def groups(stem="flag", middle=True, lr=0.02, eta_min=0.001):
    model = with_fc()
    middle_part = [p for name, p in model.named_parameters() if name.startswith(("norm", "block"))]
    parts = [
        {"params": middle_part if middle else [], "lr": lr},
        {"params": model.fc.parameters(), "lr": 0.1},
    ]
    if stem == "flag":
        model.stem.requires_grad_(False)
    else:
        parts.append({"params": model.stem.parameters(), "lr": 0.0})
    optimizer = SGD(parts, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, T_max=10, eta_min=eta_min)
    return model, optimizer, scheduler, loop(model, optimizer, scheduler)


def rebuilt_as_one_group():
    model = with_fc()
    model.stem.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.001, momentum=0.9)
    return model, optimizer, loop(model, optimizer)


def softmax(end=None, kind=nn.Softmax):
    model = with_fc()
    if end is not None:
        model.softmax = end()
    optimizer = Adam(model.parameters(), lr=0.02)
    return model, optimizer, loop(model, optimizer)


def hidden_softmax():
    """A softmax that no module shows: the audit cannot see it, the loss can."""
    model = with_fc()
    model.fc.register_forward_hook(lambda module, inputs, output: output.softmax(1))
    optimizer = Adam(model.parameters(), lr=0.02)
    return model, optimizer, loop(model, optimizer)


def every_second_epoch(flag="before backward", set_to_none=True):
    model = with_fc()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    epochs = iter(range(1000))

    def train():
        rests = next(epochs) % 2 == 1
        optimizer.zero_grad(set_to_none=set_to_none)
        if flag == "before backward":
            model.stem.requires_grad_(not rests)
        cross_entropy(model(x), y).backward()
        if flag == "grad is None" and rests:
            model.stem.weight.grad = None
        optimizer.step()
        if flag == "released never":
            model.stem.requires_grad_(False)

    return model, optimizer, train


def released(pop=True, rests=(3, 4, 5)):
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    epochs = iter(range(1000))

    def train():
        epoch = next(epochs)
        model.stem.requires_grad_(epoch not in rests)
        if pop and epoch == 6:
            optimizer.state.pop(model.stem.weight)
        optimizer.zero_grad()
        cross_entropy(model(x), (five + 2) % 5 if epoch < 3 else five).backward()
        optimizer.step()

    return model, optimizer, train


@pytest.mark.parametrize(
    ("patient", "cure"),
    [
        (P1, fc_first),
        (P1, group_added),
        (P2, only_fc),
        (P2, only_fc_by_freeze),
        (P3, groups),
        (P3, partial(groups, stem="lr 0", eta_min=0.0)),
        (P4, softmax),
        (P4, partial(softmax, end=nn.Identity)),
        (P5, every_second_epoch),
        (P5, partial(every_second_epoch, flag="grad is None")),
        (P6, P6),
        (P7, released),
    ],
)
def test_a_cure_passes(patient, cure):
    verdict = check_repair(patient, cure)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("patient", "half", "said"),
    [
        (P1, P1, ["the audit finds layer-replaced (fc.weight, fc.bias)", "must move, but stayed"]),
        (P1, no_new_fc, ["fc must tell 3 classes, not 5"]),
        (P1, two_steps, ["one step an epoch, but took 18 in 9"]),
        (P1, lambda: None, ["but returned NoneType"]),
        (P1, lambda: (pretrained(), SGD), ["but returned 2 things"]),
        (P1, lambda: (pretrained(), SGD, print), ["the second thing is of type type"]),
        (P1, lambda: (1, 2, print), ["the first thing is of type int"]),
        (P1, lambda: (*fc_first()[:2], 3), ["the last thing is of type int"]),
        (P1, lambda: (nn.Linear(1, 1), *fc_first()[1:]), ["the model has no stem"]),
        (P1, lambda: 1 / 0, ["ZeroDivisionError"]),
        (P1, lambda: (*fc_first()[:2], None, print), ["the third thing is of type NoneType, and no sch"]),
        (P1, raising, ["broken raised KeyError: 'y'", 'raise KeyError("y")', "1 more not looked at"]),
        (P4, raising, ["broken raised KeyError: 'y'", "3 more not looked at"]),
        (P2, partial(only_fc, stem=False), ["stem.weight must stay still, but moved"]),
        (P2, partial(only_fc, block=False), ["block.weight, block.bias must stay still, but moved"]),
        (P2, partial(only_fc, norm=""), ["the audit finds frozen-statistics (norm)", "model.norm.eval()"]),
        (P2, partial(only_fc, norm="before"), ["the audit is silent", "norm.running_mean, norm.running_var"]),
        (P2, partial(only_fc, norm="in the loop"), ["the audit finds frozen-statistics (norm)"]),
        (P2, everything_frozen, ["the audit finds everything-frozen", "RuntimeError"]),
        (P3, partial(groups, stem="lr 0"), ["the audit finds lr-zero-wakes", "stem.weight must stay still"]),
        (
            P3,
            partial(groups, middle=False),
            ["the audit finds empty-group", "norm must have lr 0.02, but is in"],
        ),
        (P3, rebuilt_as_one_group, ["block must have lr 0.02, but is 0.001", "fc must have lr 0.1"]),
        (P4, partial(softmax, end=partial(nn.Softmax, dim=1)), ["double-softmax", "but is 0.5"]),
        (P4, hidden_softmax, ["the audit is silent", "the loss must be below 0.3, but is 0.5"]),
        (P5, P5, ["the audit is silent", "epochs 1, 3, 5 and 7: stem.weight must stay still"]),
        (
            P5,
            partial(every_second_epoch, set_to_none=False),
            ["must stay still, but moved (momentum, step 1"],
        ),
        (
            P5,
            partial(every_second_epoch, flag="released never"),
            ["epoch 2: stem.weight must move, but stayed"],
        ),
        (P7, P7, ["the audit is silent", "walks against its own gradient (step 6)"]),
        (P7, partial(released, rests=()), ["epochs 3, 4 and 5: stem.weight must stay still"]),
        (P7, partial(released, rests=(3, 4, 5, 6, 7, 8)), ["epoch 6: stem.weight must move, but stayed"]),
    ],
)
def test_half_a_cure_is_told_what_is_left(patient, half, said):
    verdict = check_repair(patient, half)
    assert not verdict.passed
    shown = " ".join(repr(verdict).split())
    for words in said:
        assert words in shown


def test_only_patients_are_checked():
    with pytest.raises(ValueError, match="'healthy' is no patient; there are patient_1, "):
        check_repair(healthy, healthy)
    assert tuple(AIMS) == PATIENTS


def test_the_check_leaves_random_numbers_as_they_were():
    before = torch.get_rng_state()
    check_repair(P1, fc_first)
    assert torch.equal(torch.get_rng_state(), before)
