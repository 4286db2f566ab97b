"""Whatever settings and labels are called, a state is read back as it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlab.widgets.sharing import read_state, write_state

SEPARATORS = st.text(alphabet="%=;/ \t\n25F\u202e\u00a0\u2028", max_size=6)
LABELS = st.one_of(
    SEPARATORS, st.text(max_size=8), st.text(st.characters(categories=["Cs", "Cc"]), max_size=3)
)


@st.composite
def states(draw):
    """Settings with their labels, and for each a choice on every side."""
    known = draw(
        st.dictionaries(LABELS, st.lists(LABELS, min_size=1, max_size=4, unique=True), min_size=1, max_size=4)
    )
    sides = draw(st.integers(1, 3))
    chosen = {name: [draw(st.sampled_from(labels)) for _ in range(sides)] for name, labels in known.items()}
    return known, sides, chosen


@given(states())
def test_a_state_is_read_back_as_it_was_written(case):
    known, sides, chosen = case
    text = write_state(chosen)
    assert read_state(text, known, sides) == {name: tuple(labels) for name, labels in chosen.items()}
    assert text.isprintable()
    assert read_state(f"  {text} ;\n", known, sides) == read_state(text, known, sides)


@given(states(), st.text(alphabet="ab%=;/ F9", max_size=20))
def test_any_other_text_is_read_or_refused_as_a_value_error(case, text):
    known, sides, _ = case
    try:
        read = read_state(text, known, sides)
    except UnicodeError:
        raise
    except ValueError:
        return
    for name, labels in read.items():
        assert len(labels) == sides
        assert set(labels) <= set(known[name])


@given(LABELS)
def test_a_stranger_is_refused_by_name(label):
    known = {"a": [label + "x", label + "y"]}
    with pytest.raises(ValueError, match="there is no such value"):
        read_state(write_state({"a": [label]}), known, 1)
