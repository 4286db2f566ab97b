"""The comparison in a real JupyterLab: by mouse, by keyboard alone, a state pasted, an error of one side."""

import pytest

DEFAULT = """
from layerlab.widgets.compare import Compare

compare = Compare()
compare
"""
OWN = """
import pathlib, time
import torch
from torch import nn
import layerlab as ll
from layerlab.widgets.compare import Compare

calls = []
gate = pathlib.Path("gate")


def run(lr, momentum):
    calls.append([lr, momentum])
    if lr == "wait":
        while not gate.exists():
            time.sleep(0.01)
        lr = 0.1
    if lr < 0:
        raise ArithmeticError("<b>below</b> zero")
    weight = nn.Parameter(torch.ones(2))
    net = nn.ParameterDict({"weight": weight})
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    with ll.watch(net, optimizer) as ledger:
        for loss in (weight.sum(), 0 * weight.sum()):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return ledger


compare = Compare(run, lr=[0.1, 0.2, -1.0, "wait"], momentum={"none": 0.0, "0.9": 0.9})
compare
"""
EXPLORE = """
runs = []


def facts(a, b):
    runs.append([a, b])
    return ll.table([{"a": a, "b": b}], title=f"a is {a} and b is {b}")


explore = ll.Explore(facts, a=["one", "two"], b=["x", "y"])
explore
"""
H1 = "hidden_task1.weight"


def shown(lesson, kind="compare"):
    lesson.page.set_default_timeout(20_000)  # its cells have run: what is not there by then never comes
    return lesson.page.locator(f".layerlab-{kind}")


def menu(widget, name):
    """The control that a screen reader calls so."""
    return widget.get_by_role("combobox", name=name, exact=True)


def no_errors(lesson):
    return lesson.errors() == lesson.console_errors == lesson.outside_requests == []


@pytest.fixture
def default(lab):
    with lab.open_lesson(lab.write_notebook("compare.ipynb", DEFAULT)) as lesson:
        lesson.run_all()
        yield lesson


@pytest.fixture
def own(lab):
    (lab.folder / "gate").unlink(missing_ok=True)
    with lab.open_lesson(lab.write_notebook("compare.ipynb", OWN)) as lesson:
        lesson.run_all()
        yield lesson


def test_by_mouse(default):
    widget = shown(default)
    sentence = "hidden_task1.weight moves by momentum on the left and stays (no gradient) on the right"
    assert widget.get_by_text(sentence).is_visible()
    first = widget.get_by_role("row").nth(1)
    assert first.locator("th").inner_text().split() == ["≠", H1]
    assert first.get_by_text("step 2: ▲ momentum ≠ ○ no gradient").is_visible()
    assert widget.get_by_title("differs").count() == 1

    menu(widget, "zero_grad, right").select_option("zeros")
    widget.get_by_text("No tensor behaves differently").wait_for()
    assert widget.get_by_title("differs").count() == 0
    assert default.kernel_eval("compare.state").startswith("optimizer=AdamW;zero_grad=zeros;")
    menu(widget, "optimizer, left").select_option("SGD")
    widget.get_by_text("stays (zero gradient) on the left and moves by momentum on the right").wait_for()
    assert widget.get_by_text("right: not used by AdamW").is_visible()
    moved = f"[compare.results[side][2]['{H1}'].moved for side in ('left', 'right')]"
    assert default.kernel_eval(moved) == [False, True]
    state = "optimizer=SGD/AdamW;zero_grad=zeros;freezing=requires_grad;momentum=0;weight_decay=0"
    assert widget.get_by_text(state, exact=True).is_visible()
    assert no_errors(default)


def test_all_of_it_by_keyboard(own):
    widget, keyboard = shown(own), own.page.keyboard
    menu(widget, "lr, left").focus()  # as Tab does, coming from the cell above
    keyboard.press("ArrowDown")  # 0.2, as on the right
    keyboard.press("Tab")
    keyboard.press("Tab")  # momentum, left
    keyboard.press("ArrowDown")  # 0.9
    widget.get_by_text(
        "weight moves by momentum on the left and stays (zero gradient) on the right"
    ).wait_for()
    assert own.kernel_eval("calls[2:]") == [[0.2, 0.0], [0.2, 0.0], [0.2, 0.9], [0.2, 0.0]]
    for _ in range(10):
        keyboard.press("Tab")
        if own.evaluate("() => document.activeElement.matches('.layerlab-compare input')"):
            break
    keyboard.insert_text("lr=0.1/0.2;momentum=none/0.9")
    keyboard.press("Enter")
    widget.get_by_text(
        "weight stays (zero gradient) on the left and moves by momentum on the right"
    ).wait_for()
    assert own.kernel_eval("calls[6:]") == [[0.1, 0.0], [0.2, 0.9]]  # one run of each side
    chosen = [menu(widget, name).locator("option:checked").inner_text() for name in LABELS]
    assert chosen == ["0.1", "0.2", "none", "0.9"]
    assert widget.get_by_placeholder("paste a state").input_value() == ""
    assert no_errors(own)


LABELS = ("lr, left", "lr, right", "momentum, left", "momentum, right")


def test_a_state_that_is_wrong_is_explained_and_changes_nothing(own):
    widget = shown(own)
    before = own.kernel_eval("[compare.state, calls]")
    field = widget.get_by_placeholder("paste a state")
    field.fill("lr=0.2;momentum=0.8")
    field.press("Enter")
    widget.get_by_role("alert").get_by_text(
        "momentum='0.8': there is no such value; near it: '0.9'"
    ).wait_for()
    assert own.kernel_eval("[compare.state, calls]") == before
    assert field.input_value() == "lr=0.2;momentum=0.8"
    field.fill("lr=0.2;momentum=0.9")
    field.press("Enter")
    widget.get_by_text("No tensor behaves differently").wait_for()
    widget.get_by_role("alert").wait_for(state="hidden")
    assert own.kernel_eval("compare.state") == "lr=0.2;momentum=0.9"
    assert no_errors(own)


def test_an_error_of_one_side_is_named_and_the_other_shows(own):
    widget = shown(own)
    menu(widget, "lr, left").select_option("-1.0")
    alert = widget.get_by_role("alert")
    alert.get_by_text("left: ArithmeticError: <b>below</b> zero").wait_for()
    assert alert.count() == 1
    assert widget.get_by_text("2 steps: which tensor moved in which step, and why").is_visible()
    assert own.kernel_eval("[list(compare.results), list(compare.errors)]") == [["right"], ["left"]]
    menu(widget, "lr, left").select_option("0.2")
    widget.get_by_text("No tensor behaves differently").wait_for()
    alert.wait_for(state="hidden")
    assert no_errors(own)


def test_while_it_runs_the_page_says_so_and_shows_no_old_result(lab, own):
    widget = shown(own)
    assert widget.get_by_role("table").count() == 1
    menu(widget, "lr, right").select_option("wait")
    widget.get_by_text("running …").wait_for()
    assert widget.get_by_role("table").count() == 0
    (lab.folder / "gate").touch()
    widget.get_by_text("No tensor behaves differently").wait_for()
    widget.get_by_text("running …").wait_for(state="hidden")
    assert no_errors(own)


def test_the_state_is_copied_and_pasted_into_another(lab, own):
    context = own.page.context
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    widget = shown(own)
    menu(widget, "momentum, left").select_option("0.9")
    widget.get_by_text("moves by momentum on the left").wait_for()
    widget.get_by_role("button", name="copy the state").click()
    widget.get_by_text("copied", exact=True).wait_for()
    with lab.open_lesson(lab.write_notebook("friend.ipynb", OWN)) as friend:
        friend.run_all()
        theirs = shown(friend)
        field = theirs.get_by_placeholder("paste a state")
        field.fill(own.evaluate("() => navigator.clipboard.readText()"))
        field.press("Enter")
        theirs.get_by_text("moves by momentum on the left").wait_for()
        table = theirs.get_by_role("table").inner_html()
        assert friend.kernel_eval("compare.state") == "lr=0.1/0.2;momentum=0.9/none"
        assert no_errors(friend)
    assert table == widget.get_by_role("table").inner_html()
    assert no_errors(own)


def test_explore_has_it_too(lab):
    with lab.open_lesson(lab.write_notebook("explore.ipynb", "import layerlab as ll", EXPLORE)) as lesson:
        lesson.run_all()
        widget = shown(lesson, "explore")
        widget.get_by_role("button", name="two", exact=True).click()
        widget.get_by_text("a is two and b is x").wait_for()
        field = widget.get_by_placeholder("paste a state")
        field.fill("a=one;b=y")
        field.press("Enter")
        widget.get_by_text("a is one and b is y").wait_for()
        assert lesson.kernel_eval("[runs[1:], explore.state]") == [[["two", "x"], ["one", "y"]], "a=one;b=y"]
        field.fill("a=three")
        field.press("Enter")
        widget.get_by_role("alert").get_by_text("a='three': there is no such value").wait_for()
        assert widget.get_by_text("a is one and b is y").is_visible()
        assert no_errors(lesson)


def test_explore_by_keyboard(lab):
    cell = EXPLORE.replace('a=["one", "two"]', 'a=["one", "two", "three", "four"]')  # a menu
    with lab.open_lesson(lab.write_notebook("explore.ipynb", "import layerlab as ll", cell)) as lesson:
        lesson.run_all()
        widget = shown(lesson, "explore")
        menu(widget, "a").focus()
        lesson.page.keyboard.press("ArrowDown")
        widget.get_by_text("a is two and b is x").wait_for()
        lesson.page.keyboard.press("Tab")
        lesson.page.keyboard.press("Tab")
        lesson.page.keyboard.press("Space")
        widget.get_by_text("a is two and b is y").wait_for()
        assert lesson.kernel_eval("[runs[1:], explore.state]") == [[["two", "x"], ["two", "y"]], "a=two;b=y"]
        assert no_errors(lesson)
