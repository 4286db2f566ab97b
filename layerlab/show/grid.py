"""A tensor of any rank as a small 2-D grid of numbers, reduced so that nothing moved is lost."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

Integers = npt.NDArray[np.int64]

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
    elements: Integers
    """Which element each cell shows: its position in the tensor's own reading order."""
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
    old, new = as_array(before, "before"), as_array(after, "after")
    if old.shape != new.shape:
        raise ValueError(f"before has shape {old.shape} but after has shape {new.shape}; they must be equal")
    shape, total = old.shape, old.size
    height, width = laid_out(shape)
    old, new, how = _arrange(old), _arrange(new), _how(shape)
    if max(height, width) <= largest:
        cells = _compare(old, new)
        count = int(cells[3].sum())
        places = np.arange(total).reshape(old.shape)
    else:
        rows, columns = _edges(height, largest), _edges(width, largest)
        cells, count, places = _reduce(old, new, rows, columns)
        said = f"{height}×{width} reduced to {len(rows)}×{len(columns)}"
        how = [*how, f"{said}: each cell shows its element with the largest |Δ|"]
    return Grid(*cells, _elements(shape, places), count, total, shape, notes=tuple(how))


def as_array(values: Any, which: str) -> npt.NDArray[Any]:
    """Turn an array-like of real numbers into a NumPy array; ``which`` names it in the error."""
    if hasattr(values, "detach"):  # a torch tensor, recognised without importing torch
        values = values.detach().cpu()
        if "float" in str(values.dtype) and values.element_size() < 4:
            values = values.float()  # exact; NumPy has no bfloat16
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{which} holds {array.dtype} values; a picture needs real numbers")
    return array


def laid_out(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a tensor of this shape when it is laid out in two dimensions."""
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) < 2:
        size = math.prod(shape)
        # rows of equal length, so that no cell stands for nothing
        across = next((n for n in range(LARGEST, 15, -1) if size % n == 0), size)
        return (1, size) if size <= LARGEST or across == size else (size // across, across)
    if len(shape) == 4:
        return shape[0] * shape[2], shape[1] * shape[3]
    return shape[0], math.prod(shape[1:])


def _arrange(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    form = laid_out(array.shape)
    return (array.transpose(0, 2, 1, 3) if array.ndim == 4 else array).reshape(form)


def _how(shape: tuple[int, ...]) -> list[str]:
    """Say how a tensor is laid out, where that is not plain."""
    height, width = laid_out(shape)
    if len(shape) < 2:
        return [f"{height * width} values in reading order, {width} a row"] if height > 1 else []
    if len(shape) == 4:
        _, _, h, w = shape
        return [f"output channels downwards, input channels across, each a {h}×{w} tile"]
    return [] if len(shape) == 2 else ["first dimension downwards, the others in reading order across"]


def _elements(shape: tuple[int, ...], places: Integers) -> Integers:
    """Turn positions in the laid-out tensor into positions in its own reading order."""
    if len(shape) != 4:
        return places
    _, channels, h, w = shape
    rows, columns = np.divmod(places, max(channels * w, 1))
    kernel_row, kernel_column = rows % max(h, 1), columns % max(w, 1)
    pair = (rows // max(h, 1)) * channels + columns // max(w, 1)
    found: Integers = (pair * h + kernel_row) * w + kernel_column
    return found


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


def _reduce(
    old: npt.NDArray[Any], new: npt.NDArray[Any], rows: Edges, columns: Edges
) -> tuple[Cells, int, Integers]:
    """Let each cell show its element with the largest |Δ| (moved before still, NaN before numbers)."""
    picked, places, count = [], [], 0
    for top, bottom in rows:  # a band at a time: a large tensor is never held thrice in float64
        band = _compare(old[top:bottom], new[top:bottom])
        count += int(band[3].sum())
        size = np.where(band[3], np.abs(band[2]), -1.0)  # argmax takes NaN for the largest
        for left, right in columns:
            at = np.unravel_index(np.argmax(size[:, left:right]), (bottom - top, right - left))
            picked.append([values[:, left:right][at] for values in band])
            places.append((top + int(at[0])) * old.shape[1] + left + int(at[1]))
    form = len(rows), len(columns)
    a, b, delta, moved = (np.array(values).reshape(form) for values in zip(*picked, strict=True))
    return (a, b, delta, moved), count, np.array(places, np.int64).reshape(form)
