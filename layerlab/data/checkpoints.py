"""Reading files of weights, and torchvision's own ones from wherever torchvision keeps or finds them."""

from __future__ import annotations

import io
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from layerlab.data.causes import in_words
from layerlab.data.errors import DataError
from layerlab.data.fetch import PATIENCE
from layerlab.data.places import way_out


def published(arch: str) -> Any:
    """Torchvision's entry for the documents' ImageNet weights: ``ResNet18_Weights.IMAGENET1K_V1``."""
    from torchvision import models

    return models.get_model_weights(arch).IMAGENET1K_V1


def file_name(weights: Any) -> str:
    """The name under which torchvision publishes and keeps these weights."""
    return Path(urlparse(weights.url).path).name


def verify(path: Path, weights: Any) -> None:
    """Compare a file with the start of its SHA-256, which torchvision writes into its file names.

    Raises
    ------
    DataError
        It has another one.
    """
    import pooch

    found = re.search(r"-([0-9a-f]{8,})\.", file_name(weights))
    assert found is not None, weights.url
    came = str(pooch.file_hash(str(path)))
    if not came.startswith(found[1]):
        raise DataError(
            f"{path} is damaged or something else: its SHA-256 begins with {came[:8]}, not {found[1]}. "
            "Delete it, or replace it by the right file."
        )


def read(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors by name.

    Raises
    ------
    DataError
        It is damaged, or holds anything but tensors.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes may raise anything
        first = str(error).strip().split("\n")[0]
        raise DataError(f"{path} cannot be read as a file of weights ({first}): get a new copy") from error
    return _tensors(found, path.name)


def through_torchvision(weights: Any, progress: bool | None) -> dict[str, Tensor]:
    """The weights from torch.hub's cache, or downloaded into it by torchvision.

    Raises
    ------
    DataError
        They could not be downloaded, or what is in the cache is damaged.
    """
    name = file_name(weights)
    kept = Path(torch.hub.get_dir()) / "checkpoints" / name
    if kept.is_file():  # torch.hub trusts whatever is there
        verify(kept, weights)
        return read(kept)
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    try:
        # torch.hub prints the path of its cache, which differs from machine to machine; it used stderr once.
        silence = nullcontext() if progress else redirect_stderr(io.StringIO())
        with _patience(), redirect_stdout(io.StringIO()), silence:
            found = weights.get_state_dict(
                check_hash=True, progress=progress, map_location="cpu", weights_only=True
            )
    except (OSError, HTTPException, RuntimeError, UnpicklingError) as error:
        cause = (
            "wrong bytes came, or not all of them" if "invalid hash value" in str(error) else in_words(error)
        )
        raise DataError(f"Could not fetch {name} from {weights.url}: {cause}. {way_out(name)}") from error
    return _tensors(found, name)


@contextmanager
def _patience() -> Iterator[None]:
    """Let no new connection wait for ever: torch.hub sets no time limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE[1])
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _tensors(found: object, name: str) -> dict[str, Tensor]:
    if isinstance(found, Mapping) and all(isinstance(value, Tensor) for value in found.values()):
        return {str(key): value for key, value in found.items()}
    raise DataError(f"{name} holds no tensors by name (a state_dict), but a {type(found).__name__}")
