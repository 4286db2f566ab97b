"""Decoded pictures, kept in the cache folder: it spares seconds, and nothing depends on it."""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from layerlab.data.places import cache_folder
from layerlab.data.writing import alone, whole

Pixels = dict[str, Tensor]
"""From the split to its pictures."""


def key(archive: Path, side: int) -> str:
    """What the decoded pictures depend on: the archive's checksum, the side, and who decodes."""
    import PIL
    import pooch

    return f"sha256 {pooch.file_hash(str(archive))} side {side} Pillow {PIL.__version__}"


def load(key: str) -> Pixels | None:
    """What was saved under that key; None if nothing was, or it is damaged."""
    try:
        found = torch.load(_place(key), weights_only=True)
        pixels: Pixels = found["pixels"]
        if found["key"] == key and found["sums"] == _sums(pixels):
            return pixels
    except Exception:  # damaged bytes may raise anything; they are decoded again
        pass
    return None


def save(key: str, pixels: Pixels) -> None:
    """Save the pictures under that key; not if the folder cannot be written."""
    place = _place(key)
    with suppress(OSError, RuntimeError):  # torch.save reports a full disk as a RuntimeError
        place.parent.mkdir(parents=True, exist_ok=True)
        with alone(place), whole(place) as part:
            torch.save({"key": key, "pixels": pixels, "sums": _sums(pixels)}, part)


def _place(key: str) -> Path:
    return cache_folder() / f"decoded-{zlib.crc32(key.encode()):08x}.pt"


def _sums(pixels: Pixels) -> dict[str, int]:
    """torch.load does not notice a changed byte."""
    return {split: zlib.crc32(tensor.numpy().data) for split, tensor in pixels.items()}
