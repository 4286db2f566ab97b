"""The list of groups that an optimizer takes, and the table by which it shows itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from layerlab.called import by_the_user
from layerlab.freezing.plain_code import bracketed, expressions
from layerlab.group_options import Group, options_of
from layerlab.names import Named, tensors
from layerlab.printable import printable
from layerlab.show.alphabet import FROZEN
from layerlab.show.html import html
from layerlab.show.page import Cell, Column, Description, Fold, Row, Table
from layerlab.show.text import text
from layerlab.show.words import MISSING, cut, plural, some

_COLUMNS = {"lr": "lr", "weight_decay": "weight decay"}
"""Options with a column whether they are given or not, and its heading."""
_WIDTH = 100
_LONGEST = 40
"""Columns that a pattern may take in the table."""


@dataclass(frozen=True)
class About:
    """Where a group comes from."""

    pattern: str
    part: str = ""
    """Which part of the pattern's parameters, where weight decay splits them."""
    layer: str = ""
    factor: str = ""
    """What its lr was multiplied by, where layers differ: ``0.75^2 = 0.562``."""


class ParamGroups(list[Group]):
    """Parameter groups for an optimizer, made by `layerlab.param_groups`; shown as a table.

    A list of plain dicts. The table is drawn from the dicts as they are now: once an optimizer has been built
    from them it shows the options that the optimizer filled in, and the learning rates that a scheduler set.

    Attributes
    ----------
    left_out : tuple of str
        Names of the parameters that are in no group, because they were to be left out.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[tuple[Group, About]],
        left_out: Sequence[tuple[str, Sequence[Named]]] = (),
    ) -> None:
        super().__init__(group for group, _ in groups)
        self._model = model
        self._about = list(groups)
        self._left_out = [(why, tuple(named.name for named in members)) for why, members in left_out]
        self.left_out = tuple(name for _, names in self._left_out for name in names)

    def as_code(self) -> str:
        """Write the same groups in plain PyTorch, for the variable that holds your model.

        The order of the parameters within a group may be another one.

        Raises
        ------
        ValueError
            A group that was added later has a tensor that is not the model's.
        """
        known = {id(named.tensor): named for named in tensors(self._model)}
        lines = ["groups = ["]
        for at, (group, about) in enumerate(self._with_about()):
            strays = [p for p in group["params"] if id(p) not in known]
            if strays:
                raise ValueError(
                    f"group {at} has {plural(len(strays), 'tensor')} that the model does not have"
                )
            params = bracketed(expressions(self._model, [known[id(p)] for p in group["params"]]))
            entries = [f'"params": {params}']
            entries += [f'"{name}": {_code(value)}' for name, value in options_of(group).items()]
            line = "    {" + ", ".join(entries) + "},"
            if len(line) > _WIDTH or "\n" in line:
                inside = ",\n".join(entries).replace("\n", "\n        ")
                line = "    {\n        " + inside + ",\n    },"
            lines.append(f"{line}  # {_title(about)}")
        return by_the_user(self._model, []).in_their_words("\n".join([*lines, "]"]))

    def __repr__(self) -> str:
        return text(self._described())

    def _repr_html_(self) -> str:
        return html(self._described())

    def _with_about(self) -> Iterator[tuple[Group, About]]:
        for group in self:
            yield group, next((about for known, about in self._about if known is group), About(MISSING))

    def _described(self) -> Description:
        ties = {named.name: named.names[1:] for named in tensors(self._model)}
        varying, common = _sorted_options(self)
        by_layer = any(about.layer for _, about in self._with_about())
        columns = [Column("group", code=True), Column("tensors", align="right", code=True)]
        columns += [Column("elements", align="right", code=True)]
        columns += [Column("layer" if by_layer else "which", code=True, names=True)]
        columns += [Column("lr ×", code=True)] * by_layer
        titles = [_COLUMNS.get(name, printable(name)) for name in varying]
        columns += [Column(title, align="right", code=True) for title in titles]
        rows = []
        for at, (group, about) in enumerate(self._with_about()):
            names = tuple(_names(group, ties))
            cells = [
                Cell(f"{at}: {_title(about)}", mark=FROZEN if all(map(_is_frozen, group["params"])) else ""),
                Cell(f"{len(names)}"),
                Cell(f"{_elements(group):,}"),
                Cell(printable(about.layer) or some(names, 1)),
            ]
            cells += [Cell(about.factor)] * by_layer
            cells += [_value(group, name) for name in varying]
            rows.append(Row(tuple(cells), names))
        page = Table(
            title=self._counted(),
            columns=tuple(columns),
            rows=tuple(rows),
            folds=tuple(Fold(_summary(why, names), names) for why, names in self._left_out if names),
            notes=tuple(self._notes(varying, common)),
        )
        return Description(tables=(page,))

    def _counted(self) -> str:
        count = sum(len(group["params"]) for group in self)
        elements = sum(map(_elements, self))
        return f"{plural(len(self), 'parameter group')}: {plural(count, 'tensor')}, {elements:,} elements"

    def _notes(self, varying: Sequence[str], common: Mapping[str, str]) -> Iterator[str]:
        frozen = sum(_is_frozen(p) for group in self for p in group["params"])
        if frozen:
            yield f"{FROZEN} frozen: {plural(frozen, 'tensor')} with requires_grad False"
        if any(name not in group for group in self for name in varying):
            yield f"{MISSING} the optimizer's own"
        if common:
            yield "in every group: " + ", ".join(f"{printable(name)} {said}" for name, said in common.items())


def _sorted_options(groups: Sequence[Group]) -> tuple[list[str], dict[str, str]]:
    """Options that get a column, and those that are the same in every group."""
    names = list(dict.fromkeys([*_COLUMNS, *(name for group in groups for name in options_of(group))]))
    varying, common = [], {}
    for name in names:
        said = {_said(group[name]) if name in group else MISSING for group in groups}
        if name in _COLUMNS or len(said) > 1:
            varying.append(name)
        else:
            common[name] = said.pop()
    return varying, common


def _value(group: Group, name: str) -> Cell:
    if name not in group:
        return Cell(MISSING, "not given: the optimizer's own")
    return Cell(_said(group[name]), printable(repr(group[name])))


def _said(value: object) -> str:
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        value = value.item()
    if isinstance(value, float):
        return f"{value:.3g}"
    return cut(printable(repr(value)), 30)


def _code(value: object) -> str:
    return f"torch.tensor({value.tolist()!r})" if isinstance(value, torch.Tensor) else repr(value)


def _title(about: About) -> str:
    return cut(printable(about.pattern), _LONGEST) + (f" ({about.part})" if about.part else "")


def _names(group: Group, ties: Mapping[str, Sequence[str]]) -> Iterator[str]:
    known = group.get("param_names", [MISSING] * len(group["params"]))
    for name, parameter in zip(known, group["params"], strict=True):
        tied = f" (tied: {', '.join(map(printable, ties[name]))})" if ties.get(name) else ""
        yield (f"{FROZEN} " if _is_frozen(parameter) else "") + printable(name) + tied


def _is_frozen(parameter: torch.Tensor) -> bool:
    return not parameter.requires_grad


def _elements(group: Group) -> int:
    return sum(p.numel() for p in group["params"])


def _summary(why: str, names: Sequence[str]) -> str:
    return f"in no group, {why}: {plural(len(names), 'tensor')}"
