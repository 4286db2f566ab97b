"""The README's example runs as it stands, and prints what the README says."""

import re
from pathlib import Path

import pytest

import layerlab as ll

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_shows(capsys):
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    [output] = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == output


def test_every_lesson_is_listed_and_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    root = Path(__file__).resolve().parents[2]
    assert [link for link in links if not (root / link).exists()] == []
    assert {f"lessons/{path.name}" for path in (root / "lessons").glob("*.ipynb")} <= set(links)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`ll\.(\w+)\(", README))))
def test_every_function_that_the_readme_names_is_there(name):
    assert name in ll.__all__


def test_every_public_name_is_in_the_readme():
    assert [name for name in ll.__all__ if f"`ll.{name}" not in README] == []


def test_what_the_page_for_contributors_names_is_there():
    root = Path(__file__).resolve().parents[2]
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:layerlab|lessons|tests|results|benchmarks)/[\w./]*)`", page)
    assert len(named) > 8
    assert [path for path in named if "NN" not in path and not (root / path).exists()] == []
