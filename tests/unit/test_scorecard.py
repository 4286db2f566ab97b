"""The score of a lesson: first answers only, each prediction once."""

from html.parser import HTMLParser

import pytest
from branches import article_run

from layerlab.lessons_support.scorecard import Scorecard, scorecard
from layerlab.lessons_support.scoring import score

ASKED = ["left.weight", "right.weight", "norm.running_mean", "norm.running_var", "out.weight"]


@pytest.fixture(scope="module")
def step():
    return article_run()[0][1]  # all five moved


def test_only_the_first_score_of_a_prediction_counts(step):
    card = Scorecard()
    card.note("one", ASKED, score(ASKED[:3], step))
    card.note("one", ASKED, score(ASKED, step))
    card.note("one", ASKED[:2], score(ASKED[:2], step, names=ASKED[:2]))  # other names: another prediction
    card.note("two", ASKED, score([], step))
    assert [(e.question, e.right, e.total) for e in card.entries] == [
        ("one", 3, 5),
        ("one", 2, 2),
        ("two", 0, 5),
    ]
    assert (card.right, card.total) == (5, 12)
    assert card.line == "this lesson so far: 5 of 12 right in 3 predictions"


def test_it_starts_anew_when_told(step):
    card = Scorecard()
    assert card.line == "this lesson so far: no prediction locked in and scored yet"
    card.note("one", ASKED, score(ASKED, step))
    assert card.line == "this lesson so far: 5 of 5 right in 1 prediction"
    card.reset()
    assert card.line == "this lesson so far: no prediction locked in and scored yet"
    card.note("one", ASKED, score([], step))
    assert card.right == 0


def test_a_kernel_has_one():
    assert scorecard() is scorecard()


class Rows(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data):
        if self.rows:
            self.rows[-1] += data.strip("\n") + "|"


def test_it_is_shown_as_a_table_in_text_and_html(step):
    card = Scorecard()
    card.note("<script>alert(1)</script>\n", ASKED, score(ASKED[:2], step))
    card.note("which?", ASKED, score(ASKED, step))
    text, html = repr(card), card._repr_html_()
    assert [line.split() for line in text.splitlines()[2:4]] == [
        ["<script>alert(1)</script>\\n", *["2", "of", "5"]],
        ["which?", *["5", "of", "5"]],
    ]
    assert text.startswith("this lesson so far: 7 of 10 right in 2 predictions\n")
    rows = Rows()
    rows.feed(html)
    assert "script" not in rows.tags
    assert rows.rows[-1].startswith("which?|5 of 5|")
    assert "7 of 10 right in 2 predictions" in html
    assert "no prediction locked in and scored yet" in repr(Scorecard())
