"""The watched tensors of a model, each with one copy of its values at the end of the previous step."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from layerlab.compare import Change, advance, copy_of, norm, same_bits
from layerlab.names import Named, is_sharded, tensors
from layerlab.record import TensorInfo


@dataclass(eq=False, slots=True)
class Watched:
    """One parameter or buffer, its copy, and what was seen of it since the previous step."""

    named: Named
    info: TensorInfo
    shadow: Tensor
    norm: float
    outside: bool = False
    """Something wrote to it between two steps."""
    by_forward: bool = False
    """Its module's forward pass wrote to it (buffers only)."""
    used_grad: tuple[weakref.ref[Tensor], int] | None = None
    """The gradient of the previous step, and its version counter then."""

    @property
    def tensor(self) -> Tensor:
        """The tensor itself."""
        return self.named.tensor

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter, not a buffer."""
        return self.named.kind == "parameter"

    def changed(self) -> bool:
        """Whether any bit differs from the copy; follows a move to another device or dtype."""
        tensor = self.tensor.detach()
        if tensor.shape != self.shadow.shape:
            self.shadow = copy_of(tensor)
            return True
        if tensor.dtype != self.shadow.dtype or tensor.device != self.shadow.device:
            self.shadow = self.shadow.to(tensor.device, tensor.dtype)
        return not same_bits(self.shadow, tensor)

    def advance(self) -> Change:
        """Measure what changed since the previous step, then take over the values of now."""
        change = advance(self.shadow, self.tensor) if self.changed() else Change(moved=False)
        if change.moved:
            self.norm = change.after
        self.outside = self.by_forward = False
        return change

    def grad_is_stale(self) -> bool:
        """Whether the gradient is the very one that the previous step used, untouched since."""
        grad = self.tensor.grad
        if grad is None or self.used_grad is None:
            return False
        reference, version = self.used_grad
        return reference() is grad and grad._version == version

    def remember_grad(self) -> None:
        """Note which gradient this step used."""
        grad = self.tensor.grad
        self.used_grad = None if grad is None else (weakref.ref(grad), grad._version)


class Snapshot:
    """All watched tensors of a model, kept in step with a model that changes (a layer replaced midway)."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: dict[int, tuple[nn.Module, list[RemovableHandle]]] = {}
        self.watched: dict[int, Watched] = {}
        self._hooked = False
        self.sync()

    def __iter__(self) -> Iterator[Watched]:
        return iter(self.watched.values())

    def sync(self) -> list[tuple[Watched, str]]:
        """Look at the model anew.

        Returns
        -------
        list of (Watched, str)
            Tensors that the model no longer has, each with the name it had.

        Raises
        ------
        ValueError
            For a tensor on the meta device or not yet initialised: it has no values to watch. For a sharded
            one: here is only a part of it.
        """
        current = tensors(self._model)
        _refuse_unreadable(current)
        watched = {}
        for named in current:
            known = self.watched.get(id(named.tensor))
            info = _info(named)
            if known is None or known.tensor is not named.tensor:
                known = Watched(named, info, copy_of(named.tensor), norm(named.tensor))
            elif known.info != info:
                known.named, known.info = named, info
            watched[id(named.tensor)] = known
        gone = [(w, w.info.name) for key, w in self.watched.items() if key not in watched]
        self.watched = watched
        if self._hooked:
            self.watch_forward()
        return gone

    def note_outside_edits(self) -> None:
        """Find parameters that something wrote to between the previous step and now."""
        for watched in self.watched.values():
            if watched.is_parameter and watched.changed():
                watched.outside = True

    def close(self) -> None:
        """Remove every forward hook and let go of the copies."""
        for _, handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles.clear()
        self.watched.clear()

    def watch_forward(self) -> None:
        """Put forward hooks on the modules that own buffers now, and on no others."""
        self._hooked = True
        owners = {id(w.named.module): w.named.module for w in self if not w.is_parameter}
        for key in self._handles.keys() - owners.keys():
            for handle in self._handles.pop(key)[1]:
                handle.remove()
        for key, module in owners.items():
            if key not in self._handles:
                hook = _ForwardHook(self)
                handles = [
                    module.register_forward_pre_hook(hook.before),
                    module.register_forward_hook(hook.after),
                ]
                self._handles[key] = (module, handles)

    def buffers_of(self, module: nn.Module) -> list[Watched]:
        """The watched buffers that this module owns."""
        owned = (self.watched.get(id(b)) for b in module._buffers.values() if b is not None)
        return [w for w in owned if w is not None]


class _ForwardHook:
    """Sees which buffers a module's forward pass rewrites.

    BatchNorm's statistics do not bump the tensors' version counters, so the values are compared. In a deep
    copy or a pickle of the watched model the hook is inert: a copied model is not a watched one.
    """

    def __init__(self, snapshot: Snapshot | None) -> None:
        self._snapshot = weakref.ref(snapshot) if snapshot is not None else None
        self._clean: list[Watched] = []

    def before(self, module: nn.Module, args: Any) -> None:
        snapshot = self._snapshot() if self._snapshot else None
        if snapshot is not None:
            buffers = [w for w in snapshot.buffers_of(module) if not w.by_forward]
            self._clean = [w for w in buffers if not w.changed()]
            for watched in buffers:
                watched.outside = watched.outside or watched not in self._clean

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        for watched in self._clean:
            watched.by_forward = watched.by_forward or watched.changed()
        self._clean = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _ForwardHook:
        return _ForwardHook(None)

    def __reduce__(self) -> tuple[type[_ForwardHook], tuple[None]]:
        return _ForwardHook, (None,)


def _refuse_unreadable(current: list[Named]) -> None:
    for named in current:
        if is_lazy(named.tensor):
            raise ValueError(
                f"{named.name} is not initialised yet (a lazy module): run one batch through the model "
                "before watching it"
            )
        if named.tensor.is_meta:
            raise ValueError(
                f"{named.name} lies on the meta device and has no values to watch: load or initialise the "
                "model first, e.g. model.to_empty(device='cpu')"
            )
        if is_sharded(named.tensor):
            raise ValueError(
                f"{named.name} is sharded (a DTensor: this rank holds a part of it), and the ledger reads "
                "whole tensors: watch a few steps without fully_shard(), in one process or under "
                "DistributedDataParallel"
            )


def _info(named: Named) -> TensorInfo:
    tensor = named.tensor
    return TensorInfo(
        name=named.name,
        names=named.names,
        kind=named.kind,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        numel=tensor.numel(),
        module=named.module_name,
        module_type=type(named.module).__name__,
    )
