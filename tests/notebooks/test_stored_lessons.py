"""The lessons as they are stored: with outputs, in order, and nothing of the machine that ran them."""

from pathlib import Path

import pytest
import store_outputs

LESSONS = Path(__file__).resolve().parents[2] / "lessons"


def test_the_first_lesson_is_there():
    assert (LESSONS / "00_start_here.ipynb").is_file()


@pytest.mark.parametrize("path", sorted(LESSONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_lesson_is_stored_as_it_should_be(path):
    assert list(store_outputs.check(path)) == []
