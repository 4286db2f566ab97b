"""Random nets and random sequences of freezing, training and releasing, against a small model of the rules.

The model (`Rules`) is written from what a learner may expect, not from how freezing works: who holds what,
which gradient was there, which mode was last asked for.
"""

from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layerlab.freezing import freeze, how_frozen

WIDTH = 3
WAYS = ["requires_grad", "grad_none", "lr_zero"]


class Net(nn.Module):
    """Tokens in, logits out: an embedding, blocks of a random kind, a head tied to the embedding or not."""

    def __init__(self, blocks, tied):
        super().__init__()
        self.embed = nn.Embedding(4, WIDTH)
        kinds = {
            "linear": lambda: nn.Linear(WIDTH, WIDTH),
            "norm": lambda: nn.BatchNorm1d(WIDTH),
            "plain norm": lambda: nn.BatchNorm1d(WIDTH, affine=False),
        }
        self.blocks = nn.ModuleList([kinds[kind]() for kind in blocks])
        self.head = nn.Linear(WIDTH, 4)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def make_optimizer(net, kind, layout):
    """One group of everything, two with an lr each, or one that knows names and has a tensor for its lr."""
    parameters = list(net.parameters())
    options = {"momentum": 0.9, "weight_decay": 0.1} if kind is torch.optim.SGD else {"weight_decay": 0.1}
    if layout == "one":
        return kind(parameters, lr=0.1, **options)
    if layout == "named":
        return kind(net.named_parameters(), lr=torch.tensor(0.1), **options)
    middle = len(parameters) // 2
    groups = [{"params": parameters[:middle], "lr": 0.3}, {"params": parameters[middle:]}]
    return kind(groups, lr=0.1, **options)


def layout_of(optimizer):
    """Every group's parameters and options; tensors by identity, lists as they are now."""

    def noted(value):
        if isinstance(value, list):
            return [noted(one) for one in value]
        return id(value) if isinstance(value, torch.Tensor) else value

    return [{key: noted(value) for key, value in group.items()} for group in optimizer.param_groups]


class Rules:
    """Who holds what, told from names alone."""

    def __init__(self, net):
        self.net = net
        self.names = {}
        for name, p in net.named_parameters(remove_duplicate=False):
            self.names.setdefault(p, []).append(name)
        self.flags = {p: p.requires_grad for p in self.names}
        self.modes = {module: module.training for module in net.modules()}
        self.active = []  # (handle, how, clears, parameters, norms), oldest first
        self.grads = {}  # the gradient that was there before the first handle cleared it, until a step

    def matching(self, pattern):
        """Parameters, then norm modules, that a glob or module name means."""

        def meant(name):
            return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")

        parameters = {p for p, names in self.names.items() if any(map(meant, names))}
        norms = set()
        for name, module in self.net.named_modules():
            if isinstance(module, nn.BatchNorm1d):
                own = set(module.parameters())
                if (own and own <= parameters) or meant(f"{name}.running_mean"):
                    norms.add(module)
        return parameters, norms

    def ways(self, p):
        """The ways in which a parameter is held, oldest first."""
        return [e[1] for e in self.active if p in e[3]]

    def guards(self, p):
        return bool({"requires_grad", "grad_none"} & set(self.ways(p)))

    def froze(self, handle, how, clears, pattern, batchnorm):
        parameters, norms = self.matching(pattern)
        self.active.append((handle, how, clears, parameters, norms if batchnorm == "eval" else set()))

    def before_freeze(self, pattern, how, clears):
        if how == "grad_none" or (how == "requires_grad" and clears):
            for p in self.matching(pattern)[0]:
                self.grads.setdefault(p, p.grad)

    def released(self, handle):
        entry = next(e for e in self.active if e[0] is handle)
        self.active.remove(entry)
        for p in [p for p in self.grads if p in entry[3] and not self.guards(p)]:
            assert p.grad is self.grads.pop(p), "not the gradient that was there"

    def stepped(self):
        """Every gradient that a handle took was meant for this step: none comes back, none is there."""
        for p in self.grads:
            assert p.grad is None
        self.grads.clear()

    def frozen(self):
        return {p for e in self.active for p in e[3]}

    def frozen_whatever_gradient_was_there(self):
        return {p for e in self.active if e[1] != "requires_grad" or e[2] for p in e[3]}

    def in_eval(self):
        return {module for e in self.active for module in e[4]}

    def check(self):
        """What must be true after every operation."""
        for p in self.names:
            ways = self.ways(p)
            assert how_frozen(p) == (ways[-1] if ways else None)
            assert p.requires_grad == (self.flags[p] and "requires_grad" not in ways)
        for module, mode in self.modes.items():
            assert module.training == (mode and module not in self.in_eval())
            assert ("train" in vars(module)) == (module in self.in_eval())


def step(optimizer, still):
    """Step, and see that nothing of what must stay still changed by a bit."""
    before = [(p, p.detach().clone()) for p in still]
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in before)


def backward(net, tokens):
    loss = net(tokens).square().mean()
    if loss.requires_grad:
        loss.backward()


def train_step(net, optimizer, rules, tokens):
    """One step of an ordinary loop: who is free gets a gradient, who is held stays still."""
    statistics = [b for module in rules.in_eval() for b in module.buffers()]
    before = [tensor.clone() for tensor in statistics]
    optimizer.zero_grad()
    backward(net, tokens)
    assert all(torch.equal(tensor, old) for tensor, old in zip(statistics, before, strict=True))
    for p in rules.names:
        assert (p.grad is not None) == (p.requires_grad and "grad_none" not in rules.ways(p))
    step(optimizer, rules.frozen())
    rules.stepped()


def check_failure_changes_nothing(net, optimizer, rules):
    """Bad patterns, and an optimizer that lacks the first parameter."""

    def everything():
        return (
            [(id(p.grad), p.requires_grad, how_frozen(p)) for p in rules.names],
            [(module.training, sorted(vars(module))) for module in net.modules()],
            layout_of(optimizer),
        )

    before = everything()
    with pytest.raises(ValueError, match="matches nothing"):
        freeze(net, ["*", "no such name"])
    other = torch.optim.SGD([net.head.bias], lr=1.0)
    with pytest.raises(ValueError, match="no group holds embed"):
        freeze(net, ["head.bias", "embed"], "lr_zero", optimizer=other)
    assert other.param_groups[0]["lr"] == 1.0
    assert everything() == before


PATTERNS = ["*", "embed", "blocks", "blocks.[02]", "blocks.1", "*.bias", "head", "head.weight", "*.weight"]
FREEZE = st.tuples(
    st.sampled_from(["freeze", "raise inside"]),
    st.sampled_from(PATTERNS),
    st.sampled_from(WAYS),
    st.sampled_from(["eval", "eval", "train"]),
    st.booleans(),
)
OPERATIONS = st.lists(
    st.one_of(
        FREEZE,
        FREEZE,
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.sampled_from(["step", "step", "backward", "bare step", "train", "eval", "fail"])),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=max(400, settings().max_examples))
@given(
    blocks=st.lists(st.sampled_from(["linear", "norm", "plain norm"]), min_size=2, max_size=3),
    tied=st.booleans(),
    kind=st.sampled_from([torch.optim.SGD, torch.optim.Adam]),
    layout=st.sampled_from(["one", "two", "named"]),
    untrained=st.sets(st.integers(0, 4)),
    in_eval=st.sets(st.integers(0, 4)),
    operations=OPERATIONS,
    last=st.randoms(use_true_random=False),
)
def test_frozen_stays_and_everything_comes_back(
    blocks, tied, kind, layout, untrained, in_eval, operations, last
):
    torch.manual_seed(0)
    net = Net(blocks, tied)
    optimizer = make_optimizer(net, kind, layout)
    tokens = torch.randint(4, (5,))
    net(tokens).square().mean().backward()
    optimizer.step()  # momentum and averages are there, and so are gradients
    for i, p in enumerate(net.parameters()):
        p.requires_grad = i not in untrained
    for i, module in enumerate(net.modules()):
        module.training = i not in in_eval
    rules, groups = Rules(net), layout_of(optimizer)

    for operation, *details in operations:
        if operation in ("freeze", "raise inside"):
            pattern, how, batchnorm, clears = details
            parameters, norms = rules.matching(pattern)
            options = {"optimizer": optimizer, "batchnorm": batchnorm, "clear_grad": clears}
            if not parameters and (batchnorm == "train" or not norms):
                with pytest.raises(ValueError, match="nothing to freeze"):
                    freeze(net, pattern, how, **options)
                continue
            rules.before_freeze(pattern, how, clears)
            handle = freeze(net, pattern, how, **options)
            rules.froze(handle, how, clears, pattern, batchnorm)
            if operation == "raise inside":
                rules.check()
                with pytest.raises(KeyError), handle:
                    raise KeyError
                rules.released(handle)
        elif operation == "release" and rules.active:
            handle = rules.active[details[0] % len(rules.active)][0]
            handle.release()
            rules.released(handle)
        elif operation == "step":
            train_step(net, optimizer, rules, tokens)
        elif operation == "backward":
            backward(net, tokens)
        elif operation == "bare step":  # without zero_grad(), with whatever gradients there are
            step(optimizer, rules.frozen_whatever_gradient_was_there())
            rules.stepped()
        elif operation in ("train", "eval"):
            getattr(net, operation)()
            rules.modes = dict.fromkeys(rules.modes, operation == "train")
        elif operation == "fail":
            check_failure_changes_nothing(net, optimizer, rules)
        rules.check()

    handles = [entry[0] for entry in rules.active]
    last.shuffle(handles)
    for handle in handles:
        handle.release()
        rules.released(handle)
        rules.check()
    assert not rules.grads
    assert layout_of(optimizer) == groups
