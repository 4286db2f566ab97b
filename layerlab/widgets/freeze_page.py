"""What stands in for `FreezePanel` where no kernel runs: text and plain HTML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from layerlab.freezing.learning_rates import OwnGroup
from layerlab.show.alphabet import FROZEN
from layerlab.show.words import printable, some
from layerlab.widgets.freeze_state import Row
from layerlab.widgets.freeze_tree import WHOLE, details, in_words
from layerlab.widgets.lr_sliders import lr_in_words


def as_text(
    method: str,
    tree: Sequence[Row],
    layers: Collection[str],
    groups: Sequence[OwnGroup],
    warning: str,
    code: str,
) -> str:
    """The layers with what is frozen, the learning rates, the warning and the code."""
    rows = [f"  {FROZEN if row.checked == 'true' else ' '} {in_words(row)}" for row in _shown(tree, layers)]
    return "\n".join(
        [
            f"FreezePanel, by {method}:",
            *rows,
            *(f"  lr of group {index}: {lr_in_words(group)}" for index, group in enumerate(groups)),
            *([f"⚠ {_lines(warning)}"] if warning else []),
            code,
        ]
    ).rstrip()


def as_html(
    method: str,
    tree: Sequence[Row],
    layers: Collection[str],
    groups: Sequence[OwnGroup],
    warning: str,
    code: str,
) -> str:
    """The same as a table and paragraphs."""
    rows = "".join(
        f"<tr><td>{FROZEN if row.checked == 'true' else ''}</td><th scope='row'>"
        f"<code>{escape(printable(row.name))}</code></th><td>{escape(details(row))}</td></tr>"
        for row in _shown(tree, layers)
    )
    words, cure = _words_and_cure(warning)
    lrs = "".join(f"<li>lr of group {index}: {lr_in_words(group)}</li>" for index, group in enumerate(groups))
    return (
        f"<table><caption>FreezePanel, by <code>{method}</code></caption><thead><tr>"
        "<th scope='col'>frozen</th><th scope='col'>layer</th><th scope='col'>size</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        + (f"<ul>{lrs}</ul>" if lrs else "")
        + (f"<p>⚠ {words}</p>{cure}" if warning else "")
        + (f"<pre>{escape(code)}</pre>" if code else "")
    )


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


def _shown(tree: Sequence[Row], layers: Collection[str]) -> list[Row]:
    """The top-level modules; in a small model also what lies in one that is frozen in part."""
    top = [row.name for row in tree if row.name in layers] or [row.name for row in tree if row.level == 1]
    mixed = {row.name for row in tree if row.checked == "mixed" and len(tree) <= WHOLE}
    return [row for row in tree if row.name in top or row.name.rpartition(".")[0] in mixed]
