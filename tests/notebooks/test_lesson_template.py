"""Every lesson has the parts that a learner has come to expect, in their order."""

import json
import re
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).resolve().parents[2] / "lessons").glob("*.ipynb"))
CONTROLS = ("ll.Explore(", "ll.FreezePanel(", "ll.TrainLab(", "ll.Compare(", "Compare.of(")


class Lesson:
    """A stored lesson: its cells' texts in order."""

    def __init__(self, path):
        self.path = path
        self.number = path.name[:2]
        self.cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        self.words = ["".join(c["source"]) if c["cell_type"] == "markdown" else "" for c in self.cells]
        self.code = ["".join(c["source"]) if c["cell_type"] == "code" else "" for c in self.cells]
        self.headings = [
            (place, line.lstrip("# "))
            for place, text in enumerate(self.words)
            for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines()
            if line.startswith("#")
        ]

    def under(self, start):
        """Places of the headings that begin so."""
        return [place for place, heading in self.headings if heading.startswith(start)]

    def printed(self, place):
        return "".join(
            "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))
            for output in self.cells[place].get("outputs", ())
        )


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return Lesson(request.param)


def test_it_says_what_it_is_for_and_how_long_it_takes(lesson):
    head = lesson.words[0]
    assert re.match(rf"# {lesson.number} · \S", head)
    assert re.search(r"^\*About \d+ minutes", head, re.MULTILINE)
    assert re.search(r"You will be able to|In this lesson you", head)
    goals = re.split(r"You will be able to|In this lesson you", head)[-1]
    assert len(re.findall(r"^- ", goals, re.MULTILINE)) >= 3


def test_it_names_its_document(lesson):
    """00 and 11 have none."""
    if lesson.number not in ("00", "11"):
        assert re.search(r"\*[^*\n]{12,}\*|“[^”]+”", lesson.words[0].partition("*About")[0])


def test_it_sets_a_seed_before_it_draws(lesson):
    drawn = [
        i for i, code in enumerate(lesson.code) if re.search(r"torch\.(randn?|randint)\(|nn\.Linear\(", code)
    ]
    seeded = [i for i, code in enumerate(lesson.code) if re.search(r"manual_seed\(|seed=", code)]
    assert seeded or not drawn
    assert not drawn or min(seeded) <= min(drawn)


def test_every_prediction_is_asked_for_before_it_is_answered(lesson):
    asked = {}
    for place, code in enumerate(lesson.code):
        for name in re.findall(r"^(\w+) = ll\.Predict\(", code, re.MULTILINE):
            asked[name] = place
    assert asked or any("my_guess" in code for code in lesson.code)
    for name, place in asked.items():
        answered = [i for i, code in enumerate(lesson.code) if f"{name}.check(" in code]
        live = f"{name} = ll.Predict(" in lesson.code[place] and "run=" in lesson.code[place]
        assert live or (answered and min(answered) > place), name


def test_the_ledger_is_there(lesson):
    assert any(word in code for code in lesson.code for word in ("ll.watch(", "ledger", "moves_by_group("))


def test_there_is_something_to_change(lesson):
    [*places] = (
        place for start in ("Change it", "Flip it", "Your own model") for place in lesson.under(start)
    )
    assert places
    after = lesson.code[min(places) :]
    assert any(control in code for code in after for control in CONTROLS) or lesson.number in ("09", "11")


def test_the_exercise_fails_as_given_and_its_solution_passes(lesson):
    solutions = [i for i, cell in enumerate(lesson.cells) if "solution" in cell["metadata"].get("tags", ())]
    assert solutions
    for solution in solutions:
        assert lesson.printed(solution).startswith("✓")
        checked = [i for i in range(solution) if re.search(r"^check\w*\(", lesson.code[i], re.MULTILINE)]
        given = max(i for i in checked if i not in solutions)
        assert lesson.printed(given).startswith("✗")
        assert any("<details>" in text for text in lesson.words[given:solution])


def test_it_ends_with_the_score_what_was_shown_and_what_comes_next(lesson):
    assert any("scorecard()" in code for code in lesson.code) or lesson.number == "04"
    end = "\n".join(lesson.words[-4:])
    if lesson.number not in ("00", "11"):
        assert re.search(r"^\|.*\| shown above \|$", end, re.MULTILINE)
    later = [path.name[:2] for path in LESSONS if path.name[:2] > lesson.number]
    if lesson.number == "00" or not later:
        return
    assert f"**Next:** {later[0]} · " in end
