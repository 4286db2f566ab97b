"""`FreezePanel` driven as a browser drives it, by its controls' values; checked on the model itself."""

import gc
import weakref
from html import escape

import pytest
import torch
from torch import nn

from layerlab.experiments.two_tasks import Network, task_step
from layerlab.freezing import batchnorm_choice, freeze, how_frozen
from layerlab.widgets.freeze_panel import FreezePanel

OPTIM = torch.optim


@pytest.fixture
def net():
    return Network.from_article()


def flags(net):
    return {name: p.requires_grad for name, p in net.named_parameters()}


def checked(panel):
    return {row["name"]: row["checked"] for row in panel.tree.rows}


def flip(panel, name, on):
    """What the browser sends at a click."""
    panel.tree._receive(None, {"kind": "flip", "name": name, "on": on, "number": "v-1"}, [])


def normed():
    layers = [nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)]
    return nn.Sequential(nn.Sequential(*layers[:2]), layers[2])


def test_switches_and_depth_write_to_the_model(net):
    panel = FreezePanel(net)
    flip(panel, "output", True)
    assert flags(net) == {"hidden_task1.weight": True, "hidden_task2.weight": True, "output.weight": False}
    panel.depth.value = "hidden_task2"
    assert flags(net) == {"hidden_task1.weight": False, "hidden_task2.weight": False, "output.weight": True}
    assert panel.frozen == ("hidden_task1", "hidden_task2")
    flip(panel, "hidden_task1.weight", False)
    assert panel.frozen == ("hidden_task2",)
    panel.release()
    assert all(flags(net).values())
    assert panel.frozen == ()
    assert panel.code == ""


def test_freeze_and_release_take_patterns():
    net = normed()
    panel = FreezePanel(net)
    panel.freeze("*.bias")
    assert checked(panel) == {
        **{"0": "mixed", "0.0": "mixed", "0.0.weight": "false", "0.0.bias": "true"},
        **{"0.1": "mixed", "0.1.weight": "false", "0.1.bias": "true"},
        **{"1": "mixed", "1.weight": "false", "1.bias": "true"},
    }
    assert panel.frozen == ("0.0.bias", "0.1.bias", "1.bias")
    panel.release("0")
    assert flags(net) == {name: name != "1.bias" for name in flags(net)}
    flip(panel, "1", True)
    assert panel.frozen == ("1",)
    with pytest.raises(ValueError, match="near names"):
        panel.freeze("0.0.wait")
    assert panel.frozen == ("1",)


@pytest.mark.parametrize("method", ["requires_grad", "grad_none", "lr_zero"])
def test_what_the_panel_freezes_stays_still(net, method):
    optimizer = OPTIM.AdamW(net.parameters(), lr=0.9)
    panel = FreezePanel(net, optimizer)
    task_step(net, optimizer, "task1")
    panel.method.value = method
    panel.freeze("hidden_task1")
    before = net.hidden_task1.weight.detach().clone()
    task_step(net, optimizer, "task1")
    assert torch.equal(before, net.hidden_task1.weight)
    panel.close()
    task_step(net, optimizer, "task1")
    assert not torch.equal(before, net.hidden_task1.weight)
    assert [g["lr"] for g in optimizer.param_groups] == [0.9]


def test_batchnorm_in_a_frozen_module_stays_in_eval_mode():
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)), nn.BatchNorm1d(3))
    panel = FreezePanel(net)
    flip(panel, "0.0", True)
    net.train()
    assert [net[0][1].training, net[1].training] == [False, True]  # "0" is frozen, for that is all it has
    flip(panel, "1.weight", True)
    assert net[1].training
    flip(panel, "1.bias", True)
    net.train()
    assert [net[0][1].training, net[1].training] == [False, False]
    panel.release()
    assert all(module.training for module in net.modules())


def test_what_code_does_shows():
    net = normed()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer)
    net[0].requires_grad_(False)
    panel.refresh()
    assert checked(panel)["0"] == "true"
    assert panel.depth.value == "0"
    assert {row["note"] for row in panel.tree.rows if row["name"].startswith("0")} == {
        "requires_grad by code"
    }
    handle = freeze(net, "1", "grad_none")
    panel.refresh()
    assert panel.frozen == ("0", "1")
    assert panel.tree.rows[-1]["note"] == "grad_none by ll.freeze"
    handle.release()
    optimizer.param_groups[0]["lr"] = 0.02
    panel.refresh()
    assert (panel.frozen, panel.lrs[0].value) == (("0",), 0.02)
    net[1] = nn.Linear(3, 5)
    panel.refresh()
    assert panel.tree.rows[-3]["size"] == "20 parameters"
    net[0][0].requires_grad_(True)
    panel.refresh()
    assert checked(panel)["0"] == "mixed"


def test_switching_off_what_code_froze():
    net = normed()
    optimizer = OPTIM.SGD([{"params": net[0].parameters()}, {"params": net[1].parameters()}], lr=0.1)
    panel = FreezePanel(net, optimizer)
    net[0].requires_grad_(False)
    flip(panel, "0", False)
    assert all(flags(net).values())  # its flag is set back
    assert panel.warning == ""

    handle = freeze(net, "0.0", "grad_none")
    panel.freeze("0")
    panel.release("0")
    assert "0.0.weight (and 1 more) is held by a handle of ll.freeze (grad_none)" in panel.warning
    assert flags(net) == {name: not name.startswith("0.") for name in flags(net)}  # nothing is changed
    handle.release()
    panel.release("0")
    assert all(flags(net).values())

    optimizer.param_groups[1]["lr"] = 0.0
    flip(panel, "1", False)
    assert "1.weight (and 1 more) stays frozen: its parameter group has lr = 0" in panel.warning
    assert "“lr, group 1”" in panel.warning
    assert optimizer.param_groups[1]["lr"] == 0
    panel.lrs[1].value = 0.5
    assert panel.frozen == ()


def test_code_wakes_what_the_panel_froze_and_nothing_of_it_is_left():
    net = normed()
    panel = FreezePanel(net)
    panel.freeze("0")
    net[0].requires_grad_(True)
    panel.refresh()
    assert panel.frozen == ()
    assert batchnorm_choice(net[0][1]) is None
    assert net[0][1].training
    panel.freeze("1")
    assert flags(net) == {name: name.startswith("0") for name in flags(net)}


def test_a_scheduler_wakes_what_is_held_at_lr_0_and_no_later_flip_puts_it_back_to_sleep():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = OPTIM.SGD([{"params": layer.parameters()} for layer in net], lr=0.1)
    panel = FreezePanel(net, optimizer, method="lr_zero")
    panel.freeze(["0", "1"])
    optimizer.param_groups[0]["lr"] = 0.05
    panel.refresh()
    assert panel.frozen == ("1",)
    assert panel.warning.startswith(
        "woken: 0.weight (and 1 more) was frozen by lr = 0 and has lr 0.05 by now"
    )
    panel.freeze("2")
    assert panel.warning == ""
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0, 0]
    panel.freeze("0")
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0, 0]
    panel.release()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1, 0.1]  # as code left it


def test_tied_parameters_are_one_switch():
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
    net[1].weight = net[0].weight
    panel = FreezePanel(net)
    flip(panel, "1.weight", True)
    assert checked(panel) == {
        **{"0": "true", "0.weight": "true"},
        **{"1": "mixed", "1.weight": "true", "1.bias": "false"},
    }
    assert panel.tree.rows[1]["note"] == "tied: 1.weight"
    flip(panel, "0", False)
    assert set(checked(panel).values()) == {"false"}


def test_warning_when_it_came_too_late_and_the_button_that_cures_it(net):
    optimizer = OPTIM.SGD(net.parameters(), lr=0.9)
    task_step(net, optimizer, "task1")
    gradient = net.hidden_task1.weight.grad
    panel = FreezePanel(net, optimizer)
    panel.freeze("hidden_task2")
    assert panel.warning == ""  # it took no part, so it has no gradient
    assert panel._clear_button.layout.display == "none"
    panel.freeze("hidden_task1")
    assert "hidden_task1.weight already has a gradient" in panel.warning
    assert "hidden_task1.weight" in panel._message.value
    before = net.hidden_task1.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, net.hidden_task1.weight)  # the warning was right
    cure = panel.warning.partition("Cure:\n")[2]
    assert panel._clear_button.layout.display is None
    panel._clear_button.click()
    assert (panel.warning, net.hidden_task1.weight.grad) == ("", None)
    panel.undo()
    assert net.hidden_task1.weight.grad is gradient
    exec(cure, {"model": net})
    assert panel.warning == ""
    before = net.hidden_task1.weight.detach().clone()
    optimizer.step()
    assert torch.equal(before, net.hidden_task1.weight)


def test_the_box_takes_the_gradients_away_and_gives_them_back(net):
    optimizer = OPTIM.SGD(net.parameters(), lr=0.9)
    task_step(net, optimizer, "task1")
    gradient = net.hidden_task1.weight.grad
    panel = FreezePanel(net, optimizer)
    panel.freeze("hidden_task1")
    panel.clear_grad.value = True
    assert (panel.warning, net.hidden_task1.weight.grad) == ("", None)
    panel.undo()
    assert panel.clear_grad.value is False
    assert net.hidden_task1.weight.grad is gradient
    assert "too late" in panel.warning


def test_notice_of_old_momentum_at_release_until_the_next_step(net):
    optimizer = OPTIM.Adam(net.parameters(), lr=0.9)
    panel = FreezePanel(net, optimizer)
    panel.freeze("hidden_task2")
    panel.release()
    assert panel.warning == ""  # nothing stored for it
    task_step(net, optimizer, "task1")
    panel.clear_grad.value = True
    panel.freeze("hidden_task1")
    panel.release("hidden_task1")
    assert "the next steps of hidden_task1.weight also follow the momentum from before" in panel.warning
    cure = panel.warning.partition("To start afresh:\n")[2]
    task_step(net, optimizer, "task1")
    assert panel.warning == ""  # it has moved since
    exec(cure, {"model": net, "optimizer": optimizer})
    assert net.hidden_task1.weight not in optimizer.state


def test_everything_frozen_is_said(net):
    panel = FreezePanel(net)
    panel.depth.value = "output"
    assert panel.warning.startswith("everything is frozen: backward() will raise")


def test_lr_sliders_also_while_frozen_by_lr(net):
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
    assert repr(panel.lrs[0]) == "lr, group 0: 0 (frozen; 0.5 returns)"
    panel.release()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.01]


def test_an_lr_that_is_a_tensor_stays_one(net):
    optimizer = OPTIM.SGD(net.parameters(), lr=torch.tensor(0.1))
    before = optimizer.param_groups[0]["lr"]
    panel = FreezePanel(net, optimizer)
    panel.lrs[0].value = 0.5
    assert torch.equal(optimizer.param_groups[0]["lr"], torch.tensor(0.5))
    assert torch.equal(before, torch.tensor(0.1))
    panel.undo()
    assert torch.equal(optimizer.param_groups[0]["lr"], torch.tensor(0.1))


def test_an_lr_between_the_slider_s_stops_or_beyond_them_is_said(net):
    panel = FreezePanel(net, optimizer := OPTIM.SGD(net.parameters(), lr=0.0))
    assert "  lr of group 0: 0\n" in repr(panel)
    for lr, position, said in [(0.0, -60, "0"), (3e-4, -35, "0.0003"), (0.1, -10, "0.1"), (50, 10, "50")]:
        optimizer.param_groups[0]["lr"] = lr
        panel.refresh()
        slider = panel.lrs[0]
        assert (slider.value, slider.position, slider.said) == (lr, position, said)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.1})
    panel.refresh()
    assert [slider.value for slider in panel.lrs] == [50, 0.1]


def test_a_panel_that_is_only_looked_at_changes_no_lr(net):
    optimizer = OPTIM.Adam(net.parameters(), lr=3e-4)
    panel = FreezePanel(net, optimizer)
    for lr in (3e-4, 0.000285, 0.007):
        optimizer.param_groups[0]["lr"] = lr
        panel.refresh()
        for slider in panel.lrs:  # a page may send back whatever it was told
            slider.set_state(slider.get_state())
        assert optimizer.param_groups[0]["lr"] == lr
        assert panel._undo_button.disabled


def test_an_lr_slider_sets_its_stops_in_the_page_and_any_lr_in_code(net):
    optimizer = OPTIM.Adam(net.parameters(), lr=3e-4)
    panel = FreezePanel(net, optimizer)
    slider = panel.lrs[0]
    slider._receive(None, {"kind": "moved", "to": -34, "number": "v-1"}, [])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(10**-3.4)
    slider.value = 0.015
    assert optimizer.param_groups[0]["lr"] == 0.015
    panel.undo()
    assert optimizer.param_groups[0]["lr"] == 3e-4  # both were one drag
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite number, 0 or more"):
            slider.value = wrong
    with pytest.raises(ValueError, match="from -60 to 10"):
        slider._receive(None, {"kind": "moved", "to": 11, "number": "v-2"}, [])
    assert (slider.value, optimizer.param_groups[0]["lr"]) == (3e-4, 3e-4)


def test_an_error_is_shown_raised_and_leaves_nothing_half_done(net):
    optimizer = OPTIM.ASGD(net.parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer, method="lr_zero")
    with pytest.raises(ValueError, match="eta"):
        panel.depth.value = "hidden_task1"
    assert "ValueError" in panel._alert.value
    assert (panel.frozen, panel.depth.value) == ((), "nothing")
    with pytest.raises(ValueError, match="eta"):
        flip(panel, "hidden_task1", True)
    assert "ValueError" in panel.tree.error
    assert all(flags(net).values())
    panel.method.value = "requires_grad"
    flip(panel, "hidden_task1", True)
    assert panel.frozen == ("hidden_task1",)
    assert panel._alert.value == panel.tree.error == ""
    with pytest.raises(ValueError, match="eta"):  # what was frozen stays frozen
        panel.method.value = "lr_zero"
    assert (panel.frozen, panel.method.value) == (("hidden_task1",), "requires_grad")


def test_bad_input(net):
    with pytest.raises(ValueError, match="hidden_task1"):
        FreezePanel(net, layers=["hiden_task1"])
    with pytest.raises(ValueError, match=r"lr_zero needs the optimizer"):
        FreezePanel(net, method="lr_zero")
    with pytest.raises(ValueError, match="method='none'"):
        FreezePanel(net, method="none")
    with pytest.raises(TypeError, match="must be a torch"):
        FreezePanel("net")
    panel = FreezePanel(net)
    with pytest.raises(ValueError, match="'hidden_task3': the model has no such"):
        flip(panel, "hidden_task3", True)
    panel.close()
    with pytest.raises(RuntimeError, match="this panel is closed"):
        panel.freeze("output")
    gc.collect()  # a half-made widget closes itself: pytest turns an error in that into a failure


def test_layers_are_the_top_level_modules():
    wrapper = nn.Module()
    wrapper.net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert FreezePanel(wrapper).depth.options == ("nothing", "net.0", "net.2")
    alone = nn.Linear(2, 2)
    assert FreezePanel(alone).depth.options == ("nothing", "weight", "bias")
    assert FreezePanel(wrapper, layers=["net.2"]).depth.options == ("nothing", "net.2")


def test_the_slider_follows_the_switches(net):
    panel = FreezePanel(net)
    flip(panel, "hidden_task2", True)
    assert panel.depth.value == "nothing"  # hidden_task1 comes before it and is not frozen
    flip(panel, "hidden_task1", True)
    assert panel.depth.value == "hidden_task2"
    flip(panel, "hidden_task2", False)
    assert (panel.depth.value, panel.frozen) == ("hidden_task1", ("hidden_task1",))
    panel.depth.value = "nothing"
    assert panel.frozen == ()


def test_two_panels_on_one_model_act_as_one(net):
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    one = FreezePanel(net, optimizer, method="lr_zero")
    one.freeze("hidden_task1")
    two = FreezePanel(net)
    assert (two.frozen, two.method.value, len(two.lrs)) == (("hidden_task1",), "lr_zero", 1)
    two.method.value = "requires_grad"
    assert one.method.value == "requires_grad"
    two.release("hidden_task1")
    assert checked(one)["hidden_task1"] == "false"
    one.freeze("output")
    two.undo()
    assert all(flags(net).values())
    two.freeze("output")
    one.close()
    assert two.frozen == ("output",)
    two.close()
    assert all(flags(net).values())


def test_a_panel_with_another_optimizer_moves_what_is_held_there(net):
    old, new = (OPTIM.SGD(net.parameters(), lr=lr) for lr in (0.1, 0.2))
    panel = FreezePanel(net, old, method="lr_zero")
    panel.freeze("hidden_task1")
    FreezePanel(net, new)
    assert [group["lr"] for group in old.param_groups] == [0.1]
    assert [group["lr"] for group in new.param_groups] == [0.2, 0]
    assert panel.lrs[0].value == 0.2


def test_a_panel_that_cannot_be_made_leaves_the_old_one_alone(net):
    old = FreezePanel(net)
    old.freeze("hidden_task1")
    for wrong in ({"method": "lr0"}, {"layers": ["no such layer"]}):
        with pytest.raises(ValueError, match=r"lr0|no such layer"):
            FreezePanel(net, **wrong)
    assert old.frozen == ("hidden_task1",)
    assert not net.hidden_task1.weight.requires_grad


def test_a_panel_keeps_no_model_alive_and_says_when_it_is_gone():
    net = normed()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer)
    panel.freeze("0")
    panel.method.value = "grad_none"
    kept, weak = net[0][0].weight, weakref.ref(net)
    del net
    gc.collect()
    assert weak() is None
    assert how_frozen(kept) is None  # nor does a hook stay on what lives on
    panel.refresh()
    assert panel.tree.rows == []
    assert "the model is gone" in panel.warning
    assert "the model is gone" in panel._message.value
    assert panel.code == ""
    with pytest.raises(ReferenceError, match="the model is gone"):
        panel.freeze("0")
    panel.close()


def test_text_and_html_stand_in_for_the_widget():
    net = nn.ModuleDict({"<b>x</b>": nn.Linear(2, 2), "y": nn.Linear(2, 2)})
    panel = FreezePanel(net)
    panel.freeze("<b>x</b>")
    panel.freeze("y.bias")
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].splitlines()[:5] == [
        "FreezePanel, by requires_grad:",
        "  ❄ <b>x</b> (6 parameters)",
        "    y (6 parameters; 1 of 2 tensors frozen)",
        "    y.weight (4 parameters)",
        "  ❄ y.bias (2 parameters)",
    ]
    assert "&lt;b&gt;x&lt;/b&gt;" in bundle["text/html"]
    assert "<b>" not in bundle["text/html"] + panel._message.value
    assert "0x" not in bundle["text/plain"] + bundle["text/html"]


def test_text_of_resnet18_is_short():
    from torchvision.models import resnet18

    net = resnet18()
    panel = FreezePanel(net)
    panel.freeze("layer1.0")
    rows = repr(panel).partition("frozen = ")[0].splitlines()[1:]
    assert [row.split()[0] for row in rows] == [*("conv1", "bn1"), *(f"layer{i}" for i in range(1, 5)), "fc"]
    assert rows[2] == "    layer1 (147,968 parameters; 6 of 12 tensors frozen)"
    assert panel.tree.unfolded == []


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)


def test_code_wakes_what_is_held_at_lr_0_and_its_batchnorm_and_its_lr_stays():
    net = Body()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer, method="lr_zero")
    panel.freeze(["body", "norm", "head"])
    optimizer.param_groups[0]["lr"] = 0.01
    panel.refresh()
    net.train()
    assert (panel.frozen, net.norm.training, batchnorm_choice(net.norm)) == ((), True, None)
    assert how_frozen(net.body.weight) is None
    assert (optimizer.param_groups[0]["lr"], panel.lrs[0].value) == (0.01, 0.01)
    assert "eval()" not in panel.code
    panel.release()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01]


def test_code_wakes_a_group_that_was_split_off():
    net = Body()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer, method="lr_zero")
    panel.freeze(["norm", "body"])
    optimizer.param_groups[1]["lr"] = 0.02  # not the lr of its own group: joined it would lose it
    panel.refresh()
    net.train()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]
    assert panel.warning.startswith("woken: body.weight")
    panel.release("head")
    panel.refresh()
    assert panel.warning == ""  # said once, also where the group has to stay split
    assert (panel.frozen, net.norm.training, "eval()" in panel.code) == ((), True, False)
    optimizer.param_groups[1]["lr"] = 0.1
    panel.refresh()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


def test_a_cure_stands_in_lines_of_its_own_that_can_be_copied():
    net = nn.ModuleDict({f"<b>a rather long name {i}</b>": nn.Linear(2, 2) for i in range(4)})
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    panel = FreezePanel(net)
    panel.freeze("*.weight")
    words, _, cure = panel.warning.partition("\n")
    assert words.endswith("Cure:")
    assert cure.count("\n") > 1  # too long for one line
    pre = f"<pre>{escape(cure)}</pre>"
    assert pre in panel._message.value
    assert f"</p>{pre}" in panel._repr_html_()
    assert f"⚠ {words}\n{cure}\n" in repr(panel)
    exec(cure, {"model": net})
    assert [p.grad is None for p in net.parameters()] == [True, False] * 4
    assert panel.warning == ""


def test_all_frozen_with_gradients_still_there_says_both():
    net = nn.Sequential(nn.Linear(2, 2))
    net(torch.ones(1, 2)).sum().backward()
    panel = FreezePanel(net)
    panel.freeze("*")
    assert panel.warning.startswith("everything is frozen: backward() will raise")
    assert "too late if step() comes next" in panel.warning
    panel._clear_button.click()
    assert panel.warning == "everything is frozen: backward() will raise, for nothing requires a gradient."


def test_the_copied_code_pasted_beside_the_panel_changes_nothing():
    net = Body()
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    panel = FreezePanel(net, optimizer, method="lr_zero")
    panel.freeze("body")
    before = [(group["lr"], list(map(id, group["params"]))) for group in optimizer.param_groups]
    exec(panel.code, {"model": net, "optimizer": optimizer})
    panel.refresh()
    assert [(g["lr"], list(map(id, g["params"]))) for g in optimizer.param_groups] == before
    panel.release()
    assert len(optimizer.param_groups) == 1


def test_a_compiled_model_without_a_length():
    model = torch.compile(nn.Linear(2, 2))
    panel = FreezePanel(model, OPTIM.SGD(model.parameters(), lr=0.1))
    assert "weight" in repr(panel)


def test_what_is_no_optimizer_of_this_model_is_refused(net):
    other = nn.Linear(2, 2)
    optimizer = OPTIM.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="the optimizer holds no parameter of this model"):
        FreezePanel(net, OPTIM.SGD(other.parameters(), lr=0.1))
    with pytest.raises(TypeError, match="not StepLR: give it the scheduler's optimizer"):
        FreezePanel(net, OPTIM.lr_scheduler.StepLR(optimizer, 1))
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, not str"):
        FreezePanel(net, "adam")
    assert FreezePanel(net).lrs == []
    assert len(FreezePanel(net, optimizer).lrs) == 1
