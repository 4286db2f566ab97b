"""The state as a text: short, readable, read back exactly, and refused with what would be right."""

import pytest

from layerlab.widgets.sharing import read_state, write_state

KNOWN = {"optimizer": ["SGD", "AdamW", "Adam"], "zero_grad": ["None", "zeros"], "a/b": ["50%", "x;y=z", " "]}


def test_it_is_short_where_the_sides_agree():
    assert write_state({"optimizer": ["AdamW", "SGD"], "zero_grad": ["zeros", "zeros"]}) == (
        "optimizer=AdamW/SGD;zero_grad=zeros"
    )
    assert write_state({"optimizer": ["AdamW"], "when": ["SGD, momentum 0.9 (β₁)"]}) == (
        "optimizer=AdamW;when=SGD, momentum 0.9 (β₁)"
    )


def test_separators_and_what_cannot_be_seen_are_encoded():
    assert write_state({"a/b": ["50%", "x;y=z"]}) == "a%2Fb=50%25/x%3By%3Dz"
    assert write_state({"a/b": [" ", "\n\u202e"]}) == "a%2Fb=%20/%0A%E2%80%AE"


def test_it_is_read_with_white_space_in_any_order_and_in_part():
    assert read_state(" zero_grad = zeros / None ;\n optimizer = SGD;", KNOWN, 2) == {
        "zero_grad": ("zeros", "None"),
        "optimizer": ("SGD", "SGD"),
    }
    assert read_state("a%2fb=50%25/%20", KNOWN, 2) == {"a/b": ("50%", " ")}
    assert read_state("optimizer=Adam", KNOWN, 1) == {"optimizer": ("Adam",)}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("", "this state is empty; one looks like 'optimizer=SGD;zero_grad=None'"),
        (" ; ", "this state is empty"),
        ("AdamW", "'AdamW' is not setting=value, such as 'optimizer=SGD;zero_grad=None'"),
        ("optimiser=SGD", "no setting 'optimiser'; near it: 'optimizer'"),
        ("q=SGD", "no setting 'q'; there are 'optimizer', 'zero_grad', 'a/b'"),
        ("optimizer=adamw", "optimizer='adamw': there is no such value; near it: 'AdamW', 'Adam'"),
        ("zero_grad=zeros/42", "zero_grad='42': there is no such value; there are 'None', 'zeros'"),
        ("optimizer=SGD;optimizer=Adam", "'optimizer' is set twice: leave one out"),
        ("optimizer=SGD/Adam/SGD", "has 3 values: 'optimizer' takes one value, or 2 with / between them"),
        ("optimizer=", "optimizer='': there is no such value"),
        ("optimizer=%FF", "'%FF': after a % stand two hex digits of UTF-8; % itself is %25"),
        ("zero_grad=zeros=None", "zero_grad='zeros=None': there is no such value"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(state, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole message is looked at
        read_state(state, KNOWN, 2)
    assert message in str(raised.value)


def test_one_side_takes_one_value():
    with pytest.raises(ValueError, match=r"'optimizer' takes one value$"):
        read_state("optimizer=SGD/Adam", KNOWN, 1)
    with pytest.raises(TypeError, match="a state is a str, such as 'optimizer=SGD;zero_grad=None', not dict"):
        read_state({"optimizer": "SGD"}, KNOWN, 1)
