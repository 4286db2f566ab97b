"""BatchNorm statistics that fit the pictures at hand, for a network that stays the same function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from layerlab import names
from layerlab.data.images import Images
from layerlab.modes import in_eval_mode


@dataclass
class _Seen:
    """Mean and sum of squared deviations by channel of all that has come in."""

    count: int = 0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        incoming: Tensor = inputs[0].detach().float()
        count = incoming.numel() // incoming.shape[1]
        var, mean = (one.cpu().double() for one in torch.var_mean(incoming, dim=(0, 2, 3), correction=0))
        # Chan's way to join two sets: no difference of two large sums.
        total = self.count + count
        apart = mean - self.mean
        self.squares = self.squares + var * count + apart.square() * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total


def recalibrate_batchnorm(model: nn.Module, images: Images, *, batch: int = 32) -> tuple[str, ...]:
    """Give every `torch.nn.BatchNorm2d` the statistics of its inputs; in eval mode nothing changes.

    Weights whose BatchNorm was folded into the convolutions come with ``running_mean`` 0 and ``running_var``
    about 1, whatever its inputs are like: right in eval mode, but in train mode, which normalises by each
    batch, another function. Here each one's mean and variance are measured in one pass over the pictures, and
    its ``weight`` and ``bias`` are set so that what it computes in eval mode stays the same up to rounding.
    So one pass will do: a layer's new statistics do not change what the next ones get.

    Parameters
    ----------
    model
        The network; changed in place. Its modes and gradients stay as they are.
    images
        The training pictures.
    batch
        How many to pass through at a time.

    Returns
    -------
    tuple of str
        The names of the modules that were set.

    Raises
    ------
    ValueError
        A BatchNorm2d has no statistics or no weight and bias, or gets no input, or one that is not finite;
        there is none at all; or there are no pictures. Nothing was changed then.
    """
    if not len(images):
        raise ValueError("images is empty: give the training pictures")
    if batch < 1:
        raise ValueError(f"batch={batch}: pass one picture or more at a time")
    found = {name: module for name, module in names.modules(model) if isinstance(module, nn.BatchNorm2d)}
    if not found:
        raise ValueError("the model has no BatchNorm2d")
    for name, module in found.items():
        if module.running_mean is None or module.weight is None:
            raise ValueError(
                f"{name} has no running statistics, or no weight and bias to make up for new ones"
            )
    seen = {name: _Seen() for name in found}
    hooks = [found[name].register_forward_pre_hook(seen[name].add) for name in found]
    try:
        with torch.no_grad(), in_eval_mode(model):
            _pass(model, images, batch)
    finally:
        for hook in hooks:
            hook.remove()
    for name, one in seen.items():
        if one.count < 2:
            raise ValueError(f"{name} got no input, or a single value a channel")
        if not all(torch.isfinite(torch.as_tensor(value)).all() for value in (one.mean, one.squares)):
            raise ValueError(f"the inputs of {name} are not all finite")
    for name, module in found.items():
        _set(module, seen[name])
    return tuple(found)


def _pass(model: nn.Module, images: Images, batch: int) -> None:
    device = next(model.parameters()).device
    for start in range(0, len(images), batch):
        inputs, _ = images.batch(slice(start, start + batch))
        model(inputs.to(device))


@torch.no_grad()
def _set(module: nn.BatchNorm2d, seen: _Seen) -> None:
    assert module.running_mean is not None
    assert module.running_var is not None
    to = partial(torch.as_tensor, dtype=torch.float64, device="cpu")
    mean, var = to(seen.mean), to(seen.squares) / (seen.count - 1)  # unbiased, as BatchNorm keeps it
    scale = to(module.weight) / (to(module.running_var) + module.eps).sqrt()
    bias = to(module.bias) + scale * (mean - to(module.running_mean))
    weight = scale * (var + module.eps).sqrt()
    module.running_mean.copy_(mean)
    module.running_var.copy_(var)
    module.weight.copy_(weight)
    module.bias.copy_(bias)
