"""What every widget of layerlab shares: it says in words what it shows, and shows what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

import ipywidgets

from layerlab.printable import printable
from layerlab.widgets.cells import when_no_cell_runs


class Speaks:
    """A widget that also has a text and an HTML form: stands before the widget's class in the bases.

    A subclass defines `_as_text` and `_as_html`. It is displayed as the live widget where a kernel runs;
    elsewhere (GitHub, nbconvert, a terminal) its HTML or text stands in. ipywidgets alone gives neither: its
    text is cut after 110 characters and its HTML is missing; anywidget's text is an address.
    """

    def _as_text(self) -> str:
        """The widget's present state in words: complete, without addresses, the same every time."""
        raise NotImplementedError(f"{type(self).__name__} does not define _as_text")

    def _as_html(self) -> str:
        """The same as plain semantic HTML: no script, no style needed, names escaped."""
        raise NotImplementedError(f"{type(self).__name__} does not define _as_html")

    def __repr__(self) -> str:
        return self._as_text()

    def _repr_html_(self) -> str:
        return self._as_html()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        whole = super()._repr_mimebundle_(**kwargs) or {}  # type: ignore[misc]  # the widget's own
        bundle: dict[str, Any] = whole[0] if isinstance(whole, tuple) else whole
        return bundle | {"text/plain": repr(self), "text/html": self._as_html()}


class Shows(Speaks, ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A box of controls that speaks, and that has a place for errors.

    A subclass puts its controls in with `_fill`, and reacts to them with `_listen`.
    """

    _undo: tuple[Callable[[], None], ...] = ()

    def __init__(self, **kwargs: Any) -> None:
        self._alert = ipywidgets.HTML(layout=ipywidgets.Layout(display="none"))
        super().__init__(**kwargs)
        self._fill()

    def _fill(self, *controls: ipywidgets.Widget) -> None:
        """Put these controls into the box, in place of those it had.

        The place for errors, ``_alert``, comes below unless it is among them.
        """
        self.children = controls if self._alert in controls else (*controls, self._alert)

    def _listen(self, control: ipywidgets.Widget, react: Callable[[Any], None], trait: str = "value") -> None:
        """Call ``react`` whenever a trait of the control changes (a button: when clicked), until `close`.

        It is called when no cell runs. An error in it is shown in the box and raised.
        """

        def guarded(change: Any) -> None:
            def now() -> None:
                with shown_errors(self):
                    react(change)

            when_no_cell_runs(now)

        if isinstance(control, ipywidgets.Button):
            control.on_click(guarded)
            self._undo += (lambda: control.on_click(guarded, remove=True),)
        else:
            control.observe(guarded, trait)
            self._undo += (lambda: control.unobserve(guarded, trait),)

    def show_error(self, error: BaseException | None) -> None:
        """Say below the controls what went wrong; None takes it away."""
        if error is None:
            self._alert.value, self._alert.layout.display = "", "none"
            return
        said = f'<p role="alert"><strong>⚠ {escape(in_words(error))}</strong></p>'
        self._alert.value, self._alert.layout.display = said, None

    def close(self) -> None:
        """Stop listening and take the widget, with all controls in it, out of every page."""
        for undo in self._undo:
            undo()
        self._undo = ()
        if self.comm is not None:
            _close_below(self)
        super().close()


def in_words(error: BaseException) -> str:
    """Name an error and its cause in one line."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error  # without its quotes
    return printable(f"{type(error).__name__}: {message}")


class _ShowsErrors(Protocol):
    def show_error(self, error: BaseException | None) -> None: ...


@contextmanager
def shown_errors(box: _ShowsErrors) -> Iterator[None]:
    """Show an error raised in this block in the box too; a block that ends well clears the last one.

    The error goes on to whoever called: in a notebook cell to its output, where nbval sees it.
    """
    try:
        yield
    except Exception as error:
        box.show_error(error)
        raise
    box.show_error(None)


def _close_below(box: ipywidgets.Box) -> None:
    for child in box.children:
        if isinstance(child, ipywidgets.Box):
            _close_below(child)
        child.close()
