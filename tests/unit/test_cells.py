"""What a widget knows of the notebook's cells, with a stand-in for IPython's shell."""

import gc
from types import SimpleNamespace

import pytest
import torch
from IPython.core.events import EventManager, available_events
from torch import nn

from layerlab.widgets import cells
from layerlab.widgets.freeze_panel import FreezePanel


class Shell:
    """The parts of IPython's shell that are used, its own events among them."""

    def __init__(self):
        self.events = EventManager(self, available_events)
        self.execution_count = 0
        self.cell = None

    def get_parent(self):
        return {"metadata": {"cellId": self.cell} if self.cell else {}}

    def run_cell(self, work=lambda: None, cell=None):
        self.execution_count += 1
        self.cell = cell
        made = work()
        self.events.trigger("post_run_cell", SimpleNamespace())
        return made

    @property
    def waiting(self):
        return len(self.events.callbacks["post_run_cell"])


@pytest.fixture
def shell(monkeypatch):
    shell = Shell()
    monkeypatch.setattr(cells, "shell", lambda: shell)
    return shell


class Counter:
    def __init__(self):
        self.count = 0

    def ran(self):
        self.count += 1


def test_outside_ipython_nothing_is_called():
    assert cells.this_cell() is None
    cells.after_each_cell(Counter().ran)()


def test_called_after_each_cell_until_it_ends_or_its_object_is_gone(shell):
    counter = Counter()
    end = cells.after_each_cell(counter.ran)
    shell.run_cell()
    shell.run_cell()
    assert counter.count == 2
    end()
    end()  # twice does no harm
    shell.run_cell()
    assert (counter.count, shell.waiting) == (2, 0)
    cells.after_each_cell(counter.ran)
    del counter
    gc.collect()
    shell.run_cell()
    assert shell.waiting == 0


def test_the_cell_that_runs_and_which_run_it_is(shell):
    assert shell.run_cell(cells.this_cell, "a") == ("a", 1)
    assert shell.run_cell(cells.this_cell, "a") == ("a", 2)
    assert shell.run_cell(cells.this_cell) is None


def test_what_code_does_in_a_cell_shows_after_it(shell):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    panel = shell.run_cell(lambda: FreezePanel(net, optimizer), "panel")

    def code():
        net[0].requires_grad_(False)
        optimizer.step()
        scheduler.step()

    shell.run_cell(code)
    assert panel.tree.rows[0]["checked"] == "true"
    assert panel.lrs[0].value == pytest.approx(0.01)
    panel.depth.value = "nothing"
    shell.run_cell()  # a cell ends the drag of a slider
    panel.depth.value = "0"
    panel.undo()
    assert panel.frozen == ()
    panel.undo()
    assert panel.frozen == ("0",)
    panel.close()
    assert shell.waiting == 0


def test_a_panel_whose_cell_runs_again_goes_and_what_it_froze_stays(shell):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    kept = shell.run_cell(lambda: FreezePanel(net), "other")
    first, second = shell.run_cell(lambda: (FreezePanel(net), FreezePanel(net)), "panel")
    first.freeze("0")
    third = shell.run_cell(lambda: FreezePanel(net), "panel")
    assert [panel.comm is None for panel in (kept, first, second, third)] == [False, True, True, False]
    assert third.frozen == kept.frozen == ("0",)
    assert shell.waiting == 2
    another = nn.Linear(1, 1)
    fourth = shell.run_cell(lambda: FreezePanel(another), "panel")
    kept.close()
    assert all(p.requires_grad for p in net.parameters())  # no panel of it is left
    fourth.close()
    assert shell.waiting == 0
