"""The tick boxes, driven as the browser would; what they say where no browser draws them."""

from collections import OrderedDict
from html.parser import HTMLParser

import ipywidgets
import pytest
import torch
from branches import Branches, article_run
from IPython.core.formatters import DisplayFormatter
from torch import nn

from layerlab.ledger import watch
from layerlab.lessons_support.scorecard import scorecard
from layerlab.widgets.base import Shows, shown_errors
from layerlab.widgets.predict import OUTDATED, Predict

ASKED = ("left.weight", "right.weight", "norm.running_mean", "norm.running_var", "out.weight")
HOSTILE = '<img src=x onerror="alert(1)">\n\u202e$x$'


@pytest.fixture(scope="module")
def ledger():
    return article_run()[0]


@pytest.fixture(autouse=True)
def _new_lesson():
    scorecard().reset()


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


def shown_marks(predict):
    """What the learner sees beside each box."""
    marks = predict.verdict.get("marks", [])
    return {
        name: "✓" if mark["right"] else f"✗ {mark['symbol']} {mark['why']}"
        for name, mark in zip(predict.names, marks, strict=bool(marks))
    }


def from_page(predict, **message):
    """What the widget's script sends."""
    predict._receive(predict, message, [])


# -- ticking -------------------------------------------------------------------------------------------------


def test_a_model_s_tensors_are_asked_about_in_its_order(predict):
    assert predict.names == ASKED
    assert predict.ticked == ()
    assert [item["name"] for group in predict.asked["groups"] for item in group["items"]] == list(ASKED)
    assert predict.asked["question"] == "Which tensors will move in this step?"


def test_the_browser_and_the_code_tick_the_same_boxes(predict):
    from_page(predict, do="tick", at=[0, 4], on=True)
    from_page(predict, do="tick", at=[0], on=False)
    predict.tick("right.weight", "left.weight")
    assert predict.ticked == ("left.weight", "right.weight", "out.weight")
    predict.untick("left.weight")
    assert predict.ticks == [1, 4]


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


def tied_net():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    return net


def test_a_tied_tensor_has_one_box_that_any_of_its_names_ticks():
    predict = Predict(tied_net())
    predict.tick("1.weight")
    assert predict.names == predict.ticked == ("0.weight",)
    assert "(tied: 1.weight)" in parse(predict._repr_html_())[1]


def test_a_tied_tensor_may_be_asked_about_by_a_later_name():
    net = tied_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    predict = Predict(["1.weight"])
    assert predict.check(ledger).right == 0
    assert shown_marks(predict) == {"1.weight": "✗ ● it moved by its gradient"}


def resnet_like():
    stages = {f"layer{i}": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for i in range(4)}
    return nn.Sequential(OrderedDict(conv1=nn.Linear(2, 2, bias=False), **stages, fc=nn.Linear(2, 2)))


def test_many_tensors_are_grouped_by_module():
    predict = Predict(resnet_like())  # 1 + 4 × 6 + 2 tensors
    groups = {
        group["name"]: [predict.names[item["at"]] for item in group["items"]]
        for group in predict.asked["groups"]
    }
    assert list(groups) == ["conv1", "layer0", "layer1", "layer2", "layer3", "fc"]
    assert groups["layer2"] == [
        *("layer2.0.weight", "layer2.0.bias", "layer2.1.weight", "layer2.1.bias"),
        *("layer2.1.running_mean", "layer2.1.running_var"),
    ]
    assert sorted(name for group in groups.values() for name in group) == sorted(predict.names)
    predict.tick("layer1.0.bias", "layer1.1.running_var")
    tags, words = parse(predict._repr_html_())
    assert "details" in tags
    assert "layer1: 2 of 6 ticked" in words
    assert all(name in words for name in predict.names)
    assert len(Predict(Branches()).asked["groups"]) == 1


# -- locking in ----------------------------------------------------------------------------------------------


def test_a_locked_answer_stands_until_it_is_taken_back(predict, ledger):
    predict.tick("left.weight", "out.weight")
    from_page(predict, do="lock")
    assert (predict.stage, predict.ticked) == ("locked", ("left.weight", "out.weight"))
    for change in (predict.tick, predict.untick):
        with pytest.raises(RuntimeError, match=r"locked in: call unlock\(\) first"):
            change("left.weight")
    from_page(predict, do="lock")  # a second click
    from_page(predict, do="tick", at=[1], on=True)  # was on its way
    assert predict.ticked == ("left.weight", "out.weight")
    from_page(predict, do="unlock")
    predict.untick("left.weight")
    predict.lock_in()
    assert (predict.stage, predict.ticked) == ("locked", ("out.weight",))
    assert repr(predict) == "Predict: 1 of 5 ticked: out.weight (locked in)"
    assert predict.check(ledger[1]).right == 1  # all five moved
    assert predict.stage == "scored"


def test_checking_locks_in_and_only_trying_again_unlocks(predict, ledger):
    predict.check(ledger[1])
    assert predict.stage == "scored"
    with pytest.raises(RuntimeError, match=r"try_again\(\) clears the verdict"):
        from_page(predict, do="unlock")
    assert "try_again" in predict.error
    from_page(predict, do="again")
    assert (predict.stage, predict.score, predict.verdict, predict.error) == ("open", None, {}, "")
    predict.tick(*ASKED)
    assert predict.check(ledger[1]).right == 5


def test_the_button_runs_and_scores(ledger):
    stages = []

    def run():
        stages.append(predict.stage)
        return ledger[1]

    predict = Predict(Branches(), ticked=["left.weight"], run=run)
    assert predict.asked["runs"] is True
    from_page(predict, do="lock")
    assert stages == ["running"]
    assert (predict.stage, predict.score.right) == ("scored", 1)
    from_page(predict, do="lock")  # an impatient second click while it ran
    assert stages == ["running"]


def test_a_run_that_fails_is_shown_and_raised_and_unlocks(ledger):
    answers = iter([ZeroDivisionError("by <nought>"), ledger, None, ledger[0]])

    def run():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    predict = Predict(Branches(), ticked=["left.weight"], run=run)
    for kind, message in [
        (ZeroDivisionError, "ZeroDivisionError: by <nought>"),
        (ValueError, "this ledger has 2 steps"),
        (TypeError, "not NoneType"),
    ]:
        with pytest.raises(kind):
            from_page(predict, do="lock")
        assert message in predict.error
        assert (predict.stage, predict.score, predict.ticked) == ("open", None, ("left.weight",))
    predict.lock_in()
    assert (predict.stage, predict.error, predict.score.total) == ("scored", "", 5)
    with pytest.raises(TypeError, match="run must be a function without arguments, not Ledger"):
        Predict(Branches(), run=ledger)


def test_a_message_that_is_not_known_is_an_error(predict):
    with pytest.raises(ValueError, match="Predict knows tick, lock, unlock and again"):
        from_page(predict, do="dance")


# -- checking ------------------------------------------------------------------------------------------------


def test_checking_scores_and_shows_the_verdict(predict, ledger):
    assert predict.verdict == {}
    assert predict.score is None
    predict.tick("right.weight", "out.weight", "norm.running_mean", "norm.running_var")
    predict.lock_in()
    score = predict.check(ledger[1])
    assert predict.score is score
    assert (score.right, score.total) == (4, 5)
    assert predict.verdict["said"] == "4 of 5 right"
    assert score._repr_html_() in predict._repr_html_()
    assert not predict.outdated


def test_every_box_has_its_mark_and_a_wrong_one_its_reason(predict, ledger):
    predict.tick("right.weight", "out.weight", "norm.running_mean")
    predict.check(ledger[1])
    marks = {
        "left.weight": "✗ ▲ it moved by momentum: its gradient was a tensor of zeros, not None",
        "right.weight": "✓",
        "norm.running_mean": "✓",
        "norm.running_var": "✗ ■ it moved by its module's forward pass, not by the optimizer",
        "out.weight": "✓",
    }
    assert shown_marks(predict) == marks
    predict.tick("left.weight")  # the marks were about other ticks
    assert shown_marks(predict) == {}
    predict.untick("left.weight")
    assert shown_marks(predict) == marks


def test_a_tensor_that_stayed_has_its_reason_too(predict, ledger):
    predict.tick("right.weight")
    predict.check(ledger[0])  # in the first step the right branch has no gradient yet
    assert shown_marks(predict)["right.weight"] == "✗ ○ it stayed: its grad was None, so step() skipped it"


def test_ticking_after_a_check_outdates_the_verdict_until_the_next(predict, ledger):
    predict.tick(*ASKED)
    predict.lock_in()
    first = predict.check(ledger[1])
    assert (first.right, predict.verdict["said"]) == (5, "5 of 5 right")
    predict.untick("left.weight")
    assert predict.outdated
    assert predict.verdict["said"] == OUTDATED
    assert OUTDATED in repr(predict)
    assert OUTDATED in predict._repr_html_()
    assert predict.score is first
    predict.tick("left.weight")  # as it was when checked
    assert OUTDATED not in predict.verdict["said"] + repr(predict)
    predict.untick("left.weight")
    assert predict.check(ledger[1]).right == 4
    assert OUTDATED not in predict.verdict["said"] + repr(predict)


def test_a_module_s_name_ticks_all_that_is_asked_about_of_it(predict):
    predict.tick("norm", "out")
    assert predict.ticked == ("norm.running_mean", "norm.running_var", "out.weight")
    predict.untick("norm")
    assert predict.ticked == ("out.weight",)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="a list of names, not NoneType"):
        Predict(None)


def test_only_what_was_asked_is_scored(ledger):
    predict = Predict(["out.weight", "left.weight"], ticked=["out.weight"])
    assert (predict.check(ledger[0]).right, predict.score.total) == (1, 2)
    assert shown_marks(predict) == {"out.weight": "✓", "left.weight": "✗ ● it moved by its gradient"}


def test_a_step_that_cannot_be_scored_is_refused_and_said(predict, ledger):
    with pytest.raises(TypeError, match="not NoneType"):
        predict.check(None)
    assert predict.stage == "open"
    predict.tick(*ASKED)
    good = predict.check(ledger[1])
    with pytest.raises(ValueError, match="this ledger has 2 steps"):
        predict.check(ledger)
    assert "this ledger has 2 steps" in predict.error
    assert predict.score is good
    predict.check(ledger[1])
    assert predict.error == ""
    stranger = Predict(["fc.weight"])
    with pytest.raises(KeyError, match=r"no tensor named 'fc\.weight' in step 1"):
        stranger.check(ledger[1])
    assert stranger.error.startswith("KeyError: no tensor named")  # without Python's quotes around it
    assert (stranger.stage, stranger.score) == ("open", None)


# -- the score of the lesson ---------------------------------------------------------------------------------


def test_the_first_score_of_each_prediction_counts_for_the_lesson(ledger):
    first = Predict(Branches(), "first", ticked=ASKED)
    first.lock_in()
    first.check(ledger[1])
    assert first.verdict["lesson"] == "this lesson so far: 5 of 5 right in 1 prediction"
    second = Predict(Branches(), "second")
    second.lock_in()
    second.check(ledger[1])
    second.try_again()
    second.tick(*ASKED)
    second.lock_in()
    assert second.check(ledger[1]).right == 5
    assert second.verdict["said"] == "5 of 5 right; at the first try 0, which counts"
    assert second.verdict["lesson"] == "this lesson so far: 5 of 10 right in 2 predictions"
    again = Predict(Branches(), "second", ticked=ASKED)  # its cell was run again
    again.lock_in()
    again.check(ledger[1])
    assert (scorecard().right, scorecard().total) == (5, 10)


def test_what_nobody_locked_in_is_compared_and_does_not_count(ledger):
    predict = Predict(Branches(), "nobody", ticked=ASKED)
    assert predict.check(ledger[1]).right == 5
    assert predict.verdict["said"] == "5 of 5 right; not locked in, so it does not count"
    assert (predict.verdict["lesson"], scorecard().entries) == ("", ())
    predict.try_again()
    predict.lock_in()
    predict.check(ledger[1])
    assert predict.check(ledger[1]).right == 5  # the same cell, run again
    assert (predict.verdict["said"], scorecard().total) == ("5 of 5 right", 5)


def test_the_lesson_s_score_is_in_no_stored_output(predict, ledger):
    predict.check(ledger[1])
    assert "this lesson" not in repr(predict) + predict._repr_html_() + repr(predict.score)


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
    many = [f"{HOSTILE}.{i % 3}.{i}" for i in range(30)]  # enough to be folded
    for names in ([HOSTILE, "x" * 300], many):
        predict = Predict(names, question="<script>alert(1)</script>", ticked=names[:1])
        html = predict._repr_html_()
        tags, words = parse(html)
        assert tags <= {"div", "p", "strong", "ul", "li", "code", "details", "summary"}
        assert '<img src=x onerror="alert(1)">\\n\\u202e$x$' in words
        assert "\u202e" not in repr(predict) + html + str(predict.asked)
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
    predict.close()
    bundle, _ = DisplayFormatter().format(predict)
    assert bundle == {"text/plain": text, "text/html": html}
    assert predict.comm is None


def test_a_widget_that_does_not_say_what_it_shows_is_told_so():
    with pytest.raises(NotImplementedError, match="Shows does not define _as_text"):
        repr(Shows())
