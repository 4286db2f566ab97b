"""The ways to freeze a part of a model, and to release it exactly as it was.

`freeze` is the front door. Each mechanism has a file of its own: ``gradients`` (the flag, the thrown-away
gradient), ``learning_rates`` (lr = 0), ``norm_eval`` (BatchNorm), ``plain_code`` (the same in plain PyTorch).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Final, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from layerlab import names
from layerlab.freezing import gradients, learning_rates, norm_eval, plain_code
from layerlab.freezing.gradients import How, how_frozen
from layerlab.freezing.norm_eval import BatchNorm, batchnorm_choice
from layerlab.wrappers import inside

__all__ = ["WAYS", "BatchNorm", "Freeze", "How", "batchnorm_choice", "freeze", "how_frozen", "ways_held"]

WAYS: Final[tuple[How, ...]] = get_args(How)
"""The ways to freeze, as `freeze` takes them."""


class Freeze:
    """A frozen part of a model, made by `freeze`: ``release()`` it, or use it as a context manager.

    Losing the handle releases nothing: the part then stays frozen for as long as the model lives.

    Attributes
    ----------
    how : str
        ``"requires_grad"``, ``"grad_none"`` or ``"lr_zero"``.
    names : tuple of str
        The parameters that it freezes, by their first names, in the model's order.
    eval_modules : tuple of str
        The BatchNorm modules that it keeps in eval mode.
    active : bool
        False once released.
    code : str
        The same in plain PyTorch, for the variables ``model`` and ``optimizer``.
    """

    def __init__(
        self,
        how: How,
        parameters: Sequence[names.Named],
        norms: Sequence[tuple[str, nn.Module]],
        batchnorm: BatchNorm,
        optimizer: Optimizer | None,
        code: str,
    ) -> None:
        self.how: Final = how
        self.names: Final = tuple(named.name for named in parameters)
        self.eval_modules = tuple(name for name, _ in norms) if batchnorm == "eval" else ()
        self.code: Final = code
        self.active = True
        self._token = object()  # what stands for this handle wherever something is held; a copy's is another
        self._parameters = [named.tensor for named in parameters]
        self._norms = dict(norms)
        self._optimizer = optimizer if how == "lr_zero" else None

    def release(self) -> None:
        """Put back what was there before, as far as no other active handle needs it frozen.

        Flags, gradients (the same tensor objects), learning rates and the layout of the optimizer's groups
        return as they were; but no gradient once an optimizer that holds its parameter has stepped, for it
        was meant for that step. BatchNorm goes to the mode it was in, or that was asked for since. Optimizer
        state is not touched: after a release old momentum walks on, unless you
        ``optimizer.state.pop(parameter, None)``. Harmless when already released.
        """
        if not self.active:
            return
        self.active = False
        gradients.release(self._parameters, self._token)
        if self._optimizer is not None:
            learning_rates.release(self._optimizer, self._token)
        norm_eval.release(self._norms.values(), self._token)
        self._parameters, self._norms, self._optimizer = [], {}, None

    def let_train(self, names: Collection[str]) -> None:
        """Let these of its ``eval_modules`` follow ``train()`` again; parameters stay frozen.

        Parameters
        ----------
        names
            Names of modules; what it does not keep in eval mode is passed over.
        """
        norm_eval.release([module for name, module in self._norms.items() if name in names], self._token)
        self._norms = {name: module for name, module in self._norms.items() if name not in names}
        self.eval_modules = tuple(name for name in self.eval_modules if name not in names)

    def __enter__(self) -> Freeze:
        if not self.active:
            raise RuntimeError("this handle was released and freezes nothing; call freeze() again")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        parts = [names.listing(self.names)] if self.names else []
        if self.eval_modules:
            parts.append(f"in eval: {names.listing(self.eval_modules)}")
        if not self.active:
            parts.append("released")
        return f"Freeze({self.how}: {'; '.join(parts)})"


def ways_held(parameter: torch.Tensor, besides: Freeze | None = None) -> tuple[How, ...]:
    """How each active handle that holds a parameter froze it, oldest first.

    Parameters
    ----------
    parameter
        Any tensor; identity decides.
    besides
        A handle to leave out.
    """
    return gradients.ways(parameter, besides._token if besides is not None else None)


def freeze(
    model: nn.Module,
    pattern: names.Pattern,
    how: How = "requires_grad",
    *,
    optimizer: Optimizer | None = None,
    batchnorm: BatchNorm = "eval",
    clear_grad: bool = True,
) -> Freeze:
    """Freeze the part of a model that a pattern means, until the handle is released.

    Parameters
    ----------
    model
        Any module, wrapped (DistributedDataParallel, torch.compile) or not.
    pattern
        Which tensors: a name, a glob, a compiled regular expression or a list of these; see
        `layerlab.names.find`. A pattern that means only the statistics of BatchNorm modules keeps these in
        eval mode and freezes no parameter.
    how
        ``"requires_grad"`` sets the parameters' flag to False: no gradient is computed for them.
        ``"grad_none"`` lets the gradient be computed and throws it away before the optimizer sees it.
        ``"lr_zero"`` gives their parameter groups lr 0, splitting a group that holds others too. An infinite
        or NaN gradient still gets through; a scheduler may set another lr.
        None of them holds LBFGS after its first step, which moves along directions of its own memory.
    optimizer
        The optimizer that holds the parameters: needed for ``"lr_zero"``, not used otherwise.
    batchnorm
        ``"eval"`` puts BatchNorm modules that are wholly inside the frozen part in eval mode, and keeps them
        there through later ``model.train()`` calls; their running statistics would move otherwise.
        ``"train"`` leaves modes alone.
    clear_grad
        For ``"requires_grad"``: whether to take away a gradient that is already there, which the next
        ``optimizer.step()`` would still apply. It returns at a release before that step, even if
        ``zero_grad()`` was called meanwhile; not at a later one.

    Returns
    -------
    Freeze
        The handle. Handles may overlap and be released in any order: a tensor stays frozen until the last
        one that holds it is released, and then is as it was before the first.

    Raises
    ------
    ValueError
        The pattern matches nothing, or only buffers that are not BatchNorm's; an unknown `how` or
        `batchnorm`; ``"lr_zero"`` without an optimizer, with parameters that it does not hold, with a group
        that would have to be split although a scheduler was built on it, or with an optimizer that lr = 0
        does not stop (ASGD, Rprop, LBFGS). Nothing has been changed then.
    TypeError
        `model`, `pattern` or `optimizer` is of the wrong type.

    Notes
    -----
    The learning rate that returns is the one from before, whatever a scheduler did meanwhile; a scheduler
    built while a group is split, or a checkpoint taken then, fits that layout of groups only.

    A copy (``copy.deepcopy``, ``torch.save``) is a model that nobody holds: it takes along the flags and
    modes as they are now, but its gradients are not thrown away and its next ``train()`` call wakes its
    BatchNorm modules. Call `freeze` on the copy.
    """
    if how not in WAYS:
        raise ValueError(
            f"how={how!r} is not a way to freeze; the ways are {', '.join(map(repr, WAYS))}. "
            "Several patterns go in a list: freeze(model, ['layer1', 'layer2'])"
        )
    if batchnorm not in get_args(BatchNorm):
        raise ValueError(f"batchnorm={batchnorm!r} is neither 'eval' nor 'train'")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, not {type(optimizer).__name__}")
    optimizer = None if optimizer is None else inside(optimizer)
    if how == "lr_zero" and optimizer is None:
        raise ValueError("how='lr_zero' works on parameter groups: pass optimizer=...")

    found = names.find(model, pattern)
    parameters = [named for named in found if named.kind == "parameter"]
    norms = norm_eval.norms_inside(model, found)
    if not parameters and (batchnorm == "train" or not norms):
        why = "batchnorm='train' leaves them alone" if norms else "not the statistics of a BatchNorm module"
        raise ValueError(
            f"nothing to freeze in {names.listing(named.name for named in found)}: only buffers, and {why}"
        )
    shares = learning_rates.plan(optimizer, parameters) if how == "lr_zero" and optimizer is not None else []
    in_eval = norms if batchnorm == "eval" else []
    code = plain_code.lines(model, how, parameters, in_eval, shares, clear_grad=clear_grad)

    handle = Freeze(how, parameters, norms, batchnorm, optimizer, code)
    try:
        gradients.hold(handle._parameters, handle._token, how, clear_grad=clear_grad)
        if optimizer is not None and shares:
            learning_rates.hold(optimizer, shares, handle._token)
        norm_eval.hold(handle._norms.values(), handle._token, batchnorm)
    except BaseException:
        handle.release()
        raise
    return handle
