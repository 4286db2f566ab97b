"""The loop that finds tests which are not reliable."""

from collections import Counter

import repeat_tests

# Passes in every second run only, and remembers the last by a file.
UNRELIABLE = """
from pathlib import Path
import pytest

def test_good():
    pass

@pytest.mark.skip
def test_skipped():
    pass

def test_unreliable():
    seen = Path(__file__).with_name("seen")
    if seen.exists():
        seen.unlink()
        raise ValueError("every second time")
    seen.touch()
"""


def test_a_test_that_fails_sometimes_is_counted(tmp_path, capsys):
    test = tmp_path / "test_sample.py"
    test.write_text(UNRELIABLE)
    arguments = ["--times", "2", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(test)]
    assert repeat_tests.main(arguments) == 1
    said = capsys.readouterr().out
    assert "ValueError: every second time" in said
    assert said.endswith(
        "1 of 2 runs without a fault; 3 passed, 2 skipped, 1 failure\n"
        "  test_sample::test_unreliable: failure in 1 of 2\n"
    )


def test_runs_without_a_fault_are_summed_up():
    good = Counter({("a", "passed"): 1, ("b", "skipped"): 1})
    assert repeat_tests.summary([good, good]) == ["2 of 2 runs without a fault; 2 passed, 2 skipped"]


def test_no_run_is_no_success(tmp_path, capsys):
    assert repeat_tests.main(["--times", "2", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
