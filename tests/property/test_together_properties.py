"""Random set-ups with faults, examined by all at once: the ledger, the freeze handles and the audit.

The oracle clones every tensor after each step. Whatever was drawn, the ledger must say what the clones say,
what a handle holds must stay, and the audit must come true: what it names does what it says, and what it is
silent about trains if it is trainable and rests if it is frozen.
"""

import contextlib
from dataclasses import dataclass, field

import torch
from every_optimizer import OPTIMIZERS
from hypothesis import event, given
from hypothesis import strategies as st
from torch import nn

from layerlab.auditing import audit
from layerlab.freezing import freeze
from layerlab.ledger import watch

PARTS = ["stem", "norm", "block", "bare", "head"]
NEVER_TRAINS = {"in-no-optimizer", "layer-replaced", "other-model"}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Net(nn.Module):
    """A stem, two norms (one without weights), a block that may share the stem's weight, and a head."""

    def __init__(self, tied):
        super().__init__()
        self.stem = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.block = nn.Linear(3, 3)
        self.bare = nn.BatchNorm1d(3, affine=False)
        self.head = nn.Linear(3, 2)
        if tied:
            self.block.weight = self.stem.weight

    def forward(self, x):
        x = self.norm(self.stem(x)).tanh()
        return self.head(self.bare(self.block(x)))


FREEZES = st.tuples(
    st.sampled_from(["flag", "flag", "handle", "handle", "grad_none", "lr_zero", "on module", "misspelt"]),
    st.sampled_from(PARTS),
)


@st.composite
def set_ups(draw):
    return {
        "seed": draw(st.integers(0, 2**16)),
        "tied": draw(st.booleans()),
        "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))),
        "members": draw(st.sampled_from(["all", "all", "trainable", "without head"])),
        "rates": draw(st.sampled_from([(0.1,), (0.1,), (0.1, 0.05), (0.1, 0.05), (0.0, 0.1), (0.1, 0.0)])),
        "before": draw(st.lists(FREEZES, max_size=1)),  # and then the optimizer is built
        "warm_up": draw(st.integers(0, 2)),
        "after": draw(st.lists(FREEZES, max_size=2)),
        "replaced": draw(st.sampled_from([None, None, None, "block", "head"])),
        "set_to_none": draw(st.booleans()),
        "gradients": draw(st.sampled_from(["left", "none", "zeros"])),  # as the audit finds them
        "bare_step": draw(st.booleans()),  # the first step comes before any zero_grad()
    }


@dataclass
class Made:
    """A set-up, and what its author did to it."""

    net: Net
    optimizer: torch.optim.Optimizer
    handles: list = field(default_factory=list)


def loss_of(net):
    return nn.functional.cross_entropy(net(torch.randn(8, 3)), torch.arange(8) % 2)


def backward(net):
    loss = loss_of(net)
    if loss.requires_grad:
        loss.backward()


def apply(made, freezes):
    for how, part in freezes:
        module = made.net.get_submodule(part)
        if how == "flag":
            module.requires_grad_(False)
        elif how == "on module":
            module.requires_grad = False
        elif how == "misspelt":
            for p in module.parameters():
                p.require_grad = False
        else:
            way = {"handle": "requires_grad"}.get(how, how)
            optimizer = {"optimizer": made.optimizer} if how == "lr_zero" else {}
            # Refused: lr_zero under Rprop, or of what the optimizer does not hold; then nothing is held.
            with contextlib.suppress(ValueError):
                made.handles.append(freeze(made.net, part, way, **optimizer))


def make(case):
    torch.manual_seed(case["seed"])
    made = Made(Net(case["tied"]), None)
    apply(made, [one for one in case["before"] if one[0] != "lr_zero"])
    chosen = {
        "all": list(made.net.parameters()),
        "trainable": [p for p in made.net.parameters() if p.requires_grad],
        "without head": [p for n, p in made.net.named_parameters() if not n.startswith("head")],
    }[case["members"]]
    many = len(case["rates"])
    groups = [{"params": chosen[i::many], "lr": lr} for i, lr in enumerate(case["rates"])]
    made.optimizer = OPTIMIZERS[case["optimizer"]](groups)
    for _ in range(case["warm_up"]):
        made.optimizer.zero_grad(set_to_none=case["set_to_none"])
        backward(made.net)
        made.optimizer.step()
    apply(made, case["after"])
    if case["replaced"]:
        setattr(made.net, case["replaced"], nn.Linear(3, 2 if case["replaced"] == "head" else 3))
    if case["gradients"] != "left":
        made.net.zero_grad(set_to_none=case["gradients"] == "none")
    return made


def state(net):
    return {n: t.detach().clone() for n, t in [*net.named_parameters(), *net.named_buffers()]}


def moved(before, after):
    return {n for n in after if before[n].numpy().tobytes() != after[n].numpy().tobytes()}


@given(set_ups())
def test_the_ledger_the_handles_and_the_audit_say_what_comes_true(case):
    made = make(case)
    net, optimizer = made.net, made.optimizer
    found = audit(net, optimizer)
    named = {}
    for finding in found:
        event(finding.code)
        named.setdefault(finding.code, set()).update(finding.names)
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    group_lr = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}

    steps, with_gradient = [], set()
    with watch(net, optimizer) as ledger:
        for number in range(3):
            last = state(net)
            if number or not case["bare_step"]:
                optimizer.zero_grad(set_to_none=case["set_to_none"])
                backward(net)
            # Not only rounding: before a norm, a bias has no gradient but that.
            large = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-3}
            with_gradient |= large
            optimizer.step()
            steps.append(moved(last, state(net)))
    ever = set.union(*steps)

    # The ledger: bit by bit what the clones say.
    for step, clones in zip(ledger, steps, strict=True):
        assert {name for name, t in step.items() if t.moved} == clones

    # The handles: what they hold stays, BatchNorm's statistics too.
    for handle in made.handles:
        still_there = {n for n in handle.names if n in last}
        replaced = {n for n in still_there if case["replaced"] and n.startswith(f"{case['replaced']}.")}
        assert not (still_there - replaced) & ever
    held = {n for handle in made.handles for n in handle.names}

    # The audit: what it says of a tensor comes true ...
    for code in NEVER_TRAINS & named.keys():
        assert not named[code] & ever, code
    if case["bare_step"]:
        for code in {"frozen-too-late", "frozen-zero-gradient"} & named.keys():
            assert named[code] <= steps[0], code
    if "lr-zero-moves" in named:
        assert named["lr-zero-moves"] & with_gradient <= ever
    asleep = named.get("lr-zero", set()) & set(last)
    assert not asleep & ever
    for module in named.get("frozen-statistics", ()):
        assert f"{module}.running_mean" in ever

    # ... and where it is silent, there is nothing to say: the frozen rest, the trainable train.
    warned = named.get("frozen-too-late", set()) | named.get("frozen-zero-gradient", set())
    assert not (frozen - warned) & ever
    unmoved = set().union(*(named.get(code, ()) for code in (*NEVER_TRAINS, "lr-zero")))
    for name, p in net.named_parameters():
        learns = p.requires_grad and name in with_gradient and name not in held and group_lr.get(id(p), 1) > 0
        if learns and name not in unmoved:
            assert name in ever, name
    norm = net.norm
    if norm.training and not any(p.requires_grad for p in norm.parameters()):
        silent = "norm" not in named.get("frozen-statistics", ())
        assert silent == (not ever & {f"norm.{buffer}" for buffer in STATISTICS})
