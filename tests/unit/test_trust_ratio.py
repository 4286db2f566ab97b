"""LARS and LAMB against the published rules, written out here in plain Python floats."""

import copy
import math

import pytest
import torch
from torch import nn

import layerlab as ll
from layerlab.experiments.trust_ratio import LAMB, LARS, trust_ratio

START = {"a": [0.5, -1.0, 2.0], "b": [0.25, 0.75], "c": [-1.5, 0.5, 0.125, 3.0]}
GROUPS = (("a", "c"), ("b",))
STEPS = 5


def gradient(name, step):
    """Some gradient, another one for each tensor and step, and of very different size."""
    scale = {"a": 1.0, "b": 1e-3, "c": 40.0}[name]
    return [scale * math.sin(1 + step + 2 * i) for i in range(len(START[name]))]


def length(values):
    return math.sqrt(sum(value * value for value in values))


def by_hand_lars(options):
    """Equation 6 and Algorithm 1, element by element."""
    w, v = copy.deepcopy(START), {name: [0.0] * len(start) for name, start in START.items()}
    for step in range(STEPS):
        for names, (lr, m, beta, eta) in zip(GROUPS, options, strict=True):
            for name in names:
                g = gradient(name, step)
                rate = eta * length(w[name]) / (length(g) + beta * length(w[name]))
                for i in range(len(g)):
                    v[name][i] = m * v[name][i] + lr * rate * (g[i] + beta * w[name][i])
                w[name] = [w_i - v_i for w_i, v_i in zip(w[name], v[name], strict=True)]
    return w


def by_hand_lamb(options):
    """Algorithm 2, element by element."""
    w = copy.deepcopy(START)
    m, v = ({name: [0.0] * len(start) for name, start in START.items()} for _ in range(2))
    for step in range(STEPS):
        for names, (lr, (b1, b2), eps, decay) in zip(GROUPS, options, strict=True):
            for name in names:
                g, update = gradient(name, step), []
                for i in range(len(g)):
                    m[name][i] = b1 * m[name][i] + (1 - b1) * g[i]
                    v[name][i] = b2 * v[name][i] + (1 - b2) * g[i] ** 2
                    m_hat, v_hat = m[name][i] / (1 - b1 ** (step + 1)), v[name][i] / (1 - b2 ** (step + 1))
                    update.append(m_hat / (math.sqrt(v_hat) + eps) + decay * w[name][i])
                ratio = length(w[name]) / length(update)
                w[name] = [w_i - lr * ratio * u_i for w_i, u_i in zip(w[name], update, strict=True)]
    return w


def parameters(dtype=torch.float64):
    return {name: nn.Parameter(torch.tensor(start, dtype=dtype)) for name, start in START.items()}


def take_steps(optimizer, ps, steps=range(STEPS), scale=1.0):
    for step in steps:
        for name, p in ps.items():
            p.grad = scale * torch.tensor(gradient(name, step), dtype=p.dtype)
        optimizer.step()


def in_groups(ps, first, second):
    return [
        {"params": [ps[name] for name in names], **own}
        for names, own in zip(GROUPS, (first, second), strict=True)
    ]


def assert_near(ps, expected, rel=1e-12):
    for name, p in ps.items():
        assert p.tolist() == pytest.approx(expected[name], rel=rel, abs=1e-14)


def test_lars_is_the_published_rule_over_steps_and_groups():
    ps = parameters()
    second = {"lr": 3.0, "momentum": 0.0, "weight_decay": 0.2, "trust_coefficient": 0.1}
    groups = in_groups(ps, {}, second)
    take_steps(LARS(groups, lr=2.0, momentum=0.9, weight_decay=0.01, trust_coefficient=0.02), ps)
    assert_near(ps, by_hand_lars([(2.0, 0.9, 0.01, 0.02), (3.0, 0.0, 0.2, 0.1)]))


def test_lamb_is_the_published_rule_over_steps_and_groups():
    ps = parameters()
    second = {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.0}
    groups = in_groups(ps, {}, second)
    take_steps(LAMB(groups, lr=0.02, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1), ps)
    assert_near(ps, by_hand_lamb([(0.02, (0.9, 0.99), 1e-6, 0.1), (0.1, (0.5, 0.9), 1e-3, 0.0)]))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_without_its_ratio_lars_is_sgd(momentum, decay):
    ours, theirs = parameters(), parameters()
    take_steps(LARS(ours.values(), lr=0.01, momentum=momentum, weight_decay=decay, adapt=False), ours)
    take_steps(torch.optim.SGD(theirs.values(), lr=0.01, momentum=momentum, weight_decay=decay), theirs)
    assert_near(ours, {name: p.tolist() for name, p in theirs.items()})


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_without_its_ratio_lamb_is_adamw(decay):
    ours, theirs = parameters(), parameters()
    take_steps(LAMB(ours.values(), lr=0.01, eps=1e-4, weight_decay=decay, adapt=False), ours)
    take_steps(torch.optim.AdamW(theirs.values(), lr=0.01, eps=1e-4, weight_decay=decay), theirs)
    assert_near(ours, {name: p.tolist() for name, p in theirs.items()})


def test_lr_enters_the_momentum_of_lars():
    """As published: after lr falls to 0, the velocity goes on. torch's SGD would stop at once."""
    ps = {"a": nn.Parameter(torch.tensor(START["a"], dtype=torch.float64))}
    optimizer = LARS(ps.values(), lr=1.0, momentum=0.5, adapt=False)
    take_steps(optimizer, ps, [0])
    first = [w - g for w, g in zip(START["a"], gradient("a", 0), strict=True)]
    optimizer.param_groups[0]["lr"] = 0.0
    take_steps(optimizer, ps, [1])
    assert_near(ps, {"a": [w - 0.5 * g for w, g in zip(first, gradient("a", 0), strict=True)]})


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_lars_takes_the_same_step_whatever_multiplies_the_loss(scale):
    ours, scaled = parameters(), parameters()
    for ps, factor in ((ours, 1.0), (scaled, scale)):
        take_steps(LARS(ps.values(), lr=1.0, momentum=0.0, trust_coefficient=0.1), ps, [0], factor)
    assert_near(scaled, {name: p.tolist() for name, p in ours.items()})


@pytest.mark.parametrize(
    ("make", "ratio"),
    [
        (lambda ps: LARS(ps, lr=5.0, momentum=0.0, trust_coefficient=0.002), 0.01),
        (lambda ps: LAMB(ps, lr=0.03, weight_decay=0.1), 0.03),
    ],
)
def test_every_tensor_moves_by_the_same_share_of_its_size(make, ratio):
    ps = parameters()
    take_steps(make(ps.values()), ps, [0])
    for name, p in ps.items():
        moved = length([now - was for now, was in zip(p.tolist(), START[name], strict=True)])
        assert moved / length(START[name]) == pytest.approx(ratio, rel=1e-12)


def test_a_ratio_without_a_norm_is_one():
    assert trust_ratio(0.0, 3.0, 0.1) == 1.0
    assert trust_ratio(3.0, 0.0, 0.1) == 1.0
    assert trust_ratio(3.0, 2.0) == 1.5
    assert trust_ratio(3.0, 2.0, 0.1) == pytest.approx(0.15)


def test_tensors_of_zeros_start_to_move_and_zero_gradients_do_not_divide():
    for make, expected in ((LARS, -0.1 * 2.0), (LAMB, -0.1 * 2.0 / (2.0 + 1e-6))):
        zeros, idle = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
        zeros.grad, idle.grad = torch.full((2,), 2.0), torch.zeros(2)
        make([zeros, idle], lr=0.1).step()
        assert zeros.tolist() == pytest.approx([expected] * 2)
        assert idle.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_what_has_no_gradient_is_skipped(make):
    ps = parameters()
    ps["a"].grad = torch.ones(3, dtype=torch.float64)
    optimizer = make(ps.values(), lr=0.1, weight_decay=0.1)
    optimizer.step()
    assert ps["a"].tolist() != START["a"]
    assert ps["b"].tolist() == START["b"]
    assert list(optimizer.state) == [ps["a"]]


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_it_goes_on_from_a_state_dict_as_if_nothing_had_been(make):
    straight, first = parameters(torch.float32), parameters(torch.float32)
    options = {"lr": 0.1, "weight_decay": 0.01}
    take_steps(make(straight.values(), **options), straight)
    optimizer = make(first.values(), **options)
    take_steps(optimizer, first, range(3))
    second = {name: nn.Parameter(p.detach().clone()) for name, p in first.items()}
    resumed = make(second.values(), lr=9.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(resumed, second, range(3, STEPS))
    assert all(torch.equal(second[name], p) for name, p in straight.items())


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_a_closure_runs_with_gradients_and_its_loss_comes_back(make):
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = make([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 5.0
    assert p.tolist() != [1.0, 2.0]


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 70), nn.Sigmoid(), nn.Linear(70, 70), nn.LayerNorm(70), nn.Linear(70, 3)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: LARS(ps, lr=3.0, weight_decay=0.01),
        lambda ps: LARS(ps, lr=3.0, momentum=0.0),
        lambda ps: LAMB(ps, lr=0.01, weight_decay=0.1),
        lambda ps: LAMB(ps, lr=0.01, adapt=False),
    ],
)
@pytest.mark.parametrize("explain", [4096, "all"])
def test_the_ledger_replays_its_steps_bit_for_bit(make, explain):
    with torch.random.fork_rng(devices=[]):
        net = make_net()
        x, y = torch.randn(8, 6), torch.randint(0, 3, (8,))
    optimizer = make(net.parameters())
    with ll.watch(net, optimizer, explain=explain) as ledger:
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    reasons = {t.reason for step in ledger for t in step.values()}
    assert reasons == {ll.Reason.GRADIENT}
    assert all(t.parts is not None for step in ledger for t in step.values())


@pytest.mark.parametrize("make", [LARS, LAMB])
@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"lr": -0.1}, ValueError, "lr=-0.1: give a finite number from 0 up"),
        ({"lr": math.nan}, ValueError, "lr=nan"),
        ({"lr": "0.1"}, TypeError, "lr='0.1'"),
        ({"weight_decay": -1}, ValueError, "weight_decay=-1"),
        ({"adapt": 1}, TypeError, "adapt=1: give True or False"),
    ],
)
def test_an_option_out_of_range_is_named(make, options, error, said):
    with pytest.raises(error, match=said):
        make([nn.Parameter(torch.ones(1))], **{"lr": 0.1, **options})


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (LARS, {"momentum": 1.0}, "momentum=1.0: give a finite number from 0 up, and below 1"),
        (LARS, {"trust_coefficient": 0}, "trust_coefficient=0: give a finite number above 0"),
        (LAMB, {"betas": (0.9, 1.0)}, r"betas\[1\]=1.0"),
        (LAMB, {"betas": 0.9}, "betas=0.9: give two numbers"),
        (LAMB, {"eps": 0.0}, "eps=0.0: give a finite number above 0"),
    ],
)
def test_an_option_of_one_of_them_out_of_range_is_named_also_in_a_group(make, options, said):
    with pytest.raises(ValueError, match=said):
        make([nn.Parameter(torch.ones(1))], lr=0.1, **options)
    optimizer = make([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_what_it_cannot_step_stops_it_before_anything_moves(make):
    good = nn.Parameter(torch.ones(2))
    good.grad = torch.ones(2)
    rows = nn.Embedding(4, 2, sparse=True)
    rows(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=f"{make.__name__} does not take sparse gradients"):
        make([good, rows.weight], lr=0.1).step()
    turning = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    turning.grad = torch.ones(2, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match="complex numbers"):
        make([good, turning], lr=0.1).step()
    assert good.tolist() == [1.0, 1.0]
