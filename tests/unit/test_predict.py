"""The tick boxes, driven as the browser would; what they say where no browser draws them."""

from html.parser import HTMLParser

import ipywidgets
import pytest
import torch
from branches import Branches, article_run
from IPython.core.formatters import DisplayFormatter
from torch import nn

from layerlab.ledger import watch
from layerlab.widgets.base import Shows, shown_errors
from layerlab.widgets.predict import OUTDATED, Predict

ASKED = ("left.weight", "right.weight", "norm.running_mean", "norm.running_var", "out.weight")
HOSTILE = '<img src=x onerror="alert(1)">\n\u202e$x$'


@pytest.fixture(scope="module")
def ledger():
    return article_run()[0]


@pytest.fixture
def predict():
    predict = Predict(Branches())
    yield predict
    predict.close()


class Tags(HTMLParser):
    """Collects tags, and fails on one that is closed out of order."""

    def __init__(self):
        super().__init__()
        self.seen, self.open, self.words = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parse(html):
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags.seen, "".join(tags.words)


def verdict(predict):
    """The HTML that the learner sees below the boxes."""
    return predict.children[2].value


# -- ticking -------------------------------------------------------------------------------------------------


def test_a_model_s_tensors_are_asked_about_in_its_order(predict):
    assert predict.names == ASKED
    assert predict.ticked == ()
    assert [type(box) for box in predict.boxes.values()] == [ipywidgets.Checkbox] * len(ASKED)
    assert "<strong>Which tensors will move in this step?</strong>" in predict.children[0].value


def test_the_browser_and_the_code_tick_the_same_boxes(predict):
    predict.boxes["out.weight"].value = True
    predict.tick("right.weight", "left.weight")
    assert predict.ticked == ("left.weight", "right.weight", "out.weight")
    predict.untick("left.weight")
    assert [name for name, box in predict.boxes.items() if box.value] == ["right.weight", "out.weight"]


def test_the_browser_s_own_message_ticks(predict):
    predict.boxes["left.weight"].set_state({"value": True})
    assert predict.ticked == ("left.weight",)


def test_names_may_be_given_instead_of_a_model():
    predict = Predict(["b", "a"], question="Which?", ticked=["a"])
    assert predict.names == ("b", "a")
    assert predict.ticked == ("a",)
    predict.tick("b")
    assert predict.ticked == ("b", "a")


def test_an_unknown_name_changes_nothing(predict):
    with pytest.raises(ValueError, match=r"no tick box for 'rihgt.weight'; near names: right\.weight"):
        predict.tick("out.weight", "rihgt.weight")
    assert predict.ticked == ()
    with pytest.raises(ValueError, match=r"no tick box for 'zzz'; asked about: left\.weight, .* and 1 more"):
        predict.untick("zzz")
    with pytest.raises(ValueError, match=r"norm\.num_batches_tracked"):
        Predict(Branches(), ticked=["norm.num_batches_tracked"])


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        (TypeError, "out.weight", r"such as \['out.weight'\], not a str"),
        (ValueError, [], "no tensor to ask about"),
        (ValueError, nn.ReLU(), "no tensor to ask about"),
        (ValueError, ["a", "b", "a"], "'a' is asked about twice"),
    ],
)
def test_what_cannot_be_asked_is_refused(kind, asked, message):
    with pytest.raises(kind, match=message):
        Predict(asked)


def test_a_tied_tensor_has_one_box_that_any_of_its_names_ticks():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    predict = Predict(net)
    predict.tick("1.weight")
    assert predict.names == predict.ticked == ("0.weight",)
    assert "(tied: 1.weight)" in parse(predict._repr_html_())[1]


# -- checking ------------------------------------------------------------------------------------------------


def test_checking_scores_and_shows_the_verdict(predict, ledger):
    assert verdict(predict) == ""
    assert predict.score is None
    predict.tick("right.weight", "out.weight", "norm.running_mean", "norm.running_var")
    score = predict.check(ledger[1])
    assert predict.score is score
    assert (score.right, score.total) == (4, 5)
    assert "4 of 5 right" in verdict(predict)
    assert score._repr_html_() in predict._repr_html_()
    assert not predict.outdated


def test_checking_marks_every_box(predict, ledger):
    predict.tick("right.weight", "out.weight", "norm.running_mean")
    plain = {name: box.description for name, box in predict.boxes.items()}
    predict.check(ledger[1])
    marks = {name: box.description.removeprefix(plain[name]) for name, box in predict.boxes.items()}
    assert marks == {
        "left.weight": " ✗ it moved",
        "right.weight": " ✓",
        "norm.running_mean": " ✓",
        "norm.running_var": " ✗ it moved",
        "out.weight": " ✓",
    }
    predict.tick("left.weight")  # the marks were about other ticks
    assert {name: box.description for name, box in predict.boxes.items()} == plain


def test_ticking_after_a_check_outdates_the_verdict_until_the_next(predict, ledger):
    predict.tick(*ASKED)
    first = predict.check(ledger[1])
    assert (first.right, OUTDATED in verdict(predict)) == (5, False)
    predict.boxes["left.weight"].value = False
    assert predict.outdated
    assert OUTDATED in verdict(predict)
    assert OUTDATED in repr(predict)
    assert OUTDATED in predict._repr_html_()
    assert predict.score is first
    predict.boxes["left.weight"].value = True  # as it was when checked
    assert OUTDATED not in verdict(predict) + repr(predict)
    predict.untick("left.weight")
    assert predict.check(ledger[1]).right == 4
    assert OUTDATED not in verdict(predict) + repr(predict)


def test_only_what_was_asked_is_scored(ledger):
    predict = Predict(["out.weight", "left.weight"], ticked=["out.weight"])
    assert (predict.check(ledger[0]).right, predict.score.total) == (1, 2)


def test_a_step_that_cannot_be_scored_is_refused_and_said(predict, ledger):
    predict.tick(*ASKED)
    good = predict.check(ledger[1])
    for wrong, kind, message in [
        (ledger, ValueError, "this ledger has 2 steps"),
        (None, TypeError, "not NoneType"),
    ]:
        with pytest.raises(kind, match=message):
            predict.check(wrong)
        assert message in predict.children[-1].value
        assert 'role="alert"' in predict.children[-1].value
        assert predict.children[-1].layout.display is None
        assert predict.score is good
    predict.check(ledger[1])
    assert predict.children[-1].value == ""
    assert predict.children[-1].layout.display == "none"
    stranger = Predict(["fc.weight"])
    with pytest.raises(KeyError, match=r"no tensor named 'fc\.weight' in step 1"):
        stranger.check(ledger[1])
    assert "KeyError: no tensor named" in stranger.children[-1].value  # without Python's quotes around it


# -- how it looks --------------------------------------------------------------------------------------------


def test_the_text_is_whole_and_the_same_every_time():
    names = [f"features.{i}.conv.weight" for i in range(20)]
    one, other = (Predict(names, ticked=names[1:]) for _ in range(2))
    said = f"Predict: 19 of 20 ticked: {', '.join(names[1:])}"
    assert repr(one) == repr(other) == said
    assert one._repr_mimebundle_()["text/plain"] == said  # ipywidgets alone cuts it after 110 characters
    assert repr(Predict(["a"])) == "Predict: 0 of 1 ticked"


def test_the_bundle_has_the_live_widget_and_what_stands_in_for_it(predict, ledger):
    predict.tick("out.weight", "left.weight")
    predict.check(ledger[0])
    bundle = predict._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == predict.model_id
    assert bundle["text/plain"] == repr(predict)
    assert repr(predict).startswith("Predict: 2 of 5 ticked: left.weight, out.weight\n3 of 5 right")
    tags, words = parse(bundle["text/html"])
    assert {"ul", "li", "table"} <= tags
    assert {"script", "style", "input"}.isdisjoint(tags)
    assert words.count("☑") == 2
    assert words.count("☐") == 3
    assert "☑ out.weight" in words
    assert "☐ right.weight" in words
    assert "3 of 5 right" in words


def test_hostile_names_and_questions_are_escaped():
    predict = Predict([HOSTILE, "x" * 300], question="<script>alert(1)</script>", ticked=[HOSTILE])
    (label, long) = (box.description for box in predict.boxes.values())
    tags, words = parse(label)
    assert tags == {"code"}
    assert words == '<img src=x onerror="alert(1)">\\n\\u202e$x$'
    assert "x" * 300 in long
    for html in (predict._repr_html_(), predict.children[0].value, label):
        assert parse(html)[0] <= {"div", "p", "strong", "ul", "li", "code"}
    assert "\u202e" not in repr(predict) + predict._repr_html_()
    assert len(repr(predict).splitlines()) == 1


def test_a_hostile_name_is_scored_under_its_own_name():
    net = nn.Module()
    net.register_parameter(HOSTILE, nn.Parameter(torch.ones(2)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        net._parameters[HOSTILE].sum().backward()
        optimizer.step()
    predict = Predict(net, ticked=[HOSTILE])
    assert predict.check(ledger).right == 1
    assert "img" not in parse(verdict(predict))[0]


# -- the base of all widgets ---------------------------------------------------------------------------------


class Fragile(Shows):
    def __init__(self):
        super().__init__()
        self.slider = ipywidgets.IntSlider(max=5)
        self.button = ipywidgets.Button()
        self.calls = []
        self._fill(ipywidgets.HBox([self.slider, self.button]))
        self._listen(self.slider, self._react)
        self._listen(self.button, self.calls.append)

    def _react(self, change):
        self.calls.append(change.new)
        if change.new == 3:
            raise ValueError("three <b>will not do</b>")

    def _as_text(self):
        return f"Fragile: {self.slider.value}"

    def _as_html(self):
        return "<p>fragile</p>"


def test_an_error_in_an_observer_is_shown_and_raised():
    box = Fragile()
    with pytest.raises(ValueError, match="three"):
        box.slider.value = 3
    alert = box.children[-1]
    assert "ValueError: three &lt;b&gt;will not do&lt;/b&gt;" in alert.value
    box.slider.value = 4
    assert alert.value == ""


def test_shown_errors_clears_the_last_error_only_when_the_block_ends_well():
    box = Fragile()
    for _ in range(2):
        with pytest.raises(RuntimeError), shown_errors(box):
            raise RuntimeError("no")
        assert "RuntimeError: no" in box.children[-1].value
    with shown_errors(box):
        pass
    assert box.children[-1].value == ""


def test_close_stops_listening_and_closes_everything_inside():
    box = Fragile()
    box.button.click()
    box.slider.value = 1
    assert box.calls == [box.button, 1]
    box.close()
    box.slider.value = 3  # would raise
    box.button.click()
    assert box.calls == [box.button, 1]
    assert box.comm is box.slider.comm is box.button.comm is box.children[-1].comm is None
    box.close()


def test_a_closed_prediction_says_what_it_said(predict, ledger):
    predict.tick("out.weight")
    predict.check(ledger[0])
    text, html = repr(predict), predict._repr_html_()
    before = verdict(predict)
    predict.close()
    bundle, _ = DisplayFormatter().format(predict)
    assert bundle == {"text/plain": text, "text/html": html}
    predict.boxes["out.weight"].value = False
    assert verdict(predict) == before
    assert all(box.comm is None for box in predict.boxes.values())


def test_a_widget_that_does_not_say_what_it_shows_is_told_so():
    with pytest.raises(NotImplementedError, match="Shows does not define _as_text"):
        repr(Shows())
