"""What `layerlab.watch` costs a training step, as ratios within one run.

Run it with ``python benchmarks/watch_overhead.py``; it prints JSON. Two models: ResNet18 on 16×3×224×224
with SGD, and a transformer of 100 million parameters on 4 sequences of 64 tokens with AdamW. Steps with and
without the ledger take turns, so that a slow spell of the machine hits both. Beside it stand two other ways
to see what moved: the article's clone of every parameter with ``allclose`` afterwards, and a deep copy of
the state dict with ``equal``.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
import torchvision
from measuring import median, seconds, show, transformer
from torch import nn

import layerlab


def resnet() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], torch.Tensor]]:
    """ResNet18, SGD with momentum and weight decay, 16 images of 224×224."""
    net = torchvision.models.resnet18()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    images, labels = torch.randn(16, 3, 224, 224), torch.randint(0, 1000, (16,))
    return net, optimizer, lambda: nn.functional.cross_entropy(net(images), labels)


def large() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], torch.Tensor]]:
    """A transformer of 100 million parameters under AdamW."""
    net = transformer()
    tokens = torch.randint(0, 20_000, (4, 64))
    return net, torch.optim.AdamW(net.parameters(), 1e-5), lambda: net(tokens).square().mean()


def measure(
    net: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], rounds: int
) -> dict[str, object]:
    """Take plain, watched and compared steps in turn."""

    def forward_and_backward() -> None:
        optimizer.zero_grad()
        loss().backward()

    def clone_and_allclose() -> None:
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        optimizer.step()
        for name, parameter in net.named_parameters():
            torch.allclose(before[name], parameter)

    def copy_and_equal() -> None:
        before = copy.deepcopy(net.state_dict())
        optimizer.step()
        for name, tensor in net.state_dict().items():
            torch.equal(before[name], tensor)

    forward_and_backward()
    optimizer.step()
    plain, added, cloned, copied = [], [], [], []
    for _ in range(rounds):
        forward = seconds(forward_and_backward)
        bare = seconds(optimizer.step)
        plain.append(forward + bare)
        cloned.append(seconds(clone_and_allclose) - bare)
        copied.append(seconds(copy_and_equal) - bare)
        # A ledger is warm from its second step on; only that one is counted.
        with layerlab.watch(net, optimizer) as ledger:
            optimizer.step()
            forward_and_backward()
            added.append(seconds(optimizer.step) - bare)
        assert all(t.moved for t in ledger[-1].values() if t.info.kind == "parameter" and t.grad == "nonzero")
    cost = median(added)
    return {
        "parameters_in_millions": round(sum(p.numel() for p in net.parameters()) / 1e6, 1),
        "tensors": len(ledger[-1]),
        "optimizer": type(optimizer).__name__,
        "training_step_s": median(plain),
        "watch_s": cost,
        "watch_over_training_step": round(cost / median(plain), 4),
        "clone_and_allclose_over_watch": round(median(cloned) / cost, 2),
        "state_dict_copy_and_equal_over_watch": round(median(copied) / cost, 2),
        "rounds": rounds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.manual_seed(0)
    found = {"ResNet18, 16×3×224×224": measure(*resnet(), options.rounds)}
    found["transformer, 4×64 tokens"] = measure(*large(), max(options.rounds // 3, 3))
    show(found)


if __name__ == "__main__":
    main()
