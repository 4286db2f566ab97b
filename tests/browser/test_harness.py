"""The harness itself: what it must notice in a lesson, and that one lesson leaves nothing to the next."""

from lab import SHUT_DOWN, WAIT_UNTIL_READY

SLIDER = """
import ipywidgets
from IPython.display import display
slider = ipywidgets.IntSlider(value=3, max=10)
label = ipywidgets.Label("not moved")
slider.observe(lambda change: setattr(label, "value", f"now {change.new}"), "value")
display(slider, label)
"""
RAISES_IN_A_CALLBACK = """
out = ipywidgets.Output()
with out:
    slider.observe(lambda change: 1 / 0, "value")
display(out)
with out:
    slider.value = 5
"""
# What a notebook holds that was saved with a widget's view, and without its state.
LOST_WIDGET = """
kind = "application/vnd.jupyter.widget-view+json"
display({kind: {"model_id": "00", "version_major": 2, "version_minor": 0}}, raw=True)
"""
PICTURE_FROM_OUTSIDE = """
from IPython.display import HTML
HTML('<img src="http://layerlab.invalid/picture.png">')
"""


def test_a_slider_moved_in_the_page_reaches_the_kernel_and_its_answer_the_page(lab):
    with lab.open_lesson(lab.write_notebook("slider.ipynb", SLIDER)) as lesson:
        lesson.run_all()
        assert lesson.kernel_eval("[slider.value, label.value]") == [3, "not moved"]
        lesson.page.get_by_role("slider").press("ArrowRight")
        lesson.page.get_by_text("now 4").wait_for()
        assert lesson.kernel_eval("slider.value") == 4
        assert lesson.errors() == lesson.console_errors == lesson.outside_requests == []


def test_the_address_of_a_notebook_opens_it(lab):
    """As the command that opens the first lesson gives it; the other tests open theirs by a command."""
    name = lab.write_notebook("by_address.ipynb", "1 + 1")
    page = lab.browser.new_page()
    page.goto(f"{lab.address}/lab/tree/{name}?token={lab.token}&reset")
    page.wait_for_function("name => window.jupyterapp?.shell.currentWidget?.context?.path === name", arg=name)
    page.evaluate(WAIT_UNTIL_READY)
    page.evaluate(SHUT_DOWN)
    page.close()


def test_what_is_wrong_is_noticed(lab):
    cells = (SLIDER, RAISES_IN_A_CALLBACK, LOST_WIDGET, PICTURE_FROM_OUTSIDE, "undefined_name", "after = 1")
    with lab.open_lesson(lab.write_notebook("faulty.ipynb", *cells)) as lesson:
        lesson.run_all()
        callback, lost, raised = lesson.errors()
        assert callback.startswith("cell 2 shows:")
        assert "ZeroDivisionError" in callback
        assert lost.startswith("cell 3 shows:")
        assert raised == "cell 5 raises NameError: name 'undefined_name' is not defined"
        assert set(lesson.outside_requests) == {"http://layerlab.invalid/picture.png"}
        assert lesson.console_errors  # of the picture that cannot be had
        assert lesson.kernel_eval("'after' in globals()") is False


def test_a_picture_shows_the_whole_notebook_in_either_theme(lab, tmp_path):
    from matplotlib.image import imread

    tall = """HTML('<div style="height: 5000px; background: #0080ff"></div>')"""
    name = lab.write_notebook("tall.ipynb", "from IPython.display import HTML", tall)
    with lab.open_lesson(name) as lesson:
        lesson.run_all()
        lesson.screenshot(tmp_path / "light.png")
        lesson.set_dark(True)
        lesson.screenshot(tmp_path / "dark.png")
    light, dark = imread(tmp_path / "light.png"), imread(tmp_path / "dark.png")
    assert light.shape[0] > 5000
    blue = (abs(light[:, light.shape[1] // 2, :3] - [0, 128 / 255, 1]) < 0.01).all(axis=1)
    assert blue.sum() == 5000
    assert light[2, 2, :3].mean() > 0.9
    assert dark[2, 2, :3].mean() < 0.2


def test_the_next_lesson_starts_anew(lab):
    name = lab.write_notebook("twice.ipynb", "seen = 'seen' in globals()")
    for _ in range(2):
        with lab.open_lesson(name) as lesson:
            assert lesson.page.locator("body[data-jp-theme-light='true']").count() == 1
            lesson.run_all()
            assert lesson.kernel_eval("seen") is False
