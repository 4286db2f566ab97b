"""The fixed alphabet: one symbol, word, colour and sentence for every reason, the same everywhere.

Tables, pictures, sliders and text all take them from here. Colours are the Okabe–Ito palette (its grey
extension for what stayed), which survives colour blindness; none of them is ever the only signal.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from layerlab.record import Reason

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#999999"

FROZEN = "❄"
"""Stands before the name of a frozen tensor.

Not the padlock U+1F512: DejaVu Sans (Mono), which draws the figures and most Linux terminals, has no
glyph for it, it is two columns wide, and browsers without an emoji font show a box. The snowflake
U+2744 is in those fonts, one column wide, and says the very word: frozen.
"""
ALARM = "⚠"
"""Stands before a row that an alarm names: this was not meant."""
ALARM_COLOUR = VERMILLION
NOTICE = "!"
"""Stands before a notice: true, and easy to overlook. It never marks a row."""


@dataclass(frozen=True, slots=True)
class Letter:
    """How one reason is shown."""

    symbol: str
    word: str
    colour: str
    """Hex RGB."""
    sentence: str


def _stayed(reason: Reason, sentence: str) -> Letter:
    return Letter("○", reason.value, GREY, f"stayed: {sentence}")


ALPHABET: dict[Reason, Letter] = {
    Reason.GRADIENT: Letter("●", "gradient", BLUE, "moved by its gradient"),
    Reason.MOMENTUM: Letter(
        "▲", "momentum", VERMILLION, "moved by stored momentum: its gradient was zero or made no difference"
    ),
    Reason.WEIGHT_DECAY: Letter(
        "◆", "weight decay", PURPLE, "moved by weight decay: its gradient was zero or made no difference"
    ),
    Reason.FORWARD: Letter(
        "■", "forward pass", GREEN, "moved by its module's forward pass, not by the optimizer"
    ),
    Reason.OUTSIDE: Letter("✱", "outside", ORANGE, "moved by something outside the step: an in-place edit"),
    Reason.NOT_IN_OPTIMIZER: _stayed(Reason.NOT_IN_OPTIMIZER, "the optimizer that stepped does not hold it"),
    Reason.NO_GRADIENT: _stayed(Reason.NO_GRADIENT, "its grad was None, so step() skipped it"),
    Reason.ZERO_GRADIENT: _stayed(
        Reason.ZERO_GRADIENT, "its gradient was zero, and nothing else in the step could move it"
    ),
    Reason.LR_ZERO: _stayed(Reason.LR_ZERO, "the learning rate of its parameter group was 0"),
    Reason.BELOW_RESOLUTION: _stayed(
        Reason.BELOW_RESOLUTION, "the update was too small to change a number of its size and dtype"
    ),
    Reason.NONFINITE: _stayed(Reason.NONFINITE, "its numbers are inf or NaN, and no update changes those"),
    Reason.SKIPPED: _stayed(Reason.SKIPPED, "a gradient scaler skipped this step (inf or NaN in a gradient)"),
    Reason.UNTOUCHED: _stayed(Reason.UNTOUCHED, "nothing wrote to this buffer"),
    Reason.UNKNOWN: Letter("?", "unknown", SKY, "no replay of the step shows its cause"),
}


_SHARE = {BLUE: 70, ORANGE: 55, GREEN: 70, VERMILLION: 80, PURPLE: 65, SKY: 55, GREY: 60}
"""Percent: as much of each colour as leaves it legible on white and on JupyterLab's dark tables."""


def ink(colour: str) -> str:
    """Give a colour of the alphabet as CSS for text, legible (4.5:1) in a light theme and in a dark one.

    It is mixed with the text's own colour, whatever the theme made that, for no plain shade has such a
    contrast to white and to black both. Where a sanitizer or an old browser drops the mix, the text's own
    colour remains.
    """
    return f"color-mix(in srgb, {colour} {_SHARE[colour]}%, currentcolor)"


def symbol_and_word(reason: Reason) -> str:
    """``● gradient``."""
    return f"{ALPHABET[reason].symbol} {ALPHABET[reason].word}"


def used_words(used: Collection[Reason]) -> str:
    """List the symbols of these reasons with their words, as a note under a table; ``○ stayed`` once."""
    words = ("○ stayed" if x.symbol == "○" else symbol_and_word(r) for r, x in ALPHABET.items() if r in used)
    return "   ".join(dict.fromkeys(words))
