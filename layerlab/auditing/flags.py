"""Flags that do nothing, and flags that leave nothing to train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene
from layerlab.flags import FLAG, inert_flags, near_flags, set_below


def flags_on_modules(scene: Scene) -> Iterator[Finding]:
    """``module.requires_grad = False`` makes a plain attribute: its parameters keep their flags."""
    for name, module in scene.modules:
        for attribute, value, why in inert_flags(module):
            where = scene.path(name)
            still = "train on" if not value else "stay frozen"
            yield scene.finding(
                "flag-on-module" if attribute == FLAG else "misspelt-flag",
                [name or type(module).__name__],
                f"{where}.{attribute} = {value} made a plain attribute ({why}): parameters below it {still}",
                set_below(where, attribute, value),
            )


def misspelt_on_parameters(scene: Scene) -> Iterator[Finding]:
    """``parameter.require_grad = False`` makes a plain attribute of the tensor."""
    alike: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for named in scene.parameters:
        for attribute, value in near_flags(named.tensor):
            if named.tensor.requires_grad != value:
                alike[attribute, value].append(named.name)
    for (attribute, value), names in alike.items():
        one = scene.path(names[0])
        cure = f"{one}.{FLAG} = {value}"
        if len(names) > 1:
            cure = (
                f"for p in {scene.path()}.parameters():\n"
                f"    if hasattr(p, {attribute!r}): p.{FLAG} = bool(getattr(p, {attribute!r}))"
                f"  # or spell it so where it is set"
            )
        yield scene.finding(
            "misspelt-flag", names,
            f"{one}.{attribute} = {value} made a plain attribute (the flag is called {FLAG}): it "
            + ("stays frozen" if value else "trains on"),
            cure,
        )  # fmt: skip


def everything_frozen(scene: Scene) -> Iterator[Finding]:
    """Nothing that the optimizers hold, and nothing in the model, requires a gradient."""
    if not scene.parameters or not scene.optimizers or any(n.tensor.requires_grad for n in scene.parameters):
        return
    if any(p.requires_grad for i in range(len(scene.optimizers)) for p in scene.members(i)):
        return
    yield scene.finding(
        "everything-frozen", [type(scene.bare).__name__],
        'loss.backward() will raise "element 0 of tensors does not require grad": no parameter of the model '
        "or of an optimizer requires a gradient",
        f"{scene.path()}.requires_grad_(True)  # or release the part that is to train",
    )  # fmt: skip


RULES = (flags_on_modules, misspelt_on_parameters, everything_frozen)
