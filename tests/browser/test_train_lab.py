"""The training lab in a real JupyterLab: runs that grow, hold, go on, end and are compared."""

import re

import axe
import pytest
from lab import WAIT_UNTIL_READY

SET_UP = """
import torch
from torch import nn
import layerlab as ll
from layerlab.experiments.settings import Recipe
from layerlab.experiments.transfer import Transfer


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.neck = nn.Linear(5, 5)
        self.fc = nn.Linear(5, 2)

    def forward(self, x):
        return self.fc(self.neck(self.body(x).relu()).relu())


class Data:
    def __init__(self, examples, seed):
        self.inputs = torch.randn(examples, 6, generator=torch.Generator().manual_seed(seed))
        self.labels = (self.inputs.sum(1) > 0).long()

    def __len__(self):
        return len(self.labels)

    def batch(self, index):
        return self.inputs[index], self.labels[index]


models = []


def begin(setting, frozen_up_to, lr, per_class, seed):
    if seed == 4:
        raise ValueError("no <seed> 4")
    torch.manual_seed(seed)
    models.append(Net())
    epochs = {1: 8, 2: 4, 4: 10, 10: 10**6}[per_class]  # ten images of each class: a run without end
    recipe = Recipe(epochs=epochs, batch_size=10, lr=lr, test_every=2)
    data = Data(20, 0), Data(50, 1)
    return Transfer(setting, models[-1], *data, recipe, seed=seed, frozen_up_to=frozen_up_to)


def moved():
    return float(sum(p.double().abs().sum() for p in models[-1].parameters()))
"""
LAB = "lab = ll.TrainLab(begin, layers=['body', 'neck'], on_threads=1)\nlab"
ENDLESS = "10"
STATES = "[run.state for run in lab.runs]"
RESTART = "() => jupyterapp.shell.currentWidget.sessionContext.restartKernel()"
INTERRUPT = "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()"
# The error is among the outputs, and the kernel has answered: until then it aborts what it is asked.
RAISED = """() => {
    const cell = jupyterapp.shell.currentWidget.content.widgets.at(-1);
    return cell.model.outputs.toJSON().some(output => output.output_type === 'error')
        && /\\d/.test(cell.inputArea.promptNode.textContent);
}"""
SHUT_DOWN = "() => jupyterapp.shell.currentWidget.sessionContext.shutdown()"


@pytest.fixture
def lesson(lab):
    with lab.open_lesson(lab.write_notebook("train_lab.ipynb", SET_UP, LAB), width=1400) as lesson:
        lesson.run_all()
        yield lesson


def widget_of(lesson):
    lesson.page.set_default_timeout(60_000)  # its cells have run: what is not there by then never comes
    return lesson.page.locator(".layerlab-train-lab")


def no_errors(lesson):
    return lesson.errors() == lesson.console_errors == lesson.outside_requests == []


def button(widget, name):
    return widget.get_by_role("button", name=name, exact=True)


def menu(widget, name):
    return widget.get_by_role("combobox", name=name, exact=True)


def wait_for(widget, said):
    widget.get_by_role("status").get_by_text(said, exact=True).wait_for()


def rows(widget):
    """The texts of the runs' table, but for the step's time."""
    table = widget.get_by_role("table", name="all runs")
    found = [row.locator("td").all_inner_texts() for row in table.get_by_role("row").all()[1:]]
    return [[cell.strip() for at, cell in enumerate(row) if at != 8] for row in found]


def points(widget):
    """How many test accuracies are drawn of each run."""
    return widget.locator(".layerlab-curve").evaluate_all(
        "curves => curves.map(one => one.querySelectorAll('.layerlab-mark').length)"
    )


def test_the_key_that_runs_a_cell_presses_no_button(lesson):
    widget = widget_of(lesson)
    menu(widget, "labelled images of each class").select_option("1")
    button(widget, "start").press("Shift+Enter")
    assert lesson.kernel_eval("len(lab.runs)") == 0
    button(widget, "start").press("Enter")
    wait_for(widget, "run 1 from scratch: finished")
    assert lesson.kernel_eval("len(lab.runs)") == 1
    assert no_errors(lesson)


def test_two_runs_are_drawn_and_compared(lesson):
    widget = widget_of(lesson)
    depth = menu(widget, "frozen up to")
    assert depth.is_disabled()
    assert widget.get_by_text("this setting freezes nothing").is_visible()
    menu(widget, "labelled images of each class").select_option("1")
    button(widget, "start").click()
    wait_for(widget, "run 1 from scratch: finished")
    menu(widget, "setting").select_option(label="frozen: pretrained, requires_grad=False up to a layer")
    assert depth.is_enabled()
    depth.select_option("body")
    menu(widget, "head's learning rate").select_option("0.1")
    button(widget, "start").click()
    wait_for(widget, "run 2 frozen up to body: finished")

    records = "[[r.setting, r.frozen_up_to, r.lr, r.per_class, r.seed, len(r.epochs)] for r in lab.runs]"
    assert lesson.kernel_eval(records) == [["scratch", None, 0.01, 1, 0, 8], ["frozen", "body", 0.1, 1, 0, 8]]
    last = "[r.epochs[-1] for r in lab.runs]"
    one, two = lesson.kernel_eval(
        f"[[f'{{100 * e.test_accuracy:.1f}} %', ll.show.short(e.train_loss)] for e in {last}]"
    )
    assert rows(widget) == [
        ["from scratch", "–", "0.01", "1", "0", *one, "8 of 8", "finished", "remove"],
        ["frozen", "body", "0.1", "1", "0", *two, "8 of 8", "finished", "remove"],
    ]
    bold = widget.get_by_role("table", name="all runs").locator("strong").all_inner_texts()
    assert bold == ["frozen", "body", "0.1"]
    assert points(widget) == [5, 5]  # four accuracies, and the end of the loss
    names = widget.locator(".layerlab-name").all_inner_texts()
    assert sorted(names) == ["1 from scratch", "2 frozen up to body"]

    layers = widget.get_by_role("table", name="how far a step moved each layer")
    assert layers.locator("tbody tr").first.inner_text().split() == ["❄body", "0"]
    assert layers.get_by_role("img", name="frozen").count() == 1
    widget.get_by_role("radio", name="1", exact=True).check()
    assert layers.get_by_role("img", name="frozen").count() == 0
    assert widget.locator(".layerlab-curve.layerlab-chosen").count() == 1

    box = widget.locator(".layerlab-lab-plot").bounding_box()
    lesson.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 60)
    at_four = lesson.kernel_eval("[f'{100 * r.epochs[3].test_accuracy:.1f}' for r in lab.runs]")
    said = widget.locator("figcaption")
    assert said.inner_text().startswith("After epoch 4: 1 from scratch: ")
    assert [share in said.inner_text() for share in at_four] == [True, True]
    lesson.page.mouse.move(0, 0)
    assert said.inner_text().startswith("Now: ")

    button(widget, "remove run 1").click()
    widget.get_by_role("radio", name="1", exact=True).wait_for(state="detached")
    assert lesson.kernel_eval("[run.number for run in lab.runs]") == [2]
    button(widget, "remove all").click()
    widget.get_by_text("Nothing to draw yet.").wait_for()
    assert lesson.kernel_eval("len(lab.runs)") == 0
    assert no_errors(lesson)


def test_it_grows_holds_goes_on_and_stops(lesson):
    widget = widget_of(lesson)
    menu(widget, "labelled images of each class").select_option(ENDLESS)
    button(widget, "start").dblclick()  # an impatient one
    wait_for(widget, "run 1 from scratch: running")
    lesson.page.wait_for_function(  # it is drawn while it goes
        "() => document.querySelectorAll('.layerlab-curve .layerlab-mark').length > 6"
    )
    assert lesson.kernel_eval("1 + 1") == 2  # the kernel answers meanwhile
    button(widget, "pause").click()
    wait_for(widget, "run 1 from scratch: paused")
    before = lesson.kernel_eval("[moved(), lab.runs[0].step, len(lab.runs[0].epochs)]")
    drawn = points(widget)
    assert lesson.kernel_eval("[moved(), lab.runs[0].step, len(lab.runs[0].epochs)]") == before
    assert lesson.kernel_eval(STATES) == ["paused"]
    assert points(widget) == drawn
    button(widget, "go on").click()
    wait_for(widget, "run 1 from scratch: running")
    lesson.page.wait_for_function(
        "drawn => document.querySelectorAll('.layerlab-curve .layerlab-mark').length > drawn",
        arg=drawn[0],
    )
    button(widget, "stop").click()
    wait_for(widget, "run 1 from scratch: stopped")
    assert lesson.kernel_eval("len(lab.runs[0].epochs)") > before[2]
    assert lesson.kernel_eval("[lab.runs[0].state, len(models), lab.going]") == ["stopped", 1, {}]
    assert no_errors(lesson)


def press(lesson, *keys):
    for key in keys:
        lesson.page.keyboard.press(key)


def tab_to(lesson, name):
    says = """() => { const e = document.activeElement;
        return (e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent).trim() }"""
    for _ in range(40):
        press(lesson, "Tab")
        if lesson.evaluate(says) == name:
            return
    raise AssertionError(f"Tab never reaches {name!r}")


def test_all_of_it_by_keyboard(lesson):
    widget = widget_of(lesson)
    menu(widget, "setting").focus()  # as Tab does, coming from the cell above
    press(lesson, "ArrowDown", "ArrowDown", "ArrowDown")
    tab_to(lesson, "frozen up to")
    press(lesson, "ArrowUp")
    tab_to(lesson, "labelled images of each class")
    press(lesson, "End")
    tab_to(lesson, "seed")
    press(lesson, "ArrowDown")
    chosen = lesson.kernel_eval("[*vars(lab.chosen).values()]")
    assert chosen == ["lr_zero", "body", 0.01, 10, 1]
    tab_to(lesson, "start")
    press(lesson, "Enter")
    wait_for(widget, "run 1 lr = 0 up to body: running")
    press(lesson, "Enter")  # it keeps the focus, and does nothing now
    tab_to(lesson, "pause")
    press(lesson, "Space")
    wait_for(widget, "run 1 lr = 0 up to body: paused")
    assert button(widget, "go on").evaluate("one => one === document.activeElement")
    press(lesson, "Space")
    wait_for(widget, "run 1 lr = 0 up to body: running")
    lesson.page.wait_for_function(
        "() => document.querySelectorAll('.layerlab-curve .layerlab-mark').length > 5"
    )
    tab_to(lesson, "stop")
    press(lesson, "Enter")
    wait_for(widget, "run 1 lr = 0 up to body: stopped")
    assert lesson.kernel_eval(STATES) == ["stopped"]

    tab_to(lesson, "curves, by epoch")
    slider = widget.get_by_role("slider")
    last = lesson.kernel_eval("len(lab.runs[0].epochs)")
    assert slider.get_attribute("aria-valuenow") == str(last)
    press(lesson, "Home", "ArrowRight")
    share, loss = lesson.kernel_eval(
        "[f'{100 * lab.runs[0].epochs[1].test_accuracy:.1f}', lab.runs[0].epochs[1].train_loss]"
    )
    said = slider.get_attribute("aria-valuetext")
    assert said.startswith(f"epoch 2: 1 lr = 0 up to body: {share} % right, loss ")
    assert float(said.split()[-1]) == pytest.approx(loss, rel=0.06)
    press(lesson, "Escape", "ArrowLeft")
    assert slider.get_attribute("aria-valuenow") == str(last - 1)
    tab_to(lesson, "remove run 1")
    press(lesson, "Enter")
    widget.get_by_text("Nothing to draw yet.").wait_for()
    assert no_errors(lesson)


def test_an_error_is_shown_and_nothing_else_is_lost(lesson):
    widget = widget_of(lesson)
    menu(widget, "labelled images of each class").select_option("1")
    button(widget, "start").click()
    wait_for(widget, "run 1 from scratch: finished")
    menu(widget, "seed").select_option("4")
    button(widget, "start").click()
    widget.get_by_role("alert").get_by_text("ValueError: no <seed> 4").wait_for()
    wait_for(widget, "run 1 from scratch: finished")
    assert len(rows(widget)) == 1
    menu(widget, "seed").select_option("0")
    menu(widget, "labelled images of each class").select_option(ENDLESS)
    button(widget, "start").click()
    wait_for(widget, "run 2 from scratch: running")
    assert not widget.get_by_role("alert").is_visible()
    lesson.kernel_eval("models[-1].fc.register_forward_hook(lambda *_: 1 / 0) and None")
    widget.get_by_role("alert").get_by_text("ZeroDivisionError: division by zero").wait_for()
    wait_for(widget, "run 2 from scratch: failed")
    assert [row[-2] for row in rows(widget)] == ["finished", "failed: ZeroDivisionError: division by zero"]
    assert lesson.kernel_eval(STATES) == ["finished", "failed"]
    assert no_errors(lesson)


def test_a_cell_that_waits_and_a_cell_that_trains(lab):
    cells = (
        "run = lab.start(setting='frozen', per_class=4)\nwaited = await lab.done()",
        "trained = lab.train(setting='frozen', frozen_up_to='body', per_class=4)",
        "lab.start(per_class=10)",
        "lab = ll.TrainLab(begin, layers=['body', 'neck'])\nother = lab.start(per_class=10)\nlab",
    )
    with lab.open_lesson(lab.write_notebook("train_lab.ipynb", SET_UP, LAB, *cells)) as lesson:
        lesson.run_all()
        assert lesson.kernel_eval("[waited is run, run.state, trained.state]") == [
            True,
            "finished",
            "finished",
        ]
        assert lesson.kernel_eval("[other.state, len(__import__('asyncio').all_tasks())]")[0] == "running"
        lesson.kernel_eval("globals().update(first=other)")
        lesson.run_all()  # each cell again: the labs of before are closed, and so end their runs
        assert lesson.kernel_eval("[first.state, other.state]") == ["stopped", "running"]
        assert lesson.errors() == []


@pytest.mark.parametrize(
    ("cell", "then"),
    [
        ("lab.start(per_class=10)\nawait lab.done()", "running"),  # only the waiting ends
        ("lab.train(per_class=10)", "paused"),
    ],
)
def test_a_cell_that_is_interrupted_loses_no_run(lab, cell, then):
    with lab.open_lesson(lab.write_notebook("train_lab.ipynb", SET_UP, LAB, cell)) as lesson:
        lesson.start_all()
        widget = widget_of(lesson)
        wait_for(widget, "run 1 from scratch: running")
        lesson.page.wait_for_function(  # it is drawn while the cell runs, too
            "() => document.querySelectorAll('.layerlab-curve .layerlab-mark').length > 4"
        )
        lesson.evaluate(INTERRUPT)
        lesson.page.wait_for_function(RAISED)
        assert lesson.kernel_eval(STATES) == [then]
        if then == "paused":
            wait_for(widget, "run 1 from scratch: paused")
            button(widget, "go on").click()
            wait_for(widget, "run 1 from scratch: running")
        button(widget, "stop").click()
        wait_for(widget, "run 1 from scratch: stopped")
        assert lesson.console_errors == []


@pytest.mark.parametrize("ended", [RESTART, SHUT_DOWN])
def test_a_kernel_that_goes_is_noticed(lesson, ended):
    widget = widget_of(lesson)
    menu(widget, "labelled images of each class").select_option(ENDLESS)
    button(widget, "start").click()
    wait_for(widget, "run 1 from scratch: running")
    lesson.evaluate(ended)
    widget.get_by_role("alert").get_by_text(
        "the kernel of this output is gone: run its cell again"
    ).wait_for()
    wait_for(widget, "run 1 from scratch: lost with its kernel")
    assert button(widget, "start").get_attribute("aria-disabled") == "true"
    assert no_errors(lesson)
    if ended == RESTART:
        lesson.evaluate(WAIT_UNTIL_READY)
        lesson.run_all()
        widget.get_by_text("Nothing to draw yet.").wait_for()
        button(widget, "start").click()
        wait_for(widget, "run 1 from scratch: finished")
        assert no_errors(lesson)


def test_it_has_no_faults_in_either_theme(lab, axe_core):
    runs = "\n".join(
        f"lab.train(setting={setting!r}, lr={lr})"
        for setting, lr in [
            ("scratch", 0.1),
            ("fine_tune", 0.1),
            ("frozen", 0.1),
            ("lr_zero", 0.03),
            ("lr_tenth", 0.1),
        ]
    )
    with lab.open_lesson(lab.write_notebook("train_lab.ipynb", SET_UP, LAB, runs)) as lesson:
        lesson.run_all()
        widget = widget_of(lesson)
        menu(widget, "labelled images of each class").select_option(ENDLESS)
        menu(widget, "seed").select_option("4")
        button(widget, "start").click()
        widget.get_by_role("alert").wait_for()
        widget.get_by_text(re.compile("^5 lr / 10")).first.wait_for()
        for dark in (False, True):
            lesson.set_dark(dark)
            assert axe.faults(lesson, [".layerlab-train-lab"]) == []
        assert no_errors(lesson)
