"""What the training lab offers, measures and says: menus, update ratios, its page, text and HTML."""

import asyncio
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from lab_net import LAYERS, STEPS, Bench, fresh, state

from layerlab.experiments.digits import odd_or_even_lab
from layerlab.experiments.settings import SETTINGS, Recipe
from layerlab.training import threads
from layerlab.widgets import train_lab
from layerlab.widgets.train_lab import TrainLab

pytestmark = pytest.mark.usefixtures("no_loop_runs")


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def lab(bench):
    lab = TrainLab(bench, layers=LAYERS)
    yield lab
    lab.close()


# -- what there is to choose ---------------------------------------------------------------------------------


def test_what_is_chosen_is_what_begins(bench, lab):
    lab.choose(setting="frozen", frozen_up_to="first", lr=0.1, per_class=4, seed=3)
    assert vars(lab.chosen) == {
        "setting": "frozen", "frozen_up_to": "first", "lr": 0.1, "per_class": 4, "seed": 3,
    }  # fmt: skip
    lab._heard({"do": "choose", "name": "setting", "at": 0})
    assert (lab.chosen.setting, lab.chosen.frozen_up_to) == ("scratch", None)
    lab._heard({"do": "choose", "name": "setting", "at": 3})  # the layer is still there
    assert (lab.chosen.setting, lab.chosen.frozen_up_to) == ("lr_zero", "first")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"setting": "finetune"}, "setting='finetune': it can be 'scratch', 'fine_tune'"),
        ({"lr": 7}, "lr=7: it can be 0.001"),
        ({"depth": 1}, "no choice 'depth'; the choices are setting, frozen_up_to"),
        ({"setting": "frozen", "frozen_up_to": "fc"}, "frozen_up_to='fc': it can be 'first', 'second'"),
        ({"setting": "lr_tenth", "frozen_up_to": "first"}, "setting='lr_tenth' freezes nothing"),
    ],
)
def test_what_is_not_there_is_refused_and_changes_nothing(values, said, bench, lab):
    before = lab.picks
    for call in (lab.choose, lab.train):
        with pytest.raises(ValueError, match=re.escape(said)):
            call(**{"seed": 3, **values})
        assert said in lab.error
    assert (lab.picks, lab.runs, bench.models) == (before, (), [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": ["frozen", "finetune"]}, "setting='finetune': choose from scratch"),
        ({"settings": []}, "setting: there is nothing to choose from"),
        ({"lrs": [0.1, 0.1]}, "lr: 0.1 stands there twice"),
    ],
)
def test_what_it_cannot_offer(options, said, bench):
    with pytest.raises(ValueError, match=said):
        TrainLab(bench, **options)
    with pytest.raises(TypeError, match="begin must be a function, not str"):
        TrainLab("begin", **options)


def test_without_layers_there_is_no_such_menu(bench):
    lab = TrainLab(bench, ["frozen"], layers=[], each="<b>digit</b>")
    assert [menu["name"] for menu in lab.asked["menus"]] == ["setting", "lr", "per_class", "seed"]
    assert lab.train().frozen_up_to is None
    assert "images of each &lt;b&gt;digit&lt;/b&gt;" in lab._repr_html_()


def test_a_begin_that_goes_wrong_is_told_and_adds_no_run(bench):
    model = fresh(0)
    again = TrainLab(lambda **values: type(bench).__call__(bench, **values), layers=LAYERS)
    for begin, error, said in (
        (lambda **_: None, TypeError, "must return a Transfer, not NoneType: is its return missing?"),
        (lambda **_: 1 / 0, ZeroDivisionError, "division"),
    ):
        lab = TrainLab(begin)
        with pytest.raises(error, match=said):
            lab.train()
        assert said in lab.error
        assert lab.runs == ()
    bench.models = [model]
    same_model = lambda **values: _with(bench, model, **values)  # noqa: E731
    again = TrainLab(same_model, layers=LAYERS)
    again.train(setting="frozen")
    with pytest.raises(ValueError, match="model of an earlier run again"):
        again.train(setting="frozen")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert len(again.runs) == 1


def _with(bench, model, **values):
    work = bench(**values)
    work.model = model
    return work


# -- what it measures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "upto", "frozen"),
    [("frozen", "first", ("first",)), ("lr_zero", "second", ("first", "second")), ("lr_tenth", None, ())],
)
def test_update_ratios_are_those_of_the_parameters(setting, upto, frozen, bench, lab):
    run = lab.train(setting=setting, **({"frozen_up_to": upto} if upto else {}))
    assert [look.epoch for look in run.ratios] == [
        1,
        2,
        4,
    ]  # the first, and where the test images are measured
    work = bench(setting, upto, lab.chosen.lr, 1, 0)
    before, looks = state(work.model), {look.epoch: look for look in run.ratios}
    for found in work.run.steps(4):
        after = state(work.model)
        epoch = len(work.run.history) + 1
        if found is None and epoch in looks:
            look = looks.pop(epoch)
            assert look.frozen == frozen
            assert look.lr == lab.chosen.lr
            for layer in (*LAYERS, "fc"):
                names = [n for n, _ in work.model.named_parameters() if n.startswith(f"{layer}.")]
                moved = torch.cat([(after[n] - before[n]).flatten() for n in names]).double().norm()
                whole = torch.cat([before[n].flatten() for n in names]).double().norm()
                assert look.layers[layer] == pytest.approx(float(moved / whole), rel=1e-4)
                assert (look.layers[layer] == 0) == (layer in frozen)
        before = after
    assert looks == {}
    work.close()


def test_few_steps_of_a_long_run_are_watched(bench):
    bench.recipe = Recipe(epochs=95, batch_size=13, lr=0.1, test_every=1)
    assert [look.epoch for look in TrainLab(bench).train().ratios] == [1, *range(10, 91, 10)]


def test_a_step_s_time_is_the_usual_one_of_those_not_watched(lab):
    run = lab.train()
    run.epochs = tuple(replace(e, seconds=s) for e, s in zip(run.epochs, (90, 3, 6, 30), strict=True))
    run.ratios = (run.ratios[0], replace(run.ratios[-1], epoch=4))
    assert run.seconds_a_step == (3 + 6) / 2 / STEPS
    assert lab.ended[-1]["came_to"][-1].endswith(" ms")


def test_on_so_many_threads_and_put_back(bench):
    with threads(2):
        TrainLab(bench, on_threads=1).train()
        assert bench.train.threads == {1}
        assert torch.get_num_threads() == 2


# -- what it says --------------------------------------------------------------------------------------------


def test_the_page_is_told_of_changes_and_seldom_else(bench, lab, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train_lab.time, "monotonic", lambda: now[0])
    told = []
    lab.observe(lambda change: told.append(change.new.get("step")), "going")
    lab.train()
    assert told == [0, None]  # within a quarter of a second: nothing but its start and its end
    assert [len(page["loss"]) for page in lab.ended] == [4]

    async def work():
        lab.start()
        shown = []
        for _ in range(5):
            now[0] += 0.2
            await asyncio.sleep(0)
            shown.append((len(lab.going["loss"]), lab.going["step"]))
        assert shown == [(0, 0), (0, 2), (0, 2), (1, 0), (1, 0)]  # told after 0.4 s and after 0.8 s
        lab.stop()
        assert lab.going == {}

    asyncio.run(work())


def test_a_page_is_small_and_holds_no_number_that_json_has_not(bench, lab):
    bench.recipe = Recipe(epochs=40, batch_size=13, lr=0.1, test_every=5)
    for setting in SETTINGS:
        lab.train(setting=setting)
    bench.train.inputs = bench.train.inputs * float("nan")
    broken = lab.train(setting="scratch")
    assert broken.state == "finished"
    sent = json.dumps(lab.get_state(["ended", "going", "asked"]), allow_nan=False)
    assert len(sent) < 16_384
    page = lab.ended[-1]
    assert page["loss"] == [None] * 40
    assert page["came_to"][1] == "nan"
    assert page["ratios"][0]["layers"][0] == ["first", None, False]
    assert [page["again"] for page in lab.ended] == [0, 0, 0, 0, 0, 1]
    assert len({(page["ink"], page["mark"]) for page in lab.ended}) == 5
    first = lab.ended[0]
    assert [at for at, right in enumerate(first["right"], 1) if right is not None] == [*range(5, 41, 5)]


class Cells(HTMLParser):
    """The texts of a table's cells, row by row."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.open = [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def test_text_and_html_say_the_same_and_nothing_that_differs_between_machines(bench, lab):
    before = repr(lab)
    assert before.startswith("TrainLab: no run yet\n")
    assert "A running notebook draws test accuracy and training loss" in before
    assert "lr / 10: pretrained, everything trains" in " ".join(before.split())
    lab.train(setting="frozen", frozen_up_to="first", lr=0.1)
    lab.train(setting="fine_tune", lr=0.1, per_class=4)
    head, *rows = Cells(lab._repr_html_()).rows
    assert head == [
        "run", "setting", "frozen up to", "lr", "images of each class", "seed", "epochs", "state",
        "training loss", "layers that moved",
    ]  # fmt: skip
    assert rows[0][:8] == ["1", "frozen", "first", "0.1", "2", "0", "4 of 4", "finished"]
    assert [row[9] for row in rows] == ["second, fc", "all"]
    for run, row in zip(lab.runs, rows, strict=True):
        fell = run.epochs[-1].train_loss < run.epochs[0].train_loss
        assert row[8] == ("fell" if fell else "did not fall")
    lines = repr(lab).splitlines()
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[1:4]] == [head, *rows]
    assert lab._repr_mimebundle_()["text/plain"] == repr(lab)


def test_figures_are_given_to_who_asks(bench):
    lab = TrainLab(bench, layers=LAYERS, figures=True)
    run = lab.train(setting="fine_tune")
    head, row = Cells(lab._repr_html_()).rows
    said = dict(zip(head, row, strict=True))
    assert said["test images right"] == f"{100 * run.epochs[-1].test_accuracy:.1f} %"
    assert float(said["training loss"]) == pytest.approx(run.epochs[-1].train_loss, rel=0.05)


def test_hostile_names_of_layers_are_shown_as_they_are(bench):
    lab = TrainLab(bench, layers=["first", "<img src=x>\n"])
    assert lab.asked["menus"][1]["options"] == ["first", r"<img src=x>\n (the whole backbone)"]
    with pytest.raises(ValueError, match="choose one of first, second"):
        lab.train(setting="frozen", frozen_up_to="<img src=x>\n")
    assert lab.error == r"ValueError: frozen_up_to='<img src=x>\n': choose one of first, second"


# -- the embedded task ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "epochs", "batch", "measured_every"),
    [(1, 40, 10, 8), (2, 40, 20, 8), (4, 20, 20, 4), (10, 8, 20, 1)],
)
def test_the_embedded_task_takes_as_many_steps_whatever_the_images(images, epochs, batch, measured_every):
    work = odd_or_even_lab(None)("scratch", None, 0.03, images, 1)
    assert len(work.run.train) == 10 * images
    recipe = work.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.test_every) == (epochs, batch, measured_every)
    assert epochs * (10 * images // batch) == 40
    assert (recipe.lr, recipe.schedule) == (0.03, "cosine")


def test_the_embedded_task_needs_weights_for_all_but_scratch():
    weights = {
        name: torch.zeros_like(t)
        for name, t in odd_or_even_lab(None)("scratch", None, 0.1, 1, 0).model.state_dict().items()
    }
    work = odd_or_even_lab(weights)("frozen", "layer2", 0.1, 1, 0)
    assert not work.model.layer4[0].conv1.weight.any()
    assert work.model.fc.weight.any()
    assert work.run.about["frozen"] == ["conv1", "bn1", "layer1", "layer2"]
    with pytest.raises(ValueError, match=r"pass weights=pretrained\(\)"):
        odd_or_even_lab(None)("lr_zero", "layer2", 0.1, 1, 0)
