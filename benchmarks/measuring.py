"""What the benchmarks share: wall times, medians, and the JSON that they print."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median(values: Sequence[float], digits: int = 4) -> float:
    """Rounded for reading."""
    return round(statistics.median(values), digits)


def transformer(vocabulary: int = 20_000) -> torch.nn.Module:
    """An encoder of 12 layers, 768 wide, with an embedding: 100 million parameters."""
    layer = torch.nn.TransformerEncoderLayer(768, 12, 3072, dropout=0.0, batch_first=True, norm_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    return torch.nn.Sequential(torch.nn.Embedding(vocabulary, 768), encoder)


def show(found: object) -> None:
    """Print a result; `run_all.py` reads it back."""
    print(json.dumps(found, indent=1, ensure_ascii=False))
