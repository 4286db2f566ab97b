"""A ledger's display in a kernel, tried in a real one."""

import jupyter_client.manager
import pytest

VIEW = "application/vnd.jupyter.widget-view+json"
CODE = """
import sys
import torch
from torch import nn
import layerlab as ll
print({"ipywidgets", "anywidget", "matplotlib"} & set(sys.modules))
net = nn.Linear(2, 2)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with ll.watch(net, optimizer) as ledger:
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
print(ledger._repr_html_() == ll.StepView(ledger)._repr_html_())
"""


@pytest.fixture(scope="module")
def run():
    """Run code in a kernel; gives the content of every output message."""
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")

    def run_code(code):
        found = []
        reply = client.execute_interactive(code, timeout=120, output_hook=found.append)
        assert reply["content"]["status"] == "ok", reply["content"]
        return [message["content"] for message in found]

    yield run_code
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def bundles(contents):
    """List what was displayed, among all that the kernel sent."""
    return [content["data"] for content in contents if VIEW in content.get("data", {})]


def test_a_ledger_is_shown_live_with_its_table_and_text_beside_it(run):
    printed = "".join(content.get("text", "") for content in run(CODE))
    assert printed == "set()\nTrue\n"
    (first,) = bundles(run("ledger"))
    assert first["text/plain"].startswith("step 0, SGD, lr 0.1: 2 of 2 tensors moved")
    assert "<table" in first["text/html"]
    (again,) = bundles(run("display(ledger)"))
    assert again[VIEW]["model_id"] == first[VIEW]["model_id"]
    (other,) = bundles(run("ll.StepView(ledger)"))
    assert other[VIEW]["model_id"] != first[VIEW]["model_id"]


def test_a_closed_view_is_replaced(run):
    (first,) = bundles(run(CODE + "ledger"))
    run("from layerlab import notebook\nnotebook._views[ledger]().close()")
    (second,) = bundles(run("ledger"))
    assert second[VIEW]["model_id"] != first[VIEW]["model_id"]
