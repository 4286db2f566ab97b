"""lr = 0 and requires_grad = False, against updates written by hand without an optimizer."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerlab.experiments.two_ways import (
    WAYS,
    Case,
    first_step_after_release,
    frozen_run,
    state_bytes,
)

X = torch.linspace(-1, 1, 24).sin().reshape(8, 3)
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
LR = 0.1
SGD = partial(torch.optim.SGD, lr=LR, momentum=0.9)
BODY = {"body.weight", "norm.weight", "norm.bias"}
STATISTICS = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
BODY_NUMBERS = 3 * 4 + 4 + 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.body = nn.Linear(3, 4, bias=False)  # before BatchNorm, its gradient would be noise
            self.norm = nn.BatchNorm1d(4)
            self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).tanh())


def loss(net):
    return cross_entropy(net(X), Y)


def case(optimizer=SGD, loss=loss, model=None, frozen=("body", "norm")):
    return Case(model or Net(), loss, frozen, optimizer)


def gradients(net):
    return dict(
        zip(dict(net.named_parameters()), torch.autograd.grad(loss(net), list(net.parameters())), strict=True)
    )


HOLDING = {
    "SGD": partial(torch.optim.SGD, lr=LR),
    "SGD, all on": partial(torch.optim.SGD, lr=LR, momentum=0.9, weight_decay=0.01, nesterov=True),
    "Adam": partial(torch.optim.Adam, lr=LR, weight_decay=0.01),
    "AdamW": partial(torch.optim.AdamW, lr=LR, weight_decay=0.1),
    "NAdam": partial(torch.optim.NAdam, lr=LR),
    "RMSprop": partial(torch.optim.RMSprop, lr=LR, momentum=0.9, weight_decay=0.01),
    "Adagrad": partial(torch.optim.Adagrad, lr=LR, weight_decay=0.01),
    "Adadelta": partial(torch.optim.Adadelta, lr=LR),
}


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("optimizer", HOLDING.values(), ids=HOLDING)
def test_parameters_stay_and_statistics_move_under_either_way(optimizer, way, before):
    seen = []

    def watched_loss(net):  # an oracle of its own: what each step begins with
        seen.append(copy.deepcopy(net.state_dict()))
        return loss(net)

    run = frozen_run(case(optimizer, watched_loss), way, before=before, steps=3)
    assert run.parameters == run.nonfinite == ()
    assert set(run.buffers) == STATISTICS
    at_freeze, later = seen[before], seen[-1]
    assert all(torch.equal(at_freeze[name], later[name]) for name in BODY)
    assert not torch.equal(at_freeze["head.weight"], later["head.weight"])
    assert not torch.equal(at_freeze["norm.running_mean"], later["norm.running_mean"])
    if before:
        assert not torch.equal(seen[0]["body.weight"], at_freeze["body.weight"])


@pytest.mark.parametrize("way", WAYS)
def test_eval_mode_holds_the_statistics(way):
    assert frozen_run(case(model=Net().eval()), way).buffers == ()


@pytest.mark.parametrize("optimizer", ["ASGD", "Rprop"])
def test_an_optimizer_that_stores_its_step_size_walks_on_with_lr_0(optimizer):
    make = partial(getattr(torch.optim, optimizer), lr=LR)
    assert set(frozen_run(case(make), "lr = 0", before=1, steps=1).parameters) == BODY
    assert frozen_run(case(make), "requires_grad = False", before=1, steps=1).parameters == ()


def test_bytes_are_those_counted_by_hand():
    lr_zero, flag = (frozen_run(case(), way) for way in WAYS)
    assert lr_zero.gradient_bytes == lr_zero.state_bytes == 4 * BODY_NUMBERS
    assert flag.gradient_bytes == flag.state_bytes == 0
    adam = partial(torch.optim.Adam, lr=LR)
    step_counts = 4 * len(BODY)  # a float32 for each parameter
    assert frozen_run(case(adam), "lr = 0").state_bytes == 2 * 4 * BODY_NUMBERS + step_counts
    assert frozen_run(case(adam), "requires_grad = False").state_bytes == 0


def test_state_bytes_leaves_the_optimizer_as_it_is():
    net = Net()
    optimizer = SGD(net.parameters())
    assert state_bytes(optimizer, list(net.parameters())) == 0
    assert not optimizer.state


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_nonfinite_gradient_gets_through_lr_0_only(factor):
    lr_zero, flag = (frozen_run(case(loss=lambda net: loss(net) * factor), way, steps=1) for way in WAYS)
    assert set(lr_zero.nonfinite) == set(lr_zero.parameters) == BODY
    assert flag.nonfinite == flag.parameters == ()


def sgd_by_hand(way, frozen):
    """The body's Δ in the first step after its release, without an optimizer."""
    net, velocity = Net(), {}
    for step in range(frozen + 1):
        found = gradients(net)
        for name, p in net.named_parameters():
            is_frozen = name in BODY and step < frozen
            if is_frozen and way == "requires_grad = False":
                continue
            velocity[name] = 0.9 * velocity.get(name, torch.zeros_like(p)) + found[name]
            if not is_frozen:
                p.data -= LR * velocity[name]
    return [LR * velocity[name] for name in BODY]


def adam_by_hand(way, frozen):
    net, state, delta = Net(), {}, {}
    for step in range(frozen + 1):
        found = gradients(net)
        for name, p in net.named_parameters():
            is_frozen = name in BODY and step < frozen
            if is_frozen and way == "requires_grad = False":
                continue
            m, v, t = state.get(name, (torch.zeros_like(p), torch.zeros_like(p), 0))
            m, v, t = 0.9 * m + 0.1 * found[name], 0.999 * v + 0.001 * found[name] ** 2, t + 1
            state[name] = m, v, t
            delta[name] = LR * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            if not is_frozen:
                p.data -= delta[name]
    return [delta[name] for name in BODY]


@pytest.mark.parametrize("frozen", [1, 4])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("optimizer", "by_hand"), [(SGD, sgd_by_hand), (partial(torch.optim.Adam, lr=LR), adam_by_hand)]
)
def test_the_first_step_after_release_is_the_one_computed_by_hand(optimizer, by_hand, way, frozen):
    found = first_step_after_release(case(optimizer), way, frozen=frozen)
    expected = torch.cat([delta.flatten() for delta in by_hand(way, frozen)])
    # Δ is read as the difference of weights near 1, in float32
    assert found.norm == pytest.approx(float(expected.norm()), rel=1e-3)
    assert found.largest == pytest.approx(float(expected.abs().max()), rel=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_the_model_and_the_random_state_are_left_alone(way):
    model = Net()
    loss(model).backward()
    before = copy.deepcopy(model.state_dict())
    grads = [p.grad.clone() for p in model.parameters()]
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    frozen_run(case(model=model), way)
    first_step_after_release(case(model=model), way, frozen=2)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))
    assert all(p.requires_grad for p in model.parameters())


def test_dropout_is_the_same_in_every_trial():
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.Linear(8, 2))
    one, two = (first_step_after_release(case(model=model, frozen="0"), "lr = 0", frozen=2) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: frozen_run(case(), "lr=0"), "way='lr=0': choose one of 'lr = 0', 'requires_grad = False'"),
        (lambda: frozen_run(case(frozen="boddy"), WAYS[0]), "body"),
        (lambda: frozen_run(case(frozen=["body", "norm", "head"]), WAYS[0]), "leave out what shall train on"),
        (lambda: frozen_run(case(), WAYS[0], steps=0), "steps=0"),
        (lambda: frozen_run(case(), WAYS[0], before=-1), "before=-1"),
        (lambda: first_step_after_release(case(), WAYS[0], frozen=0), "frozen=0"),
    ],
)
def test_what_makes_no_sense_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        change()
