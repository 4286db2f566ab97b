"""Pictures: what is drawn, what is written beside it, and that nothing that moved is hidden."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

from layerlab.show.grid import grid
from layerlab.show.picture import Picture, colours, picture, png

BLUE, ORANGE = np.array([0, 0x72, 0xB2]) / 255, np.array([0xD5, 0x5E, 0]) / 255


def words(figure):
    """Every text in a figure, as one string."""
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text())


def drawn(figure):
    """The three images, as RGB arrays."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_zero_is_exactly_white_and_nothing_else_is():
    rgb = colours(np.array([[0.0, 1e-30, -1e-30, 1.0, -1.0]]), 1.0)[0]
    assert (rgb[0] == 1).all()
    assert (rgb[1:].min(axis=1) < 0.95).all(), "a tiny value is still seen"
    assert rgb[1][0] > rgb[1][2], "positive is orange"
    assert rgb[2][0] < rgb[2][2], "negative is blue"
    assert rgb[3] == pytest.approx(ORANGE)
    assert rgb[4] == pytest.approx(BLUE)


def test_before_and_after_share_one_scale_and_delta_has_its_own():
    before, after = np.array([[1.0, -2.0]]), np.array([[4.0, -2.0]])
    figure = picture(before, after, title="w", steps=(3, 4))
    old, new, delta = drawn(figure)
    assert (old[0, 1] == new[0, 1]).all()
    assert new[0, 0] == pytest.approx(ORANGE), "the largest of both is at full colour"
    assert new[0, 1, 0] > BLUE[0]
    assert delta[0, 0] == pytest.approx(ORANGE)
    assert (delta[0, 1] == 1).all()
    said = words(figure)
    assert "w: shape 1×2, 1 of 2 elements moved, largest |Δ| 3" in said
    assert said.count("scale ±4, one for both") == 2
    assert "scale ±3\n" in said + "\n"
    assert [axes.get_title() for axes in figure.axes] == ["step 3", "step 4", "Δ = after − before"]
    assert [t.get_text() for t in figure.axes[0].texts] == ["1", "-2"]
    assert [t.get_text() for t in figure.axes[2].texts] == ["3", "0"]


@pytest.mark.parametrize("size", [8, 9])
def test_a_still_tensor_says_so_in_words(size):
    values = np.ones((size, size))
    figure = picture(values, values, title="w")
    assert (drawn(figure)[2] == 1).all()
    assert "did not move" in words(figure)
    assert (len(figure.axes[0].texts) == 64) == (size == 8), "values are written up to 8×8"


def test_nan_and_inf_are_hatched_and_explained():
    before = np.array([[1.0, np.nan, 2.0, 3.0]])
    after = np.array([[np.nan, np.nan, np.inf, 3.0]])
    cells = grid(before, after)
    assert cells.moved.tolist() == [[True, False, True, False]], "NaN equals itself"
    assert cells.delta[0, 1] == 0
    figure = picture(before, after, title="w")
    assert [len(axes.collections) for axes in figure.axes] == [1, 1, 1]
    assert figure.axes[0].collections[0].get_hatch()
    assert len(figure.axes[1].collections[0].get_paths()) == 3
    assert "hatched grey: NaN or inf (1 cell before, 3 after)" in words(figure)
    assert "moved only to or from NaN or inf" in words(figure)


def test_without_nan_there_is_no_hatching():
    figure = picture([[1.0]], [[2.0]], title="w")
    assert not any(axes.collections for axes in figure.axes)
    assert "hatched" not in words(figure)


@pytest.mark.parametrize(
    ("shape", "cells", "note"),
    [
        ((), (1, 1), []),
        ((5,), (1, 5), []),
        ((512,), (8, 64), ["512 values in reading order, 64 a row"]),
        ((3, 4), (3, 4), []),
        ((2, 3, 4), (2, 12), ["first dimension downwards, the others in reading order across"]),
        ((4, 3, 2, 2), (8, 6), ["output channels downwards, input channels across, each a 2×2 tile"]),
        ((67,), (1, 64), ["1×67 reduced to 1×64: each cell shows its element with the largest |Δ|"]),
        ((0, 3), (0, 3), []),
    ],
)
def test_every_rank_is_arranged_and_said(shape, cells, note):
    values = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    g = grid(values, values + 1)
    assert g.delta.shape == cells
    assert list(g.notes) == note
    assert (g.count, g.total) == (values.size, values.size)
    assert all(line in words(picture(values, values + 1, title="w")) for line in note)


def test_a_convolution_is_laid_out_in_tiles():
    kernels = np.arange(4 * 3 * 2 * 5, dtype=float).reshape(4, 3, 2, 5)
    laid = grid(kernels, kernels).before
    for o, i in np.ndindex(4, 3):
        assert (laid[2 * o : 2 * o + 2, 5 * i : 5 * i + 5] == kernels[o, i]).all()


def test_one_tiny_move_in_a_large_tensor_is_seen():
    before = np.random.default_rng(0).normal(size=(300, 200)).astype("float32")
    after = before.copy()
    after[123, 45] = np.nextafter(after[123, 45], np.float32(9))
    figure = picture(before, after, title="w")
    tinted = (drawn(figure)[2] != 1).any(axis=2)
    assert tinted.sum() == 1
    assert "1 of 60000 elements moved" in words(figure)
    assert "300×200 reduced to 64×64: each cell shows its element with the largest |Δ|" in words(figure)


def test_nan_is_the_largest_change_of_its_cell():
    before = np.zeros((128, 128))
    after = before + np.random.default_rng(0).normal(size=before.shape)
    after[5, 6] = np.nan
    g = grid(before, after)
    assert np.argwhere(np.isnan(g.after)).tolist() == [[2, 3]]


def test_a_change_that_float64_cannot_tell_is_still_tinted():
    figure = picture([2**60], [2**60 + 1], title="steps")
    assert "1 of 1 element moved" in words(figure)
    assert (drawn(figure)[2] != 1).any()


def test_torch_tensors_of_any_float_dtype():
    before = torch.nn.Parameter(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16))
    g = grid(before, before.detach() + 1)
    assert g.delta.tolist() == [[1.0, 1.0]]
    assert grid(torch.tensor(3), torch.tensor(4)).delta.tolist() == [[1.0]]


def test_bad_input_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"before has shape \(2,\) but after has shape \(3,\)"):
        picture([1, 2], [1, 2, 3], title="w")
    with pytest.raises(ValueError, match="after holds complex128 values; a picture needs real numbers"):
        picture([1.0], [1j], title="w")


def test_any_title_is_drawn_as_it_stands():
    figure = picture([1.0], [2.0], title="$\\frac$ <b>\n层" + "x" * 200)
    assert figure.get_suptitle().startswith("$\\frac$ <b>\\n")
    assert len(figure.get_suptitle()) < 130
    assert png(figure).startswith(b"\x89PNG"), "no mathtext error and no missing glyph"


def test_the_readers_own_style_changes_nothing():
    before, after = np.eye(3), np.eye(3) * 0.9
    plain = png(picture(before, after, title="w"))
    with matplotlib.style.context(["dark_background", {"font.family": "serif", "axes.grid": True}]):
        assert png(picture(before, after, title="w")) == plain
    figure = picture(before, after, title="w")
    assert matplotlib.colors.to_hex(figure.get_facecolor()) == "#ffffff"
    assert figure.axes[0].title.get_fontfamily() == ["DejaVu Sans"]


def test_a_picture_shows_itself_as_an_image_and_as_words():
    shown = Picture([[1.0, 2.0]], [[1.0, 2.5]], title="fc.bias\n")
    assert repr(shown) == "fc.bias\\n: shape 1×2, 1 of 2 elements moved, largest |Δ| 0.5"
    assert shown._repr_png_().startswith(b"\x89PNG")
    assert repr(Picture(1.0, 1.0, title="n")) == "n: one number, did not move: Δ is 0 everywhere"
    assert repr(Picture([], [], title="n")) == "n: shape 0, no elements"
