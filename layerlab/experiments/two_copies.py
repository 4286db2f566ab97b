"""A small residual network with each block twice, and policies that choose one of the two for each image.

After SpotTune (Guo et al., "SpotTune: Transfer Learning through Adaptive Fine-tuning", CVPR 2019). One copy
of a block stays as it was pretrained, the other is tuned, and a small network sends each image through one of
them. `layerlab.experiments.spot_tune` trains it.
"""

from __future__ import annotations

import copy
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, gumbel_softmax, relu

BLOCKS: Final = 4


class Block(nn.Module):
    """A residual block; GroupNorm, so that no example of a batch has a say in what another gives."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(4, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(4, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels as came in."""
        inner = self.conv1(relu(self.norm1(x)))
        out: Tensor = x + self.conv2(relu(self.norm2(inner)))
        return out


class SmallResNet(nn.Module):
    """A stem, four residual blocks and a head (norm and linear layer), for 8×8 scans enlarged to 32×32."""

    def __init__(self, classes: int, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(BLOCKS))
        self.norm = nn.GroupNorm(4, channels)
        self.head = nn.Linear(4 * channels, classes)

    def classify(self, x: Tensor) -> Tensor:
        """What comes after the blocks: one output for each class."""
        quarters = adaptive_avg_pool2d(relu(self.norm(x)), 2)
        scores: Tensor = self.head(quarters.flatten(1))
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Return one output for each class."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.classify(x)


class Policy(nn.Module):
    """For each image and block: 1 to go through the tuned copy, 0 through the one that stays.

    In train mode it draws by chance (Gumbel-softmax); forwards the choice is 0 or 1, backwards the gradient
    is that of the softmax (straight-through). In eval mode it takes the likelier one.

    Parameters
    ----------
    scores
        Gives ``2 * BLOCKS`` numbers for each image: for each block, in favour of staying and of tuning.
    tau
        Temperature: the lower, the nearer the softmax is to the choice, and the noisier its gradient.
    """

    def __init__(self, scores: nn.Module, tau: float = 1.0) -> None:
        super().__init__()
        self.scores = scores
        self.tau = tau

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of shape (images, blocks)."""
        scores: Tensor = self.scores(x).view(len(x), BLOCKS, 2)
        if self.training:
            return gumbel_softmax(scores, tau=self.tau, hard=True)[..., 1]
        return (scores[..., 1] > scores[..., 0]).to(scores.dtype)


class SameForAll(nn.Module):
    """Scores that do not look at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(2 * BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        """Return the same scores for every image."""
        return self.value.expand(len(x), -1)


class Look(nn.Sequential):
    """Scores that do look at the image: the policy network."""

    def __init__(self) -> None:
        first, second = nn.Conv2d(3, 16, 4, stride=4), nn.Conv2d(16, 16, 3, padding=1)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 2 * BLOCKS))


class Coin(nn.Module):
    """Routes by chance: a control that shows what two copies alone are worth."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 0 or 1 for each image and block; in eval mode the same ones for as many images."""
        chance = None if self.training else torch.Generator().manual_seed(len(x))
        return torch.randint(0, 2, (len(x), BLOCKS), generator=chance).to(x.dtype)


class TwoCopies(nn.Module):
    """A network with each block twice: as it is now, never to change, and to be tuned.

    Parameters
    ----------
    net
        Its blocks are those that are tuned.
    policy
        Gives 1 (tuned) or 0 (as it was) for each image and block.
    """

    def __init__(self, net: SmallResNet, policy: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.stay = copy.deepcopy(net.blocks).requires_grad_(False)
        self.policy = policy

    def forward(self, x: Tensor) -> Tensor:
        """Return one output for each class."""
        choice = self.policy(x)
        x = self.net.stem(x)
        for k, (tuned, stays) in enumerate(zip(self.net.blocks, self.stay, strict=True)):
            use = choice[:, k, None, None, None]
            x = use * tuned(x) + (1 - use) * stays(x)
        return self.net.classify(x)
