"""What ``import layerlab`` adds to ``import torch``.

Run it with ``python benchmarks/import_time.py``; it prints JSON. Each time in a fresh process: torch first,
then layerlab, then what ``layerlab.watch`` needs.
"""

from __future__ import annotations

import json
import subprocess
import sys

from measuring import median, show

RUN = """
import json, time
times = [time.perf_counter()]
import torch
times.append(time.perf_counter())
import layerlab
times.append(time.perf_counter())
layerlab.watch
times.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""
ROUNDS = 7


def main() -> None:
    """Measure and print."""
    found = []
    for _ in range(ROUNDS + 1):
        done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    torch, layerlab, watch = (median(times) for times in zip(*found[1:], strict=True))  # the first warms up
    show(
        {
            "import_torch_s": torch,
            "import_layerlab_after_it_s": layerlab,
            "layerlab.watch_after_that_s": watch,
            "added_over_torch": round((layerlab + watch) / torch, 3),
            "rounds": ROUNDS,
        }
    )


if __name__ == "__main__":
    main()
