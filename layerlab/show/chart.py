"""A figure: an image in a notebook, words elsewhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Chart:
    """A figure that a notebook shows as an image, and that says elsewhere in words what it shows."""

    def __init__(self, figure: Figure, words: str) -> None:
        self.figure = figure
        self.words = words

    def __repr__(self) -> str:
        # JupyterLab shows the first line of a folded output: it must not tell what the picture does.
        lines = [fill(line, 100, subsequent_indent="  ") for line in self.words.splitlines()]
        return "\n".join(["picture:", *lines])

    def _repr_png_(self) -> bytes:
        """The image, as a notebook asks for it; the same bytes for the same figure."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


@contextmanager
def new_figure(width: float, height: float, font: float = 9) -> Iterator[Figure]:
    """A white figure of so many inches, its font of so many points, alike whatever matplotlib is set to."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", {"font.family": "DejaVu Sans", "font.size": font}]):
        yield Figure(figsize=(width, height), facecolor="white", layout="constrained")
