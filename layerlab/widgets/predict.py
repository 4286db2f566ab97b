"""`Predict`: tick the tensors that will move, then compare with what the ledger saw."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from html import escape

import ipywidgets
from torch import nn

from layerlab.lessons_support.scoring import Score, asked_about, score
from layerlab.names import listing, tensors
from layerlab.record import Step
from layerlab.show.words import printable
from layerlab.widgets.base import Shows, shown_errors

OUTDATED = "outdated: the ticks have changed since; call check(step) again"


class Predict(Shows):
    """One tick box a tensor: which of them will move? `check` compares the ticks with a step of a ledger.

    >>> predict = Predict(net)  # doctest: +SKIP
    >>> predict.tick("output.weight")  # doctest: +SKIP
    >>> predict.check(ledger[-1])  # doctest: +SKIP

    Parameters
    ----------
    model_or_names
        A model: every parameter is asked about, and every buffer of running statistics. Or the names of the
        tensors to ask about, in the order in which they shall stand.
    question
        Stands above the boxes.
    ticked
        Names that are ticked from the start.

    Raises
    ------
    ValueError
        If there is nothing to ask about, a name comes twice, or ``ticked`` has a name that is not asked
        about; the message lists near names.
    TypeError
        If ``model_or_names`` is a single str.
    """

    def __init__(
        self,
        model_or_names: nn.Module | Iterable[str],
        question: str = "Which tensors will move in this step?",
        ticked: Iterable[str] = (),
    ) -> None:
        self._first_name = _names_asked_about(model_or_names)
        self.names = tuple(dict.fromkeys(self._first_name.values()))
        self.question = question
        self.score: Score | None = None
        self._checked: tuple[str, ...] = ()
        chosen = self._find(ticked)
        super().__init__()
        layout = ipywidgets.Layout(width="auto", flex="0 0 auto")
        self.boxes = {
            name: ipywidgets.Checkbox(
                value=name in chosen,
                description=self._label(name),
                description_allow_html=True,
                indent=False,
                tooltip=printable(name),
                layout=layout,
            )
            for name in self.names
        }
        for box in self.boxes.values():
            self._listen(box, lambda _: self._show_verdict())
        self._verdict = ipywidgets.HTML()
        self._verdict.add_class("jp-RenderedHTMLCommon")  # its table looks like one in a cell's output
        listed = ipywidgets.VBox(
            list(self.boxes.values()), layout=ipywidgets.Layout(max_height="24em", overflow="auto")
        )
        asked = ipywidgets.HTML(f"<p><strong>{escape(printable(question))}</strong></p>")
        self._fill(asked, listed, self._verdict)

    @property
    def ticked(self) -> tuple[str, ...]:
        """Names of the tensors that are ticked, in the model's order."""
        return tuple(name for name, box in self.boxes.items() if box.value)

    @property
    def outdated(self) -> bool:
        """Whether the ticks have changed since the last `check`."""
        return self.score is not None and self.ticked != self._checked

    def tick(self, *names: str) -> None:
        """Tick boxes, as a click would.

        Raises
        ------
        ValueError
            If a name is not asked about; then no box is changed. The message lists near names.
        """
        self._set(names, True)

    def untick(self, *names: str) -> None:
        """Take ticks away; see `tick`."""
        self._set(names, False)

    def check(self, step: Step | Sequence[Step]) -> Score:
        """Compare the ticks with what moved in a step; show the verdict below the boxes and return it.

        Parameters
        ----------
        step
            A step of a ledger, or a ledger of exactly one step.

        Raises
        ------
        ValueError, KeyError
            For a ledger of several steps, or a step without these tensors; see
            `layerlab.lessons_support.scoring.score`.
        """
        with shown_errors(self):
            ticked = self.ticked
            self.score = result = score(ticked, step, names=self.names)
            self._checked = ticked
            self._show_verdict()
        return result

    def _set(self, names: Iterable[str], value: bool) -> None:
        for name in self._find(names):
            self.boxes[name].value = value

    def _find(self, names: Iterable[str]) -> list[str]:
        wanted = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in wanted if name not in self._first_name]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._first_name, n=3, cutoff=0.4)
            hint = f"near names: {', '.join(near)}" if near else f"asked about: {listing(self.names)}"
            raise ValueError(f"no tick box for {unknown[0]!r}; {hint}")
        return [self._first_name[name] for name in wanted]

    def _label(self, name: str) -> str:
        tied = [printable(other) for other, first in self._first_name.items() if first == name != other]
        label = f"<code>{escape(printable(name))}</code>"
        return label + (f" (tied: <code>{escape(', '.join(tied))}</code>)" if tied else "")

    def _show_verdict(self) -> None:
        """Mark each box right or wrong; the table that says why is what `check` returns."""
        if self.score is None:
            return
        for answer in self.score.answers:
            name = answer.fact.name
            wrong = f" ✗ it {'moved' if answer.fact.moved else 'stayed'}"
            mark = "" if self.outdated else " ✓" if answer.right else wrong
            self.boxes[name].description = self._label(name) + mark
        said = OUTDATED if self.outdated else f"{self.score.right} of {self.score.total} right"
        self._verdict.value = f'<p role="status"><strong>{said}</strong></p>'

    def _verdict_html(self) -> str:
        if self.score is None:
            return ""
        return (f"<p><em>{OUTDATED}</em></p>\n" if self.outdated else "") + self.score._repr_html_()

    def _as_text(self) -> str:
        text = f"Predict: {len(self.ticked)} of {len(self.names)} ticked"
        text += f": {', '.join(map(printable, self.ticked))}" if self.ticked else ""
        if self.score is None:
            return text
        return "\n".join([text, *([OUTDATED] if self.outdated else []), repr(self.score)])

    def _as_html(self) -> str:
        items = "\n".join(
            f"<li>{'☑' if box.value else '☐'} {self._label(name)}</li>" for name, box in self.boxes.items()
        )
        asked = f"<p><strong>{escape(printable(self.question))}</strong></p>"
        unmarked = '<ul style="list-style:none;padding-left:0">'  # each item has its own sign
        return f"<div>\n{asked}\n{unmarked}\n{items}\n</ul>\n{self._verdict_html()}\n</div>"


def _names_asked_about(model_or_names: nn.Module | Iterable[str]) -> dict[str, str]:
    """Every name by which a tensor may be ticked, and the first name of that tensor."""
    if isinstance(model_or_names, nn.Module):
        everything = tensors(model_or_names)
        asked = set(asked_about(everything))
        found = {name: one.name for one in everything if one.name in asked for name in one.names}
    elif isinstance(model_or_names, str):
        raise TypeError(f"give a model or a list of names, such as [{model_or_names!r}], not a str")
    else:
        names = list(model_or_names)
        found = {name: name for name in names}
        if len(found) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r} is asked about twice")
    if not found:
        raise ValueError("there is no tensor to ask about")
    return found
