"""Run the browser tests several times, and say which of them are not reliable.

``python tools/repeat_tests.py [--times 10] [pytest arguments…]``; the tests in tests/browser when no argument
is given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]


def outcomes(report: Path) -> Counter[tuple[str, str]]:
    """Read a JUnit report: for each test that did not pass, its name and how it went."""
    found: Counter[tuple[str, str]] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        how = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[f"{case.get('classname')}::{case.get('name')}", min(how, default="passed")] += 1
    return found


def summary(runs: Sequence[Counter[tuple[str, str]]]) -> list[str]:
    """Say how many runs went without a fault, how the tests went in all, and which failed how often."""
    good = sum(not faults(run) for run in runs)
    total = sum(runs, Counter[tuple[str, str]]())
    kinds: Counter[str] = Counter()
    for (_, how), number in total.items():
        kinds[how] += number
    lines = [
        f"{good} of {len(runs)} runs without a fault; " + ", ".join(f"{n} {how}" for how, n in kinds.items())
    ]
    bad = [(number, name, how) for (name, how), number in faults(total).items()]
    return lines + [
        f"  {name}: {how} in {number} of {len(runs)}" for number, name, how in sorted(bad, reverse=True)
    ]


def faults(run: Counter[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Leave out what passed or was skipped."""
    return {(name, how): n for (name, how), n in run.items() if how in ("failure", "error")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests; returns 1 if any failed in any run, or no test ran."""
    parser = argparse.ArgumentParser(description="Run the browser tests several times.")
    parser.add_argument("--times", type=int, default=10)
    chosen, given = parser.parse_known_args(arguments)
    if chosen.times < 1:
        parser.error(f"--times {chosen.times}: give 1 or more")
    tests = given or ["tests/browser", "-n", "2", "--dist", "loadfile"]
    runs = []
    for number in range(1, chosen.times + 1):
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch, "report.xml")
            command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *tests]
            done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode not in (0, 1):  # it did not come to run the tests
                print(done.stdout + done.stderr, file=sys.stderr)
                return 1
            runs.append(outcomes(report))
        if faults(runs[-1]):
            print(done.stdout)
        took = time.monotonic() - start
        print(f"run {number} of {chosen.times}: {len(faults(runs[-1]))} faults, {took:.0f} s", flush=True)
    print("\n".join(summary(runs)))
    return 1 if any(map(faults, runs)) else 0


if __name__ == "__main__":
    sys.exit(main())
