"""Ants and bees (hymenoptera): the photographs that the fine-tuning documents train on."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from layerlab.data import decoded
from layerlab.data.errors import DataError
from layerlab.data.fetch import RECORDED, fetch
from layerlab.data.image_files import SPLITS, ImageFiles, opened
from layerlab.data.images import Images
from layerlab.data.places import DATA, data_folder
from layerlab.data.progress import bar

URL = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
ARCHIVE = "hymenoptera_data.zip"
FOLDER = "hymenoptera_data"
CLASSES = ("ants", "bees")
EXPECTED = {"train": 244, "val": 153}
_CALLED = {"train": "training", "val": "validation"}


def ants_and_bees(
    place: str | Path | None = None, side: int = 224, *, progress: bool | None = None
) -> tuple[Images, Images]:
    """Return the photographs of ants and bees, decoded once, for training and for validation.

    They are read out of ``hymenoptera_data.zip``, without extracting it, or out of its unpacked folder. What
    an archive gave is kept decoded in the cache folder.

    Parameters
    ----------
    place
        The archive, its unpacked folder, or a folder with either. By default the folder that
        ``LAYERLAB_DATA`` names; if it has neither, or is not set, the archive is downloaded once.
    side
        Each picture's shorter side is resized to ``side * 256 // 224``, then its middle is cut out: `side`
        pixels high and wide.
    progress
        Whether to show bars on the way; None shows them only in a terminal.

    Returns
    -------
    train, validation : Images
        uint8, classes ``ants`` and ``bees``, sorted by class and file name. Should there not be the
        original's 244 and 153, then `Images.came_from` says so. The archive has no checksum of its
        publisher's: that of a download is recorded, not verified.

    Raises
    ------
    DataError
        The data is not at `place`, cannot be downloaded, is damaged, or is something else.
    ValueError
        The archive has a file whose name leads out of it, or `side` is no positive whole number.
    """
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise ValueError(f"side must be a positive whole number of pixels, not {side!r}")
    source, origin = _located(place, progress)
    key = None if source.is_dir() else decoded.key(source, side)
    pixels = decoded.load(key) if key else None
    with opened(source, FOLDER) as files:
        by_split = {split: _names(files, split) for split in SPLITS}
        if pixels is None:
            pixels = {
                split: _decoded(files, names, side, split, progress) for split, names in by_split.items()
            }
            if key:
                decoded.save(key, pixels)
    train, validation = (_images(split, by_split[split], pixels[split], origin) for split in SPLITS)
    return train, validation


def _located(place: str | Path | None, progress: bool | None) -> tuple[Path, str]:
    """Where the data is, and how to say it without a path."""
    if place is not None:
        if (found := _inside(Path(place).expanduser())) is None:
            raise DataError(f"{place} is neither {ARCHIVE} nor its unpacked folder, nor a folder with either")
        return found, f"read from the {'folder' if found.is_dir() else 'archive'} that was named"
    folder = data_folder()
    if folder is not None and (found := _inside(folder)) is not None:
        what = "the unpacked folder" if found.is_dir() else ARCHIVE
        return found, f"read from {what} where {DATA} says; no checksum to verify it by is known"
    return fetch(URL, ARCHIVE, progress=progress, check=_check), f"downloaded from {URL}; {RECORDED}"


def _inside(place: Path) -> Path | None:
    if place.is_file():
        return place
    if (place / ARCHIVE).is_file():
        return place / ARCHIVE
    folders = (place / FOLDER, place)
    return next((folder for folder in folders if all((folder / split).is_dir() for split in SPLITS)), None)


def _check(archive: Path) -> None:
    """Reject a download that is not the archive, a log-in page for instance."""
    with opened(archive, FOLDER) as files:
        for split in SPLITS:
            for name in _names(files, split):
                files.read(name)  # zipfile compares each file's own checksum


def _names(files: ImageFiles, split: str) -> list[str]:
    names = [name for name in files.names if name.startswith(f"{split}/")]
    classes = sorted({_class(name) for name in names})
    if tuple(classes) != CLASSES:
        raise DataError(
            f"{split}/ must have pictures of {' and '.join(CLASSES)}, but has {classes or 'none'}"
        )
    return names


def _class(name: str) -> str:
    return name.split("/")[1]


def _decoded(files: ImageFiles, names: Sequence[str], side: int, split: str, progress: bool | None) -> Tensor:
    pixels = torch.empty(len(names), 3, side, side, dtype=torch.uint8)
    with bar(len(names), f"decoding {_CALLED[split]} photographs", unit="images", progress=progress) as shown:
        for number, name in enumerate(names):
            content = files.read(name)
            try:
                pixels[number] = decode(content, side)
            except Exception as error:  # a decoder may stumble over damaged bytes in any way
                cure = "replace it by a good copy"
                raise DataError(f"{name} cannot be decoded as a picture: {cure}") from error
            shown.update()
    return pixels


def decode(content: bytes, side: int) -> Tensor:
    """The middle of a picture, as uint8 of shape (3, side, side); see `ants_and_bees`."""
    from PIL import Image
    from torchvision.transforms import functional

    with Image.open(BytesIO(content)) as image:
        picture = functional.resize(image.convert("RGB"), side * 256 // 224)
    pixels: Tensor = functional.pil_to_tensor(functional.center_crop(picture, [side, side]))
    return pixels


def _images(split: str, names: Sequence[str], pixels: Tensor, origin: str) -> Images:
    labels = torch.tensor([CLASSES.index(_class(name)) for name in names], dtype=torch.int64)
    number = f"{len(names)} {_CALLED[split]} photographs"
    if len(names) != EXPECTED[split]:
        number += f", not the original's {EXPECTED[split]},"
    return Images(pixels, labels, CLASSES, f"{number} of ants and bees (hymenoptera), {origin}")
