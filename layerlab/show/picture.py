"""Before, after and Δ of one tensor as a figure (matplotlib comes in when it is used)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from layerlab.printable import printable
from layerlab.show.alphabet import BLUE, VERMILLION
from layerlab.show.grid import Bools, Floats, Grid, grid
from layerlab.show.words import cut, plural, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Steps = tuple[int | str, int | str]

_WRITTEN = 8
"""Values are written into the cells up to this many a side."""
_FAINTEST = 0.15
"""Share of full colour that the smallest non-zero value gets: white means zero, exactly."""
_ODD = 0.75
"""Grey of NaN and inf."""


def picture(before: Any, after: Any, *, title: str, steps: Steps | None = None) -> Figure:
    r"""Draw one tensor before, after, and their difference.

    Parameters
    ----------
    before, after
        Array-likes of one shape, any rank. Larger than 64×64 they are reduced, each cell showing its element
        with the largest \|Δ\|, so that a moved element is never hidden; the figure says so.
    title
        Usually the tensor's name. Anything is safe: it is drawn as it stands, never read as mathtext.
    steps
        What to call the two moments, for example ``(3, 4)``; just before and after when None.

    Returns
    -------
    matplotlib.figure.Figure
        Blue is negative, white exactly zero, orange positive; before and after share one scale, Δ has its
        own, and both are printed. NaN and inf are hatched grey. Its background is white in any theme.

    Raises
    ------
    ValueError
        When the shapes differ or the values are not real numbers.
    """
    return _figure(grid(before, after), title, steps)


class Picture:
    """A `picture` that a notebook shows as an image, and that says its facts in words elsewhere."""

    def __init__(self, before: Any, after: Any, *, title: str, steps: Steps | None = None) -> None:
        cells = grid(before, after)
        self.figure = _figure(cells, title, steps)
        self._words = f"{printable(title)}: {facts(cells)}"

    def __repr__(self) -> str:
        return self._words

    def _repr_png_(self) -> bytes:
        return png(self.figure)


def png(figure: Figure) -> bytes:
    """Render a figure as PNG, byte for byte the same for the same figure and matplotlib."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def facts(cells: Grid) -> str:
    """Say what a picture shows: shape, how many elements moved, and by how much at most."""
    shape = f"shape {'×'.join(map(str, cells.shape))}" if cells.shape else "one number"
    if not cells.total:
        return f"{shape}, no elements"
    if not cells.count:
        return f"{shape}, did not move: Δ is 0 everywhere"
    largest = short(float(np.max(np.abs(cells.delta))))
    return f"{shape}, {cells.count} of {plural(cells.total, 'element')} moved, largest |Δ| {largest}"


def colours(values: Floats, scale: float, moved: Bools | None = None) -> Floats:
    """Colour signed values: RGB, white for exactly zero and visibly tinted for anything else.

    ``moved`` marks values to be tinted even where they are zero (a change below float64's resolution).
    """
    blue, orange = _rgb(BLUE), _rgb(VERMILLION)
    finite = np.isfinite(values)
    clean = np.where(finite, values, 0.0)
    share = np.minimum(np.abs(clean) / scale, 1.0) if scale > 0 else np.zeros_like(clean)
    tinted = clean != 0 if moved is None else moved | (clean != 0)
    share = np.where(tinted, _FAINTEST + (1 - _FAINTEST) * share, 0.0)[..., None]
    end = np.where((clean < 0)[..., None], blue, orange)
    rgb: Floats = np.where(finite[..., None], 1 - share * (1 - end), _ODD)
    return rgb


def _rgb(colour: str) -> Floats:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _scale(*grids: Floats) -> float:
    """Largest finite absolute value."""
    values = np.concatenate([g[np.isfinite(g)] for g in grids])
    return float(np.max(np.abs(values))) if values.size else 0.0


def _figure(cells: Grid, title: str, steps: Steps | None) -> Figure:
    from matplotlib import style

    with style.context(["default", {"font.family": "DejaVu Sans"}]):  # whatever the reader's own style
        return _draw(cells, title, steps)


def _draw(cells: Grid, title: str, steps: Steps | None) -> Figure:
    from matplotlib.figure import Figure

    rows, columns = cells.delta.shape
    panel = min(max(3 * rows / max(columns, 1), 0.9), 3.1, 0.6 + 0.4 * rows)
    notes = _notes(cells)
    above, below = 0.75, 0.45 + 0.17 * len(notes)
    height = above + panel + below
    figure = Figure(figsize=(10, height), facecolor="white")
    figure.suptitle(
        _drawable(f"{cut(printable(title), 60)}: {facts(cells)}"),
        y=1 - 0.12 / height,
        fontsize=11,
        parse_math=False,
    )
    figure.text(0.5, 0.08 / height, "\n".join(notes), ha="center", va="bottom", fontsize=8, color="#444444")
    figure.subplots_adjust(left=0.02, right=0.98, top=1 - above / height, bottom=below / height, wspace=0.1)
    if not cells.total:
        return figure
    first, second = steps or ("before", "after")
    both, own = _scale(cells.before, cells.after), _scale(cells.delta)
    shared, moved = f"scale ±{short(both)}, one for both", f"scale ±{short(own)}"
    if not own:
        moved = "moved only to or from NaN or inf" if cells.count else "did not move"
    axes = figure.subplots(1, 3)
    _panel(axes[0], _moment(first), cells.before, both, None, shared)
    _panel(axes[1], _moment(second), cells.after, both, None, shared)
    _panel(axes[2], "Δ = after − before", cells.delta, own, cells.moved, moved)
    if not cells.count and max(rows, columns) > _WRITTEN:
        axes[2].text(0.5, 0.5, "did not move", transform=axes[2].transAxes, ha="center", va="center")
    return figure


def _moment(step: int | str) -> str:
    return f"step {step}" if isinstance(step, int) else step


def _panel(axes: Axes, title: str, values: Floats, scale: float, moved: Bools | None, below: str) -> None:
    height, width = values.shape
    square = height > 3 and width <= 3 * height and height <= 4 * width
    rgb = colours(values, scale, moved)
    axes.imshow(rgb, aspect="equal" if square else "auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(_drawable(title), fontsize=10, parse_math=False)
    axes.set_xlabel(below, fontsize=9)
    _hatch(axes, ~np.isfinite(values))
    if max(height, width) <= _WRITTEN:
        for (row, column), value in np.ndenumerate(values):
            dark = float(rgb[row, column] @ [0.299, 0.587, 0.114]) < 0.55
            ink = "white" if dark else "black"
            axes.text(column, row, short(value), ha="center", va="center", fontsize=7, color=ink)


def _hatch(axes: Axes, odd: npt.NDArray[np.bool_]) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    squares = [Rectangle((x - 0.5, y - 0.5), 1, 1) for y, x in np.argwhere(odd)]
    if squares:
        axes.add_collection(
            PatchCollection(squares, facecolor="none", edgecolor="#555555", hatch="////", linewidth=0)
        )


def _notes(cells: Grid) -> list[str]:
    notes = ["blue negative, white exactly 0, orange positive", *cells.notes]
    before, after = (int((~np.isfinite(values)).sum()) for values in (cells.before, cells.after))
    if before or after or not np.isfinite(cells.delta).all():
        notes.append(f"hatched grey: NaN or inf ({plural(before, 'cell')} before, {after} after)")
    return notes


def _drawable(text: str) -> str:
    """Write characters that the figure's font lacks as escapes, so that they are not drawn as boxes."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    return "".join(
        c if font.get_char_index(ord(c)) else c.encode("unicode_escape").decode("ascii")
        for c in printable(text)
    )
