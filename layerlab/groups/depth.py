"""How deep in a model a parameter lies: its layers, counted in the model's own order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from layerlab.groups.no_decay import NORMS
from layerlab.names import bare, modules

_LISTS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True)
class Layer:
    """Where a parameter lies."""

    name: str
    """The module that counts as the layer."""
    depth: int
    """How many layers come after it: 0 is the last one, the head."""


def layers(model: nn.Module) -> dict[int, Layer]:
    """Find the layer of each parameter, by the parameter's ``id``.

    Layers are the modules at the model's top, in the order in which the model registered them. A
    ``Sequential`` or ``ModuleList`` among them is taken apart, and so is a module with a *stack of blocks*
    somewhere below it (such a list with two or more modules of one class, which hold modules themselves):
    then each block is a layer. ResNet18 has 10: conv1, two blocks in each of layer1 to layer4, fc; its bn1
    belongs to conv1.

    What is no layer by itself, a normalisation or a parameter that a module taken apart holds directly,
    belongs to the layer before it; at the very start, to the first one.
    """
    found: list[tuple[str, list[Tensor]]] = []
    early: list[Tensor] = []
    placed: set[int] = set()
    names = {id(module): name for name, module in modules(model)}
    for module, whole in _inside(bare(model)):
        own: list[Tensor] = [p for p in module.parameters(recurse=whole) if id(p) not in placed]
        placed |= {id(p) for p in own}
        if not own:
            continue
        if whole and not _only_norms(module):
            found.append((names[id(module)], own))
        elif found:
            found[-1][1].extend(own)
        else:
            early += own
    if not found:  # a model that is one module
        found = [(type(model).__name__, [])]
    found[0][1].extend(early)
    return {
        id(p): Layer(name, len(found) - 1 - at) for at, (name, members) in enumerate(found) for p in members
    }


def _inside(module: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Walk the modules in order: a layer whole, a module that is taken apart for what it holds itself."""
    yield module, False
    for child in module.children():
        if isinstance(child, _LISTS) or (not _is_stack(module) and any(map(_is_stack, child.modules()))):
            yield from _inside(child)
        else:
            yield child, True


def _is_stack(module: nn.Module) -> bool:
    if not isinstance(module, _LISTS):
        return False
    kinds = [type(child) for child in module.children() if any(True for _ in child.children())]
    return len(kinds) > len(set(kinds))


def _only_norms(module: nn.Module) -> bool:
    holders = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
    return all(isinstance(m, NORMS) for m in holders)
