"""The alphabet's colours as text: legible in either theme, and still the colours they are."""

import colorsys
import itertools
import re

import pytest

from layerlab.show.alphabet import ALARM_COLOUR, ALPHABET, ink

COLOURS = sorted({ALARM_COLOUR, *(letter.colour for letter in ALPHABET.values())})

# JupyterLab's: the text's own colour with its opacity, and what may lie under it: the page, every second
# row of a table, the row under the pointer.
BLUE_OVER_DARK = "#0e2f40"  # rgba(3, 169, 244, 0.2) on #111111
LIGHT = ("#000000", 0.87), ("#ffffff", "#f5f5f5", "#e1f5fe")
DARK = ("#ffffff", 1.0), ("#111111", "#212121", BLUE_OVER_DARK)


def rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def luminance(colour):
    """As WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def drawn(colour, text, opacity, under):
    """Do what a browser does with the CSS: mix with the text's colour, then lay over what is under it."""
    mix = r"color-mix\(in srgb, (#[0-9A-F]{6}) (\d+)%, currentcolor\)"
    own, share = re.fullmatch(mix, ink(colour)).groups()
    p = int(share) / 100
    alpha = p + (1 - p) * opacity
    mixed = [(p * a + (1 - p) * opacity * b) / alpha for a, b in zip(rgb(own), rgb(text), strict=True)]
    return [alpha * a + (1 - alpha) * b for a, b in zip(mixed, rgb(under), strict=True)]


def test_contrast_is_computed_as_wcag_does():
    assert contrast(rgb("#000000"), rgb("#ffffff")) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#ffffff")) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_is_legible_as_text(colour, theme):
    text, unders = theme
    for under in unders:
        assert contrast(drawn(colour, *text, under), rgb(under)) >= 4.5, under


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_stays_what_it_is(theme):
    text, (under, *_) = theme
    seen = {colour: drawn(colour, *text, under) for colour in COLOURS}
    for colour, shade in seen.items():
        hue, saturation = colorsys.rgb_to_hsv(*rgb(colour))[:2]
        if saturation:  # grey has no hue
            assert abs(colorsys.rgb_to_hsv(*shade)[0] - hue) < 0.01, colour
    for one, other in itertools.combinations(seen.values(), 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.1
