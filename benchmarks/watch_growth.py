"""How the cost of `layerlab.watch` grows with the model, in passes over its memory.

Run it with ``python benchmarks/watch_growth.py``; it prints JSON. Eight square matrices of 1 to 300 million
numbers in all, a gradient for each, SGD with momentum; watched steps take turns with memory passes, and
plain steps come after. A memory pass is one copy of all parameters into memory that is there already. Were
the cost proportional to the model, the number of passes would be the same in each row.
"""

from __future__ import annotations

import torch
from measuring import median, seconds, show

import layerlab

MILLIONS = (1, 3, 10, 30, 100, 300)


def measure(millions: int) -> dict[str, object]:
    """Compare one watched step with a plain one, and both with a pass."""
    side = round((millions * 1e6 / 8) ** 0.5)
    matrices = {str(i): torch.nn.Parameter(torch.randn(side, side)) for i in range(8)}
    net = torch.nn.ParameterDict(matrices)
    for p in net.parameters():
        p.grad = torch.randn(side, side)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    spare = [torch.zeros_like(p) for p in net.parameters()]

    def one_pass() -> None:
        for to, p in zip(spare, net.parameters(), strict=True):
            to.copy_(p.detach())

    optimizer.step()
    rounds = 15 if millions <= 30 else 5
    bare, watched, passes = [], [], []
    with layerlab.watch(net, optimizer) as ledger:
        optimizer.step()
        for _ in range(rounds):
            passes.append(seconds(one_pass))
            watched.append(seconds(optimizer.step))
    for _ in range(rounds):
        bare.append(seconds(optimizer.step))
    assert all(t.moved for t in ledger[-1].values())
    cost = median(watched, 6) - median(bare, 6)
    return {
        "millions_of_parameters": millions,
        "pass_s": median(passes, 5),
        "step_s": median(bare, 5),
        "watch_s": round(cost, 5),
        "watch_in_passes": round(cost / median(passes, 6), 1),
        "watch_over_optimizer_step": round(cost / median(bare, 6), 2),
    }


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    show([measure(millions) for millions in MILLIONS])


if __name__ == "__main__":
    main()
