"""StepView in a real JupyterLab: by mouse and by keyboard, with the kernel, without it, and while it runs."""

from contextlib import contextmanager

import axe
import pytest

TWO_TASKS = """
import torch
from torch import nn
import layerlab as ll
from layerlab.experiments.two_tasks import Network, task_step

net = Network.from_article()
optimizer = torch.optim.AdamW(net.parameters(), lr=0.9)
with ll.watch(net, optimizer) as ledger:
    task_step(net, optimizer, "task1")
    optimizer.zero_grad(set_to_none=False)
    net.hidden_task1.requires_grad_(False)
    task_step(net, optimizer, "task2", set_to_none=False)
    task_step(net, optimizer, "task2")
view = ll.StepView(ledger)
view
"""
RESNET = """
import torch, torchvision
import layerlab as ll

torch.manual_seed(0)
net = torchvision.models.resnet18(num_classes=2)
net.layer1.requires_grad_(False)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
with ll.watch(net, optimizer) as ledger:
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 32, 32)).sum().backward()
        optimizer.step()
ledger
"""


@contextmanager
def opened(lab, code):
    """Open and run a notebook of one cell; gives the lesson and its only StepView."""
    with lab.open_lesson(lab.write_notebook("view.ipynb", code)) as lesson:
        lesson.page.set_default_timeout(30_000)
        lesson.run_all()
        view = lesson.page.locator(".layerlab-step-view")
        view.locator(".layerlab-title").first.wait_for()
        yield lesson, view
        assert lesson.errors() == lesson.console_errors == lesson.outside_requests == []


@pytest.fixture(scope="module")
def two_tasks(lab):
    with opened(lab, TWO_TASKS) as shown:
        yield shown


@pytest.fixture
def shown(two_tasks):
    """The two tasks' lesson and view, at the newest step, no tensor chosen."""
    lesson, view = two_tasks
    lesson.kernel_eval("[setattr(view, 'step', -1), setattr(view, 'tensor', '')]")
    view.locator(".layerlab-closer").wait_for(state="hidden")
    view.get_by_text("step 2 of").wait_for()
    return two_tasks


def row(view, name):
    return view.locator("tbody tr:visible", has=view.page.locator(f"code:text-is('{name}')"))


def pixels(view, picture):
    """Colours of the middle of every cell of a picture, as the page has drawn it."""
    canvas = view.locator("figure", has=view.page.locator(f"strong:text-is('{picture}')")).locator("canvas")
    return canvas.evaluate(
        """canvas => {
            const pen = canvas.getContext('2d'), [columns, rows] = canvas.dataset.cells.split(' ');
            const [w, h] = [canvas.width / columns, canvas.height / rows];
            return Array.from({length: columns * rows}, (_, i) => Array.from(pen.getImageData(
                (i % columns) * w + 1, Math.floor(i / columns) * h + 1, 1, 1).data).slice(0, 3));
        }"""
    )


def test_the_slider_needs_no_kernel(lab):
    with opened(lab, TWO_TASKS) as (lesson, view):
        slides_without_a_kernel(lesson, view)


def slides_without_a_kernel(lesson, view):
    title, slider = view.locator(".layerlab-title").first, view.get_by_role("slider", name="step")
    assert title.inner_text().startswith("step 2 of 0…2, AdamW, lr 0.9: 2 of 3 tensors moved")
    row(view, "hidden_task1.weight").click()
    view.locator("canvas").first.wait_for()
    assert lesson.kernel_eval("view.tensor") == "hidden_task1.weight"
    kept = "[ledger.values(i, view.tensor) for i in range(3)]"
    moved = lesson.kernel_eval(f"[(v.after != v.before).flatten().tolist() for v in {kept}]")
    ratio = lesson.kernel_eval("ledger[0][view.tensor].update_ratio")
    lesson.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    for step in (1, 0):
        slider.press("ArrowLeft")
        assert title.inner_text().startswith(f"step {step} of 0…2")
        assert [colour != [255, 255, 255] for colour in pixels(view, "Δ")] == moved[step]
    assert float(row(view, "hidden_task1.weight").locator("td").nth(1).inner_text()) == pytest.approx(
        ratio, rel=0.05
    )
    box = slider.bounding_box()
    view.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert title.inner_text().startswith("step 1 of 0…2")
    assert "momentum" in row(view, "hidden_task1.weight").inner_text()
    assert "frozen (requires_grad) but moved" in view.inner_text()
    # ipywidgets itself says that the kernel is not there; nothing else went wrong
    assert all("Could not send widget sync message" in said for said in lesson.console_errors)
    lesson.console_errors.clear()


def test_play_from_the_first_step_to_the_last(shown):
    _, view = shown
    view.get_by_role("button", name="play the steps").press("Space")
    assert view.get_by_role("slider", name="step").input_value() == "0"
    view.get_by_role("button", name="pause").wait_for()
    view.get_by_text("step 1 of").wait_for()
    view.get_by_text("step 2 of").wait_for()
    view.get_by_role("button", name="play the steps").wait_for()


def test_code_moves_the_view_and_the_view_tells_the_code(shown):
    lesson, view = shown
    lesson.kernel_eval("setattr(view, 'step', 1)")
    view.get_by_text("step 1 of").wait_for()
    view.get_by_role("slider", name="step").press("Home")
    lesson.kernel_eval("None")
    assert lesson.kernel_eval("view.step") == 0
    view.get_by_role("slider", name="step").press("End")
    assert lesson.kernel_eval("view.step") == -1  # the newest, also when more come
    lesson.kernel_eval("setattr(view, 'tensor', 'output.weight')")
    view.get_by_text("parameter 4×3, float32, of Linear").wait_for()


def test_the_alarm_comes_first_and_leads_to_its_row_and_step(shown):
    lesson, view = shown
    view.get_by_role("button", name="step 1", exact=True).click()  # the newest step has none: it says where
    alarm = view.locator(".layerlab-alarm-box")
    assert "net.hidden_task1.weight.grad = None" in alarm.inner_text()
    assert alarm.bounding_box()["y"] < view.locator("table").bounding_box()["y"]
    assert row(view, "hidden_task1.weight").get_by_role("img", name="alarm").count() == 1
    assert row(view, "hidden_task1.weight").get_by_role("img", name="frozen").count() == 1
    alarm.get_by_role("button", name="hidden_task1.weight").click()
    assert row(view, "hidden_task1.weight").evaluate("row => row === document.activeElement")
    assert lesson.kernel_eval("view.step") == 1


def test_values_under_the_pointer_and_under_the_arrow_keys_are_those_of_the_tensor(shown):
    lesson, view = shown
    row(view, "output.weight").click()
    canvas = view.get_by_role("img", name="after,")
    canvas.wait_for()
    status = view.locator(".layerlab-value")
    after = lesson.kernel_eval("ledger.values(2, 'output.weight').after.tolist()")
    average = lesson.kernel_eval("ledger.values(2, 'output.weight').state['exp_avg'].tolist()")

    def read():
        said = status.inner_text()
        element, _, numbers = said.partition(": ")
        found = dict(pair.rsplit(" ", 1) for pair in numbers.split(", "))
        return element, float(found["after"]), float(found["exp_avg"])

    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    view.page.mouse.move(box["x"] + box["width"] * 5 / 6, box["y"] + box["height"] * 3 / 8)
    assert read() == (
        "element [1, 2]",
        pytest.approx(after[1][2], rel=1e-4),
        pytest.approx(average[1][2], rel=1e-4),
    )
    view.page.mouse.move(0, 0)
    canvas.focus()
    canvas.press("ArrowRight")
    canvas.press("ArrowDown")
    canvas.press("ArrowLeft")
    assert read() == (
        "element [1, 0]",
        pytest.approx(after[1][0], rel=1e-4),
        pytest.approx(average[1][0], rel=1e-4),
    )


def test_axe_finds_nothing_serious_with_a_tensor_opened(shown, axe_core):
    lesson, view = shown
    lesson.kernel_eval("[setattr(view, 'step', 1), setattr(view, 'tensor', 'hidden_task1.weight')]")
    view.locator("canvas").first.wait_for()
    for dark in (True, False):
        lesson.set_dark(dark)
        assert axe.faults(lesson, [".layerlab-step-view"]) == []


def test_a_large_network_is_folded_and_walked_by_keyboard_alone(lab):
    with opened(lab, RESNET) as (lesson, view):
        walks_by_keyboard(lesson, view)


def walks_by_keyboard(lesson, view):
    rows = view.locator("tbody tr:visible")
    assert rows.count() == 7  # conv1, bn1, layer1 … layer4, fc
    assert lesson.kernel_eval("len(ledger[0])") == 122
    assert "12 ○ stayed" in row(view, "layer1").inner_text()
    rows.first.focus()
    press = lambda *keys: [view.page.keyboard.press(key) for key in keys]  # noqa: E731
    press("ArrowDown", "ArrowDown")
    assert row(view, "layer1").get_attribute("aria-expanded") == "false"
    press("ArrowRight", "ArrowDown", "ArrowRight", "ArrowDown")
    assert row(view, "layer1").get_attribute("aria-expanded") == "true"
    assert view.page.evaluate("document.activeElement.querySelector('code').innerText") == "conv1.weight"
    press("Enter")
    view.get_by_text("layer1.0.conv1.weight: parameter 64×64×3×3").wait_for()
    assert row(view, "conv1.weight").nth(1).get_attribute("aria-selected") == "true"
    press("ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert rows.count() == 9  # layer1.0 is closed again, and the focus is on layer1
    press("ArrowLeft", "End")
    assert rows.count() == 7
    assert view.page.evaluate("document.activeElement.querySelector('code').innerText") == "fc"
    # Every tensor is reachable, and says what the ledger says.
    press("Enter", "ArrowDown", " ")
    view.get_by_text("fc.weight: parameter 2×512").wait_for()
    assert float(row(view, "weight").locator("td").nth(1).inner_text()) == pytest.approx(
        lesson.kernel_eval("ledger[-1]['fc.weight'].update_ratio"), rel=0.05
    )


SHOWN_BEFORE = """
import time, torch
from torch import nn
import layerlab as ll
net = nn.Linear(2, 2)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
again = "again" in globals()
ledger = ll.watch(net, optimizer)
view = ll.StepView(ledger, tensor="weight")
view
"""
LOOP = """
if again:
    with ledger:
        for _ in range(250):
            net(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            time.sleep(0.02)
"""
STEPS_AND_STATUS = """() => [
    Number(document.querySelector('.layerlab-step-view input').max) + 1,
    window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status]"""


def test_it_follows_a_loop_that_runs(lab):
    with lab.open_lesson(lab.write_notebook("loop.ipynb", SHOWN_BEFORE, LOOP)) as lesson:
        page = lesson.page
        lesson.run_all()  # the page connects to the kernel while that is free; now the loop itself
        lesson.start_all()
        slider = page.get_by_role("slider", name="step")
        slider.wait_for()
        page.wait_for_function("() => document.querySelector('.layerlab-step-view input').max > 4")
        first, status = page.evaluate(STEPS_AND_STATUS)
        assert status == "busy"
        assert slider.input_value() == str(first - 1)  # it stays with the newest
        page.get_by_text("recording").wait_for()
        slider.press("Home")
        slider.press("ArrowRight")
        page.wait_for_function(f"() => document.querySelector('.layerlab-step-view input').max > {first + 4}")
        assert page.evaluate(STEPS_AND_STATUS)[1] == "busy"
        assert slider.input_value() == "1"  # where the learner put it, though steps keep coming
        page.get_by_text("step 1 of 0…249").wait_for()
        assert lesson.kernel_eval("[view.overview['count'], view.step, view.recording]") == [250, 1, False]
        assert page.get_by_text("recording").count() == 0
        assert lesson.errors() == lesson.console_errors == lesson.outside_requests == []


HOSTILE = """
import torch
from torch import nn
import layerlab as ll
net = nn.ModuleDict({"<img src=x onerror=alert(1)>": nn.Linear(2, 2), "line\\nbreak": nn.Linear(2, 2)})
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with ll.watch(net, optimizer) as ledger:
    sum(layer(torch.ones(1, 2)).sum() for layer in net.values()).backward()
    optimizer.step()
view = ll.StepView(ledger)
view
"""


def test_names_are_text_and_nothing_else(lab):
    with opened(lab, HOSTILE) as (lesson, view):
        shows_names_as_text(lesson, view)


def shows_names_as_text(lesson, view):
    assert view.locator("tbody img").count() == 0
    row(view, "<img src=x onerror=alert(1)>.weight").click()
    view.locator("canvas").first.wait_for()
    row(view, "line\\\\nbreak.bias").click()
    view.get_by_text("parameter 2, float32").wait_for()
    assert lesson.kernel_eval("view.tensor") == "line\nbreak.bias"
