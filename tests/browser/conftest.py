"""One JupyterLab and one browser for all browser tests of a process."""

import os
import shutil
from pathlib import Path

import axe
import pytest
from lab import serve

from layerlab.doctor import find_chromium

LESSONS = Path(__file__).resolve().parents[2] / "lessons"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def skip(missing):
    """Skip a test for want of a tool; where tests must run, a skipped one has not been passed."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


@pytest.fixture(scope="session")
def axe_core():
    """axe-core is there, so that `axe.faults` works."""
    try:
        axe.script()
    except axe.AxeMissing as error:
        skip(str(error))


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the lessons."""
    if find_chromium() is None:
        skip("needs Chromium or Chrome: install one, or set LAYERLAB_CHROMIUM to its path")
    lessons = tmp_path_factory.mktemp("lab") / "lessons"
    shutil.copytree(LESSONS, lessons)
    with serve(lessons, tmp_path_factory.mktemp("private")) as running:
        yield running
