"""The command line: what `layerlab lab` would open, and what it says when it cannot."""

import subprocess
import sys
from importlib import metadata

import pytest

from layerlab import cli


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Stand in a checkout with three lessons; the package itself was installed elsewhere."""
    lessons = tmp_path / "checkout" / "lessons"
    lessons.mkdir(parents=True)
    for name in ("00_start_here", "01_sgd_vs_adam", "06_schedules"):
        (lessons / f"{name}.ipynb").write_text("{}")
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site" / "layerlab" / "cli.py"))
    monkeypatch.chdir(lessons.parent)
    return lessons


def test_the_first_lesson_opens_unless_told(checkout):
    assert cli.build_parser().parse_args(["lab"]).notebook == "00_start_here.ipynb"
    assert cli.lab_arguments("00_start_here.ipynb", root=False) == [
        "--LabApp.default_url=/lab/tree/00_start_here.ipynb",
        str(checkout / "00_start_here.ipynb"),
    ]


def test_root_is_allowed_and_only_root_needs_it(checkout):
    assert cli.lab_arguments("00_start_here", root=True)[0] == "--allow-root"
    assert "--allow-root" not in cli.lab_arguments("00_start_here", root=False)


def test_a_lesson_by_its_name(checkout):
    assert cli.lab_arguments("01_sgd_vs_adam", root=False) == [
        "--LabApp.default_url=/lab/tree/01_sgd_vs_adam.ipynb",
        str(checkout / "01_sgd_vs_adam.ipynb"),
    ]


def test_a_lesson_by_what_it_alone_begins_with(checkout, capsys):
    assert cli.lab_arguments("01", root=False)[1] == str(checkout / "01_sgd_vs_adam.ipynb")
    assert cli.main(["lab", "0"]) == 1
    assert "00_start_here.ipynb, 01_sgd_vs_adam.ipynb" in capsys.readouterr().err


def test_from_inside_the_lessons_folder(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    assert cli.find_lessons() == checkout


def test_from_anywhere_with_an_editable_install(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "__file__", str(checkout.parent / "layerlab" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.find_lessons() == checkout


def test_any_notebook_by_its_path_needs_no_lessons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.ipynb").write_text("{}")
    assert cli.lab_arguments("mine.ipynb", root=False) == [
        "--LabApp.default_url=/lab/tree/mine.ipynb",
        str(tmp_path / "mine.ipynb"),
    ]


def test_unknown_lesson_names_near_ones(checkout, capsys):
    assert cli.main(["lab", "01_sgd_adam"]) == 1
    said = capsys.readouterr().err
    assert "'01_sgd_adam'" in said
    assert "01_sgd_vs_adam.ipynb" in said
    assert "06_schedules" not in said


def test_no_lessons_says_where_it_looked_and_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site" / "layerlab" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lab"]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path) in said
    assert "checkout" in said


def test_no_jupyterlab_names_the_cure(checkout, monkeypatch, capsys):
    monkeypatch.setattr(cli.util, "find_spec", lambda name: None)
    assert cli.main(["lab"]) == 1
    assert "pip install 'layerlab[lab]'" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"layerlab {metadata.version('layerlab')}\n"


@pytest.mark.parametrize("arguments", [[], ["dance"]])
def test_unknown_command_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "lab" in capsys.readouterr().err


def test_the_command_starts_without_torch():
    code = "import sys, layerlab.cli; print({'torch', 'numpy', 'jupyterlab'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
