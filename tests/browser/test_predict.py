"""The prediction in a real JupyterLab: by mouse, by keyboard alone, with many tensors, with errors."""

import re

import pytest

SMALL = """
import torch
from torch import nn
import layerlab as ll

net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
net[0].requires_grad_(False)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)


def step():
    with ll.watch(net, optimizer) as ledger:
        net(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    return ledger
"""
PLAIN = "guess = ll.Predict(net, 'What moves?')\nguess"
AND_RUN = """
calls = []


def run():
    calls.append(guess.stage)
    if len(calls) == 1:
        raise RuntimeError("no <data>")
    return step()


guess = ll.Predict(net, "What moves?", run=run)
guess
"""
MANY = """
from collections import OrderedDict

blocks = {f"layer{i}": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for i in range(4)}
net = nn.Sequential(OrderedDict(conv1=nn.Linear(2, 2, bias=False), **blocks, fc=nn.Linear(2, 2)))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
net.layer2.requires_grad_(False)


def run():
    global really_moved
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with ll.watch(net, optimizer) as ledger:
        net(torch.eye(2).repeat(3, 1)).square().sum().backward()
        optimizer.step()
    really_moved = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    return ledger


guess = ll.Predict(net, "What moves?", run=run)
guess
"""


INSIDE = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")


def boxes(lesson):
    lesson.page.set_default_timeout(20_000)  # its cells have run: what is not there by then never comes
    return lesson.page.locator(".layerlab-predict")


def no_errors(lesson):
    return lesson.errors() == lesson.console_errors == lesson.outside_requests == []


def focused(lesson):
    """Name of what has the focus, as a reader hears it."""
    return lesson.evaluate(
        "() => { const e = document.activeElement;"
        " return (e.getAttribute('aria-label') ?? e.closest('label, button')?.textContent ?? '').trim() }"
    )


def tab_to(lesson, name, *, back=False):
    for _ in range(80):
        lesson.page.keyboard.press("Shift+Tab" if back else "Tab")
        if focused(lesson) == name:
            return
    raise AssertionError(f"Tab never reaches {name!r}")


def test_by_mouse(lab):
    with lab.open_lesson(lab.write_notebook("predict.ipynb", SMALL, PLAIN)) as lesson:
        lesson.run_all()
        widget = boxes(lesson)
        first, second = widget.get_by_label("0.weight"), widget.get_by_label("1.weight")
        first.check()
        second.check()
        widget.get_by_role("button", name="lock in").click()
        widget.get_by_role("button", name="change my mind").wait_for()
        assert lesson.kernel_eval("[guess.stage, guess.ticked]") == ["locked", ["0.weight", "1.weight"]]
        assert first.is_disabled()
        assert second.is_disabled()
        widget.get_by_role("button", name="change my mind").click()
        widget.get_by_role("button", name="lock in", exact=True).wait_for()
        second.uncheck()
        widget.get_by_role("button", name="lock in", exact=True).click()
        lesson.kernel_eval("str(guess.check(step()))")
        widget.get_by_text("0 of 2 right", exact=True).wait_for()
        assert widget.get_by_text("it stayed: its grad was None, so step() skipped it").is_visible()
        assert widget.get_by_text("it moved by its gradient").is_visible()
        assert widget.get_by_text("this lesson so far: 0 of 2 right in 1 prediction").is_visible()
        assert first.is_disabled()
        widget.get_by_role("button", name="try again").click()
        first.uncheck()
        second.check()
        assert widget.get_by_text("it moved").count() == 0
        lesson.kernel_eval("str(guess.check(step()))")
        widget.get_by_text("2 of 2 right; not locked in, so it does not count", exact=True).wait_for()
        assert widget.get_by_text("✓ right").count() == 2
        assert widget.get_by_text("this lesson so far: 0 of 2 right in 1 prediction").is_visible()
        assert no_errors(lesson)


def test_a_run_of_its_own_is_shown_and_so_is_its_error(lab):
    with lab.open_lesson(lab.write_notebook("predict.ipynb", SMALL, AND_RUN)) as lesson:
        lesson.run_all()
        widget = boxes(lesson)
        widget.get_by_label("1.weight").check()
        widget.get_by_role("button", name="lock in and run").click()
        widget.get_by_role("alert").get_by_text("RuntimeError: no <data>").wait_for()
        assert widget.get_by_label("1.weight").is_enabled()
        assert lesson.kernel_eval("[guess.stage, guess.score]") == ["open", None]
        widget.get_by_role("button", name="lock in and run").dblclick()  # an impatient one
        widget.get_by_text("2 of 2 right", exact=True).wait_for()
        assert not widget.get_by_role("alert").is_visible()
        assert lesson.kernel_eval("[guess.stage, calls]") == ["scored", ["running"] * 2]
        assert no_errors(lesson)


def test_the_page_says_that_it_runs_and_takes_no_tick_meanwhile(lab):
    slow = AND_RUN.replace(
        "    if len(calls) == 1:\n        raise", "    input_of_a_friend()\n    if False:\n        raise"
    )
    gate = """
import pathlib, time
gate = pathlib.Path("gate")
gate.unlink(missing_ok=True)


def input_of_a_friend():
    while not gate.exists():
        time.sleep(0.01)
"""
    with lab.open_lesson(lab.write_notebook("predict.ipynb", SMALL, gate, slow)) as lesson:
        lesson.run_all()
        widget = boxes(lesson)
        widget.get_by_role("button", name="lock in and run").click()
        widget.get_by_role("button", name="running …").wait_for()
        assert widget.get_by_label("1.weight").is_disabled()
        (lab.folder / "gate").touch()
        widget.get_by_text("1 of 2 right", exact=True).wait_for()
        assert no_errors(lesson)


@pytest.fixture
def many(lab):
    with lab.open_lesson(lab.write_notebook("predict.ipynb", SMALL, MANY)) as lesson:
        lesson.run_all()
        yield lesson


def test_many_tensors_are_folded_by_module(many):
    widget = boxes(many)
    fold = widget.get_by_role("button", name="layer1", exact=True)
    inside = widget.get_by_label("layer1.0.weight")
    assert fold.get_attribute("aria-expanded") == "false"
    assert not inside.is_visible()
    assert widget.get_by_label("conv1.weight").is_visible()  # alone in its module: nothing to fold
    fold.click()
    assert fold.get_attribute("aria-expanded") == "true"
    inside.check()
    assert widget.get_by_text("1 of 6 ticked").is_visible()
    widget.get_by_role("button", name="tick all of layer0").click()
    widget.get_by_role("button", name="tick all of layer3").click()
    widget.get_by_role("button", name="tick none of layer3").click()
    layer0 = [f"layer0.{rest}" for rest in INSIDE]
    assert many.kernel_eval("guess.ticked") == [*layer0, "layer1.0.weight"]
    assert no_errors(many)


def test_all_of_it_by_keyboard(many):
    widget = boxes(many)
    widget.get_by_label("conv1.weight").focus()  # as Tab does, coming from the cell above
    many.page.keyboard.press("Space")
    tab_to(many, "layer0")
    many.page.keyboard.press("Space")
    assert widget.get_by_role("button", name="layer0", exact=True).get_attribute("aria-expanded") == "true"
    reached = []
    for _ in range(4):
        many.page.keyboard.press("Tab")
        reached.append(focused(many))
    assert reached == ["tick all of layer0", "tick none of layer0", "layer0.0.weight", "layer0.0.bias"]
    many.page.keyboard.press("Space")
    for name in ("layer1", "layer3"):
        tab_to(many, f"tick all of {name}")
        many.page.keyboard.press("Enter")
    tab_to(many, "layer2")
    many.page.keyboard.press("Enter")
    tab_to(many, "layer2.1.running_mean")
    many.page.keyboard.press("Space")
    tab_to(many, "lock in and run")
    many.page.keyboard.press("Enter")
    widget.get_by_text(re.compile(r"^\d+ of 27 right$")).wait_for()
    layers = [f"layer{i}.{rest}" for i in (1, 3) for rest in INSIDE]
    ticked = {"conv1.weight", "layer0.0.bias", *layers, "layer2.1.running_mean"}
    assert set(many.kernel_eval("guess.ticked")) == ticked
    moved = set(many.kernel_eval("really_moved"))
    right = sum((name in ticked) == (name in moved) for name in many.kernel_eval("guess.names"))
    assert many.kernel_eval("[guess.score.right, guess.score.total]") == [right, 27]
    assert widget.get_by_text("0 of 2 ticked; 2 wrong ✗").is_visible()
    assert widget.get_by_label("layer2.1.running_var").is_visible()
    assert widget.get_by_text("it moved by its module's forward pass").first.is_visible()
    tab_to(many, "try again")
    many.page.keyboard.press("Enter")
    widget.get_by_role("button", name="lock in and run").wait_for()
    assert focused(many) == "lock in and run"
    tab_to(many, "tick all of fc", back=True)
    many.page.keyboard.press("Space")
    assert many.kernel_eval("len(guess.ticked)") == 17
    assert no_errors(many)
