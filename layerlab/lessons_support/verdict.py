"""How an exercise's requirements were met: plain lines, shown as text and HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from layerlab.printable import printable
from layerlab.show.text import COLUMNS
from layerlab.show.words import plural

MET, MISSED = "✓", "✗"


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement: whether it is met, what is to be said of it, and a line of PyTorch that helps."""

    ok: bool
    text: str
    cure: str = ""


@dataclass(frozen=True, repr=False)
class Verdict:
    """The outcome of an exercise's check; Jupyter shows it as a list, a terminal as text."""

    title: str
    lines: tuple[Line, ...]
    skipped: int = 0
    """Requirements not looked at, because the learner's code did not run to its end."""

    @property
    def passed(self) -> bool:
        """Whether every requirement is met; False when there was none."""
        return bool(self.lines) and all(line.ok for line in self.lines)

    def __repr__(self) -> str:
        parts = [self._head()]
        for line in self.lines:
            parts += _wrap(line.text, f"{_sign(line.ok)} ")
            parts += [f"  {'     ' if i else 'Try: '}{code}" for i, code in enumerate(line.cure.splitlines())]
        return "\n".join([*parts, *map("– ".__add__, self._rest())])

    def _repr_html_(self) -> str:
        items = [f"{_sign(line.ok)} {escape(line.text)}{_cure(line.cure)}" for line in self.lines]
        items += [f"– {escape(rest)}" for rest in self._rest()]
        listed = "\n".join(f"<li>{item}</li>" for item in items)
        unmarked = '<ul style="list-style:none;padding-left:0">'  # each item has its own sign
        return f"<div>\n<p><strong>{escape(self._head())}</strong></p>\n{unmarked}\n{listed}\n</ul>\n</div>"

    def _head(self) -> str:
        total = len(self.lines) + self.skipped
        met = sum(line.ok for line in self.lines)
        counted = f"{met} of {plural(total, 'requirement')} met" if total else "nothing is required yet"
        return f"{_sign(self.passed)} {printable(self.title)}: {counted}"

    def _rest(self) -> Iterator[str]:
        if self.skipped:
            yield f"{self.skipped} more not looked at: they need code that runs to its end"


def all_of(title: str, verdicts: Iterable[tuple[str, Verdict]]) -> Verdict:
    """The first of these that is not passed; if all are, one line for each, by its name."""
    lines = []
    for name, verdict in verdicts:
        if not verdict.passed:
            return verdict
        lines.append(Line(True, name))
    return Verdict(title, tuple(lines))


def _sign(ok: bool) -> str:
    return MET if ok else MISSED


def _wrap(words: str, first: str) -> list[str]:
    return textwrap.wrap(
        words,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _cure(cure: str) -> str:
    """Folded: who wants to find it alone, can."""
    if not cure:
        return ""
    code = "<br>".join(map(escape, cure.splitlines()))
    return f"<details><summary>A line that helps</summary><code>{code}</code></details>"
