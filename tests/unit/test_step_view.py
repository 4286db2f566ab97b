"""`StepView` driven as a browser drives it, by its traits; checked against the ledger."""

import gc
import json
import weakref

import pytest
import torch
from torch import nn

import layerlab as ll
from layerlab.experiments.two_tasks import Network, task_step
from layerlab.widgets import step_view
from layerlab.widgets.step_view import StepView


def trained(steps=3, keep="auto", optimizer=torch.optim.AdamW):
    net = Network.from_article()
    opt = optimizer(net.parameters(), lr=0.1)
    with ll.watch(net, opt, keep=keep) as ledger:
        for index in range(steps):
            task_step(net, opt, "task2" if index % 2 else "task1")
    return ledger


@pytest.fixture
def clock(monkeypatch):
    """The view's clock, in seconds: it stands still until a test moves it."""
    now = [0.0]
    monkeypatch.setattr(step_view.time, "perf_counter", lambda: now[0])
    return now


def sent_bytes(trait):
    """Bytes of a trait as ipywidgets sends it: JSON, and buffers."""
    buffers = []

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, bytes):
            buffers.append(value)
            return None
        return value

    text = json.dumps(plain(trait), ensure_ascii=False, allow_nan=False)
    return len(text.encode()) + sum(map(len, buffers))


def test_it_shows_the_newest_step_and_any_other():
    ledger = trained()
    view = StepView(ledger)
    assert (view.step, view.overview["count"], view.closeup) == (-1, 3, {})
    view.tensor = "output.weight"
    assert set(view.closeup["numbers"]) == {"0", "1", "2"}
    assert view.closeup["pictures"]["steps"] == [0, 1, 2]
    before = view.closeup
    view.step = 0
    assert view.closeup is before  # all steps are there already: the kernel is not needed
    shown = before["pictures"]["channels"]
    assert shown[:3] == ["before", "after", "Δ"]
    assert {"gradient", "exp_avg", "exp_avg_sq", "gradient part of Δ", "weight decay part of Δ"} <= set(shown)
    view.tensor = ""
    assert view.closeup == {}


def test_numbers_are_those_of_the_ledger():
    ledger = trained()
    view = StepView(ledger, step=1, tensor="output.weight")
    t = ledger[1]["output.weight"]
    said = view.closeup["numbers"]["1"]
    assert float(said["‖Δ‖"]) == pytest.approx(t.delta_norm, rel=1e-4)
    assert float(said["largest |gradient|"]) == pytest.approx(t.grad_max, rel=1e-4)
    assert said["optimizer's step count"] == str(t.state_steps) == "2"


@pytest.mark.parametrize(
    ("trait", "wrong", "error"),
    [("step", 3, IndexError), ("step", -2, IndexError), ("tensor", "outptu.weight", KeyError)],
)
def test_what_is_not_there_is_refused_and_what_was_shown_stays(trait, wrong, error):
    view = StepView(trained(), step=1, tensor="output.weight")
    with pytest.raises(error, match=r"no step|output\.weight"):
        setattr(view, trait, wrong)
    assert (view.step, view.tensor) == (1, "output.weight")
    with pytest.raises(error):
        StepView(trained(), **{trait: wrong})


def test_it_needs_a_ledger():
    with pytest.raises(TypeError, match="not Network"):
        StepView(Network())


def test_it_follows_a_running_loop_seldom_and_to_the_end(clock):
    net = Network.from_article()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    counts = []
    with ll.watch(net, opt) as ledger:
        view = StepView(ledger, tensor="output.weight")
        assert (view.overview["count"], view.recording) == (0, True)
        view.observe(lambda change: counts.append(change.new["count"]), "overview")
        for _ in range(10):
            task_step(net, opt, "task1")
            clock[0] += 0.1
    assert counts == [1, 4, 7, 10]  # every 0.3 s of this clock
    assert (view.overview["count"], view.recording) == (10, False)  # told when the block was left
    assert "9" in view.closeup["numbers"]
    task_step(net, opt, "task1")
    assert view.overview["count"] == 10


def test_the_step_that_is_looked_at_stays_in_the_page_while_more_come(clock, monkeypatch):
    monkeypatch.setattr("layerlab.show.overview.LONGEST", 10)
    net = Network.from_article()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    with ll.watch(net, opt) as ledger:
        view = StepView(ledger)
        for index in range(40):
            task_step(net, opt, "task1")
            clock[0] += 1
            if index == 5:
                view.step = 3
            if index > 5:
                first = view.overview["first"]
                assert first <= 3 < first + len(view.overview["steps"])
    assert view.overview["count"] == 40
    view.step = -1
    assert view.overview["first"] == 30


def test_an_update_that_takes_long_comes_less_often(clock):
    net = Network.from_article()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    counts = []
    with ll.watch(net, opt) as ledger:
        view = StepView(ledger)

        def slow(change):
            counts.append(change.new["count"])
            clock[0] += 0.02  # a fiftieth of a second to send

        view.observe(slow, "overview")
        for _ in range(25):
            task_step(net, opt, "task1")
            clock[0] += 0.1
    assert counts == [1, 4, 14, 24, 25]  # a fiftieth of the time at most; one slow update is forgiven


def test_a_view_that_fails_does_not_break_the_training():
    net = Network.from_article()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    with ll.watch(net, opt) as ledger:
        ledger.follow(lambda: 1 / 0)
        with pytest.warns(UserWarning, match="ZeroDivisionError"):
            task_step(net, opt, "task1")
        task_step(net, opt, "task1")
    assert len(ledger) == 2


def test_a_closed_view_is_told_nothing_and_keeps_nothing_alive():
    net = Network.from_article()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    with ll.watch(net, opt) as ledger:
        view = StepView(ledger)
        view.close()
        assert ledger._followers == []
        task_step(net, opt, "task1")
    assert view.overview["count"] == 0
    gone = weakref.ref(view)
    del view
    gc.collect()
    assert gone() is None


def test_whatever_the_size_a_tensor_takes_at_most_64_kib():
    torch.manual_seed(0)
    net = nn.Conv2d(512, 512, 3)
    opt = torch.optim.Adam(net.parameters(), lr=0.1)
    with ll.watch(net, opt, keep="all") as ledger:
        for _ in range(2):
            opt.zero_grad()
            net(torch.randn(1, 512, 4, 4)).square().sum().backward()
            opt.step()
    view = StepView(ledger, tensor="weight")
    assert view.closeup["pictures"]["shape"] == [512, 512, 3, 3]
    assert sent_bytes(view.closeup) <= 64 * 1024
    assert sent_bytes(view.overview) <= 64 * 1024


def test_a_long_run_is_sent_in_windows():
    ledger = trained(700)
    view = StepView(ledger, tensor="output.weight")
    first = view.overview["first"]
    assert first > 0
    assert first + len(view.overview["steps"]) == 700
    view.step = 5
    assert view.overview["first"] == 0
    view._receive(view, {"more": 5}, [])  # as the page asks
    assert "5" in view.closeup["numbers"]
    with pytest.raises(IndexError, match="no step 700"):
        view._receive(view, {"more": 700}, [])
    assert view.error.startswith("IndexError: no step 700")
    assert sent_bytes(view.overview) <= 64 * 1024
    view.step = -1
    assert view.overview["first"] == first


def test_a_layer_that_was_replaced_midway_is_shown_in_the_shape_it_had():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    with ll.watch(net, opt) as ledger:
        for step in range(6):
            if step == 3:
                net[1] = nn.Linear(3, 5)
                opt.add_param_group({"params": net[1].parameters()})
            opt.zero_grad()
            net(torch.ones(1, 4)).sum().backward()
            opt.step()
    view = StepView(ledger, tensor="1.weight")
    assert (view.closeup["pictures"]["shape"], view.closeup["pictures"]["steps"]) == ([5, 3], [3, 4, 5])
    view._receive(view, {"more": 0}, [])  # as the page asks for what it has not
    assert (view.closeup["pictures"]["shape"], view.closeup["pictures"]["steps"]) == ([2, 3], [0, 1, 2])
    assert set(view.closeup["numbers"]) == {"0", "1", "2"}


def test_values_that_were_not_kept():
    view = StepView(trained(keep=[1]), step=0, tensor="output.weight")
    assert view.closeup["pictures"]["steps"] == [1]
    assert "0" in view.closeup["numbers"]
    view = StepView(trained(keep="none"), tensor="output.weight")
    assert view.closeup["pictures"] == {}
    assert set(view.closeup["numbers"]) == {"0", "1", "2"}


def test_complex_values_have_no_picture_and_say_so():
    net = nn.Linear(2, 2, dtype=torch.complex64)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    with ll.watch(net, opt) as ledger:
        net(torch.ones(1, 2, dtype=torch.complex64)).abs().sum().backward()
        opt.step()
    view = StepView(ledger, tensor="weight")
    assert "complex64" in view.closeup["why_not"]
    assert view.closeup["numbers"]["0"]["‖Δ‖"]


def test_text_and_html_stand_in_for_the_view():
    ledger = trained()
    bundle = StepView(ledger)._repr_mimebundle_()
    assert bundle["text/plain"] == repr(ledger)
    assert bundle["text/html"] == ledger._repr_html_()
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_an_error_in_answering_the_page_is_shown_and_raised(monkeypatch):
    view = StepView(trained())
    monkeypatch.setattr(step_view, "closeup", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        view.tensor = "output.weight"
    assert view.error == "ZeroDivisionError: division by zero"
    monkeypatch.undo()
    view.tensor = "hidden_task1.weight"
    assert view.error == ""
