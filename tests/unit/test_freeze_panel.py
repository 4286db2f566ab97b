"""`FreezePanel` driven as a browser drives it, by its controls' values; checked on the model itself."""

import gc

import pytest
import torch
from torch import nn

from layerlab.experiments.two_tasks import Network, task_step
from layerlab.widgets.freeze_panel import FreezePanel

OPTIM = torch.optim


def flags(net):
    return {name: p.requires_grad for name, p in net.named_parameters()}


def test_switches_and_depth_write_to_the_model():
    net = Network.from_article()
    panel = FreezePanel(net)
    panel.switches["output"].value = True
    assert flags(net) == {"hidden_task1.weight": True, "hidden_task2.weight": True, "output.weight": False}
    panel.depth.value = "hidden_task2"
    assert flags(net) == {"hidden_task1.weight": False, "hidden_task2.weight": False, "output.weight": True}
    assert panel.frozen == ("hidden_task1", "hidden_task2")
    panel.switches["hidden_task1"].value = False
    assert panel.frozen == ("hidden_task2",)
    panel.release()
    assert all(flags(net).values())
    assert panel.code == ""


@pytest.mark.parametrize("method", ["requires_grad", "grad_none", "lr_zero"])
def test_what_the_panel_freezes_stays_still(method):
    net = Network.from_article()
    optimizer = OPTIM.AdamW(net.parameters(), lr=0.9)
    panel = FreezePanel(net, optimizer)
    task_step(net, optimizer, "task1")
    panel.method.value = method
    panel.switches["hidden_task1"].value = True
    before = net.hidden_task1.weight.detach().clone()
    task_step(net, optimizer, "task1")
    assert torch.equal(before, net.hidden_task1.weight)
    panel.close()
    task_step(net, optimizer, "task1")
    assert not torch.equal(before, net.hidden_task1.weight)
    assert [g["lr"] for g in optimizer.param_groups] == [0.9]


def test_the_code_it_shows_does_the_same():
    for method in ("requires_grad", "lr_zero"):
        net, twin = Network.from_article(), Network.from_article()
        optimizer, other = (OPTIM.SGD(n.parameters(), lr=0.9) for n in (net, twin))
        panel = FreezePanel(net, optimizer, method=method)
        panel.depth.value = "hidden_task1"
        exec(panel.code, {"model": twin, "optimizer": other})
        assert flags(twin) == flags(net)
        assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]


def test_warning_when_it_came_too_late():
    net = Network.from_article()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.9)
    task_step(net, optimizer, "task1")
    panel = FreezePanel(net, optimizer)
    panel.switches["hidden_task2"].value = True
    assert panel.warning == ""  # it took no part, so it has no gradient
    panel.switches["hidden_task1"].value = True
    assert "hidden_task1.weight already has a gradient" in panel.warning
    assert "hidden_task1.weight" in panel._message.value
    before = net.hidden_task1.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, net.hidden_task1.weight)  # the warning was right
    panel.clear_grad.value = True
    assert panel.warning == ""
    before = net.hidden_task1.weight.detach().clone()
    optimizer.step()
    assert torch.equal(before, net.hidden_task1.weight)


def test_notice_of_old_momentum_at_release():
    net = Network.from_article()
    optimizer = OPTIM.Adam(net.parameters(), lr=0.9)
    panel = FreezePanel(net, optimizer)
    panel.switches["hidden_task2"].value = True
    panel.switches["hidden_task2"].value = False
    assert panel.warning == ""  # nothing stored for it
    task_step(net, optimizer, "task1")
    panel.clear_grad.value = True
    panel.switches["hidden_task1"].value = True
    panel.switches["hidden_task1"].value = False
    assert "still stores what it knew of hidden_task1.weight" in panel.warning


def test_lr_sliders_also_while_frozen_by_lr():
    net = Network.from_article()
    optimizer = OPTIM.SGD(
        [{"params": net.hidden_task1.parameters()}, {"params": net.output.parameters()}], 0.1
    )
    panel = FreezePanel(net, optimizer, layers=["hidden_task1"], method="lr_zero")
    panel.lrs[1].value = 0.01
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.01]
    panel.depth.value = "hidden_task1"
    assert [g["lr"] for g in optimizer.param_groups] == [0.0, 0.01]
    panel.lrs[0].value = 0.5
    assert [g["lr"] for g in optimizer.param_groups] == [0.0, 0.01]
    panel.release()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.01]


def test_an_error_is_shown_raised_and_leaves_nothing_half_done():
    net = Network.from_article()
    optimizer = OPTIM.ASGD(net.parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer, method="lr_zero")
    with pytest.raises(ValueError, match="eta"):
        panel.switches["hidden_task1"].value = True
    assert "ValueError" in panel._alert.value
    assert panel.frozen == ()
    assert all(flags(net).values())
    panel.method.value = "requires_grad"
    panel.switches["hidden_task1"].value = True
    assert panel.frozen == ("hidden_task1",)
    assert panel._alert.value == ""


def test_bad_input():
    net = Network.from_article()
    with pytest.raises(ValueError, match="hidden_task1"):
        FreezePanel(net, layers=["hiden_task1"])
    with pytest.raises(ValueError, match=r"lr_zero needs the optimizer"):
        FreezePanel(net, method="lr_zero")
    with pytest.raises(ValueError, match="method='none'"):
        FreezePanel(net, method="none")


def test_layers_are_the_top_level_modules():
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    wrapper = nn.Module()
    wrapper.net = inner
    assert list(FreezePanel(wrapper).switches) == ["net.0", "net.2"]
    assert list(FreezePanel(nn.Linear(2, 2)).switches) == ["weight", "bias"]


def test_text_and_html_stand_in_for_the_widget():
    net = nn.ModuleDict({"<b>x</b>": nn.Linear(2, 2), "y": nn.Linear(2, 2)})
    panel = FreezePanel(net)
    panel.switches["<b>x</b>"].value = True
    bundle = panel._repr_mimebundle_()
    assert "❄ <b>x</b> (6 parameters)" in bundle["text/plain"]
    assert "&lt;b&gt;x&lt;/b&gt;" in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]
    assert "0x" not in bundle["text/plain"] + bundle["text/html"]


def test_a_method_that_is_not_there_leaves_no_noise():
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="method='lr0': choose one of"):
        FreezePanel(net, method="lr0")
    gc.collect()  # a half-made widget closes itself: pytest turns an error in that into a failure


def test_the_slider_follows_the_switches():
    panel = FreezePanel(Network())
    panel.switches["hidden_task2"].value = True
    assert panel.depth.value == "nothing"  # hidden_task1 comes before it and is not frozen
    panel.switches["hidden_task1"].value = True
    assert panel.depth.value == "hidden_task2"
    panel.switches["hidden_task2"].value = False
    assert (panel.depth.value, panel.frozen) == ("hidden_task1", ("hidden_task1",))
    panel.depth.value = "nothing"
    assert panel.frozen == ()


def test_a_new_panel_on_the_model_takes_over_from_the_old_one():
    net = Network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    old = FreezePanel(net, optimizer, method="lr_zero")
    old.switches["hidden_task1"].value = True
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0]
    new = FreezePanel(net, optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]
    assert (old.frozen, len(new.lrs)) == ((), 1)


def test_an_lr_of_zero_is_said():
    net = Network()
    panel = FreezePanel(net, torch.optim.SGD(net.parameters(), lr=0.0))
    assert "lr of group 0: 0" in repr(panel).splitlines()[-1]
    assert panel.lrs[0].description == "lr, group 0 (now 0)"


def test_warnings_cover_every_tensor_of_a_layer():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    panel = FreezePanel(net, optimizer)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    panel.switches["0"].value = True
    assert "0.weight (and 1 more) already has a gradient" in panel.warning
    assert "likewise for the others" in panel.warning
    panel.switches["0"].value = False
    cure = panel.warning.partition("To start afresh: ")[2].removesuffix(".")
    exec(cure, {"model": net, "optimizer": optimizer})
    assert [p in optimizer.state for p in net.parameters()] == [False, False, True, True]
    panel.clear_grad.value = True
    panel.depth.value = "1"
    assert panel.warning.startswith("everything is frozen: backward() will raise")


def test_a_panel_that_cannot_be_made_leaves_the_old_one_alone():
    net = Network()
    old = FreezePanel(net)
    old.switches["hidden_task1"].value = True
    for wrong in ({"method": "lr0"}, {"layers": ["no such layer"]}):
        with pytest.raises(ValueError, match=r"lr0|no such layer"):
            FreezePanel(net, **wrong)
    assert old.frozen == ("hidden_task1",)
    assert not net.hidden_task1.weight.requires_grad
