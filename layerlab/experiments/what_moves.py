"""What moves without an optimizer: each layer's forward pass, looked at before and after."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from layerlab.compare import same_bits
from layerlab.names import tensors
from layerlab.training.machine import Chance

MakeLayer = Callable[[], nn.Module]

WIDTH: Final = 6
"""How many features the layers of `LAYERS` have; their inputs are (examples, `WIDTH`, `WIDTH`)."""


def changed(net: nn.Module, action: Callable[[], object]) -> tuple[str, ...]:
    """Do something, and name the parameters and buffers of a model that differ afterwards in any bit.

    Parameters
    ----------
    net
        The model. Buffers count whether persistent or not: ``state_dict()`` does not list the others.
    action
        Called without arguments.

    Returns
    -------
    tuple of str
        In the model's order, a tied tensor by its first name; first those that the model has no longer. A new
        tensor under an old name counts if its numbers are others.
    """
    before = {named.name: named.tensor.detach().clone() for named in tensors(net)}
    action()
    now = {named.name: named.tensor for named in tensors(net)}
    lost = tuple(name for name in before if name not in now)
    return lost + tuple(
        name for name, tensor in now.items() if name not in before or not same_bits(tensor, before[name])
    )


@dataclass(frozen=True, slots=True)
class ForwardFacts:
    """What a layer's forward pass does in one mode, besides computing its output."""

    moved: tuple[str, ...]
    """Tensors of the layer that one forward pass changed."""
    moved_without_grad: tuple[str, ...]
    """The same under ``torch.no_grad()``."""
    repeats: bool
    """The same input, given twice in a row, gave the same output."""
    alone: bool
    """An example's output stayed the same when the others in its batch were others."""


def forward_facts(layer: nn.Module, inputs: Tensor, *, train: bool) -> ForwardFacts:
    """Run copies of a layer forward, and find what it changes and what its output depends on.

    Parameters
    ----------
    layer
        Any module; it stays as it is, and so does the random state.
    inputs
        A batch of two examples or more.
    train
        Whether in train mode or in eval mode.

    Raises
    ------
    ValueError
        For fewer than two examples.
    """
    if len(inputs) < 2:
        raise ValueError(f"inputs has {len(inputs)} examples: give two or more")
    others = torch.cat([inputs[:1], 2 * inputs[1:] + 1])
    with Chance(0):
        moved = _moved(layer, inputs, train)
        with torch.no_grad():
            moved_without_grad = _moved(layer, inputs, train)
            first, second = _outputs(layer, [inputs, inputs], train)
            (in_its_batch,), (elsewhere,) = (_outputs(layer, [batch], train) for batch in (inputs, others))
    return ForwardFacts(
        moved=moved,
        moved_without_grad=moved_without_grad,
        repeats=same_bits(first, second),
        alone=same_bits(in_its_batch[0], elsewhere[0]),
    )


def _moved(layer: nn.Module, inputs: Tensor, train: bool) -> tuple[str, ...]:
    work = copy.deepcopy(layer).train(train)
    return changed(work, lambda: work(inputs))


def _outputs(layer: nn.Module, batches: list[Tensor], train: bool) -> list[Tensor]:
    """The outputs for some batches in a row, from the same random numbers on each time it is called."""
    work = copy.deepcopy(layer).train(train)
    torch.manual_seed(0)
    return [_first(work(batch)) for batch in batches]


def _first(output: Any) -> Tensor:
    """A recurrent layer returns its state too."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


LAYERS: Final[Mapping[str, MakeLayer]] = MappingProxyType(
    {
        "BatchNorm1d": lambda: nn.BatchNorm1d(WIDTH),
        "BatchNorm1d, momentum=0": lambda: nn.BatchNorm1d(WIDTH, momentum=0.0),
        "BatchNorm1d, momentum=None": lambda: nn.BatchNorm1d(WIDTH, momentum=None),
        "BatchNorm1d, track_running_stats=False": lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False),
        "InstanceNorm1d, track_running_stats=True": lambda: nn.InstanceNorm1d(
            WIDTH, track_running_stats=True
        ),
        "InstanceNorm1d": lambda: nn.InstanceNorm1d(WIDTH),
        "LayerNorm": lambda: nn.LayerNorm(WIDTH),
        "GroupNorm": lambda: nn.GroupNorm(2, WIDTH),
        "Linear with spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, 64)),
        "Dropout": nn.Dropout,
        "LSTM, dropout=0.5": lambda: nn.LSTM(WIDTH, WIDTH, num_layers=2, dropout=0.5, batch_first=True),
    }
)
"""Layers of torch that are often frozen, by name; each call makes one."""
