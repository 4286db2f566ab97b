"""Which optimizer holds what: rules on what the model has and on what the optimizers list."""

from __future__ import annotations

from collections.abc import Iterator

from layerlab.auditing.finding import Finding
from layerlab.auditing.scene import Scene
from layerlab.show.words import plural, some


def foreign_tensors(scene: Scene) -> Iterator[Finding]:
    """What an optimizer holds and the model does not have: a layer replaced, another model, a loss's own."""
    for i, optimizer in enumerate(scene.optimizers):
        foreign = scene.foreign(i)
        if not foreign:
            continue
        kind, variable = type(optimizer).__name__, scene.optimizer(i)
        names = scene.names(foreign)
        if not scene.unheld:
            yield scene.finding(
                "foreign-parameters", names,
                f"{variable} also steps {plural(len(foreign), 'tensor')} that the model does not have: right "
                "for the parameters of a loss or of another model, useless if a layer was replaced",
                f"{scene.rebuilt(i)}  # if a layer was replaced",
            )  # fmt: skip
        elif len(foreign) == len(scene.members(i)):
            yield scene.finding(
                "other-model", [variable],
                f"{variable} ({kind}) holds no tensor of this model: its step() leaves the whole model where "
                f"it is. No given optimizer holds {some([n.name for n in scene.unheld])}",
                scene.rebuilt(i),
            )  # fmt: skip
        else:
            yield scene.finding(
                "layer-replaced", [n.name for n in scene.unheld],
                "backward() gives it a gradient, but no given optimizer holds it, so it never trains. "
                f"{variable} ({kind}) holds {plural(len(foreign), 'tensor')} that the "
                f"model does not have ({some(names)}): a layer was replaced after the optimizer was built, "
                "or they are the weights of a loss",
                scene.rebuilt(i),
            )  # fmt: skip


def in_no_optimizer(scene: Scene) -> Iterator[Finding]:
    """Trainable, and nobody steps it; frozen and nobody steps it is fine."""
    if (
        not scene.optimizers
        or not scene.unheld
        or any(scene.foreign(i) for i in range(len(scene.optimizers)))
    ):
        return
    if any(not group["params"] for o in scene.optimizers for group in o.param_groups):
        return  # `empty_groups` says why
    last = len(scene.optimizers) - 1
    variable = scene.optimizer(last)
    effect = (
        "backward() gives it a gradient, but none of the given optimizers holds it, so it never trains. (If "
        "another optimizer does, give the audit that one too. If it is meant to rest, freeze it by its flag.)"
    )
    named = "param_names" in scene.optimizers[last].param_groups[0]
    if scene.schedulers_of(last) or named:  # one added now would come after the scheduler, or lack its name
        cure = scene.rebuilt(last)
    elif len(scene.unheld) <= 3:
        new = ", ".join(scene.path(n.name) for n in scene.unheld)
        cure = f'{variable}.add_param_group({{"params": [{new}]}})  # once, if it is to train'
    else:
        every = ", ".join(map(scene.optimizer, range(last + 1)))
        cure = (
            f'held = {{id(p) for o in [{every}] for g in o.param_groups for p in g["params"]}}\n'
            f"new = [p for p in {scene.path()}.parameters() if p.requires_grad and id(p) not in held]\n"
            f'{variable}.add_param_group({{"params": new}})  # once, if these are to train'
        )
    yield scene.finding("in-no-optimizer", [n.name for n in scene.unheld], effect, cure)


def shared_between_optimizers(scene: Scene) -> Iterator[Finding]:
    """One tensor in several optimizers."""
    found: dict[tuple[int, ...], list[str]] = {}
    for key, places in scene.held.items():
        holders = tuple(sorted({i for i, _ in places}))
        if len(holders) > 1 and key in scene.own:
            found.setdefault(holders, []).append(scene.own[key].name)
    for holders, names in found.items():
        first, *others = map(scene.optimizer, holders)
        lines = [f'held = {{id(p) for g in {first}.param_groups for p in g["params"]}}']
        for other in others:
            lines.append(f"for g in {other}.param_groups:")
            lines.append('    g["params"] = [p for p in g["params"] if id(p) not in held]')
        yield scene.finding(
            "in-two-optimizers", names,
            f"each of {', '.join([first, *others])} moves it in its own step(), with its own momentum: one "
            "step also applies a gradient that the other has applied already, if it is still there",
            "\n".join(lines),
        )  # fmt: skip


def listed_twice(scene: Scene) -> Iterator[Finding]:
    """One tensor twice in an optimizer: in two of its groups, or in one group."""
    for i in range(len(scene.optimizers)):
        twice: list[str] = []
        groups: list[str] = []
        for parameter in scene.members(i):
            own = [j for where, j in scene.held[id(parameter)] if where == i]
            name = scene.names([parameter])[0]
            if len(set(own)) > 1:
                groups.append(name)
            elif len(own) > 1:
                twice.append(name)
        variable = scene.optimizer(i)
        cure = (
            "seen = set()\n"
            f"for g in {variable}.param_groups:\n"
            '    g["params"] = [p for p in g["params"] if not (id(p) in seen or seen.add(id(p)))]'
        )
        if groups:
            effect = f"every {variable}.step() moves it once for each of its groups, with that group's lr"
            yield scene.finding("in-two-groups", groups, effect, cure)
        if twice:
            effect = f"every {variable}.step() moves it twice by the same gradient"
            yield scene.finding("twice-in-group", twice, effect, cure)


def empty_groups(scene: Scene) -> Iterator[Finding]:
    """Groups that list nothing: a generator that was used up, if something trainable is missing."""
    for i, optimizer in enumerate(scene.optimizers):
        empty = [j for j, group in enumerate(optimizer.param_groups) if not group["params"]]
        if not empty:
            continue
        places, variable = [scene.group(i, j) for j in empty], scene.optimizer(i)
        if scene.unheld:
            effect = (
                "step() finds nothing in it. A generator (filter(…), parameters()) gives its parameters "
                "once, and was used up before the optimizer read it; no optimizer holds "
                f"{some([n.name for n in scene.unheld])}, which will never train"
            )
            yield scene.finding("empty-group", places, effect, scene.rebuilt(i))
        else:
            keep = f'{variable}.param_groups[:] = [g for g in {variable}.param_groups if g["params"]]'
            yield scene.finding(
                "empty-group", places,
                "step() finds nothing in it. All that is trainable is in another group, so nothing is lost",
                keep + ("  # and build the scheduler anew" if scene.schedulers_of(i) else ""),
                level="note",
            )  # fmt: skip


RULES = (foreign_tensors, in_no_optimizer, shared_between_optimizers, listed_twice, empty_groups)
