"""The audit of what is frozen: each finding provoked, seen to come true in real steps, and cured."""

import copy

import pytest
import torch
from audited import bits, codes, cured, loss_of, net, same, step, the
from torch import nn

from layerlab.auditing import audit
from layerlab.freezing import freeze

OPTIM = torch.optim
MAKERS = {
    "SGD": lambda p: OPTIM.SGD(p, 0.1),
    "SGD momentum": lambda p: OPTIM.SGD(p, 0.1, momentum=0.9),
    "SGD weight decay": lambda p: OPTIM.SGD(p, 0.1, weight_decay=0.01),
    "Adam": lambda p: OPTIM.Adam(p, 0.1),
    "AdamW": lambda p: OPTIM.AdamW(p, 0.1),
    "Adam, beta1 = 0": lambda p: OPTIM.Adam(p, 0.1, betas=(0.0, 0.999)),
    "AdamW, beta1 = 0": lambda p: OPTIM.AdamW(p, 0.1, betas=(0.0, 0.999)),
    "RMSprop": lambda p: OPTIM.RMSprop(p, 0.1),
    "RMSprop momentum": lambda p: OPTIM.RMSprop(p, 0.1, momentum=0.9),
    "Adagrad": lambda p: OPTIM.Adagrad(p, 0.1),
    "Rprop": lambda p: OPTIM.Rprop(p, 0.1),
    "ASGD": lambda p: OPTIM.ASGD(p, 0.1),
    "NAdam": lambda p: OPTIM.NAdam(p, 0.1),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_frozen_between_backward_and_step(maker):
    model = net()
    optimizer = MAKERS[maker](model.parameters())
    loss_of(model).backward()
    model[0].requires_grad_(False)
    finding = the(audit(model, optimizer), "frozen-too-late", "warning")
    assert finding.names == ("0.weight", "0.bias")
    before = bits(model[0].parameters())
    clone, its = copy.deepcopy((model, optimizer))
    for mine, its_own in zip(model.parameters(), clone.parameters(), strict=True):
        its_own.grad = mine.grad.clone()
    its.step()
    assert not any(same(clone[0].parameters(), before))
    cured(finding, model=model)
    assert "frozen-too-late" not in codes(model, optimizer)
    optimizer.step()
    assert all(same(model[0].parameters(), before))


@pytest.mark.parametrize("maker", MAKERS)
def test_a_gradient_of_zeros_is_told_exactly_where_it_moves_something(maker):
    model = net()
    optimizer = MAKERS[maker](model.parameters())
    step(model, optimizer)
    optimizer.zero_grad(set_to_none=False)
    model[0].requires_grad_(False)
    found = audit(model, optimizer)
    before = bits(model[0].parameters())
    loss_of(model).backward()
    optimizer.step()
    moved = not all(same(model[0].parameters(), before))
    assert ("frozen-zero-gradient" in found.codes) == moved
    if moved:
        finding = the(found, "frozen-zero-gradient", "warning")
        cause = {
            "SGD weight decay": "weight decay",
            "AdamW, beta1 = 0": "weight decay",
            "ASGD": "ASGD itself",
        }
        assert f"and {cause.get(maker, 'stored momentum')} moves it" in finding.effect
        cured(finding, model=model)
        before = bits(model[0].parameters())
        step(model, optimizer, zero_grad=False)
        assert all(same(model[0].parameters(), before))
        assert "frozen-zero-gradient" not in codes(model, optimizer)


def test_an_old_gradient_that_nobody_applies_is_clipped_with_the_others():
    model = net()
    loss_of(model).backward()
    model[0].requires_grad_(False)
    optimizer = OPTIM.SGD(model[2].parameters(), lr=0.1)
    finding = the(audit(model, optimizer), "frozen-gradient-kept", "note")
    with_it = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9))
    cured(finding, model=model)
    without = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9))
    assert with_it > without > 0
    assert not audit(model, optimizer)


def test_old_momentum_walks_on_after_a_release():
    model = net()
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        step(model, optimizer)
    model.zero_grad()
    model[0].requires_grad_(False)
    finding = the(audit(model, optimizer), "stale-momentum", "note")
    assert "momentum_buffer" in finding.effect
    before = bits(model[0].parameters())
    step(model, optimizer)
    assert all(same(model[0].parameters(), before))  # nothing moves while it is frozen
    sizes = []
    for cure in (False, True):
        twin, its = copy.deepcopy((model, optimizer))
        if cure:
            cured(finding, model=twin, optimizer=its)
            assert not audit(twin, its)
        twin[0].requires_grad_(True)
        step(twin, its)
        plain = [old - 0.1 * p.grad for p, old in zip(twin[0].parameters(), before, strict=True)]
        sizes.append(
            max(float((p - q).detach().abs().max()) for p, q in zip(twin[0].parameters(), plain, strict=True))
        )
    old_way, afresh = sizes
    assert afresh < 1e-6 < 1e-3 < old_way


def test_the_state_of_what_grad_none_freezes_is_taken_away_too():
    model = net()
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer)
    handle = freeze(model, "*", "grad_none")
    finding = the(audit(model, optimizer), "stale-momentum", "note")
    assert len(finding.names) > 3
    cured(finding, model=model, optimizer=optimizer)
    assert not optimizer.state
    handle.release()


def test_lbfgs_moves_what_it_remembers():
    model = net()
    optimizer = OPTIM.LBFGS(model.parameters(), max_iter=3)

    def closure():
        model.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    model.zero_grad()
    model[0].requires_grad_(False)
    finding = the(audit(model, optimizer), "lbfgs-frozen", "error")
    assert finding.names == ("0.weight", "0.bias")
    before = bits(model[0].parameters())
    optimizer.step(closure)
    assert not all(same(model[0].parameters(), before))
    optimizer = cured(finding, model=model)["optimizer"]
    before = bits(model[0].parameters())
    optimizer.step(closure)
    assert all(same(model[0].parameters(), before))
    assert not audit(model, optimizer)


def test_lbfgs_holds_what_was_frozen_from_the_start():
    model = net()
    model[0].requires_grad_(False)
    optimizer = OPTIM.LBFGS(model.parameters(), max_iter=3)
    before = bits(model[0].parameters())

    def closure():
        model.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for _ in range(2):
        assert not audit(model, optimizer)
        optimizer.step(closure)
    assert all(same(model[0].parameters(), before))


class Tied(nn.Module):
    """An encoder and a head that share one weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.head = nn.Sequential(nn.Tanh(), nn.Linear(3, 3))
        self.head[1].weight = self.encoder[0].weight

    def forward(self, x):
        return self.head(self.encoder(x))


def test_a_tied_weight_trains_in_a_part_that_is_frozen():
    model = Tied()
    model.encoder.requires_grad_(False)
    model.head.requires_grad_(True)
    optimizer = OPTIM.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    finding = the(audit(model, optimizer), "tied-weight", "warning")
    assert finding.names == ("encoder.0.weight", "head.1.weight")
    before = bits(model.encoder.parameters())
    step(model, optimizer)
    assert same(model.encoder.parameters(), before) == [False, True, True, True]
    model.zero_grad()
    cured(finding, model=model)
    optimizer = OPTIM.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = bits(model.encoder.parameters())
    step(model, optimizer)
    assert all(same(model.encoder.parameters(), before))
    assert not audit(model, optimizer)


def test_a_tied_weight_is_frozen_in_a_part_that_trains():
    model = Tied()
    model.encoder.requires_grad_(False)
    optimizer = OPTIM.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    finding = the(audit(model, optimizer), "tied-weight", "note")
    before = bits(model.head.parameters())
    step(model, optimizer)
    assert same(model.head.parameters(), before) == [True, False]
    cured(finding, model=model)
    optimizer = OPTIM.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    step(model, optimizer)
    assert not any(same(model.head.parameters(), before))
    assert not audit(model, optimizer)


def test_a_tied_weight_in_a_part_that_is_compiled():
    model = Tied()
    model.encoder.requires_grad_(False)
    model.head.requires_grad_(True)
    model.encoder = torch.compile(model.encoder)
    finding = the(audit(model), "tied-weight", "warning")
    assert finding.names == ("encoder.0.weight", "head.1.weight")


@pytest.mark.parametrize("how", ["requires_grad", "grad_none"])
def test_a_freeze_by_handle_is_clean(how):
    model = net()
    optimizer = OPTIM.AdamW(model.parameters(), lr=0.1)
    loss_of(model).backward()
    with freeze(model, "0", how):
        assert not audit(model, optimizer)
