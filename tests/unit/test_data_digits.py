"""The digits against scikit-learn's own arrays and a bilinear interpolation written out by hand."""

import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from layerlab.data import digits

SCANS = load_digits()


def enlarged(scan):
    """Bilinear by hand: each new pixel's centre lies between those of two old ones; the edge is repeated."""
    weights = np.zeros((32, 8))
    for new in range(32):
        place = min(max((new + 0.5) / 4 - 0.5, 0), 7)
        left = int(place)
        weights[new, left] += 1 - (place - left)
        weights[new, min(left + 1, 7)] += place - left
    return weights @ scan @ weights.T


@lru_cache(maxsize=1)
def by_content():
    """From each scan's enlarged picture to its number; all 1,797 are different."""
    found = {enlarged(scan / 8 - 1).tobytes(): number for number, scan in enumerate(SCANS.images)}
    assert len(found) == 1797
    return found


def as_scan_numbers(images):
    return [by_content()[picture[0].double().numpy().tobytes()] for picture in images.pixels]


def test_the_source_is_the_first_1029_scans():
    source = digits.source()
    assert as_scan_numbers(source) == list(range(1029))
    assert source.labels.tolist() == SCANS.target[:1029].tolist()
    assert source.classes == tuple("0123456789")
    assert source.pixels.shape == (1029, 3, 32, 32)
    assert source.pixels.dtype == torch.float32
    assert (source.pixels.min(), source.pixels.max()) == (-1, 1)
    assert torch.equal(source.pixels[:, 0], source.pixels[:, 1])
    assert torch.equal(source.pixels[:, 0], source.pixels[:, 2])
    assert source.came_from.startswith("Images 0–1028 of scikit-learn's load_digits")


def test_batches_are_the_pictures_themselves():
    source = digits.source()
    assert torch.equal(source.batch([5])[0][0], source.pixels[5])


def test_odd_or_even_with_two_of_each_digit():
    train, test = digits.target()
    assert (len(train), len(test)) == (20, 748)
    drawn, others = as_scan_numbers(train), as_scan_numbers(test)
    assert drawn == sorted(drawn)
    assert others == sorted(others)
    assert sorted(drawn + others) == list(range(1029, 1797))
    assert np.bincount(SCANS.target[drawn]).tolist() == [2] * 10
    assert train.classes == test.classes == ("even", "odd")
    for images, numbers in ((train, drawn), (test, others)):
        assert images.labels.tolist() == (SCANS.target[numbers] % 2).tolist()
    assert train.came_from.startswith("2 of each digit (seed 0) of images 1029–1796")
    assert test.came_from.startswith("All but 2 of each digit")


@given(
    st.integers(1, 20),
    st.integers(0, 2**40),
    st.sampled_from(["odd_or_even", "digit"]),
    st.sets(st.integers(0, 9), min_size=1),
)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_every_target_is_stratified_and_whole(per_digit, seed, task, kept):
    train, test = digits.target(per_digit, seed, task=task, digits=kept)
    drawn, others = as_scan_numbers(train), as_scan_numbers(test)
    wanted = [n for n in range(1029, 1797) if SCANS.target[n] in kept]
    assert sorted(drawn + others) == wanted
    for digit in range(10):
        assert sum(SCANS.target[drawn] == digit) == (per_digit if digit in kept else 0)
    for images, numbers in ((train, drawn), (test, others)):
        said = [images.classes[label] for label in images.labels.tolist()]
        true = [str(d) if task == "digit" else ("even", "odd")[d % 2] for d in SCANS.target[numbers]]
        assert said == true


def test_a_source_that_is_too_narrow_and_its_target():
    source = digits.source(range(5))
    train, test = digits.target(5, task="digit", digits=range(5, 10))
    assert source.classes == tuple("01234")
    assert as_scan_numbers(source) == [n for n in range(1029) if SCANS.target[n] < 5]
    assert train.classes == test.classes == tuple("56789")
    assert np.bincount(train.labels.numpy()).tolist() == [5] * 5
    assert "digits 0, 1, 2, 3, 4" in source.came_from


def test_the_seed_decides_and_nothing_else():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = as_scan_numbers(digits.target(seed=7)[0])
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert as_scan_numbers(digits.target(seed=7)[0]) == first
    assert as_scan_numbers(digits.target(seed=8)[0]) != first


def test_the_draw_is_the_one_of_every_machine():
    """Not an oracle but a promise: if this ever differs, recorded results need a note."""
    assert as_scan_numbers(digits.target(1, 0)[0]) == DRAWN


DRAWN = [1091, 1110, 1117, 1191, 1243, 1316, 1336, 1362, 1578, 1685]


def test_changing_a_picture_changes_no_other():
    digits.source().pixels.zero_()
    assert digits.source().pixels.max() == 1
    source = digits.source()
    source.pixels[0, 0] = 5
    assert source.pixels[0, 1].max() <= 1


@pytest.mark.parametrize("wrong", [[], [10], [-1], [1, 1], [0.5]])
def test_digits_that_are_none(wrong):
    with pytest.raises(ValueError, match="different digits from 0 to 9"):
        digits.source(wrong)
    with pytest.raises(ValueError, match="different digits from 0 to 9"):
        digits.target(digits=wrong)


@pytest.mark.parametrize("per_digit", [0, -1, 79])
def test_how_many_can_be_labelled(per_digit):
    fewest = np.bincount(SCANS.target[1029:]).min()
    assert fewest <= 79
    with pytest.raises(ValueError, match=f"per_digit={per_digit}: there are 7"):
        digits.target(per_digit)


def test_another_task_is_refused():
    with pytest.raises(ValueError, match="'odd_or_even' or 'digit', not 'prime'"):
        digits.target(task="prime")


def test_who_needs_digits_waits_for_nothing_else():
    code = "import sys; from layerlab.data import DataError, Images, digits; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torchvision", "sklearn", "pooch", "PIL"}.isdisjoint(done.stdout.split())
