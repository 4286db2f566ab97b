"""What a freeze does, as the lines of plain PyTorch that a learner could have written."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Sequence

from torch import nn

from layerlab.freezing.gradients import How
from layerlab.freezing.learning_rates import Share
from layerlab.names import Named, bare, modules

_WIDTH = 88

_AGAIN = "    if meant:  # none, if these lines have been run before"
_SPLIT = [
    '    meant = [p for p in group["params"] if id(p) in ids]',
    _AGAIN,
    '        group["params"] = [p for p in group["params"] if id(p) not in ids]',
    '        optimizer.add_param_group({**group, "params": meant, "lr": 0.0})',
]
_SPLIT_NAMED = [
    '    pairs = list(zip(group["param_names"], group["params"]))',
    "    meant = [(name, p) for name, p in pairs if id(p) in ids]",
    _AGAIN,
    '        group["param_names"] = [name for name, p in pairs if id(p) not in ids]',
    '        group["params"] = [p for name, p in pairs if id(p) not in ids]',
    '        optimizer.add_param_group({**group, "params": meant, "lr": 0.0})',
]


def lines(
    model: nn.Module,
    how: How,
    parameters: Sequence[Named],
    norms: Sequence[tuple[str, nn.Module]],
    shares: Sequence[Share],
    *,
    clear_grad: bool,
) -> str:
    """Write a freeze as code for the variables ``model`` and, for ``lr_zero``, ``optimizer``.

    Parameters
    ----------
    parameters, norms, shares
        The parameters to freeze, the modules to keep in eval mode, and how the optimizer's groups are
        concerned.

    Returns
    -------
    str
        Lines of Python; where one has to be repeated in the training loop a comment says so.
    """
    code: list[str] = []
    if parameters and (how != "lr_zero" or not all(share.whole for share in shares)):
        code.append("frozen = " + bracketed(expressions(model, parameters)))
    if parameters and how == "requires_grad":
        code += ["for parameter in frozen:", "    parameter.requires_grad = False"]
        if clear_grad:
            code.append("    parameter.grad = None  # one that is already there would still be applied")
    if parameters and how == "grad_none":
        code += [
            "for parameter in frozen:  # after every loss.backward(), before optimizer.step()",
            "    parameter.grad = None",
        ]
    if how == "lr_zero":
        code += _groups(shares)
    if norms:
        code += [
            "for module in " + bracketed(path(model, name) for name, _ in norms) + ":",
            "    module.eval()  # and again after every model.train()",
        ]
    return "\n".join(code)


def _groups(shares: Iterable[Share]) -> list[str]:
    whole = [share.position for share in shares if share.whole]
    code = [f'optimizer.param_groups[{position}]["lr"] = 0.0' for position in whole]
    split = [share.position for share in shares if not share.whole]
    if split:
        code += split_off("frozen", split, named=any(share.named for share in shares))
    return code


def split_off(variable: str, positions: Iterable[int], *, named: bool) -> list[str]:
    """Lines that move what a variable lists out of the groups at these places, to new ones with lr 0."""
    groups = bracketed(f"optimizer.param_groups[{position}]" for position in positions)
    head = [f"ids = {{id(parameter) for parameter in {variable}}}", f"for group in {groups}:"]
    return head + (_SPLIT_NAMED if named else _SPLIT)


def bracketed(items: Iterable[str]) -> str:
    """Write a list of expressions, on one line if it is short."""
    texts = list(items)
    line = f"[{', '.join(texts)}]"
    if len(line) <= _WIDTH:
        return line
    return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"


def expressions(model: nn.Module, parameters: Sequence[Named]) -> list[str]:
    """Expressions that give the parameters: whole modules where all below them is meant."""
    left = {id(named.tensor) for named in parameters}
    texts = []
    for name, module in modules(model):
        below = {id(parameter) for parameter in module.parameters()}
        if below and below <= left:
            left -= below
            texts.append(f"*{path(model, name)}.parameters()")
    texts += [path(model, named.name) for named in parameters if id(named.tensor) in left]
    return texts


def path(model: nn.Module, name: str) -> str:
    """The expression by which Python reaches a module or tensor: ``model.layer1[0].conv1``."""
    inner = bare(model)
    outer = next(where for where, module in model.named_modules() if module is inner)
    text, here = "model", model
    for part in f"{outer}.{name}".split("."):
        if part in ("", "_orig_mod"):  # a compiled module passes attributes on
            continue
        if part.isidentifier() and not keyword.iskeyword(part):
            text += f".{part}"
        elif part.isdecimal() and isinstance(here, (nn.Sequential, nn.ModuleList, nn.ParameterList)):
            text += f"[{part}]"
        else:
            text = f"getattr({text}, {part!r})"
        here = getattr(here, part)
    return text
