"""`Compare`: two settings of a run side by side, from the same weights and the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

import ipywidgets
from torch import nn

from layerlab.experiments.freeze_trial import FREEZING, OPTIMIZERS, ZERO_GRAD, FreezeTrial, Loss
from layerlab.names import Pattern
from layerlab.printable import printable
from layerlab.record import Step
from layerlab.show import Shown, describe_steps
from layerlab.show.beside import DIFFERS, SIDES, describe_beside
from layerlab.show.page import Cell, Column, Description, Row, Table
from layerlab.widgets.base import in_words
from layerlab.widgets.settings import INTERRUPTED, RUNNING, Options, Settings, Values, options
from layerlab.widgets.sharing import write_state

TRIAL: dict[str, Values] = {
    "optimizer": list(OPTIMIZERS),
    "zero_grad": list(ZERO_GRAD),
    "freezing": list(FREEZING),
    "momentum": {"0": 0.0, "0.9": 0.9},
    "weight_decay": {"0": 0.0, "0.01": 0.01},
}
"""The settings of `layerlab.experiments.freeze_trial.freeze_trial` to choose from."""
START = "optimizer=AdamW;zero_grad=zeros/None;freezing=requires_grad"
"""Where its comparison starts: a layer frozen by its flag, held by None and moved by zeros."""


class Compare(Settings):
    """Two columns of controls, a run for each, and one table of what differs between the two.

    Without arguments it freezes a layer of the article's two-task network under five settings; `of` does so
    with a model of your own. What is set can be copied as a short text (``state``) and pasted by somebody
    else.

    Parameters
    ----------
    run
        Called with one keyword argument for each setting, for each side; returns a ledger, or one step of
        one. It must start from the same weights and use the same batch each time. If it has a method
        ``not_used``, that is called alike and returns the settings that do not apply, each with the reason.
    start
        A state to start with. Without it, the sides differ in the first setting alone.
    **settings
        For each argument of ``run`` the values to choose from, two or more; a dict maps labels to values.

    Attributes
    ----------
    left, right : dict of str to widget
        The controls of each side: assign their ``value`` from code.
    results : dict of str to ledger
        What the last runs returned, by ``"left"`` and ``"right"``.
    errors : dict of str to Exception
        What they raised instead.

    Raises
    ------
    ValueError
        For settings without a ``run`` or a ``run`` without settings; a setting with fewer than two values,
        or with two values of one label; a ``start`` that names what does not exist.

    Examples
    --------
    >>> compare = Compare()  # doctest: +SKIP
    >>> compare.state = "optimizer=SGD/AdamW;momentum=0.9"  # doctest: +SKIP
    >>> Compare.of(net, lambda net: cross_entropy(net(x), y), frozen="body")  # doctest: +SKIP
    """

    def __init__(
        self, run: Callable[..., Sequence[Step] | Step] | None = None, *, start: str = "", **settings: Values
    ) -> None:
        if run is None and settings:
            raise ValueError(
                f"give the function that these are settings of: Compare(run, {next(iter(settings))}=…)"
            )
        if run is None:
            run, settings, start = FreezeTrial.of_the_article(), TRIAL, start or START
        self._run = run
        self.results: dict[str, Sequence[Step]] = {}
        self.errors: dict[str, Exception] = {}
        super().__init__(settings, SIDES, start or _one_difference(settings))
        self.left, self.right = (self._sides[side] for side in SIDES)
        self.add_class("layerlab-compare")
        self._marks = {name: ipywidgets.HTML() for name in self._options}
        self._remarks = {name: ipywidgets.HTML() for name in self._options}
        columns = "max-content minmax(6em, 14em) 1.2em minmax(6em, 14em) auto"
        layout = ipywidgets.Layout(grid_template_columns=columns, grid_gap="0 6px", align_items="center")
        self._fill(
            ipywidgets.GridBox(list(self._cells()), layout=layout), self._view, self._share, self._keys
        )
        self._changed()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        loss: Loss,
        frozen: Pattern,
        *,
        start: str = START,
        lr: float = 0.1,
        steps: int = 3,
        freeze_after: int = 1,
    ) -> Compare:
        """Compare ways to freeze a part of your own model, which stays as it is.

        Parameters
        ----------
        model
            Copied now: every run starts from the weights that it has now.
        loss
            Given the copy, returns its loss on the same batch each time.
        frozen
            The part to freeze: a name, a glob or a list of these.
        start
            A state to start with.
        lr, steps, freeze_after
            See `layerlab.experiments.freeze_trial.freeze_trial`.

        Raises
        ------
        ValueError, TypeError
            As `layerlab.experiments.freeze_trial.freeze_trial` does.
        """
        trial = FreezeTrial(model, loss, frozen, lr=lr, steps=steps, freeze_after=freeze_after)
        return cls(trial, start=start, **TRIAL)

    def show_error(self, error: BaseException | None) -> None:
        """Say below what went wrong; but for an error of a run, which stands in that run's place."""
        super().show_error(None if error in self.errors.values() else error)

    # -- the controls ------------------------------------------------------------------------------------

    def _control(self, name: str, choices: Options, side: str) -> ipywidgets.Widget:
        # A label without width: the row and the column say it to the eye, a screen reader says it here.
        return ipywidgets.Dropdown(
            options=choices,
            value=choices[0][1],
            description=f"{name}, {side}",
            style={"description_width": "0px"},
            layout=ipywidgets.Layout(width="auto"),
        )

    def _cells(self) -> Iterator[ipywidgets.Widget]:
        """Row by row: a setting's name, its left control, a mark, its right control, a remark."""
        for heading in ("", SIDES[0], "", SIDES[1], ""):
            yield ipywidgets.HTML(f"<strong>{heading}</strong>")
        for name in self._options:
            yield ipywidgets.HTML(f"<code>{escape(printable(name))}</code>")
            yield from (self.left[name], self._marks[name], self.right[name], self._remarks[name])

    def _not_used(self, side: str) -> Mapping[str, str]:
        ask = getattr(self._run, "not_used", None)
        return ask(**self._values(side)) if ask else {}

    def _remark(self, name: str) -> str:
        """Why a setting does not apply, and on which side."""
        left, right = (self._not_used(side).get(name, "") for side in SIDES)
        if left == right:
            return left
        return "; ".join(f"{side}: {said}" for side, said in zip(SIDES, (left, right), strict=True) if said)

    # -- the runs ----------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        self.results, self.errors = {}, {}
        try:
            self._view.value = RUNNING  # an old result beside new settings would be a false one
            for name, (left, right) in self._chosen().items():
                mark = f'<strong title="differs">{DIFFERS}</strong>' if left != right else ""
                self._marks[name].value = mark
                self._remarks[name].value = f"<small>{escape(printable(self._remark(name)))}</small>"
            for side in SIDES:
                try:
                    self.results[side] = self._steps_of(side)
                except Exception as error:  # the other side still runs; it is raised below
                    self.errors[side] = error
            self._view.value = self._result_html()
        except KeyboardInterrupt:
            self._view.value = INTERRUPTED
            raise
        if self.errors:
            raise next(iter(self.errors.values()))

    def _steps_of(self, side: str) -> Sequence[Step]:
        found = self._run(**self._values(side))
        if isinstance(found, Step):
            return [found]
        if isinstance(found, Sequence) and all(isinstance(step, Step) for step in found):
            return found
        name = getattr(self._run, "__name__", "run")
        kind = type(found).__name__
        raise TypeError(f"{name} must return a ledger, or a step of one, not {kind}: is its return missing?")

    def _result(self) -> Shown | None:
        """What the runs came to: the comparison, or, where one of them failed, the other alone."""
        if len(self.results) == 2:
            chosen = self._chosen()
            differing = [name for name, labels in chosen.items() if len(set(labels)) > 1]
            left, right = (
                ", ".join(f"{name} = {chosen[name][at]}{self._unless_used(name, side)}" for name in differing)
                for at, side in enumerate(SIDES)
            )
            return Shown(describe_beside(self.results["left"], self.results["right"], (left, right)))
        for steps in self.results.values():
            return Shown(describe_steps(steps, getattr(steps, "alarms", [])))
        return None

    def _unless_used(self, name: str, side: str) -> str:
        why = self._not_used(side).get(name)
        return f" ({why})" if why else ""

    # -- what it shows -----------------------------------------------------------------------------------

    def _settings_table(self) -> Description:
        rows = []
        for name, (left, right) in self._chosen().items():
            mark = DIFFERS if left != right else ""
            words = [printable(word) for word in (name, left, right, self._remark(name))]
            rows.append(Row((Cell(words[0], mark=mark), *map(Cell, words[1:]))))
        columns = [Column("setting", code=True, names=True), *map(Column, SIDES)]
        columns += [Column("")] * any(row.cells[-1].text for row in rows)
        shown = tuple(Row(row.cells[: len(columns)]) for row in rows)
        page = Table(f"Compare: {printable(self.state)}", tuple(columns), shown)
        return Description(tables=(page,))

    def _said_errors(self) -> list[str]:
        return [f"⚠ {side}: {in_words(error)}" for side, error in self.errors.items()]

    def _alone(self) -> str:
        """Whose run it is, where the other failed."""
        return next(iter(self.results), "") if len(self.results) == 1 else ""

    def _result_html(self) -> str:
        shown = self._result()
        parts = [f'<p role="alert"><strong>{escape(said)}</strong></p>' for said in self._said_errors()]
        parts += [f"<p>{self._alone()}:</p>"] if self._alone() else []
        return "\n".join([*parts, shown._repr_html_() if shown else ""])

    def _as_text(self) -> str:
        parts = [repr(Shown(self._settings_table())), *self._said_errors()]
        parts += [f"{self._alone()}:"] if self._alone() else []
        shown = self._result()
        return "\n\n".join([*parts, *([repr(shown)] if shown else [])])

    def _as_html(self) -> str:
        return f"{Shown(self._settings_table())._repr_html_()}\n{self._result_html()}"


def _one_difference(settings: Mapping[str, Values]) -> str:
    """A state whose sides differ in the first setting alone: a comparison of like with like says nothing."""
    for name, values in settings.items():
        return write_state({name: [label for label, _ in options(name, values)[:2]]})
    return ""
