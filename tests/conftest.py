"""What all tests share: one thread, and a closing table by kind of test."""

import asyncio
import os
import time
from collections import Counter, defaultdict
from importlib import metadata
from pathlib import Path

import pytest


@pytest.fixture
def no_loop_runs():
    """For tests with a loop of their own: browser tests in the same process leave Playwright's running."""
    left = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(left)


def pytest_configure(config):
    """Older versions of torch warn about their own schedulers (SequentialLR, ReduceLROnPlateau)."""
    if metadata.version("torch").startswith("2.6."):
        for message in ("The epoch parameter in `scheduler.step", "The verbose parameter is deprecated"):
            config.addinivalue_line("filterwarnings", f"ignore:{message}:UserWarning")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors on several threads are slower, and slower still beside other work."""
    import torch

    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """Say how each kind of test went, and how long all took since `make test` began."""
    outcomes, seconds = defaultdict(Counter), Counter()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if not hasattr(report, "duration"):
                continue  # a warning, or a test that was not run
            parts = Path(report.nodeid.split("::")[0]).parts
            kind = parts[1] if parts[0] == "tests" and len(parts) > 2 else parts[0]
            seconds[kind] += report.duration
            if outcome:  # the reports of a passed set-up or clean-up have none
                outcomes[kind][outcome] += 1
    terminalreporter.section("by kind of test")
    for kind in sorted(outcomes):
        counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes[kind].items()))
        terminalreporter.write_line(f"{kind:<10} {counts}, {seconds[kind]:.0f} s")
    began = os.environ.get("LAYERLAB_TESTS_BEGAN")
    if began:
        terminalreporter.write_line(f"since `make test` began: {time.time() - float(began):.0f} s")
