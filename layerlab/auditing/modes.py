"""What depends on train and eval mode, and where in the model the frozen part lies."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene
from layerlab.freezing import batchnorm_choice


def frozen_statistics(scene: Scene) -> Iterator[Finding]:
    """Running statistics of a frozen module follow every forward pass in train mode."""
    moving = [(n, m) for n, m in scene.modules if n in scene.frozen_parts and moves_statistics(m)]
    for told in (False, True):
        names = [n for n, m in moving if (batchnorm_choice(m) == "train") is told]
        if names:
            yield scene.finding(
                "frozen-statistics", [name or type(scene.bare).__name__ for name in names],
                "its parameters are frozen, but it is in train mode: every forward pass (no_grad too) moves "
                "its running statistics, and with them what the frozen part computes in eval mode"
                + (" (as freeze was told to allow)" if told else ""),
                _eval(scene, names),
                level="note" if told else None,
            )  # fmt: skip


def moves_statistics(module: nn.Module) -> bool:
    """Whether a forward pass in its present mode moves its running statistics."""
    if not isinstance(module, _NormBase) or module.running_mean is None:
        return False
    return module.training and module.track_running_stats and module.momentum != 0


def _eval(scene: Scene, names: list[str]) -> str:
    """The line that puts these in eval mode; of many, the whole frozen parts that they lie in."""
    if len(names) > 3:
        names = list(dict.fromkeys(_top(scene, name) for name in names))
    parts = ", ".join(map(scene.path, names))
    line = f"for part in [{parts}]: part.eval()" if len(names) > 1 else f"{parts}.eval()"
    return f"{line}  # again after every {scene.path()}.train(); layerlab.freeze sees to that"


def _top(scene: Scene, name: str) -> str:
    """The outermost module around this one that lies wholly in the frozen part."""
    while name and name.rpartition(".")[0] in scene.frozen_parts:
        name = name.rpartition(".")[0]
    return name


def frozen_dropout(scene: Scene) -> Iterator[Finding]:
    """Dropout in a frozen part: what that computes differs from step to step."""
    names = [n for n, m in scene.modules if n in scene.frozen_parts and m.training and _drops(m)]
    if names:
        yield scene.finding(
            "frozen-dropout", [name or type(scene.bare).__name__ for name in names],
            "it is active (train mode) in a frozen part, whose output is random from step to step: wanted "
            "where adapters train inside it, but such features cannot be stored once and used again",
            _eval(scene, names),
        )  # fmt: skip


def _drops(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and module.dropout > 0


def eval_mode(scene: Scene) -> Iterator[Finding]:
    """A whole model in eval mode: its loop has to call train(), and that wakes frozen modules too."""
    if scene.bare.training or not scene.optimizers:
        return
    names = [n for n, m in scene.modules if _drops(m) or getattr(m, "running_mean", None) is not None]
    if names:
        yield scene.finding(
            "eval-mode", names,
            "the whole model is in eval mode: Dropout lets everything pass and BatchNorm uses stored "
            "statistics, until model.train(), which also wakes those of a frozen part",
            f"{scene.path()}.train()  # before training, and eval() for what is to stay frozen",
        )  # fmt: skip


def late_freeze(scene: Scene) -> Iterator[Finding]:
    """Backward passes go through frozen layers that come after one that trains."""
    tops: dict[str, nn.Module] = {}
    for name, module in scene.modules:
        flags = [p.requires_grad for p in module.parameters()]
        inside = any(name.startswith(f"{top}.") for top in tops)
        if name and flags and not any(flags) and not inside:
            tops[name] = module
    places = {id(named.tensor): place for place, named in enumerate(scene.parameters)}
    frozen = [p for module in tops.values() for p in module.parameters()]
    first = next((named for named in scene.parameters if named.tensor.requires_grad), None)
    if first is None or not any(not is_lazy(p) and p.dim() > 1 for p in frozen):
        return
    if places[id(first.tensor)] < min(places[id(p)] for p in frozen):
        earlier = scene.path(first.module_name or first.name)
        yield scene.finding(
            "late-freeze", list(tops),
            f"{first.name} trains and stands before all that is frozen (as the model lists it): where data "
            "flows in that order, the backward pass goes through the frozen part, and nearly all activations "
            "are kept for it. Only the frozen weights' own gradients are saved",
            f"{earlier}.requires_grad_(False)  # and all before the frozen part, if that will do",
        )  # fmt: skip


RULES = (frozen_statistics, frozen_dropout, eval_mode, late_freeze)
