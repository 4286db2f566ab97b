"""The lessons as web pages, made by nbconvert, opened from a file without a network: all is there to read."""

import subprocess
import sys

import pytest
from lab import FAILURES
from stored import DRAWN, LESSONS, NAMES, drawn, expected

# What nbconvert's own template asks for: formulas, diagrams, and a loader of scripts. None comes with a
# stored lesson's outputs, and the page must be readable without them.
ASKED_BY_THE_TEMPLATE = {"mathjax", "mermaid", "mermaid-layout-elk", "require.js"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder with all lessons as HTML."""
    folder = tmp_path_factory.mktemp("pages")
    notebooks = [str(LESSONS / name) for name in NAMES]
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(folder), *notebooks]
    subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_lesson_is_readable_offline(lab, pages, name):
    context = lab.browser.new_context(offline=True)
    try:
        page = context.new_page()
        uncaught, asked = [], []
        page.on("pageerror", lambda error: uncaught.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((pages / name).with_suffix(".html").as_uri())
        found = page.eval_on_selector_all(".jp-OutputArea-output", DRAWN)
        text = page.inner_text("body")
    finally:
        context.close()
    assert drawn(found) == expected(name)
    assert "Loading widget" not in text
    assert FAILURES.search(text) is None
    assert uncaught == []
    outside = {url.split("/ajax/libs/")[-1].split("/")[0] for url in asked if url.startswith("http")}
    assert outside <= ASKED_BY_THE_TEMPLATE
