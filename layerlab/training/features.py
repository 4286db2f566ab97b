"""The inputs of a head on a frozen backbone, computed once instead of in every epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerlab.modes import in_eval_mode
from layerlab.training.evaluating import Batches, in_batches


@dataclass(frozen=True)
class Features:
    """What a frozen backbone makes of each example.

    Attributes
    ----------
    vectors
        Shape (examples, features).
    labels
        Shape (examples,), int64.
    """

    vectors: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors and labels of the examples with these numbers."""
        return self.vectors[index], self.labels[index]


def cached_features(
    model: nn.Module,
    head: str,
    data: Batches,
    *,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> Features:
    """Compute, in eval mode and without gradients, what reaches a model's head.

    A head that is trained on these gets bitwise the weights that it gets in the whole model, whose backbone
    is frozen and in eval mode, as long as the backbone's outputs do not depend on which examples share a
    batch: so it is with ResNets on the CPU; a GPU may choose another algorithm for another batch size.

    Parameters
    ----------
    model
        Stays as it is, modes included; it must be on ``device`` already.
    head
        Name of the module that makes the model's output, ``"fc"`` for a ResNet.
    data
        The examples; each batch is brought to ``device``.
    batch_size
        Examples at a time.

    Raises
    ------
    AttributeError
        The model has no such module.
    ValueError
        It does not make the model's output out of one input alone: something comes after it, or it is
        called more than once; or there is no example.
    """
    last = model.get_submodule(head)
    if not len(data):
        raise ValueError("no example to compute features of")
    seen: list[tuple[Tensor, ...]] = []
    hook = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    vectors: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        with in_eval_mode(model), torch.no_grad():
            for index in in_batches(torch.arange(len(data)), batch_size):
                inputs, targets = (t.to(device) for t in data.batch(index))
                outputs = model(inputs)
                if len(seen) != 1 or len(seen[0]) != 1:
                    raise ValueError(
                        f"{head!r} must be called once, with one input, but was called {len(seen)} times"
                    )
                (vector,) = seen.pop()
                if not vectors and not torch.equal(last.forward(vector), outputs):
                    raise ValueError(f"{head!r} does not make the model's output: something comes after it")
                vectors.append(vector)
                labels.append(targets)
    finally:
        hook.remove()
    return Features(torch.cat(vectors), torch.cat(labels))
