"""Numbers, names, the general table and the alphabet."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from made_steps import step, tensor

import layerlab.show
from layerlab.printable import printable
from layerlab.record import Reason
from layerlab.show import describe_step, legend, short, table
from layerlab.show.alphabet import ALARM, ALPHABET, FROZEN, NOTICE
from layerlab.show.text import text
from layerlab.show.words import cut, span, width


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0671, "0.067"), (12.34, "12"), (1.31e-5, "1.3e-05"), (0, "0"), (-0.0, "0"), (math.inf, "inf"),
        (-math.inf, "-inf"), (math.nan, "nan"), (0.001, "0.001"), (0.00099, "9.9e-04"), (1234.5, "1200"),
        (9949, "9900"), (9951, "1e+04"), (12345, "1.2e+04"), (0.1, "0.1"), (-0.25, "-0.25"), (100.0, "100"),
        (0.0009999, "0.001"), (1e-300, "1e-300"), (99.6, "100"),
    ],
)  # fmt: skip
def test_short(value, said):
    assert short(value) == said


def test_short_with_more_digits_and_spans():
    assert short(96.0784, 4) == "96.08"
    assert span([0.02, 0.001, 0.02]) == "0.001…0.02"
    assert span([math.nan, 0.1]) == "0.1, nan"
    assert span([math.nan]) == "nan"


def test_unseen_characters_become_visible():
    assert printable("a\nb\u202ec\td\ud800é层") == "a\\nb\\u202ec\\td\\ud800é层"


def test_long_names_are_cut_in_the_middle_but_stay_different():
    names = [f"encoder.{'deep.' * 40}{i}.weight" for i in range(2)]
    shown = text(describe_step(step(*[tensor(n, ratio=0.1) for n in names])))
    assert max(map(width, shown.splitlines())) <= 100
    first, second = (line.split()[0] for line in shown.splitlines() if line.startswith("encoder."))
    assert "…" in first
    assert first != second
    assert cut("abcdefghij", 5) == "ab…ij"
    assert width(cut("层" * 9, 8)) <= 8

    twins = [f"{'a' * 90}{c}{'z' * 90}" for c in "xy"]
    whole = text(describe_step(step(*[tensor(n, ratio=0.1) for n in twins])))
    assert all(name in whole for name in twins), "names that differ only in the middle are not cut to one"


def test_wide_characters_keep_the_columns_aligned():
    shown = text(describe_step(step(tensor("层", ratio=1.0), tensor("ab", ratio=1.0))))
    at = [width(line.partition("█")[0]) for line in shown.splitlines() if "█" in line]
    assert at == [8, 8]


# --- tables and the legend --------------------------------------------------------------------------------


def test_a_table_of_any_facts():
    shown = table(
        [
            {
                "optimizer": "Adam",
                "moves": np.float32(0.0671),
                "steps": 1200,
                "meant": False,
                "why": Reason.MOMENTUM,
            },
            {"optimizer": "SGD", "moves": 0.0, "steps": None, "meant": True, "extra": "x"},
        ],
        title="who moves?",
    )
    assert repr(shown) == (
        "who moves?\n"
        "optimizer  moves  steps  meant  why         extra\n"
        "Adam       0.067   1200  no     ▲ momentum  –\n"
        "SGD            0      –  yes    –           x"
    )
    assert (
        repr(table([{"a": 96.0784, "b": 1}], columns=["b", "a"], digits=4)) == "\nb      a\n1  96.08".strip()
    )


def test_table_with_nothing_in_it_and_with_a_wrong_column():
    assert repr(table([])) == "  no rows"
    with pytest.raises(ValueError, match="no row has a column 'c'; the rows have: a, b"):
        table([{"a": 1, "b": 2}], columns=["a", "c"])


def test_the_legend_explains_every_letter():
    words = repr(legend())
    for letter in ALPHABET.values():
        assert f"{letter.symbol}  " in words
        assert letter.word in words
        assert letter.sentence in words
    assert all(sign in words for sign in (FROZEN, ALARM, NOTICE))


def test_the_alphabet_is_complete_and_colour_blind_safe():
    okabe_ito = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"}
    assert set(ALPHABET) == set(Reason)
    assert {letter.colour for letter in ALPHABET.values()} <= okabe_ito
    moving = [ALPHABET[r] for r in Reason if ALPHABET[r].symbol != "○"]
    assert len({m.symbol for m in moving}) == len({m.colour for m in moving}) == len(moving) == 6
    assert len({letter.word for letter in ALPHABET.values()}) == len(Reason)


def test_every_sign_is_one_column_wide_and_in_the_usual_fonts():
    from matplotlib.font_manager import FontProperties, findfont, get_font

    signs = {letter.symbol for letter in ALPHABET.values()} | {FROZEN, ALARM, NOTICE} | set("█▏▎▍▌▋▊▉…‖Δ–")
    for family in ("DejaVu Sans", "DejaVu Sans Mono"):
        font = get_font(findfont(FontProperties(family=family), fallback_to_default=False))
        assert [sign for sign in signs if not font.get_char_index(ord(sign))] == []
    assert all(width(sign) == 1 for sign in signs)


def test_this_room_imports_the_record_only():
    """No torch and no widgets anywhere, and matplotlib only inside functions."""
    for path in Path(layerlab.show.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        anywhere = {name for node in ast.walk(tree) for name in imported(node)}
        on_import = {name for node in tree.body for name in imported(node)}
        assert not {n for n in anywhere if n.split(".")[0] in {"torch", "ipywidgets", "IPython"}}, path.name
        assert not {n for n in on_import if n.startswith("matplotlib")}, path.name
        own = {n for n in anywhere if n.startswith("layerlab")}
        below = {n for n in own if not n.startswith("layerlab.show.")}
        assert below <= {"layerlab.printable", "layerlab.record"}, path.name


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
