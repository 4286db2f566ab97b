"""The audit of inf and NaN: provoked, seen to spread, and cured."""

import pytest
import torch
from audited import cured, loss_of, net, step, the
from torch import nn

from layerlab.auditing import audit

OPTIM = torch.optim
BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
def test_a_parameter_that_is_no_number(bad):
    model = net()
    with torch.no_grad():
        model[0].weight[1, 2] = bad
        model[2].weight.abs_()
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1)
    finding = the(audit(model, optimizer), "nonfinite-parameter", "error")
    assert finding.names == ("0.weight",)
    if bad != bad:
        assert loss_of(model).isnan()
    cured(finding, model=model)
    assert loss_of(model).isfinite()
    assert not audit(model, optimizer)


def test_a_buffer_may_hold_infinities_but_no_nan():
    model = nn.Sequential(nn.BatchNorm1d(3), net())
    model.register_buffer("mask", torch.full((2, 2), -float("inf")))
    optimizer = OPTIM.SGD(model.parameters(), lr=0.1)
    assert not audit(model, optimizer)
    model[0].running_var[1] = float("nan")
    finding = the(audit(model, optimizer), "nonfinite-parameter")
    assert finding.names == ("0.running_var",)
    assert model.eval()(torch.ones(2, 3)).isnan().any()
    cured(finding, model=model.train())
    assert not audit(model, optimizer)


@pytest.mark.parametrize("bad", BAD)
def test_stored_state_that_is_no_number(bad):
    model = net()
    optimizer = OPTIM.Adam(model.parameters(), lr=0.1)
    step(model, optimizer)
    optimizer.state[model[0].weight]["exp_avg"][0, 0] = bad
    finding = the(audit(model, optimizer), "nonfinite-state", "error")
    assert finding.names == ("0.weight",)
    cure = finding
    fresh = net()
    fresh.load_state_dict(model.state_dict())
    step(model, optimizer)
    assert not model[0].weight.isfinite().all()
    with torch.no_grad():
        for mine, sound in zip(model.parameters(), fresh.parameters(), strict=True):
            mine.copy_(sound)
    cured(cure, optimizer=optimizer)
    step(model, optimizer)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not audit(model, optimizer)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("lr", [0.1, 0.0])
def test_a_gradient_that_is_no_number(bad, lr):
    model = net()
    optimizer = OPTIM.SGD(
        [{"params": model[0].parameters(), "lr": lr}, {"params": model[2].parameters()}], lr=0.1
    )
    loss_of(model).backward()
    model[0].bias.grad[0] = bad
    finding = the(audit(model, optimizer), "nonfinite-gradient", "error")
    assert finding.names == ("0.bias",)
    sound = model[0].bias.detach().clone()
    optimizer.step()
    assert not model[0].bias.isfinite().all()
    with torch.no_grad():
        model[0].bias.copy_(sound)
    cured(finding, optimizer=optimizer)
    step(model, optimizer)
    assert model[0].bias.isfinite().all()
    assert "nonfinite-gradient" not in audit(model, optimizer).codes


def test_tensors_without_values_are_passed_over():
    with torch.device("meta"):
        meta = net()
    assert not audit(meta, OPTIM.SGD(meta.parameters(), lr=0.1))
    lazy = nn.Sequential(nn.LazyLinear(4))
    assert not audit(lazy, OPTIM.SGD(lazy.parameters(), lr=0.1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_every_kind_of_number(dtype):
    model = nn.ParameterList([torch.ones(3, dtype=dtype), torch.ones(0, dtype=dtype)])
    assert not audit(model)
    with torch.no_grad():
        model[0][1] = float("nan")
    the(audit(model), "nonfinite-parameter")
