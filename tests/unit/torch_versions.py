"""What differs between the oldest torch that layerlab supports (2.6) and the newest."""

import torch

VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])

SCHEDULERS_COUNT_GROUPS = VERSION >= (2, 10)
"""Since then a scheduler raises an error at a group that it has no entry for; before, it passes over it."""

SHARDS_ON_CPU = VERSION >= (2, 8)
"""Whether ``fully_shard`` works on CPU; 2.6 raises an error (2.7 was not tried)."""
