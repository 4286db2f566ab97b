"""Bitwise comparison of tensors, and the size of a change, in one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from layerlab.record import Grad

# Big enough to hide Python's overhead, small enough that a chunk's difference stays in the cache.
_CHUNK = 1 << 18
_LONG = 1 << 14
_INT = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compare on one thread: a pass over memory gains little from more, and waits for them on a busy machine.

    Measured on ResNet18 with both of 2 cores shared with other programs: `advance` of all parameters took
    12 ms on one thread and 50 to 600 ms on two.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def as_real(tensor: Tensor) -> Tensor:
    """Detach, and view a complex tensor as real numbers (one more dimension of size 2)."""
    tensor = tensor.detach()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits.

    Unlike ``torch.equal``, a NaN equals itself and −0.0 differs from 0.0; unlike ``torch.allclose``, no
    change is too small. Tensors of different shape or dtype are never the same.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.numel() == 0:
        return True
    a, b = as_real(a), as_real(b)
    if a.is_floating_point():
        if _in_eights(a) and _in_eights(b):
            return torch.equal(a.view(-1).view(torch.int64), b.view(-1).view(torch.int64))
        if a.dim() == 0:  # a 0-dim tensor of some strides cannot be viewed as another dtype
            a, b = a.reshape(1), b.reshape(1)
        integer = _INT[a.element_size()]
        a, b = a.view(integer), b.view(integer)
    return torch.equal(a, b)


def _in_eights(tensor: Tensor) -> bool:
    """Whether it is long, and its memory can be read eight bytes at a time: half as long for float32."""
    size, count = tensor.element_size(), tensor.numel()
    if count < _LONG or count * size % 8 or tensor.storage_offset() * size % 8:
        return False
    return tensor.is_contiguous()


def grad_state(grad: Tensor | None) -> tuple[Grad, float]:
    """Say whether a gradient is none, zero, nonzero or nonfinite, and its largest absolute value."""
    if grad is None:
        return "none", 0.0
    values = as_real(grad.detach().coalesce().values() if grad.is_sparse else grad)
    if values.numel() == 0:
        return "zero", 0.0
    low, high = (float(bound) for bound in torch.aminmax(values))
    largest = max(-low, high)
    if not math.isfinite(largest):
        return "nonfinite", largest
    return ("nonzero" if low != 0 or high != 0 else "zero"), largest


@dataclass(frozen=True, slots=True)
class Change:
    """The size of a change: Euclidean norm and largest absolute element of Δ, and the norm after it."""

    moved: bool
    norm: float = 0.0
    largest: float = 0.0
    after: float = 0.0


def norm(tensor: Tensor) -> float:
    """Euclidean norm in the precision that `torch.linalg.vector_norm` accumulates in; any dtype."""
    real = as_real(tensor)
    if not real.is_floating_point() or real.element_size() < 4:
        real = real.to(torch.float32)
    return float(torch.linalg.vector_norm(real))


def advance(shadow: Tensor, now: Tensor) -> Change:
    """Measure Δ = ``now`` − ``shadow``, then bring ``shadow`` up to date, in one pass over both.

    Parameters
    ----------
    shadow
        The copy of the values before; overwritten with ``now``.
    now
        The tensor as it is, of the same shape and dtype.

    Returns
    -------
    Change
        ``moved`` is decided on the bits, so it is True for a change that the norms round to zero.
    """
    before, after = _flat_pair(as_real(shadow), as_real(now))
    moved, squares, largest, squares_after = False, 0.0, 0.0, 0.0
    scratch = _scratch(after)
    for start in range(0, after.numel(), _CHUNK):
        x, y = after[start : start + _CHUNK], before[start : start + _CHUNK]
        delta = _difference(x, y, scratch)
        low, high = (float(bound) for bound in torch.aminmax(delta))
        size = max(-low, high)
        if size > 0 and math.isfinite(size):
            moved = True
            squares += _square(float(torch.linalg.vector_norm(delta)))
        elif not same_bits(x, y):  # NaN, infinity, or bits that differ by less than a number
            moved = True
            squares += _square(size)
        largest = size if math.isnan(size) else max(largest, size)
        squares_after += _square(norm(x))
        y.copy_(x)
    return Change(moved, math.sqrt(squares), largest, math.sqrt(squares_after))


def _square(x: float) -> float:
    return x * x  # unlike x**2, overflows to infinity without raising


def _scratch(tensor: Tensor) -> Tensor:
    """Room for one chunk of Δ, in a dtype that holds it: float32 for half precision, float64 for integers."""
    dtype = tensor.dtype
    if not tensor.is_floating_point() or tensor.element_size() < 4:
        wide = tensor.is_floating_point() or tensor.device.type == "mps"
        dtype = torch.float32 if wide else torch.float64
    return torch.empty(min(tensor.numel(), _CHUNK), dtype=dtype, device=tensor.device)


def _difference(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
    if x.dtype == scratch.dtype:
        return torch.sub(x, y, out=scratch[: x.numel()])
    return x.to(scratch.dtype) - y.to(scratch.dtype)


def _flat_pair(shadow: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten both in the order of their memory, so that the flat shadow is a view to write to."""
    if shadow.is_contiguous() and now.is_contiguous():
        return shadow.view(-1), now.view(-1)
    order = memory_order(shadow)
    flat = shadow.permute(order).view(-1) if shadow.dim() else shadow.view(1)
    return flat, now.permute(order).reshape(-1)


def memory_order(tensor: Tensor) -> list[int]:
    """Dimensions from the largest stride to the smallest: permuted so, a dense tensor is contiguous."""
    strides = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda d: (-strides[d], d))


def copy_of(tensor: Tensor) -> Tensor:
    """A dense copy that keeps the memory format (channels-last stays so); never a view."""
    copy = torch.empty_like(tensor.detach(), memory_format=torch.preserve_format)
    return copy.copy_(tensor.detach())
