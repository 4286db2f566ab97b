"""Loss and accuracy of a model on labelled data, and what such data has to offer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerlab.modes import in_eval_mode


class Batches(Protocol):
    """Labelled data: `layerlab.data.Images`, `Features`, or anything else with these two."""

    def __len__(self) -> int:
        """How many examples there are."""

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and the labels (int64) of the examples with these numbers (int64)."""


@dataclass(frozen=True)
class Score:
    """How well a model does.

    Attributes
    ----------
    loss
        Mean cross-entropy, in nats.
    accuracy
        Share of examples whose label has the largest output, from 0 to 1.
    """

    loss: float
    accuracy: float


def evaluate(
    model: nn.Module, data: Batches, *, batch_size: int = 64, device: torch.device | str = "cpu"
) -> Score:
    """Measure a model in eval mode, without gradients; every module's mode is put back.

    Parameters
    ----------
    model
        Gives one output for each class; it must be on ``device`` already.
    data
        The examples to measure it on; each batch is brought to ``device``.
    batch_size
        Examples at a time: changes speed and memory, and at most the last bits of the loss.

    Raises
    ------
    ValueError
        There is no example.
    """
    if not len(data):
        raise ValueError("no example to evaluate on")
    total, right = torch.zeros((), device=device), torch.zeros((), device=device)
    with in_eval_mode(model), torch.no_grad():
        for index in in_batches(torch.arange(len(data)), batch_size):
            inputs, labels = (t.to(device) for t in data.batch(index))
            outputs = model(inputs)
            total += cross_entropy(outputs, labels, reduction="sum")
            right += (outputs.argmax(1) == labels).sum()
    return Score(total.item() / len(data), right.item() / len(data))


def in_batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """Cut a sequence of example numbers into batches.

    A single example that is left joins the batch before it: BatchNorm cannot train on one vector, and a
    convolution may round otherwise for a batch of one than for any larger.

    Raises
    ------
    ValueError
        ``size`` is not at least 1.
    """
    if size < 1:
        raise ValueError(f"batch_size={size}: it must be at least 1")
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts
