"""`Explore`: every change of a control runs anew and shows the new result."""

import pytest
import torch

import layerlab as ll
from layerlab.experiments.two_tasks import Network, task_step
from layerlab.widgets.explore import Explore
from layerlab.widgets.settings import INTERRUPTED, RUNNING


def two_tasks(optimizer, set_to_none):
    net = Network.from_article()
    optimizer = optimizer(net.parameters(), lr=0.9)
    with ll.watch(net, optimizer) as ledger:
        for task in ("task1", "task2"):
            task_step(net, optimizer, task, set_to_none=set_to_none)
    return ledger


@pytest.fixture
def explore_of_two():
    runs = []

    def run(a, b):
        runs.append((a, b))
        return ll.table([{"a": a, "b": b}])

    return Explore(run, a={"one": 1, "two": 2}, b={"three": 3, "four": 4}), runs


def test_each_change_is_a_fresh_run():
    explore = Explore(
        two_tasks,
        optimizer={"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW},
        set_to_none=[True, False],
    )
    assert not explore.result[1]["hidden_task1.weight"].moved
    explore.controls["optimizer"].value = torch.optim.AdamW
    assert not explore.result[1]["hidden_task1.weight"].moved
    explore.controls["set_to_none"].value = False
    assert explore.result[1]["hidden_task1.weight"].moved
    (view,) = explore._live.children
    assert {facts["reason"] for facts in view.overview["facts"]} >= {"momentum"}
    assert repr(explore).startswith("Explore. optimizer: AdamW, set_to_none: False\n")
    assert explore.result._repr_html_() in explore._repr_mimebundle_()["text/html"]


def test_the_tensor_that_was_opened_stays_open_in_the_next_ledger():
    explore = Explore(two_tasks, optimizer=[torch.optim.SGD, torch.optim.AdamW], set_to_none=[True, False])
    (first,) = explore._live.children
    first.tensor = "output.weight"
    explore.controls["set_to_none"].value = False
    (second,) = explore._live.children
    assert (first.comm, second.tensor) == (None, "output.weight")
    explore.close()
    assert second.comm is None


def test_a_run_that_fails_is_shown_and_raised_and_shows_no_old_result():
    def run(lr):
        return two_tasks(lambda p, **_: torch.optim.SGD(p, lr=lr), True)

    explore = Explore(run, lr=[0.1, -1.0])
    with pytest.raises(ValueError, match="Invalid learning rate"):
        explore.controls["lr"].value = -1.0
    assert "Invalid learning rate" in explore._alert.value
    assert (explore._view.value, explore._live.children) == ("", ())
    assert explore.result is None
    explore.controls["lr"].value = 0.1
    assert explore._alert.value == ""
    assert explore.result is not None


def test_an_interrupted_run_is_said_and_the_next_change_runs_again():
    def run(lr):
        if lr == 0.2:
            raise KeyboardInterrupt
        return ll.table([{"lr": lr}])

    explore = Explore(run, lr=[0.1, 0.2, 0.3])
    with pytest.raises(KeyboardInterrupt):
        explore.controls["lr"].value = 0.2
    assert explore._view.value == INTERRUPTED
    assert explore.result is None
    explore.controls["lr"].value = 0.3
    assert "<table" in explore._view.value


def test_a_setting_needs_a_choice():
    with pytest.raises(ValueError, match="two values or more"):
        Explore(two_tasks, optimizer=[torch.optim.SGD])


def test_choose_sets_by_label_and_refuses_what_is_not_there(explore_of_two):
    explore, runs = explore_of_two
    explore.choose(a="two", b="four")
    assert explore.settings == {"a": 2, "b": 4}
    before = len(runs)
    with pytest.raises(ValueError, match="b='five': the labels are 'three', 'four'"):
        explore.choose(a="one", b="five")
    with pytest.raises(ValueError, match="no setting 'c'; the settings are a, b"):
        explore.choose(c="one")
    assert (explore.settings, len(runs)) == ({"a": 2, "b": 4}, before)


def test_a_run_that_returns_nothing_is_told():
    def forgetful(a):
        pass

    with pytest.raises(TypeError, match=r"forgetful must return a ledger, .* as HTML, not NoneType"):
        Explore(forgetful, a=[1, 2])


def test_several_labels_are_one_run(explore_of_two):
    explore, runs = explore_of_two
    explore.choose(a="two", b="four")
    assert runs == [(1, 3), (2, 4)]


def test_its_state_can_be_shared(explore_of_two):
    explore, runs = explore_of_two
    assert explore.state == explore._copy.text == "a=one;b=three"
    explore.state = "b=four;a=two"
    assert runs == [(1, 3), (2, 4)]
    assert explore.state == explore._copy.text == "a=two;b=four"
    assert explore.result._repr_html_() == ll.table([{"a": 2, "b": 4}])._repr_html_()
    explore._paste.value = "a=one"  # what the page does
    assert (explore.state, explore._paste.value, runs[2:]) == ("a=one;b=four", "", [(1, 4)])
    with pytest.raises(ValueError, match="'a' takes one value"):
        explore.state = "a=one/two"
    with pytest.raises(ValueError, match="no setting 'c'"):
        explore._paste.value = "c=one"
    assert "no setting" in explore._alert.value
    assert (explore.state, len(runs)) == ("a=one;b=four", 3)


def test_while_it_runs_no_old_result_is_shown():
    made, seen = [], []

    def run(a):
        seen.extend(explore._view.value for explore in made)
        return ll.table([{"a": a}])

    made.append(Explore(run, a=[1, 2]))
    made[0].choose(a="2")
    assert seen == [RUNNING]
    assert made[0]._view.value == ll.table([{"a": 2}])._repr_html_()


def test_two_values_of_one_label_are_refused():
    with pytest.raises(ValueError, match="two values are called '1'"):
        Explore(two_tasks, a=[1, "1"])
