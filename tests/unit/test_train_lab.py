"""The training lab: each run is bitwise the experiments' own, however it was started, held and ended."""

import asyncio
import gc
import random
import sys
from collections.abc import Callable
from linecache import getline
from types import SimpleNamespace

import pytest
import torch
from lab_net import LAYERS, STEPS, Bench, figures, fresh, is_left_alone, same, state

import layerlab as ll
from layerlab.experiments.settings import SETTINGS
from layerlab.experiments.transfer import Transfer
from layerlab.training import run as training_run
from layerlab.training import threads
from layerlab.widgets import cells, train_lab, train_run
from layerlab.widgets.train_lab import TrainLab

ACTS = ("start", "pause", "go on", "stop", "remove", "clear", *["step"] * 8)


pytestmark = pytest.mark.usefixtures("no_loop_runs")


@pytest.fixture(autouse=True)
def one_thread():
    """Other numbers of threads give other bits."""
    with threads(1):
        yield


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def lab(bench):
    lab = ll.TrainLab(bench, layers=LAYERS)
    yield lab
    lab.close()


async def steps(number):
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("setting", "upto"),
    [(setting, None) for setting in SETTINGS] + [("frozen", "first"), ("lr_zero", "first")],
)
def test_trained_to_the_end_it_is_the_experiments_own_run(setting, upto, bench, lab):
    depth = {"frozen_up_to": upto} if upto else {}
    run = lab.train(setting=setting, lr=0.03, seed=2, **depth)
    model, epochs = bench.at_one_go(setting, upto, lr=0.03, seed=2)
    assert same(bench.models[0], model)
    assert figures(run.epochs) == figures(epochs)
    assert (run.state, run.live, run.until, run.steps_an_epoch) == ("finished", False, 4, STEPS)
    assert (run.setting, run.lr, run.seed, run.per_class) == (setting, 0.03, 2, 2)
    assert run.frozen_up_to == (upto or "second" if setting in ("frozen", "lr_zero") else None)
    assert is_left_alone(bench.models[0])


@pytest.mark.parametrize("held_after", range(1, 4 * (STEPS + 1)))
def test_held_anywhere_it_goes_on_as_if_it_had_not_been(held_after, bench, lab):
    async def work():
        run = lab.start(setting="frozen", frozen_up_to="first")
        await steps(held_after)
        lab.pause()
        before = state(bench.models[0])
        torch.rand(3)  # somebody else draws
        await steps(5)
        assert run.state == "paused"
        assert same(bench.models[0], before)
        lab.go_on()
        return await lab.done()

    run = asyncio.run(work())
    model, epochs = bench.at_one_go("frozen", "first")
    assert same(bench.models[0], model)
    assert figures(run.epochs) == figures(epochs)
    assert run.state == "finished"


def test_the_random_state_of_others_is_left_alone(bench, lab):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    lab.train(setting="fine_tune")
    assert torch.equal(torch.get_rng_state(), before)


def test_stopped_in_mid_epoch_it_is_at_that_epoch_s_start(bench, lab):
    async def work():
        run = lab.start(setting="lr_zero")
        while not (len(run.epochs) == 2 and run.step == 2):
            await steps(1)
        kept = run._steps  # alive, so that nothing but stop() ends it
        lab.stop()
        assert (run.state, run.live, run.step) == ("stopped", False, 0)
        assert kept.gi_frame is None
        await lab.done()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return run

    run = asyncio.run(work())
    model, epochs = bench.at_one_go("lr_zero", epochs=2)
    assert same(bench.models[0], model)
    assert figures(run.epochs) == figures(epochs)
    assert is_left_alone(bench.models[0])


def test_an_error_ends_the_run_alone_and_is_shown_and_raised(bench, lab):
    lab.train(setting="fine_tune")
    before, bench.raise_at = state(bench.models[0]), 2 + STEPS
    with pytest.raises(ArithmeticError, match="no"):
        lab.train(setting="frozen", frozen_up_to="first")
    first, failed = lab.runs
    assert (first.state, failed.state, str(failed.error)) == ("finished", "failed", "<b>no</b> such number")
    assert lab.error == "ArithmeticError: <b>no</b> such number"
    assert same(bench.models[0], before)
    assert same(bench.models[1], bench.at_one_go("frozen", "first", epochs=1)[0])
    assert is_left_alone(bench.models[1])
    assert "&lt;b&gt;no&lt;/b&gt;" in lab._repr_html_()
    bench.raise_at = None
    assert lab.train().state == "finished"
    assert lab.error == ""


def test_an_error_in_the_background_is_shown_and_raised_to_who_waits(bench, lab):
    async def work():
        bench.raise_at = 2
        lab.start()
        with pytest.raises(ArithmeticError, match="no"):
            await lab.done()
        assert "ArithmeticError" in lab.error
        assert lab.runs[0].state == "failed"
        assert same(bench.models[0], fresh(0))
        bench.raise_at = None
        lab.start()
        assert lab.error == ""
        assert (await lab.done()).state == "finished"

    asyncio.run(work())


def test_an_interrupt_pauses(bench, lab, monkeypatch):
    met = []

    def batch(index):
        met.append(index)
        if len(met) == STEPS + 2:
            raise KeyboardInterrupt
        return type(bench.train).batch(bench.train, index)

    monkeypatch.setattr(bench.train, "batch", batch)
    with pytest.raises(KeyboardInterrupt):
        lab.train(setting="frozen")
    (run,) = lab.runs
    assert (run.state, len(run.epochs), run.step) == ("paused", 1, 0)
    assert lab.train() is run
    model, epochs = bench.at_one_go("frozen")
    assert same(bench.models[0], model)
    assert figures(run.epochs) == figures(epochs)
    assert [look.epoch for look in run.ratios] == [1, 2, 4]


def lines_of(work: Callable[[], object], stop_at: int | None = None) -> list[tuple[str, int]]:
    """The lines of the lab's own files that this takes, in turn; before one of them it is interrupted."""
    files = {module.__file__ for module in (train_lab, train_run, training_run)}
    taken: list[tuple[str, int]] = []

    def trace(frame, event, _):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            taken.append((frame.f_code.co_filename, frame.f_lineno))
            if len(taken) - 1 == stop_at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    gc.disable()  # labs of before, when collected, take lines too
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return taken


def test_interrupted_before_any_line_it_is_paused_and_goes_on_as_if_it_had_not_been(monkeypatch):
    """An interrupt comes when it likes: not only within a step."""
    monkeypatch.setattr(train_lab, "QUIET", 0)  # else it hangs on the clock when the page is told
    lab = TrainLab(Bench(), layers=LAYERS)
    taken = lines_of(lambda: lab.train(setting="frozen"))
    lab.close()
    first = {line: taken.index(line) for line in set(taken)}
    # Of a `with` only its first time: the next is on leaving it, before Python calls its __exit__.
    last = {line: at for at, line in enumerate(taken) if not getline(*line).lstrip().startswith("with ")}
    model, epochs = Bench().at_one_go("frozen")
    seen = set()
    for at in sorted({*first.values(), *last.values()}):
        bench, where = Bench(), taken[at]
        lab = TrainLab(bench, layers=LAYERS)
        with pytest.raises(KeyboardInterrupt):
            lines_of(lambda lab=lab: lab.train(setting="frozen"), at)
        state = [run.state for run in lab.runs]
        assert state in ([], ["paused"], ["finished"]), where
        seen |= set(state)
        if state != ["finished"]:
            assert lab.going.get("state") in (None, "paused"), where
            assert lab.train(**({} if state else {"setting": "frozen"})).state == "finished", where
        (run,) = lab.runs
        assert same(bench.models[-1], model), where
        assert figures(run.epochs) == figures(epochs), where
        assert is_left_alone(bench.models[-1]), where
        assert (lab.going, [page["state"] for page in lab.ended]) == ({}, ["finished"]), where
        lab.close()
    assert seen == {"paused", "finished"}


def test_a_run_that_has_ended_is_not_stopped_afterwards(lab):
    run = lab.train(setting="frozen")
    run.stop()
    assert run.state == "finished"


def test_a_loop_that_ends_leaves_a_paused_run(bench, lab):
    async def leave():
        lab.start(setting="scratch")
        await steps(5)

    asyncio.run(leave())
    (run,) = lab.runs
    assert run.state == lab.going["state"] == "paused"

    async def again():
        lab.go_on()
        await lab.done()

    asyncio.run(again())
    assert same(bench.models[0], bench.at_one_go("scratch")[0])


def test_what_began_in_the_background_can_be_trained_to_its_end(bench, lab):
    async def work():
        run = lab.start(setting="scratch")
        await steps(2)
        assert lab.train() is run
        assert run.state == "finished"
        await lab.done()

    asyncio.run(work())
    assert same(bench.models[0], bench.at_one_go("scratch")[0])


def test_without_a_loop_nothing_starts_and_the_message_says_what_to_do(lab):
    with pytest.raises(RuntimeError, match=r"call train\(\)"):
        lab.start()
    assert lab.runs == ()
    assert lab.train().state == "finished"


def test_one_at_a_time(bench, lab):
    async def work():
        lab.start()
        for call in (lab.start, lambda: lab.train(setting="scratch")):
            with pytest.raises(RuntimeError, match="run 1 is running: let it end, or stop it"):
                call()
        with pytest.raises(ValueError, match="run 1 is running: stop it first"):
            lab.remove(1)
        with pytest.raises(RuntimeError, match="no run that is paused: run 1 is running"):
            lab.go_on()
        lab.pause()
        with pytest.raises(RuntimeError, match="run 1 is paused"):
            lab.start()
        with pytest.raises(RuntimeError, match="no run that is running: run 1 is paused"):
            lab.pause()
        lab.clear()
        assert len(lab.runs) == 1
        lab.stop()
        with pytest.raises(RuntimeError, match="running or paused: no run is live"):
            lab.stop()
        lab.remove(1)
        with pytest.raises(ValueError, match="no run 1: there are none"):
            lab.remove(1)
        assert lab.start().number == 2
        assert len(bench.models) == 2

    asyncio.run(work())


class Expected:
    """What a run's state should be: each turn of the loop takes a step, or measures after an epoch's last."""

    def __init__(self):
        self.states = {}
        self.turns = {}
        self.made = 0

    @property
    def live(self):
        return next((n for n, state in self.states.items() if state in ("running", "paused")), None)

    def turn(self, number):
        if self.states.get(self.live) == "running":
            self.turns[self.live] += number
            if self.turns[self.live] >= 4 * (STEPS + 1):
                self.states[self.live] = "finished"

    def click(self, act, number):
        now = self.states.get(number)
        if act == "start" and self.live is None:
            self.made += 1
            self.states[self.made], self.turns[self.made] = "running", 0
        elif act == "pause" and now == "running":
            self.states[number] = "paused"
        elif act == "go on" and now == "paused":
            self.states[number] = "running"
        elif act == "stop" and now in ("running", "paused"):
            self.states[number] = "stopped"
        elif act == "remove" and now is not None:
            del self.states[number]
        elif act == "clear":
            self.states = {n: now for n, now in self.states.items() if n == self.live}


@pytest.mark.parametrize("seed", range(8))
def test_any_clicks_in_any_order(seed):
    """Against a model of the states; and nothing moves but what runs, or is stopped in mid-epoch."""
    chance, bench, expected = random.Random(seed), Bench(), Expected()
    lab = TrainLab(bench, layers=LAYERS)
    seen = set()

    async def work():
        for _ in range(150):
            act = chance.choice(ACTS)
            number = chance.choice([expected.live or 1, chance.randint(1, expected.made + 1)])
            before, live = [state(model) for model in bench.models], expected.live
            still = set(range(1, expected.made + 1))
            if act == "step":
                turns = chance.randint(1, 6)
                still -= {live} if expected.states.get(live) == "running" else set()
                await steps(turns)
                expected.turn(turns)
            elif (act, number) == ("remove", live):
                with pytest.raises(ValueError, match="stop it first"):
                    lab._heard({"do": act, "run": number})
            else:
                still -= {live} if (act, number) == ("stop", live) else set()
                menu = chance.choice(["setting", "lr", "seed"])
                lab._heard({"do": "choose", "name": menu, "at": chance.randint(0, 4)})
                lab._heard({"do": act, "run": number})
                expected.click(act, number)
            assert {run.number: run.state for run in lab.runs} == expected.states
            assert [page["number"] for page in lab.ended] == [
                n for n in expected.states if n != expected.live
            ]
            seen.update(expected.states.values())
            assert lab.going.get("number") == expected.live
            assert lab.going.get("state") == expected.states.get(expected.live)
            assert all(same(bench.models[n - 1], before[n - 1]) for n in still)
            assert all(is_left_alone(m) for n, m in enumerate(bench.models, 1) if n != expected.live)
        lab.close()
        await steps(2)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())
    assert seen == {"running", "paused", "stopped", "finished"}
    assert all(map(is_left_alone, bench.models))


def test_a_remove_of_the_live_run_from_the_page_is_refused(lab):
    async def work():
        lab.start()
        with pytest.raises(ValueError, match="stop it first"):
            lab._heard({"do": "remove", "run": 1})
        lab._heard({"do": "pause", "run": 7})  # about a run that is gone
        lab._heard({"do": "are you there"})
        assert lab.runs[0].state == "running"
        with pytest.raises(ValueError, match="TrainLab knows choose, start, pause"):
            lab._heard({"do": "dance"})

    asyncio.run(work())


def test_a_run_that_cannot_be_released_has_ended_all_the_same(bench, lab, monkeypatch):
    def refuse(self):
        raise ArithmeticError("the groups were rearranged")

    async def work():
        run = lab.start(setting="frozen")
        await steps(4)
        with monkeypatch.context() as patched:
            patched.setattr(Transfer, "close", refuse)
            with pytest.raises(ArithmeticError, match="rearranged"):
                lab.stop()
        assert (run.state, run.live) == ("stopped", False)
        assert lab.error == "ArithmeticError: the groups were rearranged"
        assert lab.start().number == 2

    asyncio.run(work())


def test_closed_it_leaves_nothing_behind(bench, lab):
    async def work():
        run = lab.start(setting="frozen")
        await steps(4)
        lab.close()
        assert (run.state, lab.comm) == ("stopped", None)
        await steps(2)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(RuntimeError, match="closed"):
            lab.start()
        lab.close()

    asyncio.run(work())
    assert is_left_alone(bench.models[0])
    assert len(bench.models) == 1


def test_the_lab_of_a_cell_that_runs_again_is_closed(bench, monkeypatch):
    now = SimpleNamespace(cell=("a", 1))
    monkeypatch.setattr(cells, "this_cell", lambda: now.cell)

    async def work():
        first, beside = TrainLab(bench, layers=LAYERS), TrainLab(bench, layers=LAYERS)
        now.cell = ("b", 2)
        other = TrainLab(bench, layers=LAYERS)
        run = first.start()
        await steps(3)
        now.cell = ("a", 3)
        again = TrainLab(bench, layers=LAYERS)
        assert [lab.comm is None for lab in (first, beside, other, again)] == [True, True, False, False]
        assert run.state == "stopped"
        other.close()
        again.close()

    asyncio.run(work())
