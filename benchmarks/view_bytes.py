"""How many bytes a StepView sends to the page, as shares of its budget of 64 KiB a message.

Run it with ``python benchmarks/view_bytes.py``; it prints JSON: the overview of a ledger, and the pictures
of its largest tensor, for a small network, ResNet18, and one matrix of 4096×4096 whose step was kept. The
names of the tensors are sent once, apart.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torchvision
from measuring import show
from torch import nn

import layerlab
from layerlab.show.overview import BUDGET


def size(sent: Any) -> int:
    """Bytes of a message: its JSON, and its buffers as they are."""
    if isinstance(sent, bytes):
        return len(sent)
    if isinstance(sent, dict):
        return sum(len(json.dumps(key)) + 2 + size(value) for key, value in sent.items())
    if isinstance(sent, (list, tuple)):
        return sum(1 + size(value) for value in sent)
    return len(json.dumps(sent))


def measure(net: nn.Module, inputs: torch.Tensor, steps: int, largest: str) -> dict[str, object]:
    """Watch some steps, open the largest tensor."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with layerlab.watch(net, optimizer, keep="all") as ledger:
        for _ in range(steps):
            optimizer.zero_grad()
            net(inputs).square().mean().backward()
            optimizer.step()
    view = layerlab.StepView(ledger, tensor=largest)
    found: dict[str, object] = {
        "tensors": len(ledger[-1]),
        "steps": steps,
        "overview_bytes": size(view.overview),
        "overview_of_budget": round(size(view.overview) / BUDGET, 2),
        "names_bytes": size(view.tensors),
        "pictures_bytes": size(view.closeup),
        "pictures_of_budget": round(size(view.closeup) / BUDGET, 2),
    }
    view.close()
    return found


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    wide = nn.Sequential(nn.Linear(4096, 4096, bias=False))
    show(
        {
            "two layers": measure(small, torch.randn(4, 8), 20, "0.weight"),
            "ResNet18": measure(torchvision.models.resnet18(), torch.randn(2, 3, 32, 32), 3, "fc.weight"),
            "4096×4096": measure(wide, torch.randn(2, 4096), 2, "0.weight"),
        }
    )


if __name__ == "__main__":
    main()
