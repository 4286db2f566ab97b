"""The lines of plain PyTorch that a handle shows do the same as the freeze."""

import pytest
import torch
from frozen_net import Net, two_groups
from torch import nn

from layerlab.freezing import freeze


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return Net()


def run(code, net, optimizer=None):
    exec(code, {"model": net, "optimizer": optimizer, "torch": torch})


PATTERNS = ["first", "*", "deep", "*.bias", ["norm.weight", "deep.[02]"], ["first.bias", "norm", "deep.0"]]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("clear_grad", [True, False])
def test_code_of_requires_grad_does_the_same(net, pattern, clear_grad):
    net(torch.randn(6, 3)).sum().backward()
    twin = Net()
    twin(torch.randn(6, 3)).sum().backward()
    handle = freeze(net, pattern, clear_grad=clear_grad)
    run(handle.code, twin)
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in net.parameters()]
    assert [p.grad is None for p in twin.parameters()] == [p.grad is None for p in net.parameters()]
    assert [m.training for m in twin.modules()] == [m.training for m in net.modules()]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_code_of_grad_none_does_the_same_after_backward(net, pattern):
    twin = Net()
    handle = freeze(net, pattern, "grad_none")
    net(torch.randn(6, 3)).sum().backward()
    twin(torch.randn(6, 3)).sum().backward()
    run(handle.code, twin)
    assert [p.grad is None for p in twin.parameters()] == [p.grad is None for p in net.parameters()]
    assert [m.training for m in twin.modules()] == [m.training for m in net.modules()]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("named", [False, True])
def test_code_of_lr_zero_does_the_same(net, pattern, named):
    def make(model):
        return torch.optim.SGD(model.named_parameters(), lr=0.1) if named else two_groups(model)

    def shown(model, optimizer):
        names = {id(p): name for name, p in model.named_parameters()}
        return [
            (g["lr"], g["weight_decay"], g.get("param_names"), [names[id(p)] for p in g["params"]])
            for g in optimizer.param_groups
        ]

    twin = Net()
    optimizer, twin_optimizer = make(net), make(twin)
    handle = freeze(net, pattern, "lr_zero", optimizer=optimizer)
    for _ in range(2):  # a cell may be run again
        run(handle.code, twin, twin_optimizer)
        assert shown(twin, twin_optimizer) == shown(net, optimizer)


def test_code_reads_like_a_learners_own(net):
    assert freeze(net, ["norm", "deep.0"]).code.splitlines() == [
        "frozen = [*model.norm.parameters(), *model.deep[0].parameters()]",
        "for parameter in frozen:",
        "    parameter.requires_grad = False",
        "    parameter.grad = None  # one that is already there would still be applied",
        "for module in [model.norm]:",
        "    module.eval()  # and again after every model.train()",
    ]
    optimizer = two_groups(net)
    assert freeze(net, "deep", "lr_zero", optimizer=optimizer, batchnorm="train").code == (
        'optimizer.param_groups[1]["lr"] = 0.0'
    )


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_code_reaches_awkward_names_and_wrapped_models(wrap):
    def make():
        net = nn.ModuleDict({"a-b": nn.ModuleList([nn.Linear(1, 1)]), "class": nn.Linear(1, 1)})
        net.params = nn.ParameterList([torch.ones(1), torch.ones(1)])
        net.shared = nn.Linear(1, 1)
        net.shared.weight = net["class"].weight
        return net

    net, twin = make(), make()
    handle = freeze(wrap(net), ["a-b.0", "class", "params.1", "shared"])
    run(handle.code, wrap(twin))
    assert [(n, p.requires_grad) for n, p in twin.named_parameters()] == [
        (n, p.requires_grad) for n, p in net.named_parameters()
    ]
    assert "_orig_mod" not in handle.code
