"""The pictures that a StepView is sent: read back byte by byte as the docstring says, and compared."""

import json

import numpy as np
import pytest
import torch

from layerlab.show.closeup import BUDGET, Moment, closeup

RANDOM = np.random.default_rng(0)


def size(sent):
    plain = {key: value for key, value in sent.items() if not isinstance(value, bytes)}
    pixels = len(sent["cells"]) + len(sent["elements"])
    return len(json.dumps(plain, allow_nan=False).encode()) + pixels


def picture(sent, channel, step):
    """Read one picture from the bytes with nothing but the docstring; None where it is not there."""
    at, place = sent["steps"].index(step), sent["channels"].index(channel)
    if not sent["present"][place][at]:
        return None
    cells = sent["rows"] * sent["columns"]
    kind = {2: "<f2", 4: "<f4"}[sent["bytes"]]
    start = (place * len(sent["steps"]) + at) * cells * sent["bytes"]
    values = np.frombuffer(sent["cells"], kind, cells, start).astype(float)
    return values * (sent["scales"][place] if sent["bytes"] == 2 else 1)


def elements(sent, step):
    cells = sent["rows"] * sent["columns"]
    once = len(sent["elements"]) == 4 * cells
    return np.frombuffer(sent["elements"], "<u4", cells, 0 if once else 4 * cells * sent["steps"].index(step))


def moments(shape, count, others=()):
    made = []
    for step in range(count):
        before = RANDOM.normal(size=shape).astype(np.float32)
        after = before.copy()
        after.reshape(-1)[:: max(after.size // 5, 1)] += 0.25
        made.append(Moment(step, before, after, {name: RANDOM.normal(size=shape) for name in others}))
    return made


def test_a_small_tensor_is_sent_whole_and_exact():
    made = moments((3, 4), 5, ["gradient", "exp_avg"])
    sent = closeup(made, 4)
    assert (sent["steps"], sent["rows"], sent["columns"], sent["bytes"]) == ([0, 1, 2, 3, 4], 3, 4, 4)
    assert sent["channels"] == ["before", "after", "Δ", "gradient", "exp_avg"]
    for moment in made:
        assert np.array_equal(picture(sent, "before", moment.step), moment.before.ravel())
        assert np.array_equal(picture(sent, "after", moment.step), moment.after.ravel())
        assert np.allclose(picture(sent, "Δ", moment.step), (moment.after - moment.before).ravel())
        assert np.allclose(picture(sent, "exp_avg", moment.step), moment.others["exp_avg"].ravel())
        assert elements(sent, moment.step).tolist() == list(range(12))
    both = max(np.abs([m.before for m in made]).max(), np.abs([m.after for m in made]).max())
    assert sent["scales"][:2] == [both, both]


@pytest.mark.parametrize(
    ("shape", "count", "others"),
    [
        ((512, 512, 3, 3), 1, 2),
        ((512, 512, 3, 3), 2, 6),
        ((16384,), 12, 6),
        ((4, 5), 400, 6),
        ((64, 64), 3, 9),
        ((1000, 3, 7), 4, 2),
        ((), 300, 3),
        ((0, 3), 2, 1),
        ((7, 11, 1, 1), 60, 30),
    ],
)
def test_it_keeps_to_its_budget_and_shows_the_step_that_was_asked_for(shape, count, others):
    made = moments(shape, count, [f"state {i}" for i in range(others)])
    for step in {0, count // 2, count - 1}:
        sent = closeup(made, step)
        assert size(sent) <= BUDGET
        assert step in sent["steps"]


@pytest.mark.parametrize("shape", [(300, 200), (512, 64, 3, 3), (20000,), (30, 50, 40), (9000, 2)])
def test_reduction_hides_no_moved_element(shape):
    before = RANDOM.normal(size=shape)
    after = before.copy()
    total = before.size
    moved = RANDOM.choice(total, 40, replace=False)
    after.reshape(-1)[moved] += RANDOM.normal(size=40)
    sent = closeup([Moment(3, before, after, {"gradient": after - before})], 3)
    delta, shown = picture(sent, "Δ", 3), elements(sent, 3)
    assert sent["moved"] == [40]
    assert set(shown[delta != 0]) <= set(moved)
    # Each cell stands for a block; every moved element is in a block whose cell is tinted.
    truth = (after - before).reshape(-1)
    assert np.allclose(delta, truth[shown], rtol=2e-3, atol=1e-12)
    assert np.allclose(picture(sent, "gradient", 3), delta, rtol=2e-3, atol=1e-12)
    largest = moved[np.argmax(np.abs(truth[moved]))]
    assert largest in shown
    assert np.allclose(picture(sent, "before", 3), before.reshape(-1)[shown], rtol=2e-3, atol=1e-3)


def test_a_change_is_never_rounded_to_none():
    before = np.zeros((100, 100))
    after = before.copy()
    after[0, 0], after[50, 50], after[99, 99] = 1.0, 1e-300, -1e-300
    for made in (Moment(0, before, after, {}), Moment(0, before[::10, ::10], after[::10, ::10] * 0 + 1, {})):
        sent = closeup([made], 0)
        delta = picture(sent, "Δ", 0)
        truth = (np.asarray(made.after) - made.before).reshape(-1)[elements(sent, 0)]
        assert np.array_equal(np.sign(delta), np.sign(truth))
        assert np.array_equal(delta != 0, truth != 0)


def test_torch_tensors_nan_and_pictures_that_are_not_always_there():
    before = torch.tensor([[1.0, float("nan")], [float("inf"), 0.0]], dtype=torch.bfloat16)
    after = torch.tensor([[2.0, float("nan")], [1.0, 0.0]], dtype=torch.bfloat16)
    sent = closeup([Moment(0, before, before, {}), Moment(1, before, after, {"gradient": after})], 1)
    assert picture(sent, "gradient", 0) is None
    assert picture(sent, "gradient", 1)[0] == 2
    assert picture(sent, "after", 1)[2] == 1
    assert picture(sent, "Δ", 1)[1] == 0  # NaN stayed NaN
    assert picture(sent, "Δ", 1)[2] == -np.inf
    assert sent["moved"] == [0, 2]
    assert sent["scales"][:2] == [2.0, 2.0]


def test_values_that_are_not_real_numbers():
    with pytest.raises(ValueError, match="complex64"):
        closeup([Moment(0, np.ones(3, np.complex64), np.ones(3, np.complex64), {})], 0)
