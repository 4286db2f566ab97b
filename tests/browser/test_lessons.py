"""Every lesson in a real JupyterLab: as it is stored, trusted, run, in light and in dark."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import axe
import pytest
from walk import walk

LESSONS = Path(__file__).resolve().parents[2] / "lessons"


@pytest.fixture(scope="module", params=sorted(path.name for path in LESSONS.glob("*.ipynb")))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def seen(lab, name):
    """One walk through the lesson, for all tests here."""
    try:
        axe.script()
        with_axe = True
    except axe.AxeMissing:
        with_axe = False
    return walk(lab, name, with_axe)


class Reader(HTMLParser):
    """Read of an HTML output what a reader must still find: its text, its tables, headings and folds."""

    def __init__(self, html):
        super().__init__()
        self.text = ""
        self.tables = self.headings = self.folds = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tables += tag == "table"
        self.headings += tag == "th" and "scope" in dict(attributes)
        self.folds += tag == "summary"

    def handle_data(self, data):
        self.text += data


def words(text):
    return re.sub(r"\s+", " ", text).strip()


def stored(name):
    """List what the outputs in the notebook's file must show, in the form in which `walk.DRAWN` says it."""
    notebook = json.loads((LESSONS / name).read_text(encoding="utf-8"))
    for number, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            plain = {"tables": 0, "headings": 0, "folds": 0, "pictures": 0}
            if "text/html" in data:
                html = Reader("".join(data["text/html"]))
                facts = {"tables": html.tables, "headings": html.headings, "folds": html.folds}
                yield {**plain, **facts, "cell": number, "text": words(html.text)}
            elif "image/png" in data:
                yield {**plain, "cell": number, "text": "", "pictures": 1}
            elif output["output_type"] == "error":
                yield {**plain, "cell": number, "text": words("".join(output["traceback"]))}
            else:
                said = output["text"] if output["output_type"] == "stream" else data["text/plain"]
                yield {**plain, "cell": number, "text": words("".join(said))}


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_what_is_stored_is_there_before_anything_runs(seen, name, trusted):
    drawn = [{**one, "text": words(one["text"])} for one in (seen.trusted if trusted else seen.untrusted)]
    assert [one.pop("visible") for one in drawn] == [True] * len(drawn)
    assert drawn == list(stored(name))
    assert any(one["tables"] for one in drawn)


def test_nothing_stored_waits_for_a_widget_that_is_not_there(seen):
    assert seen.errors_before == []


def test_it_runs_without_an_error(seen):
    assert seen.errors == []
    assert seen.console_errors == []
    assert seen.outside_requests == []


def test_a_run_opens_the_folded_outputs(seen):
    assert seen.still_folded == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(seen, axe_core, theme):
    if seen.faults[theme]:
        pytest.fail("\n\n".join(seen.faults[theme]), pytrace=False)
