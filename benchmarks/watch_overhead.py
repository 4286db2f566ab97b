"""What `layerlab.watch` costs on a ResNet18 training step (16×3×224×224), as ratios within one run.

Run it with ``python benchmarks/watch_overhead.py``; it prints JSON. Steps with and without the ledger take
turns, so that a slow spell of the machine hits both. Beside it: what the article's way of looking, a clone of
every parameter and ``allclose`` afterwards, costs for the same model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torchvision

import layerlab


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    options = parser.parse_args()

    torch.manual_seed(0)
    net = torchvision.models.resnet18()
    optimizer: torch.optim.Optimizer
    if options.optimizer == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    else:
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    images, labels = torch.randn(16, 3, 224, 224), torch.randint(0, 1000, (16,))

    def forward_and_backward() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()

    def clone_and_allclose() -> None:
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        optimizer.step()
        for name, parameter in net.named_parameters():
            torch.allclose(before[name], parameter)

    plain: list[float] = []
    added: list[float] = []
    article: list[float] = []
    for _ in range(options.rounds):
        forward = seconds(forward_and_backward)
        bare = seconds(optimizer.step)
        plain.append(forward + bare)
        forward_and_backward()
        article.append(seconds(clone_and_allclose) - bare)
        # A ledger is warm from its second step on; only that one is counted.
        with layerlab.watch(net, optimizer) as ledger:
            optimizer.step()
            forward_and_backward()
            watched = seconds(optimizer.step)
        added.append(watched - bare)
        assert ledger[-1]["conv1.weight"].moved
    step, cost, clone = (statistics.median(x) for x in (plain, added, article))
    print(
        json.dumps(
            {
                "optimizer": options.optimizer,
                "training_step_s": round(step, 3),
                "watch_s": round(cost, 4),
                "watch_over_step": round(cost / step, 4),
                "article_over_watch": round(clone / cost, 1),
                "rounds": options.rounds,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
