"""The audit of flags: each finding provoked, seen to come true, and cured."""

import pytest
import torch
from audited import bits, cured, loss_of, net, same, step, the

from layerlab.auditing import audit

SGD = torch.optim.SGD


@pytest.mark.parametrize("attribute", ["requires_grad", "require_grad", "requires_grads", "requires_grad_"])
def test_a_flag_on_a_module_does_nothing(attribute):
    model = net()
    setattr(model[0], attribute, False)
    optimizer = SGD(model.parameters(), lr=0.1)
    code = "flag-on-module" if attribute == "requires_grad" else "misspelt-flag"
    finding = the(audit(model, optimizer), code, "error")
    before = bits(model[0].parameters())
    step(model, optimizer)
    assert not any(same(model[0].parameters(), before))
    model.zero_grad()
    cured(finding, model=model)
    before = bits(model[0].parameters())
    step(model, optimizer)
    assert all(same(model[0].parameters(), before))
    assert not audit(model, optimizer)


def test_a_flag_on_a_module_releases_nothing():
    model = net()
    model.requires_grad_(False)
    model[2].requires_grad = True
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer), "flag-on-module")
    with pytest.raises(RuntimeError, match="does not require grad"):
        loss_of(model).backward()
    cured(finding, model=model)
    before = bits(model.parameters())
    step(model, optimizer)
    assert same(model.parameters(), before) == [True, True, False, False]
    assert not audit(model, optimizer)


def test_a_flag_on_a_module_that_says_what_is_so_anyway_is_no_finding():
    model = net()
    model[0].requires_grad = True
    model[1].requires_grad = False  # it has no parameters
    assert not audit(model, SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize("attribute", ["require_grad", "requires_grads", "requiresgrad", "requires_gradient"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_misspelt_flag_on_a_parameter(attribute, count):
    model = net()
    chosen = list(model[0].parameters())[:count]
    for parameter in chosen:
        setattr(parameter, attribute, False)
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer), "misspelt-flag", "error")
    assert len(finding.names) == count
    before = bits(chosen)
    step(model, optimizer)
    assert not any(same(chosen, before))
    model.zero_grad()
    cured(finding, model=model)
    before = bits(chosen)
    step(model, optimizer)
    assert all(same(chosen, before))
    assert not audit(model, optimizer)


def test_other_attributes_of_parameters_and_modules_are_no_flags():
    model = net()
    model[0].weight.decay = False
    model[0].grad_scale = False
    model[0].requires_gradient_checkpointing = True
    assert not audit(model, SGD(model.parameters(), lr=0.1))


def test_everything_is_frozen():
    model = net().requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer), "everything-frozen", "error")
    with pytest.raises(RuntimeError, match="element 0 of tensors does not require grad"):
        loss_of(model).backward()
    cured(finding, model=model)
    step(model, optimizer)
    assert not audit(model, optimizer)


def test_a_frozen_backbone_whose_head_the_optimizer_holds_can_train():
    head = torch.nn.Linear(2, 1)
    found = audit(net().requires_grad_(False), SGD(head.parameters(), lr=0.1))
    assert found.codes == ("foreign-parameters",)


def test_a_misspelt_flag_that_is_no_name_has_a_cure_that_runs():
    model = net()
    for p in model[0].parameters():
        setattr(p, "requires grad", False)
    [finding] = [f for f in audit(model, torch.optim.SGD(model.parameters(), lr=0.1)) if "misspelt" in f.code]
    cured(finding, model=model)
    assert not any(p.requires_grad for p in model[0].parameters())
    assert all(p.requires_grad for p in model[2].parameters())
