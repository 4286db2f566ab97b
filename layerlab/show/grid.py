"""A tensor of any rank as a small 2-D grid of numbers, reduced so that nothing moved is lost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

Cells = tuple[Floats, Floats, Floats, Bools]
Edges = list[tuple[int, int]]

LARGEST = 64
"""Cells along one side of a picture; a larger tensor is reduced."""


@dataclass(frozen=True)
class Grid:
    """Before, after and Δ of one tensor as 2-D grids of the same shape, cell for cell the same element."""

    before: Floats
    after: Floats
    delta: Floats
    """after − before; exactly 0 where no value changed (NaN equals itself)."""
    moved: Bools
    """Cells that hold an element that changed."""
    count: int
    """Elements of the whole tensor that changed."""
    total: int
    shape: tuple[int, ...]
    notes: tuple[str, ...]
    """How the tensor was arranged and reduced, in words."""


def grid(before: Any, after: Any, largest: int = LARGEST) -> Grid:
    r"""Arrange and reduce one tensor's values before and after.

    Parameters
    ----------
    before, after
        Array-likes of one shape, any rank: numbers, nested lists, NumPy arrays, torch tensors.
    largest
        Sides longer than this are reduced: each cell then shows the element with the largest \|Δ\| among
        those it stands for (NaN counts as largest), so that a moved element is never hidden.

    Raises
    ------
    ValueError
        When the shapes differ or the values are not real numbers.
    """
    old, new = _array(before, "before"), _array(after, "after")
    if old.shape != new.shape:
        raise ValueError(f"before has shape {old.shape} but after has shape {new.shape}; they must be equal")
    shape, total = old.shape, old.size
    old, how = _arrange(old)
    new, _ = _arrange(new)
    height, width = old.shape
    if max(height, width) <= largest:
        cells = _compare(old, new)
        count = int(cells[3].sum())
    else:
        rows, columns = _edges(height, largest), _edges(width, largest)
        cells, count = _reduce(old, new, rows, columns)
        said = f"{height}×{width} reduced to {len(rows)}×{len(columns)}"
        how = [*how, f"{said}: each cell shows its element with the largest |Δ|"]
    return Grid(*cells, count=count, total=total, shape=shape, notes=tuple(how))


def _array(values: Any, which: str) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):  # a torch tensor, recognised without importing torch
        values = values.detach().cpu()
        if "float" in str(values.dtype) and values.element_size() < 4:
            values = values.float()  # exact; NumPy has no bfloat16
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{which} holds {array.dtype} values; a picture needs real numbers")
    return array


def _arrange(array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str]]:
    """Lay a tensor out in two dimensions, and say how where that is not plain."""
    if array.ndim == 2:
        return array, []
    if array.ndim < 2:
        # rows of equal length, so that no cell stands for nothing
        across = next((n for n in range(LARGEST, 15, -1) if array.size % n == 0), array.size)
        if array.size <= LARGEST or across == array.size:
            return array.reshape(1, array.size), []
        return array.reshape(-1, across), [f"{array.size} values in reading order, {across} a row"]
    if array.ndim == 4:
        o, i, h, w = array.shape
        tiles = array.transpose(0, 2, 1, 3).reshape(o * h, i * w)
        return tiles, [f"output channels downwards, input channels across, each a {h}×{w} tile"]
    across = int(np.prod(array.shape[1:]))
    how = "first dimension downwards, the others in reading order across"
    return array.reshape(array.shape[0], across), [how]


def _compare(old: npt.NDArray[Any], new: npt.NDArray[Any]) -> Cells:
    """Give before, after, Δ and where it moved; a change that float64 cannot tell is still a move."""
    moved = old != new
    if old.dtype.kind == "f":
        moved &= ~(np.isnan(old) & np.isnan(new))
    a, b = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = np.where(moved, b - a, 0.0)
    return a, b, delta, moved


def _edges(length: int, largest: int) -> list[tuple[int, int]]:
    """Split a side into at most ``largest`` nearly equal stretches."""
    parts = min(length, largest)
    cuts = [round(i * length / parts) for i in range(parts + 1)]
    return list(itertools.pairwise(cuts))


def _reduce(old: npt.NDArray[Any], new: npt.NDArray[Any], rows: Edges, columns: Edges) -> tuple[Cells, int]:
    """Let each cell show its element with the largest |Δ| (moved before still, NaN before numbers)."""
    picked, count = [], 0
    for top, bottom in rows:  # a band at a time: a large tensor is never held thrice in float64
        band = _compare(old[top:bottom], new[top:bottom])
        count += int(band[3].sum())
        size = np.where(band[3], np.abs(band[2]), -1.0)  # argmax takes NaN for the largest
        for left, right in columns:
            at = np.unravel_index(np.argmax(size[:, left:right]), (bottom - top, right - left))
            picked.append([values[:, left:right][at] for values in band])
    a, b, delta, moved = (
        np.array(values).reshape(len(rows), len(columns)) for values in zip(*picked, strict=True)
    )
    return (a, b, delta, moved), count
