"""The embedded task: its pieces for real, and the sweep's bookkeeping with a stand-in for training."""

import json
from statistics import mean, stdev

import pytest
import torch

from layerlab import cli
from layerlab.experiments import digits, digits_sweep
from layerlab.experiments.digits_sweep import SEEDS, Trial, over_seeds, sweep, trials
from layerlab.experiments.settings import SETTINGS, Recipe
from layerlab.experiments.sweep_file import read


class Done:
    def __init__(self, accuracy):
        self.accuracy = accuracy


@pytest.fixture
def trained(monkeypatch):
    """A list of all that was trained, with an accuracy for each that follows from what it was."""
    calls = []

    def stand_in(digits):
        def train(setting, weights, *, seed, per_digit, recipe, frozen_up_to, cached):
            assert weights == f"weights {seed} of {digits} digits"
            assert torch.get_num_threads() == 1
            assert cached == (setting == "frozen" and recipe.batchnorm == "eval" and frozen_up_to is None)
            calls.append((seed, setting, per_digit, recipe, frozen_up_to, digits))
            return Done(len(calls) / 1000)

        return train

    monkeypatch.setattr(digits_sweep, "odd_or_even", stand_in(10))
    monkeypatch.setattr(digits_sweep, "five_to_nine", stand_in(5))
    monkeypatch.setattr(
        digits_sweep, "pretrained", lambda seed, digits: f"weights {seed} of {len(digits)} digits"
    )
    return calls


def test_a_sweep_trains_each_run_once_and_goes_on_where_it_stopped(trained, tmp_path):
    path = tmp_path / "out" / "digits.json"
    running = sweep(path, seeds=(0, 1), say=lambda line: None)
    for _ in range(7):
        next(running)
    running.close()
    assert len(read(path)) == 7
    rest = list(sweep(path, seeds=(0, 1), say=lambda line: None))
    keys = [trial.key for seed in (0, 1) for trial in trials(seed)]
    assert len(set(keys)) == len(keys)
    assert rest == keys[7:]
    assert read(path) == {key: (n + 1) / 1000 for n, key in enumerate(keys)}
    assert list(sweep(path, seeds=(0, 1), say=lambda line: None)) == []
    assert len(trained) == len(keys)
    assert [p.name for p in path.parent.iterdir()] == ["digits.json"]
    (made,) = json.loads(path.read_text())["made_with"]
    assert made["hardware"] == "CPU, 1 thread"


def test_runs_made_elsewhere_keep_what_they_were_made_with(trained, tmp_path):
    path = tmp_path / "digits.json"
    elsewhere = {"torch": "2.6.0", "hardware": "CPU, 8 threads"}
    first = trials(0)[0].key
    path.write_text(json.dumps({"made_with": [elsewhere], "results": {first: 0.125}}))
    assert len(list(sweep(path, seeds=(0,), say=lambda line: None))) == len(trials(0)) - 1
    told = json.loads(path.read_text())
    assert told["made_with"][0] == elsewhere
    assert [made["hardware"] for made in told["made_with"][1:]] == ["CPU, 1 thread"]
    assert told["results"][first] == 0.125


def test_every_question_of_the_lesson_is_among_the_trials():
    one = {(t.setting, t.per_digit, t.frozen_up_to, t.batchnorm, t.longer) for t in trials(3)}
    assert {(setting, 2, None, "eval", 1) for setting in SETTINGS} <= one
    assert {
        ("frozen", 2, layer, "eval", 1) for layer in ("conv1", "bn1", "layer1", "layer2", "layer3")
    } <= one
    for number in (1, 2, 5, 10):
        assert {(setting, number, None, "eval", 1) for setting in ("scratch", "fine_tune", "frozen")} <= one
    assert ("scratch", 2, None, "eval", 3) in one
    narrow = {t.setting for t in trials(3) if t.narrow and t.per_digit == 5}
    assert {"scratch", "fine_tune", "frozen"} <= narrow


@pytest.mark.parametrize(("per_digit", "batch"), [(1, 10), (2, 20), (5, 20), (10, 20)])
def test_all_runs_take_forty_epochs(per_digit, batch):
    recipe = Trial(0, "scratch", per_digit).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.test_every) == (40, batch, 40)
    assert Trial(0, "scratch", per_digit, longer=3).recipe.epochs == 120


def test_five_digits_are_trained_on_all_labelled_images_at_once():
    assert Trial(0, "scratch", 5, narrow=True).recipe.batch_size == 25


def test_mean_and_deviation_over_the_seeds():
    figures = [0.9, 0.92, 0.97, 0.8, 0.85]
    found = {Trial(seed, "frozen").key: figure for seed, figure in zip(SEEDS, figures, strict=True)}
    assert over_seeds(found, setting="frozen") == (mean(figures), stdev(figures))
    with pytest.raises(KeyError, match="scratch"):
        over_seeds(found, setting="scratch")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"results": 3, "made_with": []}', '{"results": {}}'])
def test_a_file_that_holds_something_else_is_kept(content, tmp_path, trained):
    path = tmp_path / "digits.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="holds no results of this kind; move it away"):
        list(sweep(path))
    assert path.read_text() == content
    assert not trained


def test_the_command_sweeps(trained, tmp_path, capsys):
    assert cli.main(["reproduce", "--digits", "--out", str(tmp_path)]) == 0
    assert len(read(tmp_path / "digits.json")) == len(trained) == sum(len(trials(seed)) for seed in SEEDS)
    assert "all there" in capsys.readouterr().out


def test_the_task_itself_one_step_of_each_setting():
    weights = digits.resnet18(10, 0).state_dict()
    recipe = Recipe(epochs=1, batch_size=20, lr=0.01)
    accuracies = {
        setting: digits.odd_or_even(setting, weights, recipe=recipe).accuracy
        for setting in ("scratch", "frozen")
    }
    assert all(0 < accuracy < 1 for accuracy in accuracies.values())
    with pytest.raises(ValueError, match="starts from pretrained weights"):
        digits.odd_or_even("fine_tune", None)


def test_the_task_of_five_digits_that_the_source_lacks():
    weights = digits.resnet18(5, 0).state_dict()
    recipe = Recipe(epochs=1, batch_size=25, lr=0.01)
    outcome = digits.five_to_nine("frozen", weights, recipe=recipe)
    assert 0 < outcome.accuracy < 0.6  # of five classes, after one step from random weights
    assert outcome.epochs[0].train_loss > 1
    with pytest.raises(ValueError, match="starts from pretrained weights"):
        digits.five_to_nine("fine_tune", None)


def test_a_network_for_the_target_takes_the_body_and_not_the_head():
    source = digits.resnet18(10, 0)
    net = digits.resnet18(2, 1, source.state_dict())
    fresh = digits.resnet18(2, 1)
    assert torch.equal(net.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(net.bn1.running_var, source.bn1.running_var)
    assert torch.equal(net.fc.weight, fresh.fc.weight)
    assert not torch.equal(fresh.conv1.weight, source.conv1.weight)


def test_pretraining_learns_and_says_so(monkeypatch):
    monkeypatch.setattr(digits, "PRETRAINING_EPOCHS", 1)
    epochs = []
    weights = digits.pretrained(0, epochs.append)
    assert weights["fc.weight"].shape == (10, 512)
    assert digits.pretrained(0, digits=range(5))["fc.weight"].shape == (5, 512)
    (epoch,) = epochs
    assert epoch.train_accuracy > 0.3  # of ten classes
    assert epoch.test_accuracy is not None
