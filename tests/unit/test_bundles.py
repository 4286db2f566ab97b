"""Samples stepped as one long tensor give what each would have given alone."""

import inspect

import pytest
import torch
from torch import nn

from layerlab import replay
from layerlab.bundles import bundles
from layerlab.ledger import watch
from layerlab.record import Reason

OPTIM = torch.optim
WHOLE_TENSORS = {"Adafactor", "LBFGS", "Muon", "SparseAdam"}
CLASSES = [
    cls
    for name, cls in sorted(vars(OPTIM).items())
    if inspect.isclass(cls) and issubclass(cls, OPTIM.Optimizer) and cls is not OPTIM.Optimizer
    if name not in WHOLE_TENSORS
]


def run(cls, explain):
    """Five steps: all layers train, one pauses by None, one gets zeros, all train again."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 6), nn.ReLU(), nn.Linear(6, 3))
    options = {"momentum": 0.9} if "momentum" in inspect.signature(cls).parameters else {}
    if "weight_decay" in inspect.signature(cls).parameters:
        options["weight_decay"] = 0.01
    optimizer = cls(net.parameters(), lr=0.05, **options)
    with watch(net, optimizer, explain=explain) as ledger:
        for step in range(5):
            optimizer.zero_grad()
            net(torch.randn(7, 40)).square().mean().backward()
            if step == 1:
                net[2].weight.grad = None
            if step == 3:
                net[4].weight.grad.zero_()
            optimizer.step()
    return ledger


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_together_and_alone_say_the_same(cls, monkeypatch):
    alone = run(cls, "all")
    sizes = []

    def spy(optimizer, parameters):
        found = bundles(optimizer, parameters)
        sizes.append((len(found), len(parameters)))
        return found

    monkeypatch.setattr(replay, "bundles", spy)
    together = run(cls, 64)
    assert any(few < many for few, many in sizes)
    assert len(together) == len(alone) == 5
    for a, b in zip(together, alone, strict=True):
        assert a.note == b.note == ""
        for name, t in a.items():
            assert t.moved == b[name].moved
            assert t.reason is b[name].reason
            # Rprop holds a tensor still whose gradient has changed its sign: no reason of ours says that.
            assert t.reason is not Reason.UNKNOWN or cls is OPTIM.Rprop
            if t.parts is not None and not t.parts.sampled:
                for part in ("gradient", "momentum", "weight_decay", "agreement"):
                    assert getattr(t.parts, part) == pytest.approx(getattr(b[name].parts, part), rel=1e-12)


def parameter(*shape, dtype=torch.float32):
    p = nn.Parameter(torch.ones(shape, dtype=dtype))
    p.grad = torch.ones_like(p)
    return p


def test_what_differs_in_more_than_its_values_goes_apart():
    a, b, half = parameter(2), parameter(3, 4), parameter(2, dtype=torch.float64)
    scalar, other = parameter(), parameter(2)
    optimizer = OPTIM.Adam([{"params": [a, b, half, scalar]}, {"params": [other], "lr": 0.5}])
    everything = [a, b, half, scalar, other]
    assert bundles(optimizer, everything) == [[0, 1], [2], [3], [4]]
    optimizer.step()
    assert bundles(optimizer, everything) == [[0, 1], [2], [3], [4]]
    b.grad = None
    optimizer.step()
    b.grad = torch.ones_like(b)
    assert bundles(optimizer, [a, b]) == [[0], [1]]  # their step counts differ
    optimizer.state[b] = dict(optimizer.state[a], exp_avg=torch.ones(7), exp_avg_sq=torch.ones(7))
    assert bundles(optimizer, [b, a]) == [[0], [1]]  # what is stored of b has not its shape


def test_a_sparse_gradient_goes_alone():
    net = nn.Embedding(4, 2, sparse=True)
    net(torch.tensor([1])).sum().backward()
    dense = parameter(4, 2)
    optimizer = OPTIM.SGD([net.weight, dense], lr=0.1)
    assert bundles(optimizer, [net.weight, dense]) == [[0], [1]]
