"""Cures speak of the user's own variables, where they can be told."""

import sys

import pytest
import torch
from torch import nn

from layerlab import watch
from layerlab.called import Called, by_the_user
from layerlab.widgets.freeze_panel import FreezePanel


@pytest.fixture
def variables(monkeypatch):
    """The notebook's variables, as an empty script has them."""
    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    return vars(main)


def frozen_too_late(net, optimizer):
    """Make a step in which a frozen parameter moves, and return what the ledger says of it."""
    with watch(net, optimizer) as ledger:
        net(torch.randn(2, 3)).sum().backward()
        net[0].weight.requires_grad_(False)
        optimizer.step()
    return next(alarm for alarm in ledger.alarms if alarm.code == "frozen-too-late")


def make():
    net = nn.Sequential(nn.Linear(3, 2))
    return net, torch.optim.SGD(net.parameters(), lr=0.1)


def test_a_cure_can_be_pasted_as_it_is(variables):
    net, optimizer = make()
    variables |= {"__": net, "backbone": net, "opt": optimizer}
    alarm = frozen_too_late(net, optimizer)
    assert alarm.cure == "backbone[0].weight.grad = None  # after freezing, before opt.step()"
    exec(alarm.cure, variables)
    assert net[0].weight.grad is None


def test_a_module_that_is_called_model_keeps_its_name(variables):
    inner, optimizer = make()
    net = nn.ModuleDict({"model": inner})
    variables |= {"whole": net, "opt": optimizer}
    said = by_the_user(net, [optimizer]).in_their_words("model.model[0].weight; self.optimizer[0]")
    assert said == "whole.model[0].weight; self.optimizer[0]"


def test_what_no_variable_holds_keeps_the_usual_name(variables):
    variables |= {"net": nn.Linear(1, 1), "_hidden": None}
    assert frozen_too_late(*make()).cure.startswith("model[0].weight.grad = None")


def test_a_wrapped_model_is_reached_through_its_wrapper(variables):
    net, optimizer = make()
    variables |= {"parallel": nn.DataParallel(net)}
    assert by_the_user(variables["parallel"], [optimizer]).model == "parallel.module"
    variables |= {"inner": net}
    assert by_the_user(variables["parallel"], [optimizer]).model == "inner"


def test_of_several_optimizers_the_one_that_stepped_is_named(variables):
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    first, second = (torch.optim.SGD(part.parameters(), lr=0.1) for part in net)
    variables |= {"net": net, "first": first, "second": second}
    with watch(net, second, first) as ledger:
        net(torch.randn(2, 3)).sum().backward()
        net[1].weight.requires_grad_(False)
        second.step()
        first.step()
    assert "before second.step()" in ledger.alarms[0].cure


def test_words_of_prose_are_not_renamed():
    called = Called("net", ["opt"])
    assert (
        called.in_their_words(
            "optimizer = SGD(model.parameters())  # after the change to the model, optimizer 0"
        )
        == "opt = SGD(net.parameters())  # after the change to the model, optimizer 0"
    )
    assert Called("net", ["a", "b"]).in_their_words("optimizer.step()") == "optimizer.step()"


def test_the_panel_speaks_of_the_notebook_s_variables_too(variables):
    net, optimizer = make()
    wrapped = nn.DataParallel(net)
    panel = FreezePanel(wrapped, optimizer)
    assert panel._copy.label == "copy as PyTorch (for `model` and `optimizer`)"
    panel.freeze("0.weight")
    assert "frozen = [model.module[0].weight]" in panel.code
    variables |= {"net": net, "opt": optimizer}
    net(torch.randn(2, 3)).sum().backward()
    net[0].weight.grad = torch.zeros(2, 3)
    panel.refresh()
    assert panel._copy.label == "copy as PyTorch (for `net` and `opt`)"
    assert "Cure:\nnet[0].weight.grad = None" in panel.warning
    for line in panel.code, panel.warning.partition("Cure:")[2]:
        exec(line, variables)
    assert net[0].weight.grad is None
    panel.close()


def test_a_name_that_is_no_identifier_is_reached_from_the_user_s_variable():
    assert Called("net").in_their_words("getattr(model, '0').grad = None") == "getattr(net, '0').grad = None"
