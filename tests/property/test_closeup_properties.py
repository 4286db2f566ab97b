"""The pictures sent to a page: within 64 KiB for any shape, and no moved element is ever hidden."""

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from layerlab.show.closeup import BUDGET, Moment, closeup

SHAPES = st.lists(st.integers(1, 300), max_size=4).filter(lambda shape: math.prod(shape) <= 60_000)
DTYPES = st.sampled_from([np.float64, np.float32, np.float16, np.int64])


@given(
    shape=SHAPES, dtype=DTYPES, where=st.floats(0, 1, exclude_max=True), steps=st.integers(1, 30),
    others=st.integers(0, 6), asked=st.integers(0, 29), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_only_element_that_moved_is_in_the_picture(shape, dtype, where, steps, others, asked, seed):
    random = np.random.default_rng(seed)
    before = np.array(10 * random.normal(size=shape), dtype)
    moved = int(where * before.size)
    after = before.copy()
    after.reshape(-1)[moved] += 1
    alike = {f"state {i}": after for i in range(others)}
    sent = closeup([Moment(step, before, after, alike) for step in range(steps)], asked)

    plain = json.dumps({key: value for key, value in sent.items() if not isinstance(value, bytes)})
    assert len(plain.encode()) + len(sent["cells"]) + len(sent["elements"]) <= BUDGET
    assert min(asked, steps - 1) in sent["steps"]
    assert set(sent["moved"]) == {1}
    cells = sent["rows"] * sent["columns"]
    count = len(sent["steps"])
    numbers = np.frombuffer(sent["cells"], {2: "<f2", 4: "<f4"}[sent["bytes"]]).reshape(-1, count, cells)
    elements = np.frombuffer(sent["elements"], "<u4").reshape(-1, cells)
    for step in range(count):
        shown = elements[step if len(elements) > 1 else 0]
        assert shown[numbers[2, step] != 0].tolist() == [moved]
        assert len(set(shown.tolist())) == cells
        expected = after.reshape(-1)[shown].astype(float)
        scale = sent["scales"][1] if sent["bytes"] == 2 else 1.0
        assert np.allclose(numbers[1, step] * scale, expected, rtol=2e-3, atol=1e-3 * sent["scales"][1])
        assert all(np.array_equal(numbers[3 + i, step], numbers[3, step]) for i in range(others))
