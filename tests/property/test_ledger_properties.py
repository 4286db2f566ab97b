"""Random models, optimizers, freezes and faults: the ledger against bitwise clones and deep copies.

The oracle shares no code with the ledger: it clones every tensor after each step, and it asks "would this
tensor have ended elsewhere with a zero gradient?" of a deep copy of model and optimizer.
"""

import copy
import itertools
import math

import torch
from every_optimizer import OPTIMIZERS
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from layerlab.ledger import watch
from layerlab.record import MOVED_BY, STAYED_BECAUSE, Reason

FAULTS = (
    "none",
    "none",
    "none",
    "grad None",
    "zero",
    "stale",
    "row zero",
    "nan",
    "tiny",
    "outside",
    "flag late",
)


class Net(nn.Module):
    """A stack of random layers; the last two linear ones may share their weight."""

    def __init__(self, widths, norms, tied):
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(b, affine=k != "bare") if k else nn.Identity()
            for (_, b), k in zip(pairs, norms, strict=False)
        )
        self.tied = nn.Linear(widths[0], widths[1], bias=False)
        if tied:
            self.tied.weight = self.layers[0].weight

    def forward(self, x):
        out = self.tied(x).mean()
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x))
        return out + x.square().mean()


@st.composite
def scenarios(draw):
    depth = draw(st.integers(1, 3))
    return {
        "widths": draw(st.lists(st.integers(1, 4), min_size=depth + 1, max_size=depth + 1)),
        "norms": draw(st.lists(st.sampled_from([None, "affine", "bare"]), min_size=depth, max_size=depth)),
        "tied": draw(st.booleans()),
        "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))),
        "seed": draw(st.integers(0, 2**16)),
        "left_out": draw(st.sets(st.integers(0, 7), max_size=2)),
        "frozen": draw(st.sets(st.integers(0, 7), max_size=2)),
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.float64])),
        "explain": draw(st.sampled_from([1, 4, "all"])),
        "steps": draw(
            st.lists(
                st.tuples(
                    st.booleans(),  # set_to_none
                    st.booleans(),  # train mode
                    st.sampled_from([0.1, 0.1, 0.0, 1e-12]),  # lr
                    st.lists(st.sampled_from(FAULTS), min_size=8, max_size=8),
                ),
                min_size=1,
                max_size=4,
            )
        ),
    }


def build(case):
    torch.manual_seed(case["seed"])
    net = Net(case["widths"], case["norms"], case["tied"]).to(case["dtype"])
    parameters = list(net.parameters())
    for i in case["frozen"]:
        parameters[i % len(parameters)].requires_grad_(False)
    if not any(p.requires_grad for p in parameters):
        parameters[0].requires_grad_(True)
    kept = [p for i, p in enumerate(parameters) if i not in case["left_out"]] or parameters
    return net, OPTIMIZERS[case["optimizer"]](kept), parameters


def spoil(parameters, faults, stale):
    """Bring the gradients into the state that the case asks for."""
    for p, fault, old in zip(parameters, faults * 2, stale, strict=False):
        if fault == "outside":
            p.data.add_(0.5)
        elif fault == "stale" and old is not None:
            p.grad = old
        elif p.grad is None:
            continue
        elif fault == "grad None":
            p.grad = None
        elif fault == "zero":
            p.grad.zero_()
        elif fault == "row zero":
            p.grad[0] = 0
        elif fault == "nan":
            p.grad.view(-1)[0] = float("nan")
        elif fault == "tiny":
            p.grad.mul_(1e-30)
        elif fault == "flag late":
            p.requires_grad_(False)


def run(case, on_step=None):
    net, optimizer, parameters = build(case)
    with watch(net, optimizer, keep="all", explain=case["explain"]) as ledger:
        for set_to_none, train, lr, faults in case["steps"]:
            stale = [p.grad for p in parameters]
            optimizer.param_groups[0]["lr"] = lr
            net.train(train)
            optimizer.zero_grad(set_to_none=set_to_none)
            loss = net(torch.randn(4, case["widths"][0], dtype=case["dtype"]))
            if loss.requires_grad:
                loss.backward()
            spoil(parameters, faults, stale)
            if on_step is not None:
                on_step(net, optimizer, ledger)
            else:
                optimizer.step()
    return net, ledger


def state(net):
    named = [*net.named_parameters(), *net.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def same(a, b):
    return a.numpy().tobytes() == b.numpy().tobytes()


@given(scenarios())
def test_moved_is_what_a_bitwise_clone_says(case):
    net, _, _ = build(case)
    seen = [state(net)]

    def step(net, optimizer, ledger):
        optimizer.step()
        seen.append(state(net))

    _, ledger = run(case, step)
    for record, before, after in zip(ledger, seen, seen[1:], strict=False):
        assert set(record) == set(before)
        for name, t in record.items():
            assert t.moved == (not same(before[name], after[name])), name
            assert t.reason in (MOVED_BY if t.moved else STAYED_BECAUSE), (name, t.reason)
            if not t.moved:
                assert t.delta_norm == t.delta_max == t.update_ratio == 0
            elif after[name].isfinite().all() and before[name].isfinite().all():
                delta = (after[name].double() - before[name].double()).norm()
                assert math.isclose(t.delta_norm, float(delta), rel_tol=1e-4, abs_tol=1e-12)


@given(scenarios())
def test_the_reason_is_right_or_unknown(case):
    def step(net, optimizer, ledger):
        held = {id(p) for g in optimizer.param_groups for p in g["params"]}
        lr = optimizer.param_groups[0]["lr"]
        parameters = dict(net.named_parameters())
        grads = {n: None if p.grad is None else p.grad.clone() for n, p in parameters.items()}
        before = state(net)
        twin, twin_optimizer = copy.deepcopy((net, optimizer))
        for p, original in zip(twin.parameters(), net.parameters(), strict=True):
            if original.grad is not None:  # a deep copy of a parameter has no gradient
                p.grad = torch.zeros_like(original.grad)
        twin_optimizer.step()
        ungraded = dict(twin.named_parameters())
        optimizer.step()
        for name, p in parameters.items():
            t = ledger[-1][name]
            by_step = not same(before[name], p.detach())
            if t.reason is Reason.UNKNOWN:
                continue
            elif id(p) not in held:
                assert t.reason in (Reason.NOT_IN_OPTIMIZER, Reason.OUTSIDE)
            elif grads[name] is None:
                assert t.reason in (Reason.NO_GRADIENT, Reason.OUTSIDE)
            elif not by_step:
                stays = {Reason.LR_ZERO, Reason.ZERO_GRADIENT, Reason.BELOW_RESOLUTION, Reason.OUTSIDE}
                assert t.reason in {*stays, Reason.NONFINITE}
                if t.reason is Reason.NONFINITE:
                    assert not p.isfinite().all()
                if t.reason is Reason.BELOW_RESOLUTION:
                    assert p.isfinite().any()
                if t.reason is Reason.ZERO_GRADIENT:
                    assert not grads[name].any()
                if t.reason is Reason.LR_ZERO:
                    assert lr == 0
            elif not same(ungraded[name].detach(), p.detach()):
                assert t.reason is Reason.GRADIENT
            else:
                assert t.reason in (Reason.MOMENTUM, Reason.WEIGHT_DECAY)
            assert (t.grad == "none") == (grads[name] is None)

    run(case, step)


@given(scenarios())
def test_parts_sum_to_the_step(case):
    def step(net, optimizer, ledger):
        before = state(net)
        optimizer.step()
        for name, t in ledger[-1].items():
            values = ledger.values(-1, name)
            if values.parts and values.after.isfinite().all():
                delta = values.after.double() - before[name].double()
                torch.testing.assert_close(sum(values.parts.values()), delta, rtol=1e-9, atol=1e-12)
                norm = float(values.parts["momentum"].norm())
                assert math.isclose(t.parts.momentum, norm, rel_tol=1e-6, abs_tol=1e-12)

    run(case, step)


@given(scenarios())
def test_watching_changes_nothing(case):
    net, optimizer, parameters = build(case)
    for set_to_none, train, lr, faults in case["steps"]:
        stale = [p.grad for p in parameters]
        optimizer.param_groups[0]["lr"] = lr
        net.train(train)
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = net(torch.randn(4, case["widths"][0], dtype=case["dtype"]))
        if loss.requires_grad:
            loss.backward()
        spoil(parameters, faults, stale)
        optimizer.step()
    watched, _ = run(case)
    for (name, a), b in zip(state(net).items(), state(watched).values(), strict=True):
        assert same(a, b), name
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in watched.modules())
