"""Which parameters are usually spared weight decay: biases, and what normalisation layers learn."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from layerlab.names import Named

NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""torch's own normalisation layers; `_NormBase` is BatchNorm, SyncBatchNorm and InstanceNorm."""


def is_norm_or_bias(named: Named) -> bool:
    """Whether weight decay is switched off for a parameter by ``no_decay="norm and bias"``.

    True for every parameter of a normalisation layer, of one dimension or none (which takes in the scales
    of home-made normalisations), or whose own name has ``bias`` in it. Embeddings are none of these.

    Notes
    -----
    timm's ``param_groups_weight_decay`` spares what has one dimension or a name that ends in ``.bias``;
    the ``Trainer`` of Hugging Face's transformers spares what LayerNorm modules hold or has ``bias`` in its
    name. This is both.
    """
    return (
        isinstance(named.module, NORMS)
        or named.tensor.dim() <= 1
        or any("bias" in name.rpartition(".")[2] for name in named.names)
    )
