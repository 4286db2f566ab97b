"""The widgets when their kernel goes: a restart leaves nothing stale, and without a kernel nothing breaks."""

import re

import pytest
from lab import WAIT_UNTIL_READY

SET_UP = """
from collections import OrderedDict
import torch
from torch import nn
import layerlab as ll

def fresh():
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(body=nn.Linear(3, 2), head=nn.Linear(2, 2)))
    return net, torch.optim.SGD(net.parameters(), lr=0.1)

def one_step(frozen):
    net, optimizer = fresh()
    net.body.requires_grad_(not frozen)
    with ll.watch(net, optimizer) as ledger:
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return ledger

net, optimizer = fresh()
"""
CELLS = (
    SET_UP,
    "view = ll.StepView(one_step(frozen=True))\nview",  # first, for its rows are found before other tables'
    "explore = ll.Explore(one_step, frozen={'thawed': False, 'held': True})\nexplore",
    "predict = ll.Predict(net)\npredict",
    "panel = ll.FreezePanel(net, optimizer)\npanel",
)

# Of each widget: the control that is flipped, by the key that a keyboard's user presses, and what must come
# of it in the kernel.
FLIPS = {
    "explore": (("button", "held"), "explore.settings", {"frozen": True}),
    "predict": (("checkbox", "head.weight"), "list(predict.ticked)", ["head.weight"]),
    "panel": (("treeitem", "body"), "list(panel.frozen)", ["body"]),
    "view": (("row", "head.bias"), "view.tensor", "head.bias"),
}

# What JupyterLab does when a reader chooses "Restart Kernel", with the one that is there or after the last.
RESTART = """() => {
    const context = jupyterapp.shell.currentWidget.sessionContext;
    return context.session?.kernel
        ? context.restartKernel() : context.changeKernel({name: context.prevKernelName});
}"""
SHUT_DOWN = "() => jupyterapp.shell.currentWidget.sessionContext.shutdown()"
WIDGETS = "() => document.querySelectorAll('.jp-OutputArea-output .jupyter-widgets').length"
STALE = "() => document.querySelectorAll('.jupyter-widgets-disconnected, .jupyter-widget-error').length"
NOT_SENT = "Could not send widget sync message"  # ipywidgets says so and goes on
CLICK_NOT_SENT = "uncaught: Cannot send"  # its toggle buttons, and nothing else, report each click besides
TWO_FRAMES = "() => new Promise(next => requestAnimationFrame(() => requestAnimationFrame(next)))"


@pytest.fixture
def lesson(lab):
    with lab.open_lesson(lab.write_notebook("kernel.ipynb", *CELLS)) as lesson:
        lesson.run_all()
        yield lesson


def flip(lesson, widget):
    (role, name), _, _ = FLIPS[widget]
    lesson.page.get_by_role(role, name=re.compile(re.escape(name))).first.press("Space")


def flip_each_and_ask_the_kernel(lesson):
    for widget, (_, ask, answer) in FLIPS.items():
        assert lesson.kernel_eval(ask) != answer
        flip(lesson, widget)
        assert lesson.kernel_eval(ask) == answer  # the kernel answers in order: the flip came first
    assert lesson.errors() == []


def restart_and_run_all(lesson):
    lesson.evaluate(RESTART)
    lesson.evaluate(WAIT_UNTIL_READY)
    lesson.run_all()


def test_after_a_restart_every_widget_is_there_once_and_works(lesson):
    flip_each_and_ask_the_kernel(lesson)
    before = lesson.evaluate(WIDGETS)
    restart_and_run_all(lesson)
    assert lesson.evaluate(WIDGETS) == before
    assert lesson.evaluate(STALE) == 0
    flip_each_and_ask_the_kernel(lesson)
    assert lesson.console_errors == []


def test_without_a_kernel_a_flip_breaks_nothing_and_a_restart_heals_all(lesson):
    lesson.evaluate(SHUT_DOWN)
    for widget in FLIPS:
        flip(lesson, widget)
        lesson.evaluate(TWO_FRAMES)
        theirs = (NOT_SENT, CLICK_NOT_SENT) if widget == "explore" else (NOT_SENT,)
        assert [said for said in lesson.console_errors if not said.startswith(theirs)] == []
        lesson.console_errors.clear()
    assert lesson.errors() == []
    drawn_by_us = lesson.page.get_by_text("the kernel of this output is gone").locator("visible=true")
    assert drawn_by_us.count() == 2  # predict and panel
    assert not lesson.page.get_by_role("checkbox", name=re.compile("head.weight")).first.is_checked()
    assert lesson.page.get_by_role("treeitem", name="body").first.get_attribute("aria-checked") == "false"
    restart_and_run_all(lesson)
    assert lesson.evaluate(STALE) == 0
    flip_each_and_ask_the_kernel(lesson)
    assert lesson.console_errors == []
