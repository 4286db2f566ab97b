"""``layerlab audit``: what it prints, where, and with which exit status."""

import json
import subprocess
import sys

import pytest

from layerlab import cli

TRAIN = """
import torch
from torch import nn

print("built")

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

def clean():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return net, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 7)

def replaced():
    net, optimizer, scheduler = clean()
    net[1] = nn.Linear(4, 3)
    return {"model": net, "optimizer": [optimizer], "scheduler": scheduler, "loss": nn.CrossEntropyLoss()}

def note():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return net, optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

def with_loss():
    net = nn.Sequential(model(), nn.Softmax(dim=-1))
    return [net, torch.optim.SGD(net.parameters(), lr=0.1), None, nn.CrossEntropyLoss()]

def with_function():
    return (*with_loss()[:2], torch.nn.functional.cross_entropy)

def with_batch():
    return {"model": model(), "batch": torch.ones(2, 5)}

def alone():
    return model()

def two_losses():
    return model(), nn.MSELoss(), nn.L1Loss()

def number():
    return 3

def misnamed():
    return {"net": model()}

def unknown():
    return {"model": model(), "optimiser": None}

def broken():
    raise KeyError("data")

def leaves():
    raise SystemExit("usage")
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A script of the user's, in a folder that is no package, and its module's name."""
    place = tmp_path / "my scripts"
    place.mkdir()
    path = place / "train_for_audit.py"
    path.write_text(TRAIN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    sys.modules.pop("train_for_audit", None)


def test_a_clean_set_up_by_the_files_path(train, capsys):
    assert cli.main(["audit", f"{train}:clean"]) == 0
    out, err = capsys.readouterr()
    assert out == "audit: nothing found in Sequential (4 of 4 parameters trainable), SGD, StepLR\n"
    assert err == "built\n"


def test_findings_by_the_modules_name(train, capsys, monkeypatch):
    monkeypatch.chdir(train.parent)
    assert cli.main(["audit", "train_for_audit:replaced"]) == 1
    out = capsys.readouterr().out
    assert "layer-replaced (error)" in out
    assert "cure: optimizer = torch.optim.SGD(model.parameters(), lr=0.1)" in out


def test_json_stands_alone_on_the_output(train, capsys):
    assert cli.main(["audit", "--json", f"{train}:replaced"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["code"] for row in rows] == ["layer-replaced"]
    assert rows[0]["names"] == ["1.weight", "1.bias"]
    assert cli.main(["audit", "--json", f"{train}:clean"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_notes_count_only_when_strict(train, capsys):
    assert cli.main(["audit", f"{train}:note"]) == 0
    assert "plateau-needs-metric (note)" in capsys.readouterr().out
    assert cli.main(["audit", "--strict", f"{train}:note"]) == 1


@pytest.mark.parametrize("which", ["with_loss", "with_function"])
def test_a_loss_in_the_tuple_is_no_second_model(train, capsys, which):
    assert cli.main(["audit", f"{train}:{which}"]) == 1
    assert "double-softmax (error)" in capsys.readouterr().out


def test_a_model_alone(train, capsys):
    assert cli.main(["audit", f"{train}:alone"]) == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("train", "'train' is not MODULE:FUNCTION"),
        (":make", "':make' is not MODULE:FUNCTION"),
        ("nowhere/at_all.py:make", "there is no file nowhere/at_all.py"),
        ("no_such_module_here:make", "importing no_such_module_here raised ModuleNotFoundError"),
        ("{}:mode", "has no function 'mode'; it has: model, clean, replaced"),
        ("{}:broken", ":broken() raised KeyError: 'data'"),
        ("{}:leaves", ":leaves() raised SystemExit: usage"),
        ("{}:number", "cannot be audited: model must be a torch.nn.Module, not int"),
        ("{}:two_losses", "holds more than a model and a loss: return a dict"),
        ("{}:misnamed", "unknown key 'net'; its keys are model, optimizer"),
        ("{}:unknown", "unknown key 'optimiser'"),
        ("{}:with_batch", "cannot be audited: batch: the model raised RuntimeError"),
    ],
)
def test_what_cannot_be_run_says_why(train, capsys, target, said):
    assert cli.main(["audit", target.format(train)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("layerlab audit: ")
    assert said in err


def test_help_and_doctor_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from layerlab import cli\n"
        "assert cli.build_parser().parse_args(['audit', 'a:b', '--strict']).strict\n"
        "cli.main(['audit', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit status: 0 nothing found, 1 an error or a warning" in done.stdout
