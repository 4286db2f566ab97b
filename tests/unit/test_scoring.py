"""A prediction is compared with what really moved, and every mistake is told with its reason."""

import itertools

import pytest
import torch
from branches import Branches, adamw, article_run, backward
from torch import nn

from layerlab.ledger import watch
from layerlab.lessons_support.scoring import score, what_happened

ASKED = ["left.weight", "right.weight", "norm.running_mean", "norm.running_var", "out.weight"]


@pytest.fixture(scope="module")
def run():
    return article_run()


def one_step(net, optimizer, loss):
    """The only step of a run."""
    with watch(net, optimizer) as ledger:
        loss().backward()
        optimizer.step()
    return ledger[0]


def test_every_possible_prediction_is_scored_as_the_clones_say(run):
    ledger, truth = run
    for step, moved in zip(ledger, truth, strict=True):
        for count in range(len(ASKED) + 1):
            for ticked in itertools.combinations(ASKED, count):
                result = score(ticked, step)
                wrong = [name for name in ASKED if (name in ticked) != (name in moved)]
                assert result.total == len(ASKED)
                assert result.right == len(ASKED) - len(wrong)
                assert [line.partition(":")[0] for line in result.mistakes] == wrong
                assert f"{result.right} of {result.total} right" in repr(result)


def test_a_mistake_is_told_with_what_happened_and_why(run):
    ledger, _ = run
    assert score(ASKED[1:], ledger[1]).mistakes == [
        "left.weight: you said it stays; "
        "it moved by momentum: its gradient was a tensor of zeros, not None"
    ]  # fmt: skip
    # In the first step the right branch has no gradient yet.
    assert score(ASKED, ledger[0]).mistakes == [
        "right.weight: you said it moves; it stayed: its grad was None, so step() skipped it"
    ]


def test_the_cure_turns_the_answer_around():
    ledger, truth = article_run(set_to_none=True)
    assert "left.weight" not in truth[1]
    assert score(ASKED[1:], ledger[1]).mistakes == []


def test_counters_are_asked_about_only_when_somebody_ticks_them(run):
    step = run[0][0]
    assert [a.fact.name for a in score((), step).answers] == ASKED
    asked = [a.fact.name for a in score(["norm.num_batches_tracked"], step).answers]
    assert sorted(asked) == sorted([*ASKED, "norm.num_batches_tracked"])
    assert asked == [name for name in step if name in asked]


def test_only_some_names_are_asked_about(run):
    result = score({"out.weight"}, run[0][1], names=["out.weight", "left.weight"])
    assert (result.right, result.total) == (1, 2)
    assert [a.fact.name for a in result.answers] == ["left.weight", "out.weight"]
    with pytest.raises(ValueError, match=r"'right\.weight' was ticked but not asked about"):
        score({"right.weight"}, run[0][1], names=["out.weight"])


def test_a_tied_tensor_counts_once_under_any_of_its_names():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = one_step(net, optimizer, lambda: net(torch.ones(1, 2)).sum())
    for ticked in (["0.weight"], ["1.weight"], ["0.weight", "1.weight"]):
        result = score(ticked, step, names=["1.weight", "0.weight"])
        assert (result.right, result.total) == (1, 1)
    assert "0.weight (tied: 1.weight)" in repr(result)


@pytest.mark.parametrize(
    ("kind", "ticked", "names", "message"),
    [
        (KeyError, ["out.wieght"], None, "near names: out.weight"),
        (KeyError, [], ["lfet.weight"], "near names: left.weight"),
        (TypeError, "out.weight", None, r"such as \{'out.weight'\}, not a str"),
        (TypeError, [], "out.weight", "names is a collection"),
        (ValueError, [], [], "the list of names is empty"),
    ],
)
def test_what_cannot_be_scored_is_refused(run, kind, ticked, names, message):
    with pytest.raises(kind, match=message):
        score(ticked, run[0][0], names=names)


def test_a_ledger_is_scored_only_if_it_has_exactly_one_step(run):
    with pytest.raises(ValueError, match=r"this ledger has 2 steps: say which one, such as ledger\[-1\]"):
        score([], run[0])
    net = Branches()
    with watch(net, adamw(net)) as empty:
        pass
    with pytest.raises(ValueError, match="no step recorded yet"):
        score([], empty)
    with pytest.raises(TypeError, match="not int"):
        score([], 1)
    assert repr(score([], run[0][:1])) == repr(score([], run[0][0]))


def test_a_gradient_that_should_not_be_there_is_named():
    net = Branches()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watch(net, optimizer) as ledger:
        backward(net)
        net.left.weight.requires_grad_(False)  # too late
        optimizer.step()
        backward(net, "right")  # no zero_grad
        optimizer.step()
    assert what_happened(ledger[0]["left.weight"]).endswith(
        "its gradient, which was there before requires_grad became False"
    )
    assert "an earlier step had already used" in what_happened(ledger[1]["left.weight"])
    assert what_happened(ledger[1]["right.weight"]) == "moved by its gradient"


def test_a_gradient_too_small_to_matter_is_not_called_zeros():
    weight = nn.Parameter(torch.ones(2))
    net = nn.ParameterDict({"weight": weight})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with watch(net, optimizer) as ledger:
        for size in (1.0, 1e-30):
            weight.grad = torch.full((2,), size)
            optimizer.step()
    assert what_happened(ledger[1]["weight"]) == (
        "moved by stored momentum: its gradient was zero or made no difference"
    )


def test_an_unknown_reason_is_said_to_be_unknown():
    net = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = net(torch.ones(1, 2)).square().sum()
        loss.backward()
        return loss

    with watch(net, optimizer) as ledger:
        optimizer.step(closure)
    assert score([], ledger).mistakes[0] == (
        "weight: you said it stays; it moved: no replay of the step shows its cause"
    )


def test_a_large_network_fits_on_a_screen_and_loses_no_name():
    net = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(12)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = one_step(net, optimizer, lambda: net(torch.eye(3)[:, :2]).square().sum())
    result = score((), step)
    assert result.total == 12 * 6
    assert len(repr(result).splitlines()) <= 27
    assert len(result.mistakes) == result.total - result.right > 40
    html = result._repr_html_()
    assert [answer.fact.name for answer in result.answers if f">{answer.fact.name}<" not in html] == []


def test_names_are_escaped_and_unseen_characters_shown():
    net = nn.Module()
    hostile = "<script>alert(1)</script>\n\u202e"
    net.register_parameter(hostile, nn.Parameter(torch.ones(2)))
    step = one_step(net, torch.optim.SGD(net.parameters(), lr=0.1), lambda: net._parameters[hostile].sum())
    result = score((), step)
    assert "<script" not in result._repr_html_()
    assert "&lt;script&gt;" in result._repr_html_()
    assert len(repr(result).splitlines()) == 3
    assert "\u202e" not in repr(result) + result._repr_html_() + result.mistakes[0]


def test_the_same_run_looks_the_same_every_time():
    first, second = (score(["out.weight"], article_run()[0][1]) for _ in range(2))
    assert repr(first) == repr(second)
    assert first._repr_html_() == second._repr_html_()
    assert " at 0x" not in repr(first)
