"""The article's printed matrices beside those of a run, row by row."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from layerlab.experiments.article import MOMENTS, agreement, printed
from layerlab.experiments.two_tasks import Run


def beside(article_run: str, run: Run, moments: Iterable[str] = MOMENTS) -> list[dict[str, Any]]:
    """List every row of every printed matrix, with what the run gave in its place.

    Parameters
    ----------
    article_run
        ``"sgd"``, ``"adam"`` or ``"fix"``.
    run
        What `layerlab.experiments.two_tasks.replay` returned.
    moments
        Which of the article's tables, by default all three.

    Returns
    -------
    list of dict
        ``when``, ``tensor``, ``printed`` (as the article has it), ``ours`` (rounded to as many decimals),
        ``agree``: how many of the row's numbers agree within one unit of the last printed place.
    """
    rows = []
    for moment in moments:
        for name, matrix in printed()[article_run].tables[moment].items():
            ours = run.parameters[moment][name]
            for index, texts in enumerate(matrix):
                found = agreement({name: [texts]}, {name: ours[index : index + 1]})
                values = [
                    _as_printed(value, text) for value, text in zip(ours[index].tolist(), texts, strict=True)
                ]
                rows.append(
                    {
                        "when": moment,
                        "tensor": f"{name}[{index}]",
                        "printed": _line(texts),
                        "ours": _line(values),
                        "agree": f"{found.within_last_place} of {found.total}",
                    }
                )
    return rows


def _as_printed(value: float, text: str) -> str:
    exponent = Decimal(text).as_tuple().exponent
    return f"{value:.{-exponent}f}" if isinstance(exponent, int) and exponent < 0 else f"{value:g}"


def _line(numbers: list[str]) -> str:
    return "[" + ", ".join(f"{number:>7}" for number in numbers) + "]"
