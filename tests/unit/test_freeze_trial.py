"""A trial's run, bit for bit, against training loops written by hand; what it must leave as it was."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerlab.experiments.article import article_batch
from layerlab.experiments.freeze_trial import (
    FREEZING,
    OPTIMIZERS,
    ZERO_GRAD,
    FreezeTrial,
    freeze_trial,
    not_used,
)
from layerlab.experiments.two_tasks import Network
from layerlab.record import Reason

X = torch.linspace(-1, 1, 24).sin().reshape(8, 3)
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.body = nn.Linear(3, 4)
            self.norm = nn.BatchNorm1d(4)
            self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).tanh())


def loss(net):
    return cross_entropy(net(X), Y)


def by_hand(optimizer, zero_grad, freezing, steps=3, freeze_after=1, model=None, **options):
    """What the settings mean, as a learner would write it; every step's weights and which tensors moved."""
    net = copy.deepcopy(model) if model else Net()
    body = list(net.body.parameters())
    others = [*net.norm.parameters(), *net.head.parameters()]
    if freezing == "lr_zero":
        optimizer = getattr(torch.optim, optimizer)([{"params": others}, {"params": body}], lr=0.1, **options)
    else:
        optimizer = getattr(torch.optim, optimizer)(net.parameters(), lr=0.1, **options)
    history = []
    for step in range(steps):
        frozen = step >= freeze_after
        if frozen and freezing == "requires_grad":
            for p in body:
                p.requires_grad = False
        if frozen and freezing == "lr_zero":
            optimizer.param_groups[1]["lr"] = 0
        if zero_grad == "None":
            optimizer.zero_grad()
        elif zero_grad == "zeros":
            optimizer.zero_grad(set_to_none=False)
        loss(net).backward()
        for p in body:
            if frozen and freezing == "grad_none":
                p.grad = None
            if frozen and freezing == "requires_grad, too late":
                p.requires_grad = False
        optimizer.step()
        history.append({name: value.clone() for name, value in net.state_dict().items()})
    return history


def moved(history, start):
    states = [start, *history]
    return [
        {name for name in now if not torch.equal(now[name], before[name])}
        for before, now in itertools.pairwise(states)
    ]


@pytest.mark.parametrize("freezing", FREEZING)
@pytest.mark.parametrize("zero_grad", ZERO_GRAD)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_it_moves_what_a_loop_written_by_hand_moves_bit_by_bit(optimizer, zero_grad, freezing):
    weights = []

    def seen(net):  # the weights before each step but the first, as the loss sees them
        weights.append({name: value.clone() for name, value in net.state_dict().items()})
        return loss(net)

    ledger = freeze_trial(
        Net(), seen, frozen="body", optimizer=optimizer, zero_grad=zero_grad, freezing=freezing, steps=4
    )
    unset = {"weight_decay": 0.0} if optimizer == "AdamW" else {}
    history = by_hand(optimizer, zero_grad, freezing, steps=4, **unset)
    assert [step.moved for step in ledger] == [
        [name for name in step if name in truth]
        for step, truth in zip(ledger, moved(history, Net().state_dict()), strict=True)
    ]
    for ours, theirs in zip(weights[1:], history[:-1], strict=True):
        for name in dict(Net().named_parameters()):
            assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"weight_decay": 0.1}),
        ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
        ("RMSprop", {"momentum": 0.5, "weight_decay": 0.1}),
        ("AdamW", {"weight_decay": 0.1}),
    ],
)
@pytest.mark.parametrize("freezing", ["requires_grad", "lr_zero"])
def test_momentum_and_weight_decay_reach_the_optimizer(optimizer, options, freezing):
    ledger = freeze_trial(
        Net(), loss, frozen="body", optimizer=optimizer, zero_grad="zeros", freezing=freezing, **options
    )
    history = by_hand(optimizer, "zeros", freezing, **options)
    norm = torch.linalg.vector_norm(history[2]["body.weight"] - history[1]["body.weight"])
    assert ledger[2]["body.weight"].delta_norm == pytest.approx(norm.item(), rel=1e-5)
    assert ledger[2]["body.weight"].moved is (freezing == "requires_grad")
    head = torch.linalg.vector_norm(history[2]["head.weight"] - history[1]["head.weight"])
    assert ledger[2]["head.weight"].delta_norm == pytest.approx(head.item(), rel=1e-5)


def test_lbfgs_moves_what_it_moves_by_hand():
    def train(net, optimizer):
        def closure():
            optimizer.zero_grad()
            value = loss(net)
            value.backward()
            return value

        optimizer.step(closure)

    net = Net()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1)
    for _ in range(2):
        before = net.head.weight.detach().clone()
        train(net, optimizer)
    ledger = freeze_trial(Net(), loss, frozen="body", optimizer="LBFGS", steps=2)
    expected = torch.linalg.vector_norm(net.head.weight.detach() - before).item()
    assert ledger[1]["head.weight"].delta_norm == pytest.approx(expected, rel=1e-4)


def test_when_and_how_long():
    ledger = freeze_trial(
        Net(), loss, frozen=["body", "norm.*"], freezing="grad_none", steps=5, freeze_after=3
    )
    assert [step["body.weight"].moved for step in ledger] == [True] * 3 + [False] * 2
    assert [step["norm.bias"].moved for step in ledger] == [True] * 3 + [False] * 2
    assert all(step["head.bias"].moved for step in ledger)
    never = freeze_trial(Net(), loss, frozen="body", freezing="grad_none", freeze_after=9)
    assert all(step["body.weight"].moved for step in never)


def test_the_model_its_gradients_and_the_random_state_stay():
    model = nn.Sequential(Net(), nn.Dropout(0.5))
    (model(X).sum() * 0.5).backward()
    model[0].head.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    ledgers = [
        freeze_trial(
            model, loss, frozen="0.body", optimizer="AdamW", freezing=freezing, zero_grad="never"
        ).rows()
        for freezing in ("requires_grad", "requires_grad")
    ]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = freeze_trial(
        model, loss, frozen="0.body", optimizer="AdamW", freezing="requires_grad", zero_grad="never"
    )
    assert ledgers[0] == ledgers[1] == again.rows()  # dropout drew the same numbers
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, p in model.named_parameters():
        grad, copied = gradients[name]
        assert p.grad is grad
        assert torch.equal(grad, copied)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.head.bias"]
    assert not ledgers[0][0]["grad_stale"]  # the model's own gradients were not taken along


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ValueError, {"optimizer": "Adamw"}, r"optimizer='Adamw': choose one of 'SGD', 'Adam', 'AdamW'"),
        (ValueError, {"zero_grad": None}, r"zero_grad=None: choose one of 'None', 'zeros', 'never'"),
        (ValueError, {"freezing": "flag"}, r"freezing='flag': choose one of 'nothing', 'requires_grad'"),
        (ValueError, {"frozen": "bdoy"}, r"pattern 'bdoy' matches nothing; near names: .*body"),
        (ValueError, {"optimizer": "Adam", "momentum": 0.9}, "Adam has no momentum: leave it 0"),
        (ValueError, {"optimizer": "Rprop", "weight_decay": 0.1}, "Rprop has no weight_decay: leave it 0"),
        (ValueError, {"steps": 0}, "steps=0: train one step or more"),
        (ValueError, {"frozen": "*", "freezing": "requires_grad"}, "every parameter that trains"),
        (ValueError, {"lr": -1.0}, "Invalid learning rate"),
    ],
)
def test_what_cannot_be_run_is_refused(kind, settings, message):
    with pytest.raises(kind, match=message):
        freeze_trial(Net(), loss, **({"frozen": "body"} | settings))


def test_a_loss_that_is_none_is_refused():
    other = Net()
    with pytest.raises(ValueError, match="left no gradient in the model it was given"):
        freeze_trial(Net(), lambda net: loss(other), frozen="body")
    with pytest.raises(TypeError, match="must return a tensor, not float"):
        freeze_trial(Net(), lambda net: loss(net).item(), frozen="body")
    with pytest.raises(TypeError, match="must be a function of the model, not Tensor"):
        freeze_trial(Net(), loss(other), frozen="body")
    with pytest.raises(TypeError, match=r"needs a torch\.nn\.Module, not list"):
        freeze_trial([], loss, frozen="body")


def test_what_an_optimizer_does_not_know():
    assert not_used("SGD") == not_used("RMSprop") == ()
    assert not_used("Adam") == not_used("AdamW") == not_used("Adagrad") == ("momentum",)
    assert not_used("LBFGS") == ("momentum", "weight_decay")
    with pytest.raises(ValueError, match="choose one of 'SGD'"):
        not_used("sgd")
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "LBFGS"} <= OPTIMIZERS.keys()
    for name in OPTIMIZERS:
        known = vars(getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(2, 2))], lr=0.1))["defaults"]
        assert {"momentum", "weight_decay"} - known.keys() == set(not_used(name)), name


def test_a_trial_starts_from_the_same_weights_and_says_what_it_leaves_out():
    net = Net()
    trial = FreezeTrial(net, loss, "body", steps=2)
    first = trial(optimizer="Adam", momentum=0.9).rows()
    assert trial.not_used(optimizer="Adam", momentum=0.9) == {"momentum": "not used by Adam"}
    assert trial.not_used(optimizer="SGD", momentum=0.9) == {}
    with torch.no_grad():
        net.head.weight.add_(1)
    assert trial(optimizer="Adam", momentum=0.0).rows() == first
    with pytest.raises(ValueError, match="matches nothing"):
        FreezeTrial(net, loss, "tail")


def test_the_article_s_network_by_its_own_trial():
    state = torch.get_rng_state()
    trial = FreezeTrial.of_the_article()
    zeros = trial(optimizer="AdamW", zero_grad="zeros", freezing="requires_grad")
    none = trial(optimizer="AdamW", zero_grad="None", freezing="requires_grad")
    assert torch.equal(torch.get_rng_state(), state)
    reasons = [[step["hidden_task1.weight"].reason for step in ledger] for ledger in (zeros, none)]
    assert reasons[0] == [Reason.GRADIENT, Reason.MOMENTUM, Reason.MOMENTUM]
    assert reasons[1] == [Reason.GRADIENT, Reason.NO_GRADIENT, Reason.NO_GRADIENT]

    net = Network.from_article(softmax=False)
    before = net.output.weight.detach().clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0)
    for task, (inputs, targets) in article_batch().items():
        cross_entropy(net(inputs, task), targets).backward()
    optimizer.step()
    step = torch.linalg.vector_norm(net.output.weight.detach() - before).item()
    assert zeros[0]["output.weight"].delta_norm == pytest.approx(step, rel=1e-5)
