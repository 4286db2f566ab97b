"""One walk through a lesson in JupyterLab, as a learner takes it, and all that is seen on the way.

Opening and running take most of the time, so each lesson is opened once: as it is stored (JupyterLab does not
trust it, and sanitizes it), trusted, run, and looked at in both themes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import axe
from lab import Lab, Lesson
from stored import DRAWN, drawn

OURS = (".jp-OutputArea-output",)
"""Every output of a cell, tables, pictures and widgets alike: nothing of JupyterLab's own interface."""

NOT_OURS = (
    ".widget-dropdown > select",  # ipywidgets lays its arrow under the text: no contrast to compute
    ".noUi-handle",  # ipywidgets names a slider's label and value, but not the handle that has the focus
    ".jp-RenderedText pre span",  # JupyterLab's colours of a traceback
    ".jp-RenderedImage img",  # JupyterLab gives a PNG no alternative text, whatever its metadata say
)
"""In our outputs, and made by others in a way that we cannot change."""

# Stored outputs are folded until a cell is run.
UNFOLD = """() => jupyterapp.shell.currentWidget.content.widgets.forEach(cell => {
    if (cell.outputHidden) { cell.outputHidden = false; cell.wasFolded = true; }
})"""
FOLD_AGAIN = """() => jupyterapp.shell.currentWidget.content.widgets.forEach(cell => {
    if (cell.wasFolded) cell.outputHidden = true;
})"""
STILL_FOLDED = """() => jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, index) =>
    cell.outputHidden && cell.model.outputs.length ? [index + 1] : [])"""

# The outputs of all cells, in order: those that are folded are not in the document.
OUTPUTS_DRAWN = f"""() => ({DRAWN})(jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code')
    .flatMap(cell => cell.outputArea.widgets)
    .map(output => output.node.querySelector('.jp-OutputArea-output')))"""
TRUSTED = """() => [...new Set(jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code' && cell.model.outputs.length)
    .map(cell => cell.model.trusted))]"""
TRUST = "() => { jupyterapp.commands.execute('notebook:trust'); }"


@dataclass(repr=False)
class Walk:
    """What was seen in one lesson."""

    untrusted: list[dict[str, object]] = field(default_factory=list)
    """What JupyterLab draws of each stored output before it trusts the notebook."""
    trusted: list[dict[str, object]] = field(default_factory=list)
    """The same once it does; no cell has run yet."""
    errors_before: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    still_folded: list[int] = field(default_factory=list)
    """Cells whose outputs a run has not opened."""
    faults: dict[str, list[str]] | None = None
    """What axe-core finds, by theme; None where there is no axe-core."""
    console_errors: list[str] = field(default_factory=list)
    outside_requests: list[str] = field(default_factory=list)


def walk(lab: Lab, name: str, with_axe: bool) -> Walk:
    """Take the walk."""
    seen = Walk()
    with lab.open_lesson(name) as lesson:
        lesson.evaluate(UNFOLD)
        assert lesson.evaluate(TRUSTED) == [False]
        seen.untrusted = drawn(lesson.evaluate(OUTPUTS_DRAWN))
        trust(lesson)
        seen.trusted = drawn(lesson.evaluate(OUTPUTS_DRAWN))
        seen.errors_before = lesson.errors()
        lesson.evaluate(FOLD_AGAIN)
        lesson.run_all()
        seen.errors = lesson.errors()
        seen.still_folded = lesson.evaluate(STILL_FOLDED)
        if with_axe:
            seen.faults = {theme: look(lesson, theme == "dark") for theme in ("light", "dark")}
        seen.console_errors = lesson.console_errors
        seen.outside_requests = lesson.outside_requests
    return seen


def trust(lesson: Lesson) -> None:
    """Trust the notebook, as a reader does: by the command, and by the button that it shows."""
    lesson.evaluate(TRUST)
    lesson.page.get_by_role("dialog").get_by_role("button", name="Trust").click()
    lesson.page.get_by_role("dialog").wait_for(state="detached")
    assert lesson.evaluate(TRUSTED) == [True]


def look(lesson: Lesson, dark: bool) -> list[str]:
    """List what axe-core finds in one theme."""
    lesson.set_dark(dark)
    return axe.faults(lesson, OURS, NOT_OURS)
