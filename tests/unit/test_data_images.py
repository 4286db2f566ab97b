"""`Images` against Python lists and numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerlab.data import Images

CLASSES = ("ants", "bees", "wasps")


def photographs(n=5):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (n, 3, 4, 2), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(n) % 2, CLASSES, "Noise, made for a test.")


def test_what_it_says_of_itself():
    assert len(photographs()) == 5
    assert repr(photographs()) == "Images(5 of 3×4×2 uint8; ants: 3, bees: 2, wasps: 0)"


def test_photographs_are_scaled_and_normalised_as_imagenets_were():
    images = photographs()
    inputs, labels = images.batch([3, 0])
    mean = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    expected = (images.pixels.numpy()[[3, 0]] / 255.0 - mean) / std
    assert inputs.dtype == torch.float32
    np.testing.assert_allclose(inputs.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert labels.tolist() == [1, 0]


def test_it_normalises_as_torchvision_does():
    from torchvision.transforms import functional

    images = photographs()
    expected = functional.normalize(
        images.pixels.float() / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    assert torch.equal(images.batch(slice(None))[0], expected)


def test_floats_are_given_as_they_are():
    pixels = torch.linspace(-1, 1, 2 * 3 * 2 * 2).view(2, 3, 2, 2)
    inputs, _ = Images(pixels, torch.tensor([0, 1]), CLASSES, "").batch(slice(None))
    assert torch.equal(inputs, pixels)
    inputs.zero_()
    assert pixels.abs().sum() > 0


numbers = st.lists(st.integers(-5, 4), max_size=8)
slices = st.slices(5)


@given(numbers | slices)
@settings(deadline=None, derandomize=True)
def test_any_index_means_what_it_means_in_a_list(index):
    images = photographs()
    every = list(range(5))
    expected = every[index] if isinstance(index, slice) else [every[number] for number in index]
    taken = images.take(index)
    assert [pixels.tolist() for pixels in taken.pixels] == [images.pixels[n].tolist() for n in expected]
    assert taken.labels.tolist() == [n % 2 for n in expected]
    assert (taken.classes, taken.came_from) == (images.classes, images.came_from)
    inputs, labels = images.batch(index)
    assert torch.equal(inputs, taken.batch(slice(None))[0])
    assert torch.equal(labels, taken.labels)
    if isinstance(index, list):
        for kind in (torch.int64, torch.int32):
            assert torch.equal(images.batch(torch.tensor(index, dtype=kind))[0], inputs)


def test_a_mask_and_bytes_as_index():
    images = photographs()
    expected = images.pixels[[0, 3]]
    assert torch.equal(images.take(torch.tensor([True, False, False, True, False])).pixels, expected)
    assert torch.equal(images.take(torch.tensor([0, 3], dtype=torch.uint8)).pixels, expected)
    assert torch.equal(images.take(range(0, 5, 3)).pixels, expected)


@pytest.mark.parametrize("index", [[5], [0, -6], torch.tensor([7]), torch.tensor([True]), range(4, 6)])
def test_an_index_beyond_the_end(index):
    with pytest.raises(IndexError, match=r"there is no picture|a mask of 1 does not fit 5"):
        photographs().batch(index)


@pytest.mark.parametrize(
    "index", [3, 1.0, [1.0], [True], "1", None, torch.tensor(1), torch.tensor([1.0]), torch.tensor([[1]])]
)
def test_an_index_that_is_none(index):
    with pytest.raises(TypeError, match="index"):
        photographs().take(index)


def test_no_pictures_are_pictures_too():
    none = photographs().take([])
    assert len(none) == 0
    assert none.batch(slice(None))[0].shape == (0, 3, 4, 2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_any_device(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    images = photographs()
    moved = images.to(device)
    assert moved.pixels.device.type == moved.labels.device.type == device
    for index in ([3, 0], slice(1, 3), torch.tensor([3, 0])):
        inputs, labels = moved.batch(index)
        assert inputs.device.type == labels.device.type == device
        torch.testing.assert_close(inputs.cpu(), images.batch(index)[0])
        assert torch.equal(moved.take(index).labels.cpu(), images.take(index).labels)


PIXELS, LABELS = torch.zeros(2, 3, 4, 4), torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        (dict(pixels=np.zeros((2, 3, 4, 4))), TypeError, "pixels must be a tensor, not ndarray"),
        (dict(labels=[0, 1]), TypeError, "labels must be a tensor, not list"),
        (dict(pixels=PIXELS.double()), TypeError, "uint8 or float32, not torch.float64"),
        (dict(labels=LABELS.int()), TypeError, "labels must be int64, not torch.int32"),
        (dict(pixels=PIXELS[0]), ValueError, r"\(n, 3, height, width\), not \(3, 4, 4\)"),
        (dict(pixels=PIXELS[:, :1]), ValueError, r"not \(2, 1, 4, 4\)"),
        (dict(pixels=PIXELS[..., :0]), ValueError, r"not \(2, 3, 4, 0\)"),
        (dict(labels=LABELS[:1]), ValueError, r"2 pictures need labels of shape \(2,\), not \(1,\)"),
        (dict(labels=LABELS[:, None]), ValueError, r"not \(2, 1\)"),
        (dict(labels=LABELS + 1), ValueError, "label 3 stands for no class: there are 3, counted from 0"),
        (dict(labels=LABELS - 1), ValueError, "label -1 stands for no class"),
        (dict(pixels=PIXELS.to("meta")), ValueError, "pixels are on meta but labels on cpu"),
        (dict(classes=["ants", "bees", "wasps"]), TypeError, "tuple of names"),
        (dict(classes=(0, 1, 2)), TypeError, "tuple of names"),
        (dict(classes=("ants", "bees", "ants")), ValueError, "different names"),
    ],
)
def test_what_does_not_fit_is_refused(changed, error, says):
    fitting = dict(pixels=PIXELS, labels=LABELS, classes=CLASSES, came_from="")
    Images(**fitting)
    with pytest.raises(error, match=says):
        Images(**{**fitting, **changed})
