"""Labelled pictures as tensors, and the batches a model takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

Index: TypeAlias = "Tensor | Sequence[int] | slice"
"""Which pictures: their numbers, a slice, or a tensor of numbers or of one bool a picture."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Pictures with their labels.

    Raises
    ------
    TypeError, ValueError
        The tensors' types or shapes do not fit, or a label stands for no class.
    """

    pixels: Tensor
    """Of shape (n, 3, height, width): uint8 for photographs, or float32, already as the model takes it."""
    labels: Tensor
    """Of shape (n,), int64: positions in `classes`."""
    classes: tuple[str, ...]
    came_from: str
    """One sentence: what these pictures are and where they came from."""

    def __post_init__(self) -> None:
        for what in ("pixels", "labels"):
            if not isinstance(value := getattr(self, what), Tensor):
                raise TypeError(f"{what} must be a tensor, not {type(value).__name__}")
        if self.pixels.dtype not in (torch.uint8, torch.float32):
            raise TypeError(f"pixels must be uint8 or float32, not {self.pixels.dtype}")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64, not {self.labels.dtype}")
        shape = tuple(self.pixels.shape)
        if len(shape) != 4 or shape[1] != 3 or 0 in shape[2:]:
            raise ValueError(f"pixels must have the shape (n, 3, height, width), not {shape}")
        if tuple(self.labels.shape) != shape[:1]:
            raise ValueError(
                f"{shape[0]} pictures need labels of shape ({shape[0]},), not {tuple(self.labels.shape)}"
            )
        if self.labels.device != self.pixels.device:
            raise ValueError(f"pixels are on {self.pixels.device} but labels on {self.labels.device}")
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise TypeError(f"classes must be a tuple of names, not {self.classes!r}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must have different names: {self.classes}")
        wrong = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(wrong):
            raise ValueError(
                f"label {int(wrong[0])} stands for no class: there are {len(self.classes)}, counted from 0"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        counts = Counter(self.labels.tolist())
        of_each = ", ".join(f"{name}: {counts[number]}" for number, name in enumerate(self.classes))
        shape = "×".join(str(size) for size in self.pixels.shape[1:])
        kind = str(self.pixels.dtype).removeprefix("torch.")
        return f"Images({len(self)} of {shape} {kind}; {of_each})"

    def batch(self, index: Index) -> tuple[Tensor, Tensor]:
        """Inputs and labels for a model.

        Parameters
        ----------
        index
            Which pictures.

        Returns
        -------
        inputs : Tensor
            float32, of shape (k, 3, height, width). uint8 pixels are scaled to [0, 1] and normalised by
            ImageNet's mean and standard deviation, channel by channel; float32 ones are given as they are.
        labels : Tensor
            int64, of shape (k,).

        Raises
        ------
        IndexError
            There is no picture of that number.
        TypeError
            The index is none of those that `Index` names.
        """
        chosen = self._chosen(index)
        pixels, labels = self.pixels[chosen], self.labels[chosen]
        if pixels.dtype == torch.uint8:
            mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(3, 1, 1)
            std = torch.tensor(IMAGENET_STD, device=pixels.device).view(3, 1, 1)
            pixels = (pixels.float() / 255 - mean) / std
        return pixels, labels

    def take(self, index: Index) -> Images:
        """Some of the pictures, as `Images` of their own; `came_from` still tells of the whole set.

        Raises
        ------
        IndexError, TypeError
            As for `batch`.
        """
        chosen = self._chosen(index)
        return replace(self, pixels=self.pixels[chosen], labels=self.labels[chosen])

    def to(self, device: torch.device | str) -> Images:
        """The same pictures on a device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def _chosen(self, index: Index) -> Tensor:
        """Positions, always a copy's: no batch shares memory with the pictures."""
        if isinstance(index, slice):
            # Through Python's own range: a tensor takes no negative step.
            index = range(len(self))[index]
        if isinstance(index, Tensor):
            chosen = index.to(self.pixels.device)
        elif isinstance(index, Sequence) and all(type(number) is int for number in index):
            chosen = torch.tensor(index, dtype=torch.int64, device=self.pixels.device)
        else:
            raise TypeError(f"index must be a slice, a sequence of int or a tensor, not {index!r}")
        if chosen.dim() != 1 or chosen.is_floating_point() or chosen.is_complex():
            raise TypeError(
                f"an index tensor must be 1-dimensional, of int or bool, not {chosen.dtype} "
                f"of shape {tuple(chosen.shape)}"
            )
        if chosen.dtype == torch.bool:
            if len(chosen) != len(self):
                raise IndexError(f"a mask of {len(chosen)} does not fit {len(self)} pictures")
            return chosen.nonzero().squeeze(1)
        chosen = chosen.long()  # uint8 would be taken for a mask
        beyond = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if len(beyond):
            raise IndexError(f"there is no picture {int(beyond[0])}: there are {len(self)}, counted from 0")
        return chosen
