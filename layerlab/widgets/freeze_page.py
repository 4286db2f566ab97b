"""What stands in for `FreezePanel` where no kernel runs: text and plain HTML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from layerlab.freezing.learning_rates import OwnGroup
from layerlab.printable import printable
from layerlab.show.words import some
from layerlab.widgets.freeze_state import Row
from layerlab.widgets.freeze_tree import WHOLE, as_table, in_words
from layerlab.widgets.lr_sliders import lr_in_words


@dataclass(frozen=True)
class Page:
    """What a panel shows: to be written as text or as HTML."""

    method: str
    tree: Sequence[Row]
    layers: Collection[str]
    groups: Sequence[OwnGroup]
    warning: str
    code: str

    def text(self) -> str:
        """The layers with what is frozen, the learning rates, the warning and the code."""
        rows = [in_words(row) for row in self._shown()]
        lrs = [f"  lr of group {index}: {lr_in_words(group)}" for index, group in enumerate(self.groups)]
        warning = [f"⚠ {_lines(self.warning)}"] if self.warning else []
        return "\n".join([f"FreezePanel, by {self.method}:", *rows, *lrs, *warning, self.code]).rstrip()

    def html(self) -> str:
        """The same as a table and paragraphs."""
        words, cure = _words_and_cure(self.warning)
        lrs = [
            f"<li>lr of group {index}: {lr_in_words(group)}</li>" for index, group in enumerate(self.groups)
        ]
        return (
            as_table(self._shown(), f"FreezePanel, by <code>{self.method}</code>")
            + (f"<ul>{''.join(lrs)}</ul>" if lrs else "")
            + (f"<p>⚠ {words}</p>{cure}" if self.warning else "")
            + (f"<pre>{escape(self.code)}</pre>" if self.code else "")
        )

    def _shown(self) -> list[Row]:
        """The top-level modules; in a small model also what lies in one that is frozen in part."""
        top = [row.name for row in self.tree if row.name in self.layers]
        top = top or [row.name for row in self.tree if row.level == 1]
        mixed = {row.name for row in self.tree if row.checked == "mixed" and len(self.tree) <= WHOLE}
        return [row for row in self.tree if row.name in top or row.name.rpartition(".")[0] in mixed]


def message(frozen: Sequence[str], warning: str) -> str:
    """What stands below the controls: what is frozen, and the warning; its cure so that it can be copied."""
    names = escape(some([printable(name) for name in frozen], 6)) or "nothing"
    words, cure = _words_and_cure(warning)
    alert = f'<div role="alert"><strong>⚠ {words}</strong>{cure}</div>' if warning else ""
    return f'<div role="status">frozen: <code>{names}</code></div>{alert}'


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _words_and_cure(warning: str) -> tuple[str, str]:
    """A warning as HTML: its first line, and the lines of PyTorch below it, if there are any."""
    words, _, cure = escape(_lines(warning)).partition("\n")
    return words, f"<pre>{cure}</pre>" if cure else ""
