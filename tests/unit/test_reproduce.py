"""``layerlab reproduce``: results are there whole, or it goes on where it stopped; on made-up pictures."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from PIL import Image

from layerlab import cli
from layerlab.cli_reproduce import table
from layerlab.experiments.reproduce import DOCUMENT_SAYS, Row, read, reproduce, rows
from layerlab.experiments.settings import SETTINGS

SMALL = {"side": 32, "epochs": 2}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of 13 and 6 small photographs, bright ants and dark bees, as LAYERLAB_DATA."""
    chance = torch.Generator().manual_seed(0)
    for split, number in (("train", (7, 6)), ("val", (3, 3))):
        for name, many, light in (("ants", number[0], 200), ("bees", number[1], 60)):
            folder = tmp_path / "data" / "hymenoptera_data" / split / name
            folder.mkdir(parents=True)
            for index in range(many):
                noise = torch.randint(-40, 40, (40, 50, 3), generator=chance) + light
                Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{index}.jpg")
    monkeypatch.setenv("LAYERLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LAYERLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def figures(outcome):
    """All of an outcome but what a clock says."""
    epochs = [{k: v for k, v in asdict(epoch).items() if k != "seconds"} for epoch in outcome.epochs]
    return dict(outcome.about), epochs


def run(folder, *, said=None, **options):
    wanted = rows(["scratch"], **SMALL)
    say = (said if said is not None else []).append
    return list(reproduce(wanted, folder, device="cpu", say=say, **options))


def test_results_are_written_and_read_again_instead_of_trained_anew(pictures):
    said = []
    ((row, outcome),) = run(pictures / "out", said=said)
    path = pictures / "out" / "ants-bees-resnet18-scratch-32px-2epochs-seed1.json"
    assert [p.name for p in (pictures / "out").iterdir() if p.is_file()] == [path.name]
    assert not list((pictures / "out" / "unfinished").iterdir())
    told = json.loads(path.read_text())
    assert told["about"]["setting"] == "scratch"
    assert "random weights" in told["about"]["weights"]
    assert str(pictures) not in path.read_text()  # no path of this machine
    assert len(told["epochs"]) == 2
    ((same_row, again),) = run(pictures / "out", said=said)
    assert same_row == row
    assert figures(again)[1] == [
        {k: pytest.approx(v, rel=1e-5) if isinstance(v, float) else v for k, v in epoch.items()}
        for epoch in figures(outcome)[1]
    ]
    assert said[-1].endswith("is there")


def test_after_an_error_it_goes_on_with_the_next_epoch(pictures):
    whole = figures(run(pictures / "whole")[0][1])
    ran = []

    def stop(row, epoch):
        ran.append(epoch.number)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pictures / "out", after_epoch=stop)
    assert not list((pictures / "out").glob("*.json"))
    again = run(pictures / "out", after_epoch=lambda row, epoch: ran.append(epoch.number))
    assert ran == [1, 2]
    assert figures(again[0][1]) == whole


def test_killed_it_goes_on_and_comes_to_the_same(pictures):
    command = [
        sys.executable,
        "-m",
        "layerlab.cli",
        "reproduce",
        "scratch",
        "--side",
        "32",
        "--device",
        "cpu",
    ]
    # Endless by all means, so that there is something to kill; an epoch here takes well under a second.
    one_thread = os.environ | {
        "OMP_NUM_THREADS": "1"
    }  # as the tests have it: another number rounds otherwise
    process = subprocess.Popen([*command, "--epochs", "2000", "--out", str(pictures / "out")], env=one_thread)
    unfinished = pictures / "out" / "unfinished" / "ants-bees-resnet18-scratch-32px-2000epochs-seed1.pt"
    end = time.monotonic() + 120
    while not unfinished.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    saved = torch.load(unfinished, weights_only=True)
    before = [epoch["number"] for epoch in saved["history"]]
    assert before == list(range(1, len(before) + 1)) != []
    assert not list((pictures / "out").glob("*.json"))

    class Enough(Exception):
        pass

    went = []

    def stop(row, epoch):
        went.append(epoch)
        raise Enough

    wanted = rows(["scratch"], side=32, epochs=2000)
    for folder in ("out", "other"):
        with pytest.raises(Enough):
            while True:
                next(
                    reproduce(
                        wanted, pictures / folder, device="cpu", say=lambda line: None, after_epoch=stop
                    )
                )
    assert [epoch.number for epoch in went] == [len(before) + 1, 1]
    first = saved["history"][0]  # by another process: its first epoch is bitwise that of this one
    assert (first["train_loss"], first["test_loss"]) == (went[1].train_loss, went[1].test_loss)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"about": {}}'])
def test_a_file_that_holds_something_else_is_kept_and_said(content, pictures):
    path = pictures / "out" / f"{rows(['scratch'], **SMALL)[0].name}.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match="holds no results of this kind; move it away"):
        run(pictures / "out")
    assert path.read_text() == content


def test_results_of_another_recipe_under_the_same_name_are_refused(pictures):
    ((row, _),) = run(pictures / "out")
    path = pictures / "out" / f"{row.name}.json"
    path.write_text(path.read_text().replace('"lr": 0.001', '"lr": 0.01'))
    with pytest.raises(ValueError, match="holds other results: recipe"):
        run(pictures / "out")
    assert read(path).about["recipe"]["lr"] == 0.01


def test_rows_of_all_choices():
    assert [row.setting for row in rows()] == list(SETTINGS)
    assert [(row.seed, row.setting) for row in rows(["scratch", "frozen"], seeds=(1, 2))] == [
        (1, "scratch"),
        (1, "frozen"),
        (2, "scratch"),
        (2, "frozen"),
    ]
    names = [row.name for row in rows(seeds=(1, 2)) + rows(weights="imagenet-without-layer4", side=128)]
    assert len(set(names)) == len(names)
    assert Row("frozen", "resnet50").name == "ants-bees-resnet50-imagenet-frozen-seed1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": ["finetune"]}, "setting 'finetune': choose from scratch, fine_tune"),
        ({"architecture": "resnet19"}, "architecture 'resnet19': choose from resnet18, resnet50"),
        ({"weights": "none"}, "weights 'none': choose from imagenet"),
        ({"epochs": 0}, "epochs 0: it must be at least 1"),
        ({"side": 8}, "side 8: it must be at least 32"),
    ],
)
def test_choices_that_there_are_not(options, said):
    with pytest.raises(ValueError, match=said):
        rows(**options)


def test_the_command_prints_the_table_and_the_document_s_figures(pictures, capsys):
    out = str(pictures / "out")
    arguments = ["reproduce", "scratch", "--side", "32", "--epochs", "2", "--device", "cpu", "--out", out]
    assert cli.main(arguments) == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if line.startswith("resnet18 scratch")]
    assert "70.59 %" in line
    assert (DOCUMENT_SAYS["scratch"], DOCUMENT_SAYS["fine_tune"]) == (108 / 153, 147 / 153)
    assert Row("fine_tune").document == 147 / 153
    assert Row("fine_tune", weights="imagenet-without-layer4").document is None
    assert Row("fine_tune", "resnet50").document is Row("frozen").document is None
    outcome = read(next((pictures / "out").glob("*.json")))
    assert f"{100 * outcome.accuracy:.2f} %" in line


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAYERLAB_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("LAYERLAB_CACHE", str(tmp_path / "cache"))
    assert cli.main(["reproduce", "frozen", "scratched"]) == 1
    assert "setting 'scratched': choose from" in capsys.readouterr().err
    assert cli.main(["reproduce", "frozen", "--out", str(tmp_path / "out")]) == 1
    assert "LAYERLAB_DATA" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_an_interrupt_says_how_to_go_on(pictures, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("layerlab.experiments.reproduce.reproduce", interrupted)
    assert cli.main(["reproduce", "scratch"]) == 130
    assert "the same command goes on after the last epoch" in capsys.readouterr().err


def test_a_table_of_nothing_has_its_head():
    assert table([]).split() == ["setting", "seed", "last", "best", "s/epoch", "document"]


def test_help_names_the_settings_and_where_data_comes_from(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--help"])
    said = capsys.readouterr().out
    assert "LAYERLAB_DATA" in said
    assert os.environ.get("HOME", "/nowhere") not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--digits", "frozen"], "takes only --out: leave SETTING out"),
        (["--digits", "--epochs", "3"], "takes only --out: leave --epochs out"),
        (["--digits", "--architecture", "resnet50"], "takes only --out: leave --architecture out"),
        (["--device", "foo"], "--device foo: choose cpu, cuda or mps"),
        (["--device", "meta"], "--device meta: choose cpu, cuda or mps"),
        (["--digits", "--out", "taken"], "--out taken is no folder that can be written"),
        (["thaw"], "setting 'thaw': choose from scratch, fine_tune, frozen, lr_zero, lr_tenth"),
    ],
)
def test_choices_that_cannot_be_are_refused_at_once(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    assert cli.main(["reproduce", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "a file"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
