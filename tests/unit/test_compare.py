"""Bitwise comparison, whatever the tensors' dtype and layout in memory."""

import itertools

import pytest
import torch

from layerlab.compare import advance, copy_of, same_bits
from layerlab.replay import Sample

SHAPES = [(), (0,), (2, 0), (1,), (3,), (4,), (5, 7), (8, 8), (4, 3, 3, 3), (6, 1, 1, 1), (3, 64, 128)]
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.int64,
    torch.bool,
]


def layouts(t):
    """The same values: dense, channels-last, transposed, one element into its storage, with gaps."""
    yield t.clone()
    if t.dim() == 4:
        yield t.clone(memory_format=torch.channels_last)
    if t.dim() == 2:
        yield t.t().contiguous().t()
    yield torch.cat([torch.zeros(1, dtype=t.dtype), t.flatten()])[1:].view(t.shape)
    yield torch.stack([t, t], -1)[..., 0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layout_makes_no_difference_and_one_element_does(shape, dtype):
    torch.manual_seed(0)
    values = (torch.randn(shape) * 3).to(dtype)
    for a, b in itertools.product(layouts(values), layouts(values)):
        assert same_bits(a, b)
        if not a.numel():
            continue
        other = copy_of(b)
        last = tuple(size - 1 for size in shape)
        other[last] = ~other[last] if dtype is torch.bool else other[last] + 1
        assert not same_bits(a, other)
        shadow = copy_of(a)
        assert advance(shadow, other).moved
        assert torch.equal(shadow, other)
        assert not advance(shadow, other).moved


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if torch.Size(shape).numel() > 2], ids=str)
def test_a_sample_takes_the_same_elements_from_every_layout(shape):
    values = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)
    for parameter in layouts(values):
        sample = Sample(parameter, slice(1, values.numel() - 1))
        own = sample.of(parameter).tolist()
        assert len(set(own)) == values.numel() - 2
        assert all(sample.of(other).tolist() == own for other in layouts(values))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([0.0, 1.0], [-0.0, 1.0], False),
        ([float("nan"), 1.0], [float("nan"), 1.0], True),
        ([1.0, 2.0], [1.0, 2.0 + 2e-7], False),
        ([1.0, 2.0, 3.0], [1.0, 2.0], False),
    ],
)
def test_bits_decide(a, b, same):
    assert same_bits(torch.tensor(a), torch.tensor(b)) is same
