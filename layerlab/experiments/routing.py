"""Two examples of one batch that train different layers: three ways to the same gradient.

A *route* says for each example and each block whether the example trains it: a bool tensor of shape
(examples, blocks). A gradient belongs to a parameter, which all examples share, so flags cannot tell them
apart within one backward pass. What can: detaching the weights for some examples (`forward_routed`),
gradients kept apart by example (`masked_gradients`), or a backward pass for each route (`backward_by_route`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from layerlab.training.machine import Chance

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs and targets: the mean over the examples."""

ARTICLE_ROUTES: Final[Mapping[str, tuple[bool, ...]]] = MappingProxyType(
    {"A": (False, False, True, True), "B": (True, False, True, False)}
)
"""The article's picture: A freezes the first two of four layers, B the second and the fourth."""


class Block(nn.Linear):
    """A residual layer that keeps the number of features: x + activation(W x)."""

    def __init__(self, features: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__(features, features, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return as many features as came in."""
        return x + self.activation(super().forward(x))


class FourBlocks(nn.Module):
    """Four residual blocks and a head: five tensors, the smallest network for the article's picture."""

    def __init__(
        self, features: int = 6, classes: int = 3, activation: Callable[[Tensor], Tensor] = torch.tanh
    ) -> None:
        super().__init__()
        self.block1 = Block(features, activation)
        self.block2 = Block(features, activation)
        self.block3 = Block(features, activation)
        self.block4 = Block(features, activation)
        self.head = nn.Linear(features, classes, bias=False)

    @property
    def blocks(self) -> list[Block]:
        """The blocks, from the input on."""
        return [self.block1, self.block2, self.block3, self.block4]

    def forward(self, x: Tensor) -> Tensor:
        """Return one score for each class."""
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(x)
        return scores


def a_small_batch(examples: int = 2, seed: int = 0) -> tuple[FourBlocks, Tensor, Tensor]:
    """A network, inputs and labels of a seed; the caller's random state stays as it was."""
    with Chance(seed):
        net = FourBlocks()
        return net, torch.randn(examples, 6), torch.arange(examples) % 3


def forward_routed(net: FourBlocks, x: Tensor, route: Tensor) -> Tensor:
    """The network's outputs, unchanged; only the examples that train a block leave a gradient in it.

    Each block runs twice, with its weights and with its weights detached, and each example takes the one or
    the other. Both give the same values, and both let the gradient through to the blocks below.

    Raises
    ------
    ValueError
        The route's shape or dtype does not fit.
    """
    check_route(net, x, route)
    for trains, block in zip(route.T, net.blocks, strict=True):
        detached = {name: p.detach() for name, p in block.named_parameters()}
        x = torch.where(trains[:, None], block(x), functional_call(block, detached, (x,)))
    scores: Tensor = net.head(x)
    return scores


def per_example_gradients(
    net: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy
) -> dict[str, Tensor]:
    """The gradient of each example's loss, by parameter: of shape (examples, *the parameter's*)."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss_of_one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(net, parameters, (x[None],)), y[None])

    found: dict[str, Tensor] = vmap(grad(loss_of_one), in_dims=(None, 0, 0))(parameters, x, y)
    return found


def masked_gradients(
    net: FourBlocks, x: Tensor, y: Tensor, route: Tensor, loss: Loss = cross_entropy
) -> dict[str, Tensor | None]:
    """What the batch's gradient is when each example gives its part only to the blocks that it trains.

    Returns
    -------
    dict
        From a parameter's name to its gradient; None where no example trains it.

    Raises
    ------
    ValueError
        The route's shape or dtype does not fit.
    """
    check_route(net, x, route)
    trains = {f"block{k + 1}.weight": route[:, k] for k in range(len(net.blocks))}
    masked: dict[str, Tensor | None] = {}
    for name, each in per_example_gradients(net, x, y, loss).items():
        mask = trains.get(name, torch.ones(len(x), dtype=torch.bool))
        masked[name] = (each * mask[:, None, None]).sum(0) / len(x) if mask.any() else None
    return masked


def backward_by_route(
    net: FourBlocks, x: Tensor, y: Tensor, route: Tensor, loss: Loss = cross_entropy
) -> None:
    """Add up the gradients of one backward pass for each different route, its frozen blocks' flags False.

    The flags are put back. It takes as many passes as there are routes; BatchNorm in train mode would
    normalise each group of examples by itself.

    Raises
    ------
    ValueError
        The route's shape or dtype does not fit.
    """
    check_route(net, x, route)
    flags = [(p, p.requires_grad) for p in net.parameters()]
    try:
        for one in route.unique(dim=0):
            rows = (route == one).all(1)
            for block, trains in zip(net.blocks, one.tolist(), strict=True):
                block.weight.requires_grad_(trains)
            (loss(net(x[rows]), y[rows]) * rows.sum() / len(x)).backward()
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


def check_route(net: FourBlocks, x: Tensor, route: Tensor) -> None:
    """Raise a ValueError where a route does not say yes or no for each example and block."""
    wanted = (len(x), len(net.blocks))
    if not isinstance(route, Tensor) or route.dtype != torch.bool or tuple(route.shape) != wanted:
        given = (
            f"{route.dtype} of shape {tuple(route.shape)}"
            if isinstance(route, Tensor)
            else type(route).__name__
        )
        raise ValueError(
            f"route must be a bool tensor of shape {wanted}, examples × blocks, True where the example "
            f"trains the block; not {given}"
        )
