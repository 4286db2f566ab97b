"""How long a learner waits for a picture in the browser, as ratios within one run.

Run it with ``python benchmarks/widget_latency.py`` (it needs Chromium); it prints JSON, in milliseconds. In a
real JupyterLab the same 64×64 tensor, 20 steps, is shown three ways: StepView's slider with the kernel shut
down; StepView asking the kernel for a tensor it was not sent yet; and a plain ipywidgets slider that redraws
a matplotlib figure. Each time from the event to the frame in which the picture is there.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))

from lab import Lesson, serve

ROUNDS = 15
SET_UP = """
import torch
from torch import nn
import layerlab as ll
torch.manual_seed(0)
net = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(6)))
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
with ll.watch(net, optimizer) as ledger:
    for _ in range(20):
        optimizer.zero_grad()
        net(torch.randn(16, 64)).square().sum().backward()
        optimizer.step()
view = ll.StepView(ledger, tensor="0.weight")
view
"""
PLAIN = """
%matplotlib inline
import ipywidgets
from matplotlib.figure import Figure
slider, out = ipywidgets.IntSlider(max=19), ipywidgets.Output()

def redraw(change):
    values = ledger.values(slider.value, "0.weight")
    figure = Figure(figsize=(10, 3.5))
    pictures = (values.before, values.after, values.after - values.before)
    for axes, picture in zip(figure.subplots(1, 3), pictures):
        axes.imshow(picture)
    with out:
        out.clear_output(wait=True)
        display(figure)

slider.observe(redraw, "value")
redraw(None)
display(slider, out)
"""

# From the key press or click, as the page gets it, to the end of the first frame in which `done` holds.
BEGIN = """(done) => {
    const isDone = new Function(`return ${done}`);
    window.measured = new Promise(resolve => {
        const begin = () => {
            for (const event of ['keydown', 'pointerdown']) removeEventListener(event, begin, true);
            const began = performance.now();
            const look = () => requestAnimationFrame(() => {
                const painted = new MessageChannel(), there = isDone();
                painted.port1.onmessage = () => (there ? resolve(performance.now() - began) : look());
                painted.port2.postMessage(null);
            });
            look();
        };
        for (const event of ['keydown', 'pointerdown']) addEventListener(event, begin, true);
    });
}"""
VIEW = "document.querySelector('.layerlab-step-view')"
DRAWN = (
    f"{VIEW}.querySelector('canvas') && {VIEW}.querySelector('.layerlab-closer .layerlab-title').innerText"
)
IMAGE = "document.querySelector('.widget-output img')"


def timed(lesson: Lesson, act: Callable[[], None], done: str) -> float:
    """Milliseconds from a key press or click until a condition holds and is painted."""
    lesson.page.evaluate(BEGIN, done)
    act()
    found: float = lesson.evaluate("() => window.measured")
    return found


def slid(lesson: Lesson) -> list[float]:
    """Press an arrow key on StepView's slider."""
    slider = lesson.page.get_by_role("slider", name="step")
    slider.press("Home")
    slider.focus()
    press = lesson.page.keyboard.press
    return [
        timed(lesson, lambda: press("ArrowRight"), f"{DRAWN}.endsWith('step {step}')")
        for step in range(1, ROUNDS + 1)
    ]


def asked(lesson: Lesson) -> list[float]:
    """Click on rows whose values the page does not have."""
    rows = lesson.page.locator(".layerlab-step-view tbody tr")
    found = []
    for i in range(ROUNDS):
        row = 1 + i % 5
        found.append(timed(lesson, rows.nth(row).click, f"{DRAWN}.startsWith('{row}.weight')"))
    return found


def redrawn(lesson: Lesson) -> list[float]:
    """Press a key on the plain slider, until its new image has loaded."""
    lesson.page.locator(".widget-slider .noUi-handle").focus()
    found = []
    for _ in range(ROUNDS):
        lesson.page.evaluate(f"() => {{ window.before = {IMAGE}.src; }}")
        new = f"{IMAGE} && {IMAGE}.src !== window.before && {IMAGE}.complete"
        found.append(timed(lesson, lambda: lesson.page.keyboard.press("ArrowRight"), new))
    return found


def summary(times: list[float]) -> dict[str, float]:
    """Median and 90th percentile."""
    return {
        "median": round(statistics.median(times), 1),
        "p90": round(statistics.quantiles(times, n=10)[-1], 1),
    }


def main() -> None:
    """Measure and print."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        notebooks, private = Path(folder, "notebooks"), Path(folder, "private")
        notebooks.mkdir()
        with (
            serve(notebooks, private) as lab,
            lab.open_lesson(lab.write_notebook("latency.ipynb", SET_UP, PLAIN), height=2400) as lesson,
        ):
            lesson.run_all()
            lesson.page.locator("canvas").first.wait_for()
            slid(lesson)  # once to warm up
            result["StepView, slider, kernel there"] = summary(slid(lesson))
            result["StepView, another tensor, from the kernel"] = summary(asked(lesson))
            result["ipywidgets + matplotlib, slider"] = summary(redrawn(lesson))
            lesson.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
            result["StepView, slider, kernel shut down"] = summary(slid(lesson))
    plain = result["ipywidgets + matplotlib, slider"]["median"]
    result["times faster than the plain redraw"] = {
        name: round(plain / found["median"], 1) for name, found in result.items() if "StepView" in name
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
