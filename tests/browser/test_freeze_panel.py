"""`FreezePanel` in a real JupyterLab: every control, the model in the kernel as judge of what is shown."""

import axe
import pytest
import torch

SET_UP = """
import gc
import torch
from torch import nn
import layerlab as ll
from layerlab.experiments.two_tasks import Network, task_step
net = Network.from_article()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
flags = lambda: [p.requires_grad for p in net.parameters()]
"""
PANEL = "panel = ll.FreezePanel(net, optimizer)\npanel"
LATE = "task_step(net, optimizer, 'task1')"
CODE = "net.output.requires_grad_(False); None"
SCHEDULE = """
net = Network.from_article()
optimizer = torch.optim.Adam(net.parameters(), lr=3e-4)
panel = ll.FreezePanel(net, optimizer)
panel
"""
BEGIN = "schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95); seen = []"
STEP = "optimizer.step(); schedule.step(); seen.append(optimizer.param_groups[0]['lr'])"
RESNET = """
from torchvision.models import resnet18
net = resnet18()
flags = lambda: {name: p.requires_grad for name, p in net.named_parameters()}
panel = ll.FreezePanel(net, torch.optim.SGD(net.parameters(), lr=0.1))
panel
"""
RUN_CELL = """async (index) => {
    const notebook = jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    notebook.deselectAll();
    await jupyterapp.commands.execute('notebook:run-cell');
}"""
SETTLED = "() => !document.querySelector('.layerlab-freeze-tree [aria-busy=true]')"
CHECKED = """() => Object.fromEntries([...document.querySelectorAll('.layerlab-freeze-tree [role=treeitem]')]
    .map(row => [row.title, row.getAttribute('aria-checked')]))"""
CALLBACKS = "len(get_ipython().events.callbacks['post_run_cell'])"


class Panel:
    """The panel in the page, and the model below it."""

    def __init__(self, lesson):
        self.lesson, self.page = lesson, lesson.page
        self.tree = lesson.page.get_by_role("tree", name="freeze layers")

    def row(self, name):
        return self.tree.locator(f"[role=treeitem][title='{name}']")

    def click(self, name):
        self.row(name).locator(".layerlab-freeze-box").click()

    def is_checked(self, name, state):
        self.tree.locator(f"[title='{name}'][aria-checked={state}][aria-busy=false]").wait_for()

    def checked(self):
        self.lesson.kernel_eval("None")
        self.page.wait_for_function(SETTLED)
        return self.lesson.evaluate(CHECKED)

    def flags(self):
        return self.lesson.kernel_eval("flags()")

    def run(self, index):
        self.lesson.evaluate(RUN_CELL, index)
        self.lesson.kernel_eval("None")


@pytest.fixture
def opened(lab):
    """Open a panel in a notebook of these cells, the second of which makes it; all but it may run later."""
    with lab.open_lesson(lab.write_notebook("panel.ipynb", SET_UP, PANEL, CODE, LATE, RESNET)) as lesson:
        lesson.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        panel = Panel(lesson)
        panel.run(0)
        yield panel
        assert lesson.errors() == lesson.console_errors == lesson.outside_requests == []


def test_mouse_keyboard_slider_method_and_undo(opened):
    panel, page = opened, opened.page
    panel.run(1)
    panel.click("output")
    panel.is_checked("output", "true")
    assert panel.flags() == [True, True, False]
    assert panel.checked() == {
        **{"hidden_task1": "false", "hidden_task1.weight": "false"},
        **{"hidden_task2": "false", "hidden_task2.weight": "false"},
        **{"output": "true", "output.weight": "true"},
    }

    panel.row("hidden_task1").focus()
    for key, reached in [
        ("ArrowDown", "hidden_task1.weight"),
        ("End", "output.weight"),
        ("ArrowLeft", "output"),
        ("Home", "hidden_task1"),
        ("ArrowRight", "hidden_task1.weight"),
        ("ArrowLeft", "hidden_task1"),
    ]:
        page.keyboard.press(key)
        assert page.evaluate("() => document.activeElement.title") == reached
    page.keyboard.press("ArrowLeft")
    panel.tree.locator("[title='hidden_task1'][aria-expanded=false]").wait_for()
    assert not panel.row("hidden_task1.weight").is_visible()
    page.keyboard.press("Space")
    panel.is_checked("hidden_task1", "true")
    assert panel.flags() == [False, True, False]
    page.keyboard.press("Enter")
    panel.is_checked("hidden_task1", "false")

    depth = page.get_by_role("slider").first
    depth.press("ArrowRight")
    depth.press("ArrowRight")
    panel.is_checked("hidden_task2", "true")
    panel.is_checked("output", "false")
    assert panel.flags() == [False, False, True]
    undo = page.get_by_role("button", name="undo")
    undo.click()  # both moves of the slider were one drag
    panel.is_checked("output", "true")
    assert panel.flags() == [True, True, False]

    page.locator("select[data-lm-suppress-shortcuts]").press("ArrowDown")  # to grad_none
    page.locator(".layerlab-copy-text", has_text="after every loss.backward()").wait_for()
    assert panel.flags() == [True, True, True]
    assert panel.checked()["output"] == "true"
    undo.click()
    page.locator(".layerlab-copy-text", has_text="requires_grad = False").wait_for()
    assert panel.flags() == [True, True, False]


def test_lr_slider_copy_and_what_code_does(opened):
    panel, page = opened, opened.page
    panel.run(1)
    page.get_by_role("slider").nth(1).press("ArrowLeft")
    page.locator(".layerlab-copy-text", has_text="0.079").wait_for()
    assert panel.lesson.kernel_eval("optimizer.param_groups[0]['lr']") == pytest.approx(10**-1.1)
    panel.run(2)  # code freezes the output
    panel.is_checked("output", "true")
    panel.row("output").get_by_text("requires_grad by code").wait_for()
    page.get_by_role("button", name="copy as PyTorch (for `net` and `optimizer`)").click()
    page.get_by_text("copied", exact=True).wait_for()
    copied = panel.lesson.evaluate("() => navigator.clipboard.readText()")
    assert copied == panel.lesson.kernel_eval("panel.code")
    assert "frozen = [*net.output.parameters()]" in copied


@pytest.mark.parametrize("together", [True, False])
def test_a_panel_that_is_only_looked_at_changes_no_lr(lab, together):
    cells = (SET_UP, SCHEDULE, BEGIN, STEP, STEP, STEP)
    with lab.open_lesson(lab.write_notebook("schedule.ipynb", *cells)) as lesson:
        panel = Panel(lesson)
        if together:
            lesson.run_all()
        else:
            for index in range(len(cells)):
                panel.run(index)
                lesson.page.wait_for_timeout(200)  # whatever the page may send of its own accord
        slider = lesson.page.get_by_role("slider", name="lr, group 0")
        slider.and_(lesson.page.locator("[aria-valuetext='0.00025721']")).wait_for()
        alone = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=3e-4)
        schedule = torch.optim.lr_scheduler.ExponentialLR(alone, 0.95)
        expected = []
        for _ in range(3):
            alone.step()
            schedule.step()
            expected.append(alone.param_groups[0]["lr"])
        assert lesson.kernel_eval("seen") == expected
        assert lesson.kernel_eval("optimizer.param_groups[0]['lr']") == expected[-1]
        undo = lesson.page.get_by_role("button", name="undo")
        assert undo.is_disabled()
        slider.press("ArrowRight")
        lesson.page.locator(".layerlab-copy-text", has_text="0.000316").wait_for()
        assert lesson.kernel_eval("optimizer.param_groups[0]['lr']") == pytest.approx(10**-3.5)
        undo.click()
        lesson.page.locator(".layerlab-copy-text", has_text="0.000257").wait_for()
        assert lesson.kernel_eval("optimizer.param_groups[0]['lr']") == expected[-1]
        assert lesson.errors() == lesson.console_errors == lesson.outside_requests == []


def test_too_late_and_its_button(opened):
    panel, page = opened, opened.page
    panel.run(1)
    panel.run(3)  # a training step leaves gradients
    clear = page.get_by_role("button", name="clear these gradients now")
    assert not clear.is_visible()
    panel.click("hidden_task1")
    page.get_by_role("alert").get_by_text("too late if step() comes next: hidden_task1.weight").wait_for()
    assert panel.lesson.kernel_eval("net.hidden_task1.weight.grad is None") is False
    clear.click()
    clear.wait_for(state="hidden")
    assert panel.lesson.kernel_eval("net.hidden_task1.weight.grad is None") is True
    page.get_by_role("button", name="undo").click()
    clear.wait_for()
    assert panel.lesson.kernel_eval("net.hidden_task1.weight.grad is None") is False


def test_thirty_quick_flips_end_where_the_model_is(opened):
    panel = opened
    panel.run(1)
    names = ["hidden_task1", "hidden_task2.weight", "output", "hidden_task1"]
    # Clicks as fast as the page takes them: none waits for the kernel.
    script = """names => { for (let i = 0; i < 30; i++)
        document.querySelector(`[title='${names[i % 4]}'] > .layerlab-freeze-box`).click(); }"""
    panel.lesson.evaluate(script, names)
    shown = panel.checked()
    frozen = [not flag for flag in panel.flags()]
    assert [shown[name] == "true" for name in ("hidden_task1", "hidden_task2", "output")] == frozen
    assert frozen == [True, False, True]  # after 15, 8 and 7 flips


def test_running_the_panels_cell_again_leaves_one_panel(opened):
    panel = opened
    before = panel.lesson.kernel_eval(CALLBACKS)
    panel.run(1)
    panel.click("output")
    panel.is_checked("output", "true")
    for _ in range(3):
        panel.run(1)
        panel.is_checked("output", "true")
    assert panel.tree.count() == 1
    assert panel.lesson.kernel_eval(CALLBACKS) == before + 1
    panel.click("output")
    panel.is_checked("output", "false")
    assert panel.flags() == [True, True, True]
    panel.click("hidden_task1")
    panel.is_checked("hidden_task1", "true")
    panel.run(0)  # another model by the same name: the panel says so, and keeps the old one from nobody
    panel.page.get_by_role("alert").get_by_text("the model is gone").wait_for()
    assert panel.flags() == [True, True, True]
    panel.lesson.kernel_eval("panel.close()")
    assert panel.lesson.kernel_eval(CALLBACKS) == before


def test_resnet18_is_readable_and_one_layer_mixed(opened):
    panel = opened
    panel.run(4)
    assert [row.get_attribute("title") for row in panel.tree.get_by_role("treeitem").all()] == [
        *("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
    ]
    panel.row("layer1").locator(".layerlab-freeze-fold").click()
    panel.click("layer1.0")
    panel.is_checked("layer1", "mixed")
    panel.row("layer1").get_by_text("6 of 12 tensors frozen").wait_for()
    flags = panel.flags()
    assert {name for name, flag in flags.items() if not flag} == {
        n for n in flags if n.startswith("layer1.0.")
    }
    assert panel.lesson.kernel_eval("[m.training for m in (net.layer1[0].bn1, net.layer1[1].bn1)]") == [
        *(False, True)
    ]
    panel.row("layer1").get_by_text("147,968 parameters").click()
    panel.is_checked("layer1", "true")
    assert not any(flag for name, flag in panel.flags().items() if name.startswith("layer1."))


def test_axe_finds_nothing_serious_in_the_tree(opened, axe_core):
    opened.run(4)
    opened.click("layer1")
    opened.is_checked("layer1", "true")
    for dark in (False, True):
        opened.lesson.set_dark(dark)
        assert axe.faults(opened.lesson, [".layerlab-freeze", ".layerlab-copy", ".layerlab-lr"]) == []
