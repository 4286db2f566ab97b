"""The recorded full-size runs side by side: what was not run is said, seeds are averaged, and it is drawn."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from layerlab import cli
from layerlab.experiments.full_size import full_size_lines
from layerlab.experiments.recorded import recorded
from layerlab.experiments.reproduce import Row
from layerlab.lessons_support.full_size import full_size_chart, full_size_table

RESNET50 = "ants-bees-resnet50-imagenet-frozen-seed1.json"


def record(folder: Path, row: Row, *right: int) -> None:
    """Write a run with so many of 153 images right after each epoch."""
    epochs = [
        {
            "number": number,
            "train_loss": 1.0,
            "train_accuracy": 0.5,
            "test_loss": 1.0,
            "test_accuracy": correct / 153,
            "lrs": [0.1],
            "seconds": 1.0,
        }
        for number, correct in enumerate(right, 1)
    ]
    (folder / f"{row.name}.json").write_text(json.dumps({"about": {}, "made_with": {}, "epochs": epochs}))


def line_of(folder, start):
    (line,) = [line for line in repr(full_size_table(folder)).splitlines() if start in line]
    return line


def test_what_was_not_run_is_said(tmp_path):
    record(tmp_path, Row("scratch"), 110, 100)
    line = line_of(tmp_path, " scratch ")
    assert ("70.59 %" in line, "65.36 %" in line, "71.90 %" in line) == (True, True, True)
    lines = repr(full_size_table(tmp_path)).splitlines()
    assert sum("not run" in line for line in lines) == 12
    assert sum("96.08 %" in line for line in lines) == 1


def test_seeds_are_averaged_and_other_sizes_left_out(tmp_path):
    record(tmp_path, Row("scratch"), 110, 100)
    record(tmp_path, Row("scratch", seed=12), 110, 120)
    record(tmp_path, Row("scratch", side=128), 153, 153)
    line = line_of(tmp_path, " scratch ")
    assert ("71.90 %" in line, "75.16 %" in line) == (True, True)  # 110 and 115 of 153
    assert [len(line.runs) for line in full_size_lines(tmp_path)] == [2, *[0] * 12]


def test_the_picture_draws_every_run_and_what_the_document_says(tmp_path):
    record(tmp_path, Row("scratch"), 110, 100)
    record(tmp_path, Row("scratch", seed=2), 90, 101)
    record(tmp_path, Row("frozen", "resnet50"), 140, 145)
    chart = full_size_chart(tmp_path)
    scratch, resnet50 = chart.figure.axes
    assert [list(line.get_ydata()) for line in scratch.lines[:2]] == [
        pytest.approx([100 * n / 153 for n in right]) for right in ((110, 100), (90, 101))
    ]
    assert scratch.lines[2].get_ydata()[0] == pytest.approx(100 * 108 / 153)
    assert len(resnet50.lines) == 1
    assert "resnet50 from ImageNet weights, not torchvision's, frozen: 94.77 %" in chart.words


def test_nothing_recorded_is_said(tmp_path):
    with pytest.raises(ValueError, match="no recorded full-size run"):
        full_size_chart(tmp_path)


def test_the_command_draws_what_lies_there(tmp_path, capsys):
    shutil.copy(recorded() / RESNET50, tmp_path)
    assert cli.main(["reproduce", "frozen", "--architecture", "resnet50", "--out", str(tmp_path)]) == 0
    assert "done before" in capsys.readouterr().out
    with Image.open(tmp_path / "ants-bees.png") as picture:
        assert picture.width > 300


def test_the_recorded_picture_is_of_the_recorded_runs():
    """Not pixel by pixel: fonts are drawn a little differently by each matplotlib."""
    with Image.open(recorded() / "ants-bees.png") as picture:
        starts = {(line.architecture, line.start) for line in full_size_lines(recorded()) if line.runs}
        assert picture.width == pytest.approx(110 * (1.2 + 2.9 * len(starts)), abs=3)


def test_a_chart_says_in_words_what_it_shows_but_not_in_its_first_line(tmp_path):
    record(tmp_path, Row("scratch"), 110, 100)
    first, *words = repr(full_size_chart(tmp_path)).splitlines()
    assert first == "picture:"  # what JupyterLab shows of a folded output
    assert "65.36 %" in " ".join(words)
    assert max(map(len, words)) <= 100
