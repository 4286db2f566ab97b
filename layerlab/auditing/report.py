"""An audit as a sequence of findings that shows itself: as text, as HTML, as plain rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, overload

from layerlab.auditing.finding import LEVELS, Finding
from layerlab.show.html import html
from layerlab.show.page import Description, Warn
from layerlab.show.text import text
from layerlab.show.words import plural


class Audit(Sequence[Finding]):
    """What an audit found, the gravest first: a sequence of `Finding`, empty (and false) when all is well.

    Attributes
    ----------
    looked_at
        What was audited, in words.
    """

    def __init__(self, findings: Sequence[Finding], looked_at: str) -> None:
        self._findings = tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))
        self.looked_at = looked_at

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes found, each once."""
        return tuple(dict.fromkeys(finding.code for finding in self))

    def rows(self) -> list[dict[str, Any]]:
        """Give the findings as plain dicts, ready for a DataFrame or JSON."""
        return [{**asdict(finding), "names": list(finding.names)} for finding in self]

    def summary(self) -> str:
        """Count the findings in a line: ``1 error, 2 notes: …``."""
        counts = {level: sum(finding.level == level for finding in self) for level in LEVELS}
        told = ", ".join(plural(count, level) for level, count in counts.items() if count)
        return f"audit: {told or 'nothing found'} in {self.looked_at}"

    def description(self) -> Description:
        """The neutral description that text and HTML are drawn from."""
        return Description(alarms=tuple(map(_warn, self)), note=self.summary())

    def __repr__(self) -> str:
        return text(self.description())

    def _repr_html_(self) -> str:
        return html(self.description())


def _warn(finding: Finding) -> Warn:
    return Warn(
        level="notice" if finding.level == "note" else "alarm",
        names=finding.names,
        what=finding.code,
        when=finding.level,
        cause=finding.effect,
        cure=finding.cure,
    )
