"""Every lesson runs in a real JupyterLab, and shows no error there."""

from pathlib import Path

import pytest

LESSONS = Path(__file__).resolve().parents[2] / "lessons"


@pytest.mark.parametrize("name", sorted(path.name for path in LESSONS.glob("*.ipynb")))
def test_lesson_runs_in_the_browser(lab, name):
    with lab.open_lesson(name) as lesson:
        lesson.run_all()
        assert lesson.errors() == []
        assert lesson.console_errors == []
        assert lesson.outside_requests == []
