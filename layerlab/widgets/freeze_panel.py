"""`FreezePanel`: freeze the layers of a real model by slider and switch, and read the same as PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from typing import Any
from weakref import WeakKeyDictionary, ref

import ipywidgets
from torch import nn
from torch.optim import Optimizer

from layerlab.freezing import WAYS, Freeze, freeze
from layerlab.names import Named, find, tensors
from layerlab.show.alphabet import FROZEN
from layerlab.show.words import plural, short
from layerlab.widgets import freeze_warnings as warnings
from layerlab.widgets.base import Shows

_NOTHING = "nothing"
_LR_DECADES = (-6, 1)

_panels: WeakKeyDictionary[nn.Module, ref[FreezePanel]] = WeakKeyDictionary()
"""The newest panel of each model."""


class FreezePanel(Shows):
    """Sliders and switches that freeze the layers of a model.

    What they do, they do to the model itself, with `layerlab.freezing.freeze`: there is no copy. The panel
    shows the same in plain PyTorch, and warns when a layer was frozen too late (its gradient is there
    already, and the next step applies it).

    Parameters
    ----------
    model
        Any module.
    optimizer
        The optimizer that trains it: needed for the method ``lr_zero`` and for the lr sliders.
    layers
        Names of modules or tensors, or patterns, a switch each; by default the model's top-level modules
        that have parameters.
    method
        ``"requires_grad"``, ``"grad_none"`` or ``"lr_zero"``.

    Attributes
    ----------
    depth
        The slider "frozen up to here": layers in order, from the input on.
    switches : dict of str to Checkbox
        The switch of each layer.
    method, clear_grad, lrs
        The method's menu; the box "also clear gradients"; a slider for the lr of each parameter group.

    Raises
    ------
    ValueError
        For a layer that means no parameter (with near names), for an unknown method, or for ``lr_zero``
        without an optimizer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        layers: Sequence[str] | None = None,
        method: str = "requires_grad",
    ) -> None:
        self._handle: Freeze | None = None  # first, for `close` after an error below
        self._model, self._optimizer = model, optimizer
        self._said = ""
        self._busy = False
        names = list(layers) if layers is not None else _top_level(model)
        self._members: dict[str, list[Named]] = {n: find(model, n, buffers=False) for n in names}
        ways = [way for way in WAYS if optimizer is not None or way != "lr_zero"]
        if method not in ways:
            hint = "; lr_zero needs the optimizer: FreezePanel(model, optimizer)" if method in WAYS else ""
            raise ValueError(f"method={method!r}: choose one of {', '.join(ways)}{hint}")
        before = _panels.get(model, lambda: None)()
        if before is not None:
            before.release()  # two panels on one model would each undo what the other did

        wide = ipywidgets.Layout(width="min(36em, 98%)")
        label = {"description_width": "9em"}
        self.depth = ipywidgets.SelectionSlider(
            options=[_NOTHING, *names], description="frozen up to", layout=wide, style=label
        )
        self.switches = {
            name: ipywidgets.Checkbox(
                description=f"freeze {name} ({_size(members)})", indent=False, layout=wide
            )
            for name, members in self._members.items()
        }
        self.method = ipywidgets.Dropdown(
            options=ways, value=method, description="method", layout=wide, style=label
        )
        self.clear_grad = ipywidgets.Checkbox(
            description="also clear gradients that are there already", indent=False, layout=wide
        )
        self.lrs = [
            ipywidgets.FloatLogSlider(
                value=float(group["lr"]) or 1e-3,
                min=_LR_DECADES[0],
                max=_LR_DECADES[1],
                step=0.1,
                description=f"lr, group {index}" + ("" if group["lr"] else " (now 0)"),
                readout_format=".1e",
                layout=wide,
                style=label,
            )
            for index, group in enumerate(optimizer.param_groups if optimizer else ())
        ]
        self._message = ipywidgets.HTML()
        self._code = ipywidgets.HTML()
        self._code.add_class("jp-RenderedHTMLCommon")
        super().__init__()
        self._fill(
            self.depth,
            *self.switches.values(),
            self.method,
            self.clear_grad,
            *self.lrs,
            self._message,
            self._code,
        )
        self._listen(self.depth, self._on_depth)
        for switch in self.switches.values():
            self._listen(switch, self._on_switch)
        self._listen(self.method, self._on_switch)
        self._listen(self.clear_grad, self._on_switch)
        for index, slider in enumerate(self.lrs):
            self._listen(slider, partial(self._on_lr, index))
        _panels[model] = ref(self)
        self._say()

    @property
    def frozen(self) -> tuple[str, ...]:
        """The layers whose switch is on."""
        return tuple(name for name, switch in self.switches.items() if switch.value)

    @property
    def code(self) -> str:
        """The present state as lines of PyTorch; empty when nothing is frozen."""
        return self._handle.code if self._handle else ""

    @property
    def warning(self) -> str:
        """What to know about the last flip; empty when there is nothing to warn of."""
        return self._said

    def release(self) -> None:
        """Release everything that this panel froze."""
        self.depth.value = _NOTHING
        for switch in self.switches.values():
            switch.value = False

    def close(self) -> None:
        """Release what is frozen and take the panel away."""
        self._release()
        super().close()

    # -- reactions ---------------------------------------------------------------------------------------

    def _on_depth(self, change: Any) -> None:
        if self._busy:
            return
        names = list(self.switches)
        upto = names.index(self.depth.value) + 1 if self.depth.value != _NOTHING else 0
        self._busy = True  # the switches follow the slider: one change, not one a switch
        try:
            for index, switch in enumerate(self.switches.values()):
                switch.value = index < upto
        finally:
            self._busy = False
        self._apply()

    def _on_switch(self, change: Any) -> None:
        if self._busy:
            return
        upto = _NOTHING
        for name, switch in self.switches.items():
            if not switch.value:
                break
            upto = name
        self._busy = True  # the slider follows the switches: up to where everything is frozen
        try:
            self.depth.value = upto
        finally:
            self._busy = False
        self._apply()

    def _on_lr(self, index: int, change: Any) -> None:
        assert self._optimizer is not None
        self._release()  # so that a group frozen by lr = 0 keeps the new lr for later
        self._optimizer.param_groups[index]["lr"] = self.lrs[index].value
        self._apply()

    def _apply(self) -> None:
        was = set(self._handle.names) if self._handle else set()
        self._release()
        late = [n for n in self._chosen() if n.name not in was and n.tensor.grad is not None]
        if self.frozen:
            try:
                self._handle = freeze(
                    self._model,
                    list(self.frozen),
                    self.method.value,
                    optimizer=self._optimizer,
                    clear_grad=self.clear_grad.value,
                )
            except Exception:
                self._switch_all_off()
                raise
        self._said = self._warn(late, was)
        self._say()

    def _warn(self, late: list[Named], was: set[str]) -> str:
        if late and self.method.value == "requires_grad" and not self.clear_grad.value:
            return warnings.too_late(late)
        if self.frozen and not any(p.requires_grad for p in self._model.parameters()):
            return warnings.NOTHING_LEFT
        held = self._handle.names if self._handle else ()
        state = self._optimizer.state if self._optimizer else {}
        released = [n for n in tensors(self._model) if n.name in was and n.name not in held]
        stored = [n for n in released if state.get(n.tensor)]
        known = {n.name for n in stored}
        layers = [n for n, members in self._members.items() if known & {m.name for m in members}]
        return warnings.old_momentum(stored, layers) if stored else ""

    def _chosen(self) -> list[Named]:
        return [member for name in self.frozen for member in self._members[name]]

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.release()
            self._handle = None

    def _switch_all_off(self) -> None:
        """After a freeze that could not be done nothing is frozen, and the switches must say so."""
        self._busy = True
        try:
            self.release()
        finally:
            self._busy = False
        self._said = ""
        self._say()

    # -- what it shows -----------------------------------------------------------------------------------

    def _say(self) -> None:
        frozen = ", ".join(self.frozen) or "nothing"
        mark = "⚠ " + escape(self._said) if self._said else ""
        self._message.value = f'<p role="status">frozen: <code>{escape(frozen)}</code></p>' + (
            f'<p role="alert"><strong>{mark}</strong></p>' if mark else ""
        )
        self._code.value = f"<pre>{escape(self.code or '# nothing is frozen')}</pre>"

    def _as_text(self) -> str:
        rows = [
            f"  {FROZEN if name in self.frozen else ' '} {name} ({_size(members)})"
            for name, members in self._members.items()
        ]
        groups = self._optimizer.param_groups if self._optimizer else []
        lrs = [f"  lr of group {i}: {short(float(group['lr']))}" for i, group in enumerate(groups)]
        warning = [f"⚠ {self._said}"] if self._said else []
        return "\n".join([f"FreezePanel, by {self.method.value}:", *rows, *lrs, *warning, self.code]).rstrip()

    def _as_html(self) -> str:
        rows = "".join(
            f"<tr><td>{FROZEN if name in self.frozen else ''}</td><th scope='row'><code>{escape(name)}</code>"
            f"</th><td>{_size(members)}</td></tr>"
            for name, members in self._members.items()
        )
        return (
            f"<table><caption>FreezePanel, by <code>{self.method.value}</code></caption><thead><tr>"
            "<th scope='col'>frozen</th><th scope='col'>layer</th><th scope='col'>size</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
            + (f"<p>⚠ {escape(self._said)}</p>" if self._said else "")
            + (f"<pre>{escape(self.code)}</pre>" if self.code else "")
        )


def _top_level(model: nn.Module) -> list[str]:
    """The modules that a learner would call the layers: look into a wrapper that has only one."""
    named = [n for n in tensors(model) if n.kind == "parameter"]
    prefix = ""
    while True:
        below = [n.name.removeprefix(prefix) for n in named if n.name.startswith(prefix)]
        heads = list(dict.fromkeys(name.partition(".")[0] for name in below))
        if len(heads) != 1 or all("." not in name.partition(".")[2] for name in below):
            return [prefix + head for head in heads]
        prefix += heads[0] + "."


def _size(members: list[Named]) -> str:
    return plural(sum(m.tensor.numel() for m in members), "parameter")
