"""Two runs side by side: what differs stands first, in a sentence, in symbols and in words."""

import re

import pytest
from made_steps import FROZEN_BUT_MOVED, network, step, tensor, two_tasks

from layerlab.record import Reason
from layerlab.show import Shown
from layerlab.show.beside import DIFFERS, RESIZED, describe_beside


def sentence(left, right):
    return describe_beside(left, right).tables[0].title


def rows(left, right, **options):
    """Name → (mark, left symbols, right symbols, the other texts)."""
    _, table = describe_beside(left, right, **options).tables
    return {
        row.cells[0].text: (row.cells[0].mark, *(cell.text for cell in row.cells[1:])) for row in table.rows
    }


def held():
    """The article's two tasks with hidden_task1 held in the second, and output moving by another amount."""
    first, _ = two_tasks()
    second = step(
        tensor("hidden_task1.weight", Reason.NO_GRADIENT, grad="none", frozen="requires_grad"),
        tensor("hidden_task2.weight", ratio=1.0),
        tensor("output.weight", ratio=2e-3),
        index=1,
    )
    return [first, second]


def test_the_sentence_says_how_many_and_the_first_one_s_two_tales():
    assert sentence(two_tasks(), held()) == (
        "1 of 3 tensors behaves differently: in step 1, hidden_task1.weight moves by momentum on the left "
        "and stays (no gradient) on the right. 1 more: the same reasons, other amounts."
    )
    assert sentence(held(), two_tasks()).startswith(
        "1 of 3 tensors behaves differently: in step 1, hidden_task1.weight stays (no gradient) on the left "
        "and moves by momentum on the right."
    )


def test_what_differs_stands_first_with_both_reasons_and_amounts():
    found = rows(two_tasks(), held())
    assert list(found.items()) == [
        ("hidden_task1.weight", (DIFFERS, "● ▲", "● ○", "step 1: ▲ momentum ≠ ○ no gradient", "0.067", "0")),
        ("output.weight", (RESIZED, "● ●", "● ●", "step 1: ‖Δ‖ 0.002 ≠ 0.004", "0.001", "0.002")),
        ("hidden_task2.weight", ("", "○ ●", "○ ●", "", "1", "1")),
    ]


def test_each_side_has_its_own_marks():
    left = two_tasks()
    left[1].alarms = [FROZEN_BUT_MOVED]
    _, table = describe_beside(left, held()).tables
    assert [cell.mark for cell in table.rows[0].cells[:3]] == ["≠", "⚠❄", "❄"]
    notes = " ".join(table.notes)
    for note in (
        "≠ another reason",
        "Δ the same reasons, other amounts",
        "⚠ an alarm",
        "❄ frozen",
        "▲ momentum",
    ):
        assert note in notes
    assert "one symbol a step: steps 0 to 1" in notes


def test_nothing_differs():
    assert sentence(two_tasks(), two_tasks()) == (
        "No tensor behaves differently: each moves or stays for the same reasons, by the same amounts."
    )
    assert {mark for mark, *_ in rows(two_tasks(), two_tasks()).values()} == {""}
    other = [step(tensor("a", ratio=0.1)), step(tensor("a", ratio=0.2))]
    assert sentence(other[:1], other[1:]).endswith("the same reasons; 1 of 1 by other amounts.")
    nan = [step(tensor("a", ratio=0.1, delta_norm=float("nan")))]
    assert sentence(nan, nan).endswith("by the same amounts.")


@pytest.mark.parametrize(
    ("reason", "ratio", "words"),
    [
        (Reason.GRADIENT, 0.1, "moves by its gradient"),
        (Reason.WEIGHT_DECAY, 0.1, "moves by weight decay"),
        (Reason.FORWARD, 0.1, "moves by the forward pass"),
        (Reason.OUTSIDE, 0.1, "moves by something outside the step"),
        (Reason.UNKNOWN, 0.1, "moves, and why is unknown"),
        (Reason.UNKNOWN, 0.0, "stays (unknown)"),
        (Reason.LR_ZERO, 0.0, "stays (lr = 0)"),
    ],
)
def test_every_reason_has_its_words(reason, ratio, words):
    left, right = [step(tensor("a", reason, ratio))], [step(tensor("a", Reason.MOMENTUM, 0.2))]
    assert f"a {words} on the left and moves by momentum on the right" in sentence(left, right)


def test_the_plainest_difference_is_the_one_that_is_told():
    left = [step(tensor("a", ratio=0.1), tensor("b", ratio=0.1))]
    right = [step(tensor("a", Reason.MOMENTUM, 0.1), tensor("b", Reason.LR_ZERO))]
    assert "b moves by its gradient on the left and stays (lr = 0) on the right" in sentence(left, right)
    assert "2 of 2 tensors behave differently" in sentence(left, right)


def test_a_step_or_a_tensor_that_only_one_side_has_differs():
    found = rows(two_tasks(), two_tasks()[:1])
    assert {mark for mark, *_ in found.values()} == {DIFFERS}
    assert found["output.weight"][1:4] == ("● ●", "● –", "step 1: ● gradient ≠ –")
    assert "steps 0 to 1 on the left, step 0 on the right" in repr(
        Shown(describe_beside(two_tasks(), two_tasks()[:1]))
    )
    left, right = [step(tensor("a", ratio=0.1))], [step(tensor("b", ratio=0.1))]
    assert "a moves by its gradient on the left and is not there on the right" in sentence(left, right)
    assert list(rows(left, right)) == ["a", "b"]
    assert describe_beside([], []).note.startswith("no step recorded yet")
    assert "is not there on the right" in sentence(left, [])


def test_many_equal_tensors_share_a_line_and_many_alike_differences_too():
    left = [step(*network(30), *network(60, Reason.MOMENTUM)[30:])]
    right = [step(*network(30), *network(60, Reason.NO_GRADIENT, 0.0)[30:])]
    _, table = describe_beside(left, right).tables
    (fold,) = table.folds
    assert fold.summary == "30 tensors are the same on both sides"
    assert len(fold.names) == 30
    assert len(table.rows) == 5  # by module
    assert sorted(name for row in table.rows for name in row.names) == sorted(
        t.name for t in network(60)[30:]
    )
    assert {row.cells[0].mark for row in table.rows} == {DIFFERS}


def test_a_long_run_shows_its_last_steps():
    def run(last):
        return [step(tensor("a", ratio=0.1), index=i) for i in range(14)] + [
            step(tensor("a", last, 0.1), index=14)
        ]

    mark, left, right, why, *_ = rows(run(Reason.GRADIENT), run(Reason.MOMENTUM))["a"]
    assert (mark, why) == (DIFFERS, "step 14: ● gradient ≠ ▲ momentum")
    assert left == " ".join("●" * 12)
    assert right == " ".join("●" * 11 + "▲")
    early = [step(tensor("a", Reason.MOMENTUM, 0.1)), *run(Reason.GRADIENT)[1:]]
    assert rows(run(Reason.GRADIENT), early)["a"][0] == DIFFERS  # in a step that has no symbol
    hover = describe_beside(run(Reason.GRADIENT), early).tables[1].rows[0].cells[1].hover
    assert hover.startswith("step 3: moved by its gradient; step 4:")


def test_the_settings_are_the_caption_and_everything_is_escaped():
    hostile = "<img src=x onerror=alert(1)>\n\u202e"
    left, right = [step(tensor(hostile, ratio=0.1))], [step(tensor(hostile, Reason.LR_ZERO))]
    shown = Shown(describe_beside(left, right, ("a = <b>", "a = c")))
    html = shown._repr_html_()
    assert "<caption" in html
    assert "left: a = &lt;b&gt;; right: a = c" in html
    assert "<img" not in html
    assert "\u202e" not in html + repr(shown)
    assert re.search(r'<th scope="row"[^>]*>≠ <code>&lt;img', html)


def test_symbols_have_their_colours_each_and_stay_in_one_line():
    html = Shown(describe_beside(two_tasks(), held()))._repr_html_()
    assert re.search(r"<span [^>]*>●</span>&nbsp;<span [^>]*>▲</span></td>", html)


def test_amounts_that_differ_in_their_last_digits_are_not_shown_as_two_equal_numbers():
    left, right = [step(tensor("a", ratio=0.1))], [step(tensor("a", ratio=0.1 + 1e-9))]
    ((_, (mark, _, _, why, *_)),) = rows(left, right).items()
    assert (mark, why) == (RESIZED, "step 0: ‖Δ‖ 0.2, but for its last digits")
