"""The recorded results are found, whole, and what the lessons say of them is so."""

from statistics import mean, stdev

import pytest

from layerlab.experiments.digits_sweep import LABELLED, SEEDS, Trial, over_seeds, trials
from layerlab.experiments.recorded import recorded
from layerlab.experiments.reproduce import Row
from layerlab.experiments.reproduce import read as read_run
from layerlab.experiments.settings import RESNET_BODY, SETTINGS
from layerlab.experiments.sweep_file import read

PARTIAL = "imagenet-without-layer4"


@pytest.fixture(scope="module")
def found():
    return read(recorded() / "digits.json")


def test_every_run_of_the_sweep_is_there(found):
    assert set(found) == {trial.key for seed in SEEDS for trial in trials(seed)}
    assert all(0 <= accuracy <= 1 for accuracy in found.values())


def test_scratch_is_below_every_pretrained_setting_for_every_seed_and_by_a_margin(found):
    pretrained = [setting for setting in SETTINGS if setting != "scratch"]
    for seed in SEEDS:
        worst = min(found[Trial(seed, setting).key] for setting in pretrained)
        assert found[Trial(seed, "scratch").key] < worst
    margins = [found[Trial(seed, "fine_tune").key] - found[Trial(seed, "scratch").key] for seed in SEEDS]
    assert mean(margins) > 0.05


def test_no_order_among_the_pretrained_settings_can_be_told(found):
    spreads = [over_seeds(found, setting=setting) for setting in SETTINGS if setting != "scratch"]
    means = [m for m, _ in spreads]
    assert max(means) - min(means) < min(deviation for _, deviation in spreads)


def test_lr_zero_and_frozen_are_the_same_runs(found):
    for seed in SEEDS:
        for batchnorm in ("eval", "train"):
            one, other = (Trial(seed, s, batchnorm=batchnorm).key for s in ("frozen", "lr_zero"))
            assert found[one] == found[other]


def test_scratch_gains_with_every_step_in_the_number_of_images_and_the_gap_closes(found):
    scratch = [over_seeds(found, setting="scratch", per_digit=number)[0] for number in LABELLED]
    assert scratch == sorted(scratch)
    gaps = [
        over_seeds(found, setting="fine_tune", per_digit=n)[0] - s
        for n, s in zip(LABELLED, scratch, strict=True)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.2
    assert gaps[-1] < 0.05


def test_three_times_the_epochs_do_not_help_scratch(found):
    (usual, deviation), (longer, _) = (over_seeds(found, setting="scratch", longer=n) for n in (1, 3))
    assert abs(usual - longer) < deviation


def test_depth_makes_less_difference_than_the_seed(found):
    by_depth = [over_seeds(found, setting="frozen", frozen_up_to=layer) for layer in RESNET_BODY[:-1]]
    by_depth += [over_seeds(found, setting="fine_tune"), over_seeds(found, setting="frozen")]
    means = [m for m, _ in by_depth]
    assert max(means) - min(means) < max(deviation for _, deviation in by_depth)


def test_after_a_source_that_is_too_narrow_scratch_beats_a_backbone_that_hardly_moves(found):
    def runs(setting):
        return [found[Trial(seed, setting, per_digit=5, narrow=True).key] for seed in SEEDS]

    scratch = runs("scratch")
    for setting in ("frozen", "lr_tenth"):
        lost = [one - other for one, other in zip(scratch, runs(setting), strict=True)]
        assert min(lost) > 0
        assert 0.08 < mean(lost) < 0.13  # "about ten points"
    assert abs(mean(scratch) - mean(runs("fine_tune"))) < min(stdev(scratch), stdev(runs("fine_tune")))


def test_at_full_size_from_random_weights_we_come_out_near_the_document():
    assert round(153 * full_size("scratch")) == 111
    assert round(153 * Row("scratch").document) == 108


def test_at_full_size_what_lacks_layer4_should_not_be_frozen():
    fine_tune, frozen, lr_tenth = (full_size(s, weights=PARTIAL) for s in ("fine_tune", "frozen", "lr_tenth"))
    assert 0.06 < fine_tune - max(frozen, lr_tenth) <= fine_tune - min(frozen, lr_tenth) < 0.09


def test_at_full_size_lr_zero_is_frozen_epoch_by_epoch():
    runs = [
        read_run(recorded() / f"{Row(setting, weights=PARTIAL).name}.json")
        for setting in ("lr_zero", "frozen")
    ]
    one, other = ([(e.train_loss, e.test_accuracy) for e in run.epochs] for run in runs)
    assert one == other


def test_at_full_size_a_complete_backbone_may_stand_still():
    assert round(153 * full_size("frozen", "resnet50")) == 145
    assert round(153 * Row("fine_tune").document) == 147


def full_size(setting, architecture="resnet18", **row):
    return read_run(recorded() / f"{Row(setting, architecture, **row).name}.json").accuracy


def test_a_folder_without_results_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="layerlab reproduce --digits"):
        recorded([tmp_path])
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "digits.json").write_text("{}")
    assert recorded([tmp_path]) == tmp_path / "results"
