"""Hundreds of random events on panels and on the model below them; after each, what is shown is what is so.

What is so is computed here from the model, from the optimizer's groups and from who holds what, not by the
panel's own reading; and by training a step, in which what is shown as frozen must not move and all else must.
"""

import gc
import os
import random
import weakref

import pytest
import torch
from torch import nn
from torch.optim import optimizer as optimizer_hooks

from layerlab.freezing import batchnorm_choice, freeze, gradients, learning_rates, ways_held
from layerlab.widgets import freeze_history, freeze_switchboard
from layerlab.widgets.freeze_panel import FreezePanel

EVENTS = 250
SEEDS = 25 if os.environ.get("LAYERLAB_CASES") else 2
LAYERS = ["embed", "block", "norm", "head"]


class Net(nn.Module):
    """BatchNorm with and without parameters, and a head tied to the embedding."""

    def __init__(self, tied):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3)))
        self.norm = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 5)
        if tied:
            self.head.weight = self.embed.weight
        self.double()

    def forward(self, tokens):
        return self.head(self.norm(self.block(self.embed(tokens))))


def make(tied, groups):
    net = Net(tied)
    everything = list(net.parameters())
    split = [{"params": everything[:3]}, {"params": everything[3:], "lr": 0.03}]
    return net, torch.optim.SGD(split if groups == 2 else everything, lr=0.1, momentum=0.9)


def lr_of(optimizer):
    return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}


def is_frozen(p, lrs):
    return not p.requires_grad or "grad_none" in ways_held(p) or lrs.get(id(p)) == 0


def whole(net, optimizer, own):
    """All that an undo has to bring back, by identity where that counts: not for groups split off."""
    return (
        [(name, id(p), p.requires_grad, id(p.grad)) for name, p in net.named_parameters()],
        [(id(g), g["lr"], list(map(id, g["params"]))) for g in optimizer.param_groups[:own]],
        sorted((list(map(id, g["params"])), g["lr"]) for g in optimizer.param_groups[own:]),
        [module.training for module in net.modules()],
        [sorted(ways_held(p)) for p in net.parameters()],
    )


def expected_rows(net, optimizer):
    lrs, below = lr_of(optimizer), {}
    for full, p in net.named_parameters(remove_duplicate=False):
        parts = full.split(".")
        for end in range(1, len(parts) + 1):
            below.setdefault(".".join(parts[:end]), []).append(is_frozen(p, lrs))
    return {n: "true" if all(v) else "mixed" if any(v) else "false" for n, v in below.items()}


class Play:
    """One model with its panels, and all that may happen to them."""

    def __init__(self, seed, tied, groups):
        torch.manual_seed(seed)
        self.random = random.Random(seed)
        self.shape = (tied, groups)
        self.net, self.optimizer = make(tied, groups)
        self.owned = [set(map(id, group["params"])) for group in self.optimizer.param_groups]
        self.panels = [FreezePanel(self.net, self.optimizer)]
        self.handles = []
        self.seen = set()
        self.refused = 0

    @property
    def panel(self):
        return self.random.choice(self.panels)

    # -- what the learner does with a panel --

    def flip(self):
        row = self.random.choice(self.panel.tree.rows)
        message = {"kind": "flip", "name": row["name"], "on": row["checked"] != "true", "number": "v-1"}
        self.panel.tree._receive(None, message, [])

    def depth(self):
        panel = self.panel
        panel.depth.value = self.random.choice(panel.depth.options)

    def method(self):
        panel = self.panel
        panel.method.value = self.random.choice(panel.method.options)

    def clear_grad(self):
        panel = self.panel
        panel.clear_grad.value = not panel.clear_grad.value

    def clear_now(self):
        self.panel._clear_button.click()

    def lr(self):
        self.random.choice(self.panel.lrs).value = self.random.choice([0.3, 0.01, 0.002])

    def release(self):
        self.panel.release()

    def undo(self):
        self.panel.undo()

    LEARNER = ["flip"] * 6 + ["depth", "method", "clear_grad", "clear_now", "lr", "release", "undo", "undo"]

    # -- what code does --

    def module(self):
        return self.random.choice(list(self.net.modules()))

    def code_flag(self):
        self.module().requires_grad_(self.random.random() < 0.6)

    def code_lr(self):
        self.random.choice(self.optimizer.param_groups)["lr"] = self.random.choice([0.0, 0.05, 0.2])

    def code_wakes_all(self):
        self.net.requires_grad_(True)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1

    def code_mode(self):
        self.net.train(self.random.random() < 0.8)

    def code_freeze(self):
        how = self.random.choice(["requires_grad", "grad_none"])
        self.handles.append(freeze(self.net, self.random.choice(LAYERS), how))

    def code_release(self):
        if self.handles:
            self.handles.pop(self.random.randrange(len(self.handles))).release()

    def code_replaces(self):
        self.net.block[2][0] = nn.Linear(3, 3).double()

    def code_trains(self):
        self.net.zero_grad()
        with torch.no_grad():
            for p in self.net.parameters():
                p.clamp_(-2, 2)
        loss = nn.functional.cross_entropy(self.net(torch.randint(0, 5, (8,))), torch.randint(0, 5, (8,)))
        if loss.requires_grad:
            loss.backward()
        lrs = lr_of(self.optimizer)
        before = {p: p.detach().clone() for p in self.net.parameters()}
        grads = {p for p in before if p.grad is not None and p.grad.abs().max() > 1e-9}
        self.optimizer.step()
        for row in self.panels[0].tree.rows:
            if not row["fold"]:
                p = self.net.get_parameter(row["name"])
                if row["checked"] == "true":
                    assert torch.equal(before[p], p)
                elif p in grads and id(p) in lrs:
                    assert not torch.equal(before[p], p)

    def second_panel(self):
        if len(self.panels) < 3:
            self.panels.append(FreezePanel(self.net, self.random.choice([None, self.optimizer])))
        else:
            self.panels.pop(self.random.randrange(3)).close()

    CODE = [
        *(
            "code_flag",
            "code_lr",
            "code_wakes_all",
            "code_mode",
            "code_freeze",
            "code_release",
            "code_release",
        ),
        *("code_trains", "code_trains", "code_trains", "second_panel"),
    ]

    # -- one event, and what must hold then --

    def step(self, clock):
        if self.random.random() < 0.01:
            name = "code_replaces"
        else:
            name = self.random.choice(self.random.choice([self.LEARNER, self.CODE]))
        clock[0] += self.random.choice([0.1, 10.0])
        self.seen.add(name)
        before, steps = self.whole(), len(self.history)
        if self.refuses(name):
            assert self.whole() == before
            assert len(self.history) == steps
        if name in self.CODE or name == "code_replaces":
            for panel in self.panels:
                panel.refresh()
        self.check()
        if name in self.LEARNER and name != "undo" and len(self.history) == steps + 1:
            self.panel.undo()
            assert self.whole() == before, name
            self.check()
            if self.random.random() < 0.7:  # and on from there
                self.refuses(name)
                self.check()

    def refuses(self, name):
        """Do it; lr = 0 is refused for what no group holds."""
        try:
            getattr(self, name)()
        except ValueError as error:
            self.refused += 1
            return "lr_zero" in str(error) or pytest.fail(str(error))
        return False

    def whole(self):
        return whole(self.net, self.optimizer, own=self.shape[1])

    @property
    def history(self):
        return freeze_switchboard.switchboard(self.net).history

    def check(self):
        rows = expected_rows(self.net, self.optimizer)
        upto = "nothing"
        for layer in LAYERS:
            if rows[layer] != "true":
                break
            upto = layer
        late = any(not p.requires_grad and p.grad is not None for p in self.net.parameters())
        for panel in self.panels:
            assert {row["name"]: row["checked"] for row in panel.tree.rows} == rows
            assert panel.depth.value == upto
            assert (panel._clear_button.layout.display is None) == late
            assert panel._alert.value == "" or self.refused
            largest = [n for n in rows if rows[n] == "true" and rows.get(n.rpartition(".")[0]) != "true"]
            assert sorted(panel.frozen) == sorted(largest)
            assert panel.method.value == self.panels[0].method.value
        self.check_code()
        self.check_groups()

    def check_groups(self):
        """The optimizer's groups are its owner's, but for what is held at lr 0 or has an lr of its own."""
        own, lrs = self.shape[1], lr_of(self.optimizer)
        held = any("lr_zero" in ways_held(p) for p in self.net.parameters())
        as_owned = all(0 not in one and len(one) == 1 for one in ({lrs[i] for i in g} for g in self.owned))
        if as_owned or not held:
            assert len(self.optimizer.param_groups) == own
            assert [set(map(id, g["params"])) for g in self.optimizer.param_groups] == self.owned
        for panel in self.panels:
            assert [s.value for s in panel.lrs if s.value] == [
                g.lr for g in learning_rates.own_groups(self.optimizer) if g.lr
            ]
            assert len(panel.lrs) == own

    def check_code(self):
        net, optimizer = make(*self.shape)
        exec(self.panels[0].code, {"model": net, "optimizer": optimizer})
        assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in self.net.parameters()]
        assert [m.training for m in net.modules()] == [m.training for m in self.net.modules()]
        there, here = lr_of(optimizer), lr_of(self.optimizer)
        pairs = zip(net.parameters(), self.net.parameters(), strict=True)
        assert [there[id(p)] for p, q in pairs if id(q) in here] == [
            here[id(q)] for q in self.net.parameters() if id(q) in here
        ]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_the_panel_shows_what_is_so_and_leaves_nothing_behind(
    seed, groups, tied, monkeypatch
):
    clock = [0.0]
    monkeypatch.setattr(freeze_history.time, "monotonic", lambda: clock[0])
    play = Play(seed, tied, groups)
    for _ in range(EVENTS):
        play.step(clock)
    assert set(play.LEARNER + play.CODE) <= play.seen

    for panel in play.panels:
        panel.close()
    for handle in play.handles:
        handle.release()
    assert play.net not in freeze_switchboard._boards
    for p in play.net.parameters():
        assert ways_held(p) == ()
        assert not p._post_accumulate_grad_hooks
    assert all(batchnorm_choice(module) is None for module in play.net.modules())
    assert gradients._step_hook is None
    assert not optimizer_hooks._global_optimizer_pre_hooks
    gone = weakref.ref(play.net)
    del play, p
    gc.collect()
    assert gone() is None
