"""One tensor through several steps as few bytes of pictures, for a view in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layerlab.show.grid import LARGEST, Floats, Grid, as_array, grid, laid_out

BUDGET = 64 * 1024
"""Bytes that one closeup takes at most, whatever the tensor's size."""
_FOR_WORDS = 4096
"""Bytes of it that are left for what is not pixels."""
_COARSEST = 24
"""Cells along one side, below which fewer steps are sent rather than coarser pictures."""
_TINY = {2: 6e-8, 4: 1.5e-45}
"""Smallest numbers above zero of float16 and float32: a change is never rounded to none."""
MOMENTS = ("before", "after", "Δ")


@dataclass(frozen=True)
class Moment:
    """The values of one tensor in one step: array-likes of one shape."""

    step: int
    before: Any
    after: Any
    others: Mapping[str, Any]
    """What else there is to draw, by its name: gradient, stored state, parts."""


def closeup(moments: Sequence[Moment], step: int) -> dict[str, Any]:
    r"""Encode before, after, Δ and the others of one tensor, in the steps around one.

    As many steps as fit are sent, and larger tensors are reduced: a cell then shows, in all pictures of one
    step, the one element with the largest \|Δ\| among those it stands for, so that a moved element is never
    hidden.

    Parameters
    ----------
    moments
        In the order of their steps; not empty.
    step
        The step to be there in any case (or the nearest that there is).

    Returns
    -------
    dict
        ``steps``; ``rows``, ``columns``; ``notes`` on how the tensor was laid out and reduced; ``shape``;
        ``channels``: names, the first three being before, after and Δ; ``present``: for each channel which
        of the steps have it; ``scales``: for each channel the largest finite absolute value;
        ``moved``: elements that moved in each step, of ``total``; ``bytes``: 4 (float32) or 2 (float16, as
        shares of the channel's scale), of each number in ``cells`` (channel by channel, in it step by
        step); ``elements``: uint32, which element of the tensor each cell shows, step by step, or once
        where it is the same in all.

    Raises
    ------
    ValueError
        For values that are not real numbers, or shapes that differ within one step.
    """
    names = list(dict.fromkeys(name for moment in moments for name in moment.others))
    channels = [*MOMENTS, *names]
    at = min(range(len(moments)), key=lambda i: abs(moments[i].step - step))
    side, count, size = _plan(tuple(moments[at].before.shape), len(moments), len(channels))
    first = min(max(at - count // 4, 0), len(moments) - count)
    chosen = moments[first : first + count]
    grids = [grid(moment.before, moment.after, side) for moment in chosen]
    form = grids[0].delta.shape
    values: dict[str, list[Floats | None]] = {
        "before": [g.before for g in grids],
        "after": [g.after for g in grids],
        "Δ": [g.delta for g in grids],
    }
    for name in names:
        values[name] = [_picked(m.others.get(name), g) for m, g in zip(chosen, grids, strict=True)]
    scales = {name: _scale(some) for name, some in values.items()}
    scales["before"] = scales["after"] = max(scales["before"], scales["after"])
    reduced = form != laid_out(grids[0].shape)
    return {
        "steps": [moment.step for moment in chosen],
        "rows": form[0],
        "columns": form[1],
        "shape": list(grids[0].shape),
        "notes": list(grids[0].notes),
        "channels": channels,
        "present": [[one is not None for one in values[name]] for name in channels],
        "scales": [scales[name] for name in channels],
        "moved": [g.count for g in grids],
        "total": grids[0].total,
        "bytes": size,
        "cells": b"".join(
            _encoded(one, scales[name], size, form, g.moved if name == "Δ" else None)
            for name in channels
            for one, g in zip(values[name], grids, strict=True)
        ),
        "elements": b"".join(g.elements.astype("<u4").tobytes() for g in (grids if reduced else grids[:1])),
    }


def _plan(shape: tuple[int, ...], available: int, channels: int) -> tuple[int, int, int]:
    """Choose the longest side of the pictures, how many steps, and the bytes of a number."""
    height, width = laid_out(shape)
    room = BUDGET - _FOR_WORDS - 32 * channels

    def each(side: int, size: int) -> int:
        cells = min(height, side) * min(width, side)
        return max(cells * (size * channels + 4) + 16, 1)

    if max(height, width) <= LARGEST and available * each(LARGEST, 4) <= room:
        return LARGEST, available, 4
    for side in range(LARGEST, _COARSEST - 1, -8):
        if available * each(side, 2) <= room:
            return side, available, 2
    side = next(s for s in range(_COARSEST, 0, -1) if each(s, 2) <= room)
    return side, min(available, room // each(side, 2)), 2


def _picked(values: Any, cells: Grid) -> Floats | None:
    """Take the very elements that the cells of before and after show."""
    if values is None:
        return None
    array = as_array(values, "a picture").reshape(-1)
    picked: Floats = array[cells.elements].astype(np.float64)
    return picked


def _scale(values: Sequence[Floats | None]) -> float:
    finite = [np.abs(v[np.isfinite(v)]) for v in values if v is not None]
    return max((float(v.max()) for v in finite if v.size), default=0.0)


def _encoded(
    values: Floats | None, scale: float, size: int, form: tuple[int, ...], moved: npt.NDArray[Any] | None
) -> bytes:
    if values is None:
        values = np.zeros(form)
    if size == 2 and scale > 0:
        values = values / scale
    with np.errstate(over="ignore"):
        numbers = values.astype("<f2" if size == 2 else "<f4")
    lost = (numbers == 0) & ((values != 0) if moved is None else moved)
    numbers[lost] = np.where(values[lost] < 0, -_TINY[size], _TINY[size])
    return numbers.tobytes()
