"""The audit of which optimizer holds what: each finding provoked, seen to come true, and cured."""

import warnings

import pytest
import torch
from audited import X, bits, codes, cured, loss_of, net, same, step, the
from torch import nn

from layerlab.auditing import audit

SGD = torch.optim.SGD


def test_a_layer_replaced_after_the_optimizer_was_built():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    old = model[2]
    model[2] = nn.Linear(4, 2)
    finding = the(audit(model, optimizer), "layer-replaced", "error")
    assert finding.names == ("2.weight", "2.bias")
    before = bits([*model[2].parameters(), *old.parameters()])
    for _ in range(3):
        step(model, optimizer)
    assert model[2].weight.grad.any()
    assert all(same([*model[2].parameters(), *old.parameters()], before))
    optimizer = cured(finding, model=model, optimizer=optimizer)["optimizer"]
    step(model, optimizer)
    assert not any(same([*model[2].parameters()], before[:2]))
    assert not audit(model, optimizer)


def test_the_optimizer_of_another_model():
    model = net()
    optimizer = torch.optim.AdamW(net().parameters(), lr=0.1, weight_decay=0.2)
    finding = the(audit(model, optimizer), "other-model", "error")
    before = bits(model.parameters())
    step(model, optimizer)
    assert all(same(model.parameters(), before))
    optimizer = cured(finding, model=model)["optimizer"]
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
    step(model, optimizer)
    assert not any(same(model.parameters(), before))
    assert not audit(model, optimizer)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("scheduled", [False, True])
def test_trainable_and_in_no_optimizer(many, scheduled):
    model = nn.Sequential(*net(), nn.Linear(2, 2), nn.Linear(2, 2)) if many else net()
    optimizer = SGD(model[0].parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0) if scheduled else None
    finding = the(audit(model, optimizer, scheduler=scheduler), "in-no-optimizer", "warning")
    rest = [p for p in model.parameters() if not any(p is q for q in model[0].parameters())]
    before = bits(rest)
    step(model, optimizer)
    assert all(same(rest, before))
    assert all(p.grad is not None for p in rest)
    optimizer = cured(finding, model=model, optimizer=optimizer)["optimizer"]
    step(model, optimizer)
    assert not any(same(rest, before))
    assert not audit(model, optimizer)


def test_frozen_and_in_no_optimizer_is_fine():
    model = net()
    model[0].requires_grad_(False)
    assert not audit(model, SGD(model[2].parameters(), lr=0.1))


def test_what_another_given_optimizer_holds_is_held():
    model = net()
    first, second = (SGD(part.parameters(), lr=0.1) for part in (model[0], model[2]))
    assert not audit(model, first, second)
    assert codes(model, first) == {"in-no-optimizer"}


def test_an_optimizer_that_keeps_names_takes_no_nameless_group():
    model = net()
    optimizer = SGD(model[0].named_parameters(), lr=0.1)
    optimizer = cured(the(audit(model, optimizer), "in-no-optimizer"), model=model)["optimizer"]
    assert not audit(model, optimizer)


def test_tensors_that_the_model_does_not_have_may_belong_to_a_loss():
    model, loss = net(), nn.Bilinear(2, 2, 1)
    optimizer = SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    finding = the(audit(model, optimizer), "foreign-parameters", "note")
    before = bits(loss.parameters())
    out = model(X)
    loss(out, out).mean().backward()
    optimizer.step()
    assert not all(same(loss.parameters(), before))  # it also steps these
    assert not audit(model, optimizer, loss=loss)
    optimizer = cured(finding, model=model)["optimizer"]
    assert not audit(model, optimizer)


def test_one_tensor_in_two_optimizers():
    model = net()
    optimizers = [SGD(model.parameters(), lr=0.1), SGD(model[2].parameters(), lr=0.3)]
    finding = the(audit(model, *optimizers), "in-two-optimizers", "warning")
    assert finding.names == ("2.weight", "2.bias")
    before = bits(model[2].parameters())
    step(model, *optimizers)
    for parameter, old in zip(model[2].parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.4 * parameter.grad)
    cured(finding, model=model, optimizers=optimizers)
    assert not codes(model, *optimizers) & {"in-two-optimizers"}
    before = bits(model[2].parameters())
    step(model, *optimizers)
    for parameter, old in zip(model[2].parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.1 * parameter.grad)


def test_one_tensor_in_two_groups():
    model = net()
    optimizer = SGD([{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.3}], lr=0.1)
    optimizer.param_groups[0]["params"].append(model[2].weight)
    finding = the(audit(model, optimizer), "in-two-groups", "error")
    assert finding.place == "2.weight"
    before = model[2].weight.detach().clone()
    step(model, optimizer)
    torch.testing.assert_close(model[2].weight.detach(), before - 0.4 * model[2].weight.grad)
    cured(finding, optimizer=optimizer)
    assert not audit(model, optimizer)


def test_one_tensor_twice_in_a_group():
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says so too, once
        optimizer = SGD([*model.parameters(), model[0].weight], lr=0.1)
    finding = the(audit(model, optimizer), "twice-in-group", "error")
    before = model[0].weight.detach().clone()
    step(model, optimizer)
    torch.testing.assert_close(model[0].weight.detach(), before - 0.2 * model[0].weight.grad)
    cured(finding, optimizer=optimizer)
    assert not audit(model, optimizer)
    before = model[0].weight.detach().clone()
    step(model, optimizer)
    torch.testing.assert_close(model[0].weight.detach(), before - 0.1 * model[0].weight.grad)


def test_a_generator_that_was_used_up():
    model = net()
    parameters = filter(lambda p: p.requires_grad, model.parameters())
    assert sum(p.numel() for p in parameters) == 26  # the line that uses it up
    optimizer = SGD([{"params": parameters}], lr=0.1)
    finding = the(audit(model, optimizer), "empty-group", "error")
    before = bits(model.parameters())
    step(model, optimizer)
    assert all(same(model.parameters(), before))
    optimizer = cured(finding, model=model)["optimizer"]
    step(model, optimizer)
    assert not any(same(model.parameters(), before))
    assert not audit(model, optimizer)


@pytest.mark.parametrize(
    ("rates", "built"),
    [
        ((0.2, 0.1), "optimizer = torch.optim.SGD([...], momentum=0.9)"),
        ((0.1, 0.1), "optimizer = torch.optim.SGD([...], lr=0.1, momentum=0.9)"),
    ],
)
def test_a_cure_invents_no_learning_rate_for_groups_that_have_their_own(rates, built):
    model = net()
    used_up = iter([])
    groups = [{"params": p, "lr": lr} for p, lr in zip((model[0].parameters(), used_up), rates, strict=True)]
    optimizer = SGD(groups, lr=0.1, momentum=0.9)
    plan = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    plan.step()
    cure = the(audit(model, optimizer, plan), "empty-group", "error").cure
    assert cure == f"{built}  # your groups, with the tensors that model has now, and then its scheduler"


def test_an_empty_group_beside_all_the_others_is_a_note():
    model = net()
    optimizer = SGD([{"params": model.parameters()}, {"params": []}], lr=0.1)
    finding = the(audit(model, optimizer), "empty-group", "note")
    before = bits(model.parameters())
    step(model, optimizer)
    assert not any(same(model.parameters(), before))
    cured(finding, optimizer=optimizer)
    assert not audit(model, optimizer)


def test_an_averaged_copy_is_not_meant_to_be_in_an_optimizer():
    model = nn.ModuleDict({"net": net()})
    optimizer = SGD(model.parameters(), lr=0.1)
    model["average"] = torch.optim.swa_utils.AveragedModel(model["net"])
    assert not audit(model, optimizer)
    loss_of(model["net"]).backward()
    optimizer.step()
    assert all(p.grad is None for p in model["average"].parameters())
