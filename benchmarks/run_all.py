"""Runs every benchmark in a process of its own, and writes what they found into one JSON file.

Run it with ``make bench``. Nothing else should run on the machine meanwhile. A benchmark that fails, or whose
tools are not there (Chromium, for the widgets' latency), is named with the reason.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import layerlab

HERE = Path(__file__).resolve().parent
BENCHMARKS = (
    "import_time",
    "view_bytes",
    "watch_overhead",
    "watch_growth",
    "watch_memory",
    "cached_features",
    "follow_overhead",
    "widget_latency",
)


def run(name: str) -> Any:
    """What a benchmark printed, or why it did not."""
    print(f"{name} …", end=" ", flush=True)
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py"], cwd=HERE.parent, capture_output=True, text=True
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        print(f"FAILED: {why[0]}")
        return {"failed": why[0]}
    print("done")
    return json.loads(done.stdout)


def main() -> int:
    """Run them all; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME")
    parser.add_argument("--to", type=Path, default=HERE.parent / "results" / "benchmarks.json")
    options = parser.parse_args()
    known = json.loads(options.to.read_text(encoding="utf-8")) if options.to.exists() else {}
    machine = {
        "layerlab": layerlab.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
    found = known.get("found", {}) if known.get("machine") == machine else {}
    found |= {name: run(name) for name in options.only}
    text = json.dumps({"machine": machine, "found": found}, indent=1, ensure_ascii=False)
    options.to.write_text(text + "\n", encoding="utf-8")
    print(f"written: {options.to}")
    return int(any(isinstance(one, dict) and "failed" in one for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
