"""What the stored outputs of a lesson must show wherever they are shown, read from its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

LESSONS = Path(__file__).resolve().parents[2] / "lessons"
NAMES = sorted(path.name for path in LESSONS.glob("*.ipynb"))

# What was drawn of each of these elements: its text, folded or not, and how many of what it holds.
DRAWN = """outputs => outputs.map(output => ({
    text: output.textContent,
    visible: output.getBoundingClientRect().height > 0,
    tables: output.querySelectorAll('table').length,
    headings: output.querySelectorAll('th[scope]').length,
    folds: output.querySelectorAll('details > summary').length,
    pictures: output.querySelectorAll('img').length,
}))"""


class Reader(HTMLParser):
    """Read of HTML what a reader must still find in it: its text, its tables, headings and folds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tables = self.headings = self.folds = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tables += tag == "table"
        self.headings += tag == "th" and "scope" in dict(attributes)
        self.folds += tag == "summary"

    def handle_data(self, data: str) -> None:
        self.text += data

    def facts(self) -> dict[str, object]:
        """Say it in the form of `DRAWN`."""
        counts = {"tables": self.tables, "headings": self.headings, "folds": self.folds, "pictures": 0}
        return {"text": words(self.text), "visible": True, **counts}


def words(text: str) -> str:
    """Leave out how white space was written."""
    return re.sub(r"\s+", " ", text).strip()


def outputs(name: str) -> Iterator[dict[str, Any]]:
    """Yield the stored outputs of a lesson."""
    notebook = json.loads((LESSONS / name).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        yield from cell.get("outputs", ())


def expected(name: str) -> list[dict[str, object]]:
    """List what must be drawn of each stored output, in the form of `DRAWN`."""
    found = []
    for output in outputs(name):
        data = output.get("data", {})
        said = output.get("text") or output.get("traceback") or data.get("text/plain", "")
        if "text/html" in data:
            facts = Reader("".join(data["text/html"])).facts()
        elif "image/png" in data:
            facts = Reader("").facts() | {"pictures": 1}
        else:
            facts = Reader("").facts() | {"text": words("".join(said))}
        found.append(facts)
    return found


def drawn(found: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Bring what `DRAWN` found in a page into the form of `expected`."""
    return [{**one, "text": words(one["text"])} for one in found]
