"""What is wrong with how a model, its flags and its optimizers are put together, seen at any moment.

Rules over a single step's record are in `layerlab.rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from layerlab.flags import FLAG, inert_flags, near_flags, set_below
from layerlab.names import Named, left_out, listing
from layerlab.record import Alarm
from layerlab.remade import groups_hint, remade_optimizer
from layerlab.rules import path


def wiring_alarms(
    model: nn.Module,
    parameters: Sequence[Named],
    optimizers: Sequence[Optimizer],
    step: int,
    gone: Mapping[int, tuple[Tensor, str]],
) -> list[Alarm]:
    """Look for flags that do nothing and for optimizers that hold the wrong tensors.

    Parameters
    ----------
    model, optimizers
        As given to ``watch``.
    parameters
        The model's parameters of now.
    step
        The index of the step that has just been taken, or −1 before any.
    gone
        Tensors that the model had earlier and has no longer, by ``id``, with the names they had.
    """
    held = {id(p) for o in optimizers for g in o.param_groups for p in g["params"]}
    unheld = left_out(model, parameters, held)
    return [
        *_flags_on_modules(model, step),
        *_misspelt_flags(parameters, step),
        *_empty_groups(optimizers, unheld, step),
        *_foreign_tensors(parameters, optimizers, unheld, step, gone),
    ]


def _flags_on_modules(model: nn.Module, step: int) -> Iterator[Alarm]:
    for name, module in model.named_modules():
        for attribute, value, why in inert_flags(module):
            where = path(name) if name else "model"
            yield Alarm(
                "flag-on-module" if attribute == FLAG else "misspelt-flag",
                "alarm", name or type(module).__name__, step,
                f"{where}.{attribute} = {value} does nothing",
                f"{why}: this made a plain attribute, and its parameters kept their own flags",
                set_below(where, attribute, value),
            )  # fmt: skip


def _misspelt_flags(parameters: Sequence[Named], step: int) -> Iterator[Alarm]:
    for named in parameters:
        for attribute, value in near_flags(named.tensor):
            if named.tensor.requires_grad != value:
                yield Alarm(
                    "misspelt-flag", "alarm", named.name, step,
                    f"{path(named.name)}.{attribute} = {value} does nothing",
                    f"the flag is called {FLAG}; {attribute!r} made a plain attribute",
                    f"{path(named.name)}.{FLAG} = {value}",
                )  # fmt: skip


def _empty_groups(optimizers: Sequence[Optimizer], unheld: Sequence[Named], step: int) -> Iterator[Alarm]:
    for index, optimizer in enumerate(optimizers):
        for group, options in enumerate(optimizer.param_groups):
            if options["params"]:
                continue
            where, what = f"optimizer {index}, group {group}", "a parameter group with no parameters"
            if unheld:
                yield Alarm(
                    "empty-group", "alarm", where, step, what,
                    "a generator such as filter(…) gives its parameters once: it was used up before the "
                    f"optimizer read it; trainable and in no optimizer: {listing(n.name for n in unheld)}",
                    "params = list(filter(lambda p: p.requires_grad, model.parameters()))"
                    "  # a list can be read twice",
                )  # fmt: skip
            else:
                yield Alarm(
                    "empty-group", "notice", where, step, what,
                    "all that is trainable is in another group, so nothing is lost",
                    'optimizer.param_groups[:] = [g for g in optimizer.param_groups if g["params"]]'
                    + ("  # and build the scheduler anew" if "initial_lr" in options else ""),
                )  # fmt: skip


def _foreign_tensors(
    parameters: Sequence[Named],
    optimizers: Sequence[Optimizer],
    unheld: list[Named],
    step: int,
    gone: Mapping[int, tuple[Tensor, str]],
) -> Iterator[Alarm]:
    own = {id(n.tensor) for n in parameters}
    for index, optimizer in enumerate(optimizers):
        members = [p for g in optimizer.param_groups for p in g["params"]]
        foreign = [p for p in members if id(p) not in own]
        # An optimizer of another model (a GAN's other half) is no concern of this one, unless it should be.
        if foreign and (unheld or any(id(p) in gone for p in foreign)):
            yield _layer_replaced(index, optimizer, foreign, unheld, step, gone)


def _layer_replaced(
    index: int,
    optimizer: Optimizer,
    foreign: list[Tensor],
    unheld: list[Named],
    step: int,
    gone: Mapping[int, tuple[Tensor, str]],
) -> Alarm:
    names = [gone[id(p)][1] for p in foreign if id(p) in gone]
    told = {id(p): n for g in optimizer.param_groups for p, n in zip(g["params"], g.get("param_names", ()))}  # noqa: B905
    names = names or [told[id(p)] for p in foreign if id(p) in told]
    kind = type(optimizer).__name__
    what = ", ".join(names) if names else f"{len(foreign)} tensor{'s' * (len(foreign) != 1)}"
    where = names[0].rpartition(".")[0] if names else ""
    new = listing(n.name for n in unheld) if unheld else "none"
    what, why = f"{what} that the model no longer has", "a layer was replaced after the optimizer was built"
    if not names and len(foreign) == sum(len(g["params"]) for g in optimizer.param_groups):
        what = "no tensor of this model"
        why = "it was built with the parameters of another one: of the model before it was made anew, perhaps"
    call = remade_optimizer(optimizer, "model.parameters()")
    return Alarm(
        "layer-replaced", "alarm", where or f"optimizer {index}", step,
        f"{f'optimizer {index} ({kind})' if where else f'this {kind}'} holds {what}",
        f"{why}; trainable and in no optimizer: {new}",
        f"optimizer = {call}  # {groups_hint(call)}build it after the last change to the model",
    )  # fmt: skip
