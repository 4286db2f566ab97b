"""Make the pictures of the README: scenes in a real JupyterLab, photographed and kept small.

``python tools/screenshots.py [FILE…]`` makes them all, or those that are named. A new picture is one more
`Scene` in `SCENES`.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))
from lab import Lab, serve

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs"
LARGEST = 60_000
"""Bytes of a picture."""
COLOURS = (128, 64, 48)
"""How many a picture may have, tried in turn until it is small enough."""
MARGIN = 12
"""CSS pixels around what is shown."""

STILL = """() => new Promise(next => {
    document.activeElement?.blur();
    requestAnimationFrame(() => requestAnimationFrame(next));
})"""


@dataclass(frozen=True)
class Press:
    """Something to press in the page: what it is, by its role and name as a screen reader says them."""

    role: str
    name: str
    """A regular expression; the first that matches in the part that is shown."""
    key: str = ""
    """A key to press on it, such as ``"ArrowRight"``; a click when empty."""


@dataclass(frozen=True)
class Scene:
    """One picture: the cells of a notebook that is run, what is then pressed, and what is photographed."""

    file: str
    """Its name in docs/."""
    cells: tuple[str, ...]
    """They set their own seed, so that the picture is the same every time."""
    presses: tuple[Press, ...] = ()
    shown: str = ".jp-OutputArea-output"
    """A CSS selector: the last element that matches."""
    dark: bool = False
    width: int = 900
    """Of the window, in CSS pixels."""


def readme_example() -> str:
    """Read the README's example; a notebook shows the ledger without `print`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example is not None
    return example[1].replace("print(ledger)", "ledger")


NET = """
from collections import OrderedDict
import torch
from torch import nn
import layerlab as ll

torch.manual_seed(0)
net = nn.Sequential(OrderedDict(body=nn.Linear(4, 3), norm=nn.BatchNorm1d(3), head=nn.Linear(3, 2)))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
x, y = torch.randn(8, 4), torch.randint(0, 2, (8,))
"""
STEP = """
with ll.watch(net, optimizer) as ledger:
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
"""
TRAINED = """
import torch
import layerlab as ll
from layerlab.experiments.digits import odd_or_even_lab, pretrained

torch.set_num_threads(1)
lab = ll.TrainLab(odd_or_even_lab(pretrained(seed=0)), per_class=[1, 2, 5, 10], each="digit", on_threads=1)
"""

SCENES = (
    Scene("ledger.png", (readme_example(),), width=960),
    Scene("ledger-dark.png", (readme_example(),), dark=True, width=960),
    Scene(
        "freeze-panel.png",
        (NET, "ll.FreezePanel(net, optimizer)"),
        (Press("treeitem", "^body", "Space"),),
        width=720,
    ),
    Scene(
        "predict.png",
        (
            NET + "net.body.requires_grad_(False)",
            STEP,
            "guess = ll.Predict(net)\nguess.tick('head.weight', 'head.bias')\nguess",
            "guess.lock_in()\nguess.check(ledger[0]);",
        ),
    ),
    Scene(
        "step-view.png",
        (readme_example().rstrip().removesuffix("ledger"), "ll.StepView(ledger, tensor='body.weight')"),
        width=1000,
    ),
    Scene(
        "train-lab.png",
        (TRAINED, "for s in ('scratch', 'fine_tune', 'frozen'):\n    lab.train(setting=s)", "lab"),
        width=1290,
    ),
    Scene("compare.png", ("import layerlab as ll\nll.Compare()",), width=1000),
)


def photograph(lab: Lab, scene: Scene, scale: int) -> Image.Image:
    """Run a scene and take its picture.

    Raises
    ------
    RuntimeError
        If the notebook or the page shows an error.
    """
    name = lab.write_notebook("scene.ipynb", *scene.cells)
    with lab.open_lesson(name, width=scene.width, scale=scale) as lesson:
        lesson.set_dark(scene.dark)
        lesson.run_all()
        shown = lesson.page.locator(scene.shown).last
        for press in scene.presses:
            found = shown.locator(f"role={press.role}[name=/{press.name}/]").first
            found.press(press.key) if press.key else found.click()
            lesson.kernel_eval("None")  # it answers in order: what was pressed has been done
        lesson.page.mouse.move(0, 0)
        with lesson.all_in_view():
            lesson.evaluate(STILL)
            picture = Image.open(io.BytesIO(shown.screenshot(animations="disabled"))).convert("RGB")
        errors = [*lesson.errors(), *lesson.console_errors]
    if errors:
        raise RuntimeError(f"{scene.file}: {'; '.join(errors)}")
    return trim(picture, MARGIN * scale)


def trim(picture: Image.Image, margin: int) -> Image.Image:
    """Cut off what has the colour of the last corner, but for a margin of it."""
    background = picture.getpixel((picture.width - 1, picture.height - 1))
    plain = Image.new("RGB", picture.size, background)
    box = ImageChops.difference(picture, plain).getbbox()
    if box is None:
        raise ValueError("there is nothing in the picture")
    content = picture.crop(box)
    framed = Image.new("RGB", (content.width + 2 * margin, content.height + 2 * margin), background)
    framed.paste(content, (margin, margin))
    return framed


def compress(picture: Image.Image, largest: int = LARGEST) -> bytes | None:
    """Write a picture as PNG with as many colours as fit; None when even the fewest are too large.

    They are chosen to be far apart, not to be frequent: a small symbol keeps its colour.
    """
    for colours in COLOURS:
        buffer = io.BytesIO()
        few = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= largest:
            return buffer.getvalue()
    return None


def make(lab: Lab, scene: Scene) -> bytes:
    """Make a scene's picture: two pixels for one where that is small enough.

    Raises
    ------
    ValueError
        If it is too large either way.
    """
    for scale in (2, 1):
        small = compress(photograph(lab, scene, scale))
        if small is not None:
            return small
    raise ValueError(f"{scene.file} has more than {LARGEST} bytes: show less, or in a narrower window")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of the README.")
    files = [scene.file for scene in SCENES]
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"one of {', '.join(files)}; all when none")
    chosen = parser.parse_args(arguments).files
    unknown = sorted(set(chosen) - set(files))
    if unknown:
        parser.error(f"no scene makes {unknown[0]}; the scenes make {', '.join(files)}")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        notebooks = Path(scratch, "notebooks")
        notebooks.mkdir()
        with serve(notebooks, Path(scratch, "private")) as lab:
            for scene in SCENES:
                if not chosen or scene.file in chosen:
                    picture = make(lab, scene)
                    (FOLDER / scene.file).write_bytes(picture)
                    print(f"docs/{scene.file}: {len(picture) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
