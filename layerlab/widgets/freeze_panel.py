"""`FreezePanel`: freeze the layers of a real model by switch and slider, and read the same as PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any
from weakref import WeakSet, ref

import ipywidgets
from torch import nn
from torch.optim import Optimizer

from layerlab.called import Called
from layerlab.freezing import WAYS
from layerlab.names import Named, Pattern, bare, find
from layerlab.widgets import cells
from layerlab.widgets import freeze_state as state
from layerlab.widgets.base import Shows
from layerlab.widgets.copy_text import CopyText
from layerlab.widgets.freeze_code import code
from layerlab.widgets.freeze_grip import MODEL_GONE
from layerlab.widgets.freeze_page import Page, message
from layerlab.widgets.freeze_switchboard import Switchboard, switchboard, ways
from layerlab.widgets.freeze_tree import FreezeTree
from layerlab.widgets.keep_keys import KeepKeys
from layerlab.widgets.lr_sliders import LABEL_WIDTH, LrSlider, LrSliders

_NOTHING = "nothing"

_open: WeakSet[FreezePanel] = WeakSet()


class FreezePanel(Shows):
    """A tree of switches, sliders and a menu that freeze the layers of a model.

    What they do, they do to the model itself, with `layerlab.freezing.freeze`. What they show is read from
    it, and so what code did shows too: after every cell, and whenever `refresh` is called. All panels of a
    model act as one. None keeps its model alive: it says when the model is gone.

    Parameters
    ----------
    model
        Any module.
    optimizer
        The optimizer that trains it: needed for the method ``lr_zero`` and for the lr sliders. By default the
        one that another panel of this model was given.
    layers
        Names of modules or tensors, or patterns, from the input on: where the slider "frozen up to" stops; by
        default the model's top-level modules that have parameters.
    method
        ``"requires_grad"``, ``"grad_none"`` or ``"lr_zero"``; by default what this model's panels use, at
        first ``"requires_grad"``.

    Attributes
    ----------
    tree : FreezeTree
        The switches: on, off, or mixed.
    depth
        The slider "frozen up to": it freezes the layers up to one, and releases those after it.
    method, clear_grad
        The method's menu; the box "also clear gradients".

    Raises
    ------
    TypeError
        ``model`` is no module, or ``optimizer`` no optimizer.
    ValueError
        For a layer that means no parameter (with near names), for an unknown method, for ``lr_zero`` without
        an optimizer, or for an optimizer that holds no parameter of this model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        layers: Sequence[str] | None = None,
        method: str | None = None,
    ) -> None:
        self._board: Switchboard | None = None  # first, for `close` after an error below
        self._end_cells: Callable[[], None] = lambda: None
        self._busy = self._closed = False
        for pattern in layers or ():
            find(model, pattern, buffers=False)
        board = switchboard(model, optimizer, method)
        self._given, self._inner = ref(model), ref(bare(model))
        self._layers = list(layers) if layers is not None else None

        apart = ipywidgets.Layout(margin="4px 0 10px")
        wide, label = ipywidgets.Layout(width="min(36em, 98%)"), {"description_width": LABEL_WIDTH}
        self.depth = ipywidgets.SelectionSlider(
            options=[_NOTHING], description="frozen up to", layout=wide, style=label
        )
        self.tree = FreezeTree(self._flip)
        self.method = ipywidgets.Dropdown(options=WAYS, description="method", layout=wide, style=label)
        self.clear_grad = ipywidgets.Checkbox(
            description="also clear gradients that are there already", layout=wide, style=label
        )
        self._sliders = LrSliders(self._does(lambda board, moved: board.set_lr(*moved)))
        self._undo_button = ipywidgets.Button(description="undo", icon="undo")
        self._clear_button = ipywidgets.Button(description="clear these gradients now")
        self._undo_button.layout.width = self._clear_button.layout.width = "auto"
        self._message = ipywidgets.HTML()
        self._copy = CopyText()
        super().__init__()
        self.add_class("layerlab-freeze-panel")
        self._fill(
            *(self.depth, self.tree, self.method, self.clear_grad, self._sliders, self._alert),
            *(self._message, ipywidgets.HBox([self._undo_button, self._clear_button], layout=apart)),
            *(self._copy, KeepKeys()),
        )
        self._listen(self.depth, self._does(self._slide))
        self._listen(self.method, self._does(lambda board, change: board.set_how(change.new)))
        self._listen(self.clear_grad, self._does(lambda board, change: board.set_clear_grad(change.new)))
        self._listen(self._undo_button, self._does(lambda board, _: board.undo()))
        self._listen(self._clear_button, self._does(lambda board, _: board.clear_gradients()))
        self._board = board
        board.panels.add(self)
        self._cell = cells.this_cell()
        for other in list(_open):
            if cells.ran_anew(other._cell, self._cell):
                other.close()
        _open.add(self)
        self._end_cells = cells.after_each_cell(self._after_cell)
        self.refresh()

    # -- from code -----------------------------------------------------------------------------------------

    def freeze(self, pattern: Pattern) -> None:
        """Freeze what a pattern means, by the panel's method: see `layerlab.find` for patterns.

        Raises
        ------
        ValueError
            The pattern means no parameter; or ``lr_zero`` cannot freeze it. Nothing has been changed then.
        """
        self._act(lambda board: board.freeze(n.tensor for n in self._find(board, pattern)))

    def release(self, pattern: Pattern | None = None) -> None:
        """Release what a pattern means, also from a flag that code set; None: all that panels froze.

        What a handle of `layerlab.freeze` holds is not the panel's to release: if there is any, nothing is
        changed, and `warning` says so.

        Raises
        ------
        ValueError
            The pattern means no parameter.
        """
        if pattern is None:
            self._act(lambda board: board.release_own())
        else:
            self._act(lambda board: board.release(n.tensor for n in self._find(board, pattern)))

    def undo(self) -> None:
        """Take back the last step; where code has changed the same since, only `warning` says so."""
        self._act(lambda board: board.undo())

    def refresh(self) -> None:
        """Read the model anew; after a notebook cell that happens by itself."""
        if self._board is not None and not self._closed:
            if self._board.grip.alive:
                self._board.settle()
            self.show()

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the largest wholly frozen modules and parameters, whoever froze them."""
        return state.largest_frozen(self._rows())

    @property
    def lrs(self) -> list[LrSlider]:
        """A slider for the lr of each of the optimizer's parameter groups."""
        return list(self._sliders.children)

    @property
    def code(self) -> str:
        """The present state of model and optimizer as lines of PyTorch, whoever brought it about.

        They are for the notebook's own variables, or for ``model`` and ``optimizer`` where none holds them.
        """
        board, inner = self._board, self._inner()
        if board is None or inner is None:
            return ""
        grip, called = board.grip, board.called
        given = self._given()
        model = inner if called.model != Called().model or given is None else given
        lines = code(model, grip.facts(), grip.own_groups(), clear_grad=grip.clear_grad)
        return called.in_their_words(lines)

    @property
    def warning(self) -> str:
        """What to know about the last flip; empty when there is nothing to warn of."""
        if self._board is None:
            return ""
        return self._board.warning if self._board.grip.alive else MODEL_GONE

    def close(self) -> None:
        """Take the panel away; the last one of a model releases all that its panels froze."""
        self._end_cells()
        self._closed = True
        if self._board is not None:
            self._board.panels.discard(self)
            if not self._board.panels:
                self._board.close()
        super().close()

    # -- reactions -----------------------------------------------------------------------------------------

    def _act(self, action: Callable[[Switchboard], None]) -> None:
        """Do something to the model; whatever comes of it, the controls then show what is true."""
        if self._closed or self._board is None:
            raise RuntimeError("this panel is closed; make another: FreezePanel(model, optimizer)")
        try:
            _ = self._board.grip.model  # raises what to say if it is gone
            action(self._board)
        finally:
            self.show()

    def _does(self, action: Callable[[Switchboard, Any], None]) -> Callable[[Any], None]:
        """What to do when a control was moved, unless `show` moved it."""
        return lambda change: None if self._busy else self._act(lambda board: action(board, change))

    def _find(self, board: Switchboard, pattern: Pattern) -> list[Named]:
        return find(board.grip.model, pattern, buffers=False)

    def _flip(self, name: str, on: bool) -> None:
        def flip(board: Switchboard) -> None:
            row = next((row for row in self._rows() if row.name == name), None)
            if row is None:
                raise ValueError(f"{name!r}: the model has no such module or parameter any more")
            (board.freeze if on else board.release)(fact.named.tensor for fact in row.facts)

        self._act(flip)

    def _slide(self, board: Switchboard, change: Any) -> None:
        layers = self._members()
        upto = list(layers).index(change.new) + 1 if change.new != _NOTHING else 0
        tensors = [[fact.named.tensor for fact in facts] for facts in layers.values()]
        board.slide(chain(*tensors[:upto]), chain(*tensors[upto:]))

    def _after_cell(self) -> None:
        if self._board is not None:
            self._board.history.seal()
        self.refresh()

    # -- what it shows -------------------------------------------------------------------------------------

    def _rows(self) -> list[state.Row]:
        model = self._inner()
        if model is None or self._board is None:
            return []
        return state.rows(model, self._board.grip.facts())

    def _members(self) -> dict[str, list[state.Fact]]:
        model = self._inner()
        if model is None or self._board is None:
            return {}
        return state.layers(model, self._board.grip.facts(), self._layers)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Controls that are set in this block say what is so; nobody moved them."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def show(self) -> None:
        """Bring every control to what is true of the model."""
        board = self._board
        if self._closed or board is None:
            return
        grip, layers, rows = board.grip, self._members(), self._rows()
        upto = _NOTHING
        for name, facts in layers.items():
            if not all(fact.frozen for fact in facts):
                break
            upto = name
        known = ways(grip.optimizer)
        with self._quietly():
            if self.depth.options != (options := (_NOTHING, *layers)):
                self.depth.options = options
            if self.method.options != known:
                self.method.options = known
            self.depth.value, self.method.value, self.clear_grad.value = upto, grip.how, grip.clear_grad
            self._sliders.show(grip.own_groups())
        for control in (self.depth, self.method, self.clear_grad):
            control.disabled = not grip.alive
        self.tree.show(rows)
        self._undo_button.disabled = not board.can_undo
        late = grip.alive and state.too_late(grip.facts())
        self._clear_button.layout.display = None if late else "none"
        self._message.value = message(state.largest_frozen(rows), self.warning)
        self._copy.text = self.code
        called = board.called if grip.alive else Called()
        names = [called.model, *called.optimizers] if grip.optimizer is not None else [called.model]
        self._copy.label = f"copy as PyTorch (for {' and '.join(f'`{name}`' for name in names)})"

    def _as_text(self) -> str:
        return self._page().text()

    def _as_html(self) -> str:
        return self._page().html()

    def _page(self) -> Page:
        groups = self._board.grip.own_groups() if self._board is not None else []
        layers = list(self._members())
        return Page(self.method.value, self._rows(), layers, groups, self.warning, self.code)
