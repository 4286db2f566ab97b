"""`Compare`: two sides, one table; a state that sets all controls at once; errors with their side's name."""

from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import layerlab as ll
from layerlab.experiments.freeze_trial import FREEZING, OPTIMIZERS, ZERO_GRAD, freeze_trial
from layerlab.show import Shown
from layerlab.show.beside import describe_beside
from layerlab.widgets.compare import Compare
from layerlab.widgets.settings import INTERRUPTED, RUNNING

H1 = "hidden_task1.weight"


class Words(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.said = set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.said += data


def sgd(lr, momentum=0.0):
    """A learner's own function."""
    weight = nn.Parameter(torch.ones(2))
    net = nn.ParameterDict({"weight": weight})
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    with ll.watch(net, optimizer) as ledger:
        weight.sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()
    return ledger


@pytest.fixture
def own():
    calls = []

    def run(lr, momentum):
        calls.append((lr, momentum))
        return sgd(lr, momentum)

    compare = Compare(run, lr=[0.1, 0.2], momentum={"none": 0.0, "0.9": 0.9})
    yield compare, calls
    compare.close()


@pytest.fixture(scope="module")
def article():
    """The default comparison; what a test sets, it sets back."""
    compare = Compare()
    yield compare
    compare.close()


@pytest.fixture
def default(article):
    yield article
    article.state = "optimizer=AdamW;zero_grad=zeros/None;freezing=requires_grad;momentum=0;weight_decay=0"


def test_by_default_it_starts_where_zeros_and_none_part(default):
    assert default.state == (
        "optimizer=AdamW;zero_grad=zeros/None;freezing=requires_grad;momentum=0;weight_decay=0"
    )
    assert [default.results[side][2][H1].moved for side in ("left", "right")] == [True, False]
    said = "hidden_task1.weight moves by momentum on the left and stays (no gradient) on the right"
    assert said in Words(default._view.value).said
    assert said in " ".join(repr(default).split())


def test_its_controls_are_the_trial_s_settings(default):
    labels = {name: [label for label, _ in control.options] for name, control in default.left.items()}
    assert labels == {
        "optimizer": list(OPTIMIZERS),
        "zero_grad": list(ZERO_GRAD),
        "freezing": list(FREEZING),
        "momentum": ["0", "0.9"],
        "weight_decay": ["0", "0.01"],
    }
    assert {c.description for c in default.right.values()} == {f"{name}, right" for name in labels}


def test_each_side_runs_with_its_own_settings(own):
    compare, calls = own
    assert calls == [(0.1, 0.0), (0.2, 0.0)]  # the first setting differs: like with like says nothing
    compare.left["momentum"].value = 0.9
    assert calls[2:] == [(0.1, 0.9), (0.2, 0.0)]
    assert compare.results["left"].rows() == sgd(0.1, 0.9).rows()
    assert compare.results["right"].rows() == sgd(0.2).rows()
    expected = describe_beside(
        sgd(0.1, 0.9), sgd(0.2), ("lr = 0.1, momentum = 0.9", "lr = 0.2, momentum = none")
    )
    assert compare._view.value == Shown(expected)._repr_html_()


def test_what_differs_is_marked(own):
    compare, _ = own
    assert [("≠" in compare._marks[name].value) for name in ("lr", "momentum")] == [True, False]
    compare.state = "lr=0.2;momentum=0.9/none"
    assert [("≠" in compare._marks[name].value) for name in ("lr", "momentum")] == [False, True]
    lines = repr(compare).splitlines()
    assert lines[0] == "Compare: lr=0.2;momentum=0.9/none"
    assert [line.split() for line in lines[2:4]] == [["lr", "0.2", "0.2"], ["≠", "momentum", "0.9", "none"]]


def test_a_setting_that_does_not_apply_is_said_to(default):
    assert "not used by AdamW" in default._remarks["momentum"].value
    assert default._remarks["weight_decay"].value == "<small></small>"
    default.state = "optimizer=Adam/SGD;momentum=0.9/0"
    assert default._remarks["momentum"].value == "<small>left: not used by Adam</small>"
    assert "momentum = 0.9 (not used by Adam)" in default._view.value
    assert "left: not used by Adam" in repr(default)
    assert "left: not used by Adam" in default._repr_html_()
    default.state = "optimizer=SGD"
    assert "not used" not in default._repr_html_() + default._remarks["momentum"].value


def test_a_state_sets_all_controls_with_one_run(own):
    compare, calls = own
    before = len(calls)
    compare.state = "lr=0.2/0.1;momentum=0.9"
    assert calls[before:] == [(0.2, 0.9), (0.1, 0.9)]
    assert compare.state == compare._copy.text == "lr=0.2/0.1;momentum=0.9"
    compare.state = "momentum=none"  # what it does not name stays
    assert compare.state == "lr=0.2/0.1;momentum=none"
    other = Compare(sgd, start=compare.state, lr=[0.1, 0.2], momentum={"none": 0.0, "0.9": 0.9})
    assert other._view.value == compare._view.value
    assert repr(other) == repr(compare)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("lr=0.2;momentum=0.8", r"momentum='0\.8': there is no such value; near it: '0\.9'"),
        ("lr=0.2;mometum=0.9", "no setting 'mometum'; near it: 'momentum'"),
        ("lr=0.2/0.1/0.2", "takes one value, or 2 with / between them"),
    ],
)
def test_a_state_that_is_wrong_changes_nothing(own, state, message):
    compare, calls = own
    before = (compare.state, compare._view.value, len(calls))
    with pytest.raises(ValueError, match=message):
        compare.state = state
    assert (compare.state, compare._view.value, len(calls)) == before
    with pytest.raises(ValueError, match=message):
        compare._paste.value = state  # what the page does
    assert "ValueError: " in compare._alert.value
    assert (compare.state, compare._view.value, len(calls)) == before
    assert compare._paste.value == state  # to be corrected
    compare._paste.value = " lr=0.2 ; momentum=0.9\n"
    assert (compare._alert.value, compare._paste.value) == ("", "")
    assert compare.state == "lr=0.2;momentum=0.9"


def test_while_it_runs_no_old_result_is_shown():
    made, seen = [], []

    def run(lr):
        seen.extend(compare._view.value for compare in made)
        return sgd(lr)

    made.append(Compare(run, lr=[0.1, 0.2]))
    made[0].right["lr"].value = 0.1
    assert seen == [RUNNING, RUNNING]
    assert RUNNING not in made[0]._view.value


def test_an_error_of_one_side_is_named_and_the_other_shows():
    def run(lr):
        if lr < 0:
            raise ArithmeticError("<b>below</b> zero")
        return sgd(lr)

    compare = Compare(run, lr=[0.1, 0.2, -1.0])
    with pytest.raises(ArithmeticError):
        compare.right["lr"].value = -1.0
    assert list(compare.results) == ["left"]
    assert list(compare.errors) == ["right"]
    for html in (compare._view.value, compare._repr_html_()):
        words = Words(html)
        assert "⚠ right: ArithmeticError: <b>below</b> zero" in words.said
        assert "left:" in words.said
        assert sgd(0.1)._repr_html_() in html
        assert {"b", "script"}.isdisjoint(words.tags)
    assert "⚠ right: ArithmeticError" in repr(compare)
    assert compare._alert.value == ""  # it stands in the run's place already
    with pytest.raises(ArithmeticError):
        compare.left["lr"].value = -1.0
    assert compare.results == {}
    assert Words(compare._view.value).said.count("below</b> zero") == 2
    compare.state = "lr=0.1/0.2"
    assert compare.errors == {}
    assert "below" not in compare._view.value + repr(compare)


def test_a_run_may_return_a_step_and_must_return_one_or_a_ledger():
    compare = Compare(lambda lr: sgd(lr)[0], lr=[0.1, 0.2])
    assert "1 of 1 by other amounts" in compare._view.value

    def forgetful(lr):
        sgd(lr)

    with pytest.raises(
        TypeError,
        match="forgetful must return a ledger, or a step of one, not NoneType",
    ):
        Compare(forgetful, lr=[0.1, 0.2])


def test_a_model_of_one_s_own():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x, y = torch.randn(8, 3), torch.randint(0, 2, (8,))
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def loss(net):
        return nn.functional.cross_entropy(net(x), y)

    compare = Compare.of(
        net, loss, frozen=["0", "1"], start="optimizer=SGD;momentum=0.9;freezing=requires_grad/lr_zero"
    )
    ledger = freeze_trial(net, loss, frozen=["0", "1"], optimizer="SGD", momentum=0.9, freezing="lr_zero")
    assert compare.results["right"].rows() == ledger.rows()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(ValueError, match="matches nothing"):
        Compare.of(net, loss, frozen="nowhere")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give the settings to choose from"),
        ({"lr": [0.1]}, "two values or more"),
        ({"lr": [1, "1"]}, "two values are called '1'"),
        ({"lr": [0.1, 0.2], "start": "lr=3"}, "there is no such value"),
    ],
)
def test_settings_that_cannot_be_chosen_from_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Compare(sgd, **settings)


def test_settings_need_a_run():
    with pytest.raises(ValueError, match=r"Compare\(run, lr=…\)"):
        Compare(lr=[0.1, 0.2])


def test_closing_stops_listening(own):
    compare, calls = own
    compare.close()
    before = len(calls)
    compare.left["momentum"].value = 0.9
    assert len(calls) == before
    assert compare._copy.comm is compare.left["lr"].comm is None


def test_hostile_labels_are_escaped_and_shared():
    labels = ["<img src=x>;", "a/b=%"]
    compare = Compare(lambda **settings: sgd(0.1), **{"<script>": labels, "lr": [1, 2]})
    assert {"img", "script"}.isdisjoint(Words(compare._repr_html_()).tags)
    assert compare.state == "<script>=<img src%3Dx>%3B/a%2Fb%3D%25;lr=1"
    compare.state = "<script>=a%2Fb%3D%25"
    assert compare.left["<script>"].label == "a/b=%"


def test_an_interrupted_run_is_said_and_the_next_change_runs_again():
    stopped = []

    def run(lr):
        if lr == 0.2 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return sgd(lr, 0.0)

    compare = Compare(run, start="lr=0.1", lr=[0.1, 0.2, 0.3])
    with pytest.raises(KeyboardInterrupt):
        compare.left["lr"].value = 0.2
    assert compare._view.value == INTERRUPTED
    compare.left["lr"].value = 0.3
    assert "<table" in compare._view.value

    def interrupt(change):
        compare._marks["lr"].unobserve(interrupt, "value")
        raise KeyboardInterrupt

    compare._marks["lr"].observe(interrupt, "value")  # it comes before the first run
    with pytest.raises(KeyboardInterrupt):
        compare.left["lr"].value = 0.1
    assert compare._view.value == INTERRUPTED
    compare.close()
