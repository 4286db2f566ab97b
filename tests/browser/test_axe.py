"""axe-core as the tests use it: it finds what is wrong, finds nothing in what is good, and comes once."""

import axe
import pytest

OURS = [".jp-OutputArea-output"]

# Text that is hidden until it is opened, text whose colour is a mix, and a symbol: axe must see them all.
FAULTY = """
from IPython.display import HTML
HTML('''<button type="button"></button>
<details><summary>more</summary><p style="color:#999999; background:#ffffff">too faint</p></details>
<p style="color:color-mix(in srgb, #E69F00 90%, black); background:#ffffff">too faint, and mixed</p>
<p style="color:#E69F00; background:#ffffff">●</p>''')
"""
GOOD = """
from IPython.display import HTML
HTML('''<button type="button">Run</button>
<table><caption>facts</caption><thead><tr><th scope="col">a</th><th scope="col">b</th></tr></thead>
<tbody><tr><th scope="row">c</th><td>
<span style="color:color-mix(in srgb, #0072B2 60%, currentcolor)">●</span> gradient
</td></tr></tbody></table>''')
"""


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of its own."""
    monkeypatch.setattr(axe, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def no_npm(monkeypatch):
    monkeypatch.setattr(axe.shutil, "which", lambda _: None)


def test_planted_faults_are_found_and_nothing_else(lab, axe_core):
    with lab.open_lesson(lab.write_notebook("axe.ipynb", FAULTY, GOOD)) as lesson:
        lesson.run_all()
        for dark in (False, True):
            lesson.set_dark(dark)
            name, faint, mixed, symbol = axe.faults(lesson, OURS)
            assert name.startswith("critical button-name: ")
            assert faint.startswith(mixed.partition("\n")[0])
            assert faint.startswith("serious color-contrast: ")
            assert "insufficient color contrast of 2.84" in faint
            assert "too faint, and mixed" in mixed
            assert "symbol-contrast" in symbol
            assert "contrast 2.25, #e69f00 on #ffffff" in symbol
            assert axe.faults(lesson, OURS, exclude=["button:empty", "p"]) == []
        with pytest.raises(AssertionError, match=r"nothing in the page matches \.nowhere"):
            axe.faults(lesson, [".nowhere"])
        lesson.evaluate(
            "() => document.querySelectorAll('.jp-OutputArea').forEach(area => area.hidden = true)"
        )
        with pytest.raises(AssertionError, match="sees no text"):
            axe.faults(lesson, OURS)
        assert lesson.outside_requests == lesson.console_errors == []


def test_what_is_good_in_both_themes_has_no_faults(lab, axe_core):
    with lab.open_lesson(lab.write_notebook("axe_good.ipynb", GOOD)) as lesson:
        lesson.run_all()
        for dark in (False, True):
            lesson.set_dark(dark)
            assert axe.faults(lesson, OURS) == []


def test_once_fetched_it_is_used_without_npm(axe_core, no_npm):
    assert f"axe v{axe.VERSION}" in axe.script()[:100]


def test_without_npm_the_message_says_how_to_get_it(cache, no_npm):
    with pytest.raises(axe.AxeMissing, match="install npm"):
        axe.script()


def test_what_npm_says_is_told(cache, monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(axe.shutil, "which", lambda _: str(npm))
    with pytest.raises(axe.AxeMissing, match=r"npm did not fetch axe-core .*\nno such network"):
        axe.script()


def test_a_broken_file_is_fetched_anew(axe_core, cache):
    package = cache / f"axe-core-{axe.VERSION}.tgz"
    cache.mkdir()
    package.write_bytes(b"half of it")
    assert "axe v" in axe.script()[:100]
    assert axe.integrity(package) == axe.INTEGRITY
    assert list(cache.iterdir()) == [package]


def test_another_package_is_not_used(axe_core, cache, monkeypatch):
    monkeypatch.setattr(axe, "INTEGRITY", "sha512-" + "A" * 86 + "==")
    with pytest.raises(ValueError, match="not the package that these tests know"):
        axe.script()
    assert list(cache.iterdir()) == []
