"""Names that are markup, in every widget and in the ledger's fallbacks: text, and nothing happens."""

import pytest

NAME = "<img src=x onerror=alert(1)>"
WIDGETS = """
import torch
from torch import nn
import layerlab as ll

name = "<img src=x onerror=alert(1)>"
torch.manual_seed(0)
net = nn.ModuleDict({one: nn.Linear(2, 2) for one in (name, "line\\nbreak\\u202e", "x" * 500)})
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)


def run(kind=None):
    with ll.watch(net, optimizer) as ledger:
        sum(layer(torch.ones(1, 2)).sum() for layer in net.values()).backward()
        net[name].requires_grad_(False)  # too late: an alarm names it
        optimizer.step()
        net[name].requires_grad_(True)
    return ledger


ledger = run()
"""
SHOWN = {
    "ledger": "ledger",
    "step view": "view = ll.StepView(ledger)\nview",
    "freeze panel": "panel = ll.FreezePanel(net, optimizer)\npanel",
    "predict": 'guess = ll.Predict(net, f"Does {name} move?")\nguess',
    "score": 'other = ll.Predict(net, name, ticked=[f"{name}.weight"])\nother.check(ledger)',
    "compare": 'compare = ll.Compare(run, kind={name: 1, "other": 2})\ncompare',
    "explore": 'explore = ll.Explore(run, kind={name: 1, "other": 2})\nexplore',
    "audit": "net[name].requires_grad = False\nll.audit(net, optimizer)",
    "groups": 'll.param_groups(net, {f"{name}*": {"lr": 0.1}, "*": {}})',
    "table": "ll.table([{name: name}], title=name)",
    "verdict": 'll.Check(name).stayed(ledger, f"{name}.weight")',
    "error": "ll.find(net, f'{name}.wieght')",
}


@pytest.fixture(scope="module")
def lesson(lab):
    with lab.open_lesson(lab.write_notebook("hostile.ipynb", WIDGETS, *SHOWN.values())) as lesson:
        lesson.page.set_default_timeout(30_000)
        lesson.acted = []
        lesson.page.on("dialog", lambda dialog: (lesson.acted.append(dialog.message), dialog.dismiss()))
        lesson.run_all()
        yield lesson


@pytest.mark.parametrize("kind", SHOWN)
def test_a_name_is_text(lesson, kind):
    cell = lesson.page.locator(".jp-CodeCell").nth(1 + list(SHOWN).index(kind))
    cell.scroll_into_view_if_needed()
    output = cell.locator(".jp-Cell-outputArea")
    output.get_by_text(NAME).or_(output.locator(f'option:has-text("{NAME}")')).first.wait_for(
        state="attached"
    )
    assert output.locator("img, script").count() == 0
    assert "\u202e" not in output.inner_text()


def test_nothing_acted_and_nothing_was_asked_for(lesson):
    assert lesson.acted == lesson.console_errors == lesson.outside_requests == []
    assert [error for error in lesson.errors() if "matches nothing" not in error] == []
