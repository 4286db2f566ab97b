"""Every lesson in a real JupyterLab: as it is stored, trusted, run, in light and in dark."""

import axe
import pytest
from stored import NAMES, expected
from walk import walk


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def seen(lab, name):
    """One walk through the lesson, for all tests here."""
    try:
        axe.script()
        with_axe = True
    except axe.AxeMissing:
        with_axe = False
    return walk(lab, name, with_axe)


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_what_is_stored_is_there_before_anything_runs(seen, name, trusted):
    assert (seen.trusted if trusted else seen.untrusted) == expected(name)


def test_nothing_stored_waits_for_a_widget_that_is_not_there(seen):
    assert seen.errors_before == []


def test_it_runs_without_an_error(seen):
    assert seen.errors == []
    assert seen.console_errors == []
    assert seen.outside_requests == []


def test_a_run_opens_the_folded_outputs(seen):
    assert seen.still_folded == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(seen, axe_core, theme):
    if seen.faults[theme]:
        pytest.fail("\n\n".join(seen.faults[theme]), pytrace=False)
