"""Reasons and parts against update rules written by hand, and over every optimizer of the installed torch."""

import inspect
import itertools

import pytest
import torch
from torch import nn

from layerlab.ledger import watch
from layerlab.record import MOVED_BY, STAYED_BECAUSE, Reason

OPTIM = torch.optim
CLASSES = sorted(
    (
        cls
        for _, cls in inspect.getmembers(OPTIM, inspect.isclass)
        if issubclass(cls, OPTIM.Optimizer) and cls is not OPTIM.Optimizer
    ),
    key=lambda cls: cls.__name__,
)


def build(cls, params, lr=0.1, **options):
    if cls.__name__ in ("Adafactor", "Adadelta"):
        lr = 1.0
    return cls(params, lr=lr, **options)


def two_layers(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))


def two_steps_then_zero_gradient(optimizer_for, zero="0.weight"):
    """Two ordinary steps, then one in which a parameter's gradient is a tensor of zeros."""
    net = two_layers()
    optimizer = optimizer_for(net.parameters())
    with watch(net, optimizer, keep="all") as ledger:
        for step in range(3):
            torch.manual_seed(step + 1)
            optimizer.zero_grad()
            net(torch.randn(5, 3)).square().mean().backward()
            if step == 2:
                net.get_parameter(zero).grad.zero_()
            optimizer.step()
    return ledger


# -- the update rules, by hand, in double precision ----------------------------------------------------------


def sgd_parts(p, g, buf, first, lr, momentum, dampening, weight_decay, nesterov):
    """SGD is linear, so each part has a formula (Sutskever et al. 2013; torch.optim.SGD's documentation)."""
    if not momentum:
        keep, scale = 0.0, 1.0
    elif nesterov:
        scale = 1 + momentum
        keep = 0.0 if first else momentum**2
    else:
        scale = 1.0 if first else 1 - dampening
        keep = 0.0 if first else momentum
    state = buf if buf is not None else torch.zeros_like(p)
    return -lr * scale * g, -lr * keep * state, -lr * scale * weight_decay * p


def adam_step(p, g, m, v, top, t, lr, betas, eps, weight_decay, decoupled, amsgrad):
    """One Adam step (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019), AMSGrad (Reddi et al. 2018)."""
    b1, b2 = betas
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    top = torch.maximum(top, v)
    used = top if amsgrad else v
    return p - lr / (1 - b1**t) * m / (used.sqrt() / (1 - b2**t) ** 0.5 + eps)


SGD_SETTINGS = [
    dict(momentum=m, dampening=d, weight_decay=w, nesterov=n)
    for m, d, w, n in itertools.product((0.0, 0.9), (0.0, 0.3), (0.0, 0.05), (False, True))
    if not (n and (d or not m)) and not (d and not m)
]


@pytest.mark.parametrize("options", SGD_SETTINGS, ids=str)
def test_sgd_parts_are_the_formula(options):
    net, lr = two_layers(), 0.1
    optimizer = OPTIM.SGD(net.parameters(), lr=lr, **options)
    with watch(net, optimizer, keep="all") as ledger:
        for step in range(4):
            torch.manual_seed(step)
            optimizer.zero_grad()
            net(torch.randn(5, 3)).square().mean().backward()
            optimizer.step()
    for step, name in itertools.product(range(4), ("0.weight", "1.weight")):
        values = ledger.values(step, name)
        buf = ledger.values(step - 1, name).state.get("momentum_buffer") if step else None
        before, gradient = values.before.double(), values.gradient.double()
        buf = None if buf is None else buf.double()
        expected = sgd_parts(before, gradient, buf, step == 0, lr, **options)
        for part, ours in zip(expected, ("gradient", "momentum", "weight_decay"), strict=True):
            torch.testing.assert_close(values.parts[ours], part, rtol=1e-4, atol=3e-7)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("cls", [OPTIM.Adam, OPTIM.AdamW])
def test_adam_parts_are_the_rule_stepped_without(cls, weight_decay, amsgrad):
    net = two_layers()
    lr, betas, eps = 0.01, (0.9, 0.999), 1e-8
    optimizer = cls(net.parameters(), lr=lr, weight_decay=weight_decay, amsgrad=amsgrad)
    with watch(net, optimizer, keep="all") as ledger:
        for step in range(4):
            torch.manual_seed(step)
            optimizer.zero_grad()
            (net(torch.randn(5, 3)).square().mean() * (1 - 0.3 * step)).backward()
            optimizer.step()
    for step, name in itertools.product(range(4), ("0.weight", "1.weight")):
        values = ledger.values(step, name)
        p, g = values.before.double(), values.gradient.double()
        old = ledger.values(step - 1, name).state if step else {}
        m, v, top = (
            old[k].double() if k in old else torch.zeros_like(p)
            for k in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
        )

        def hand(gradient, decay, p=p, m=m, v=v, top=top, t=step + 1):
            return adam_step(p, gradient, m, v, top, t, lr, betas, eps, decay, cls is OPTIM.AdamW, amsgrad)

        full, zero, bare = hand(g, weight_decay), hand(0 * g, weight_decay), hand(0 * g, 0.0)
        close = dict(rtol=1e-3, atol=3e-7)
        torch.testing.assert_close(values.parts["gradient"], full - zero, **close)
        torch.testing.assert_close(values.parts["weight_decay"], zero - bare, **close)
        torch.testing.assert_close(values.parts["momentum"], bare - p, **close)


# -- which part moves a layer whose gradient is zero ---------------------------------------------------------

ZERO_GRADIENT = {
    "SGD": (lambda p: OPTIM.SGD(p, 0.1), Reason.ZERO_GRADIENT),
    "SGD momentum": (lambda p: OPTIM.SGD(p, 0.1, momentum=0.9), Reason.MOMENTUM),
    "SGD weight decay": (lambda p: OPTIM.SGD(p, 0.1, weight_decay=0.01), Reason.WEIGHT_DECAY),
    "RMSprop": (lambda p: OPTIM.RMSprop(p, 0.1), Reason.ZERO_GRADIENT),
    "RMSprop momentum": (lambda p: OPTIM.RMSprop(p, 0.1, momentum=0.9), Reason.MOMENTUM),
    "RMSprop weight decay": (lambda p: OPTIM.RMSprop(p, 0.1, weight_decay=0.01), Reason.WEIGHT_DECAY),
    "Adagrad": (lambda p: OPTIM.Adagrad(p, 0.1), Reason.ZERO_GRADIENT),
    "Adagrad weight decay": (lambda p: OPTIM.Adagrad(p, 0.1, weight_decay=0.01), Reason.WEIGHT_DECAY),
    "Adadelta": (lambda p: OPTIM.Adadelta(p, 1.0), Reason.ZERO_GRADIENT),
    "Rprop": (lambda p: OPTIM.Rprop(p, 0.1), Reason.ZERO_GRADIENT),
    "Adam": (lambda p: OPTIM.Adam(p, 0.1), Reason.MOMENTUM),
    "Adam fused": (lambda p: OPTIM.Adam(p, 0.1, fused=True), Reason.MOMENTUM),
    "Adam foreach": (lambda p: OPTIM.Adam(p, 0.1, foreach=True), Reason.MOMENTUM),
    "Adam no beta1": (lambda p: OPTIM.Adam(p, 0.1, betas=(0.0, 0.999)), Reason.ZERO_GRADIENT),
    "AdamW": (lambda p: OPTIM.AdamW(p, 0.1), Reason.MOMENTUM),
    "AdamW no beta1": (lambda p: OPTIM.AdamW(p, 0.1, betas=(0.0, 0.999)), Reason.WEIGHT_DECAY),
    "NAdam": (lambda p: OPTIM.NAdam(p, 0.1), Reason.MOMENTUM),
    "RAdam": (lambda p: OPTIM.RAdam(p, 0.1), Reason.MOMENTUM),
    "Adamax": (lambda p: OPTIM.Adamax(p, 0.1), Reason.MOMENTUM),
    "ASGD": (lambda p: OPTIM.ASGD(p, 0.1), Reason.WEIGHT_DECAY),  # its lambd decays the weights
    "tensor lr": (lambda p: OPTIM.SGD(p, torch.tensor(0.1), weight_decay=0.01), Reason.WEIGHT_DECAY),
    "Adafactor": (lambda p: OPTIM.Adafactor(p, 0.1), Reason.ZERO_GRADIENT),
}
if hasattr(OPTIM, "Muon"):
    ZERO_GRADIENT["Muon"] = (lambda p: OPTIM.Muon(p, 0.1, weight_decay=0.0), Reason.MOMENTUM)


@pytest.mark.parametrize("name", ZERO_GRADIENT)
def test_reason_for_a_zero_gradient(name):
    optimizer_for, expected = ZERO_GRADIENT[name]
    ledger = two_steps_then_zero_gradient(optimizer_for)
    still, other = ledger[-1]["0.weight"], ledger[-1]["1.weight"]
    assert still.grad == "zero"
    assert still.reason is expected
    assert still.moved == (expected in MOVED_BY)
    assert still.moved != torch.equal(*_before_after(ledger, 2, "0.weight"))
    assert other.reason is Reason.GRADIENT


def _before_after(ledger, step, name):
    values = ledger.values(step, name)
    return values.before, values.after


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_optimizer_is_explained_or_unknown(cls):
    """For every class in torch.optim: right or unknown, and the parts sum to Δ."""
    if cls is OPTIM.SparseAdam:
        torch.manual_seed(0)
        net = nn.Embedding(6, 3, sparse=True)
        batch = torch.tensor([1, 4])
    else:
        net = two_layers()
        batch = torch.randn(5, 3)
    optimizer = build(cls, net.parameters())

    def closure():
        optimizer.zero_grad()
        loss = net(batch).square().mean()
        loss.backward()
        return loss

    with watch(net, optimizer, keep="all") as ledger:
        for _ in range(3):
            if cls is OPTIM.LBFGS:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
    for step, name in itertools.product(ledger, ledger[0]):
        tensor, values = step[name], ledger.values(step.index, name)
        assert tensor.moved != torch.equal(values.before, values.after)
        if cls is OPTIM.LBFGS:
            assert tensor.reason is Reason.UNKNOWN
            assert "closure" in step.note
            continue
        assert tensor.reason is Reason.GRADIENT
        delta = values.after.double() - values.before.double()
        torch.testing.assert_close(sum(values.parts.values()), delta, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "optimizer_for",
    [
        lambda p: OPTIM.SGD(p, 0.1, momentum=0.9),
        lambda p: OPTIM.Adam(p, 0.1),
        lambda p: OPTIM.Adafactor(p, 0.1),
    ],
    ids=["SGD", "Adam", "Adafactor"],
)
def test_a_sample_of_a_large_tensor_gives_the_reason_of_the_whole(optimizer_for):
    torch.manual_seed(0)
    results = []
    for explain in (64, "all"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 3))
        optimizer = optimizer_for(net.parameters())
        with watch(net, optimizer, explain=explain) as ledger:
            for step in range(4):
                optimizer.zero_grad(set_to_none=False)
                loss = net(torch.ones(2, 40)).square().mean() * (0 if step == 3 else 1)
                loss.backward()
                optimizer.step()
        results.append(ledger)
    sampled, whole = results
    for a, b in zip(sampled, whole, strict=True):
        assert [t.reason for t in a.values()] == [t.reason for t in b.values()]
        assert Reason.UNKNOWN not in {t.reason for t in a.values()}
    assert whole[0]["0.weight"].parts.elements == 2000
    elementwise = "Adafactor" not in ledger[0].optimizer_type
    assert sampled[0]["0.weight"].parts.sampled == elementwise


class Hybrid(OPTIM.Optimizer):
    """Element by element, but for groups or for matrices that are to be stepped as a whole."""

    def __init__(self, params, *, lr):
        super().__init__(params, {"lr": lr, "whole": False, "matrices_whole": False})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                whole = group["whole"] or (group["matrices_whole"] and p.dim() == 2)
                p.sub_(p.grad / p.grad.norm() if whole else p.grad, alpha=group["lr"])


@pytest.mark.parametrize("option", ["whole", "matrices_whole"])
def test_a_sample_is_trusted_for_each_way_of_stepping_alone(option):
    """Had the first tensor settled it for all, the first step of the last would have had no reason."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.LayerNorm(100), nn.Linear(100, 20, bias=False))
    groups = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "whole": True}]
    if option == "matrices_whole":
        groups = [{"params": net.parameters(), "matrices_whole": True}]
    optimizer = Hybrid(groups, lr=0.1)
    with watch(net, optimizer, explain=64) as ledger:
        for _ in range(2):
            optimizer.zero_grad()
            net(torch.randn(2, 100)).square().mean().backward()
            optimizer.step()
    for step in ledger:
        assert {t.reason for t in step.values()} == {Reason.GRADIENT}
        assert [t.parts.sampled for t in step.values()] == [True, True, False]


def test_below_resolution_is_told_from_zero():
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    optimizer = OPTIM.SGD(net.parameters(), lr=1e-3)
    with watch(net, optimizer) as ledger:
        net.weight.grad = torch.full((2, 2), 1e-6)  # 1 − 1e-9 is 1 in single precision
        optimizer.step()
        net.weight.grad = torch.zeros(2, 2)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.0
        net.weight.grad = torch.ones(2, 2)
        optimizer.step()
        net.weight.grad = None
        optimizer.step()
    reasons = [step["weight"].reason for step in ledger]
    assert reasons == [
        Reason.BELOW_RESOLUTION,
        Reason.ZERO_GRADIENT,
        Reason.LR_ZERO,
        Reason.NO_GRADIENT,
    ]
    assert all(reason in STAYED_BECAUSE for reason in reasons)


@pytest.mark.parametrize("kind", [OPTIM.SGD, OPTIM.AdamW])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("size", [2, 3000])
def test_what_is_inf_or_nan_already_stays_so(kind, value, size):
    """A run that has diverged stands still: that is no matter of resolution."""
    weight = nn.Parameter(torch.full((2, size), value))
    net = nn.ParameterDict({"weight": weight})
    optimizer = kind(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        with torch.no_grad():
            weight[1, -1] = 1.0
        optimizer.step()
        weight.grad = torch.ones_like(weight)
        weight.grad[1, -1] = 1e-12 if kind is OPTIM.SGD else 1.0
        optimizer.step()
    assert ledger[0]["weight"].reason is Reason.NONFINITE
    assert not ledger[0]["weight"].moved
    assert ledger[1]["weight"].reason is Reason.GRADIENT  # one number is left that can move
    assert ledger[2]["weight"].reason is (Reason.BELOW_RESOLUTION if kind is OPTIM.SGD else Reason.GRADIENT)


class NoisySGD(OPTIM.SGD):
    """Langevin noise: a step that no replay can reproduce, because it draws random numbers."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.add_(torch.randn_like(p), alpha=0.01)


class HiddenDecay(OPTIM.SGD):
    """Decays its weights under a name of its own."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(0.99)
        super().step(closure)


def test_subclasses_that_call_super_step_give_one_entry_a_step():
    net = two_layers()
    OPTIM.SGD(net.parameters(), lr=0.1)  # its class is patched with hooks now: super().step() fires them too
    optimizer = HiddenDecay(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            net[1](torch.ones(1, 4)).sum().backward()
            net[0].weight.grad = torch.zeros_like(net[0].weight)
            optimizer.step()
    assert len(ledger) == 3
    assert ledger[-1]["0.weight"].reason is Reason.WEIGHT_DECAY
    assert ledger[-1]["1.weight"].reason is Reason.GRADIENT


def test_randomness_is_neither_disturbed_nor_explained_wrongly():
    def run(watched):
        net = two_layers()
        optimizer = NoisySGD(net.parameters(), lr=0.1)
        torch.manual_seed(7)
        ledger = watch(net, optimizer)
        if watched:
            ledger.__enter__()
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(5, 3)).square().mean().backward()
            optimizer.step()
        if watched:
            ledger.__exit__(None, None, None)
        return net, ledger

    plain, _ = run(False)
    watched, ledger = run(True)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    # A replay that draws the same numbers reproduces the step; the noise must then not be called momentum.
    assert {t.reason for step in ledger for t in step.values()} <= {Reason.GRADIENT, Reason.UNKNOWN}


def test_lr_zero_does_not_hold_asgd_for_one_step():
    """ASGD steps by an eta that it worked out from the lr one step earlier.

    When it stays at last, setting lr to 1 would not move it in that step either: not blamed on lr.
    """
    net = two_layers()
    optimizer = OPTIM.ASGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        for lr in (0.1, 0.0, 0.0):
            optimizer.param_groups[0]["lr"] = lr
            net(torch.ones(5, 3)).square().mean().backward()
            before = net[0].weight.detach().clone()
            optimizer.step()
            assert ledger[-1]["0.weight"].moved != torch.equal(before, net[0].weight)
    assert [s["0.weight"].reason for s in ledger] == [Reason.GRADIENT, Reason.GRADIENT, Reason.UNKNOWN]


def test_lr_zero_is_not_blamed_where_it_is_not_read():
    """Rprop reads lr once, at its first step: later it stays for a zero gradient, not for lr = 0."""
    net = two_layers()
    optimizer = OPTIM.Rprop(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        for scale in (1.0, 1.0, 0.0):
            optimizer.zero_grad()
            (net(torch.ones(5, 3)).square().mean() * scale).backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 0.0
    assert [s["0.weight"].reason for s in ledger] == [Reason.GRADIENT, Reason.GRADIENT, Reason.ZERO_GRADIENT]
