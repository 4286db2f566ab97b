"""What a StepView costs the loop that it follows, as ratios within one run.

Run it with ``python benchmarks/follow_overhead.py``; it prints JSON. The loops run in a real Jupyter kernel,
so that every update is packed and sent. Loops with and without a view take turns: ResNet18 (4×3×64×64, its
first convolution shown in pictures), and the smallest network there is, where steps are fastest.
"""

from __future__ import annotations

import json

from jupyter_client.manager import start_new_kernel

CODE = """
import json, statistics, time
import torch, torchvision
import layerlab as ll

torch.set_num_threads(1)

def loop(net, x, steps, tensor):
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    ledger = ll.watch(net, optimizer)
    view = ll.StepView(ledger, tensor=tensor) if tensor else None
    began = time.perf_counter()
    with ledger:
        for _ in range(steps):
            optimizer.zero_grad()
            net(x).sum().backward()
            optimizer.step()
    took = time.perf_counter() - began
    if view:
        view.close()
    return took

def compare(net, x, steps, tensor, rounds):
    loop(net, x, 3, tensor)
    pairs = [(loop(net, x, steps, ""), loop(net, x, steps, tensor)) for _ in range(rounds)]
    plain = statistics.median(pair[0] for pair in pairs)
    return {
        "steps": steps,
        "loop_s": round(plain, 3),
        "added_by_the_view": round(statistics.median(b / a for a, b in pairs) - 1, 4),
    }

torch.manual_seed(0)
resnet = torchvision.models.resnet18(num_classes=2)
print(json.dumps({
    "ResNet18": compare(resnet, torch.randn(4, 3, 64, 64), 20, "conv1.weight", 7),
    "one linear layer": compare(torch.nn.Linear(8, 8), torch.randn(4, 8), 3000, "weight", 7),
}))
"""


def main() -> None:
    """Measure and print."""
    manager, client = start_new_kernel(kernel_name="python3")
    printed: list[str] = []

    def hear(message: dict[str, object]) -> None:
        content = message["content"]
        assert isinstance(content, dict)
        printed.append(content.get("text", ""))

    try:
        reply = client.execute_interactive(CODE, timeout=600, output_hook=hear)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"]["traceback"]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(json.dumps(json.loads("".join(printed)), indent=2))


if __name__ == "__main__":
    main()
