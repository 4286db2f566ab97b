"""The memory that `layerlab.watch` takes, in copies of the watched tensors.

Run it with ``python benchmarks/watch_memory.py``; it prints JSON. Each run has a process of its own, whose
peak resident memory is read at its end: three training steps with the ledger and without, of ResNet18 (16
images of 224×224) and of a transformer of 100 million parameters (one sequence of 16 tokens, so that
weights and not activations make the peak). The ledger of small tensors also keeps values for pictures, at
most 64 MiB.
"""

from __future__ import annotations

import json
import subprocess
import sys

from measuring import show

RUN = """
import contextlib, json, resource, sys
import torch
import layerlab
from watch_overhead import large, resnet

torch.manual_seed(0)
model, watched = sys.argv[1:]
net, optimizer, loss = resnet() if model == "resnet" else large()
if model == "large":
    tokens = torch.randint(0, 20_000, (1, 16))
    loss = lambda: net(tokens).square().mean()
options = {"keep": []} if watched == "watched, keep=[]" else {}
with layerlab.watch(net, optimizer, **options) if watched != "plain" else contextlib.nullcontext():
    for _ in range(3):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
tensors = [*net.parameters(), *net.buffers()]
print(json.dumps({
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    "tensors": sum(t.numel() * t.element_size() for t in tensors),
}))
"""


def peak(model: str, watched: str) -> dict[str, int]:
    """Run it in a process of its own."""
    command = [sys.executable, "-c", RUN, model, watched]
    done = subprocess.run(command, cwd=sys.path[0], capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    result = {}
    for model in ("resnet", "large"):
        plain = peak(model, "plain")
        size = plain["tensors"]
        result[model] = {
            "tensors_MiB": round(size / 2**20, 1),
            "plain_peak_MiB": round(plain["peak"] / 2**20),
        }
        for way in ("watched", "watched, keep=[]"):
            more = peak(model, way)["peak"] - plain["peak"]
            result[model][f"{way}: copies more at the peak"] = round(more / size, 2)
    show(result)


if __name__ == "__main__":
    main()
